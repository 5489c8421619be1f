"""Answers of local solves against solutions in integers: the quick part of benchmarks/local_certificates.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from local_certificates import CHECKS, Tally, UnresolvedError, random_system, real_system, run  # noqa: E402
from local_systems import Case, draw, real  # noqa: E402
from local_truth import Truth, whole  # noqa: E402

sys.path.remove(str(ROOT / "benchmarks"))

MATRICES = sorted((ROOT / "tests" / "data").glob("*.mtx.gz"))


def check(tally):
    assert not tally.violations, tally.violations[:3]
    assert not tally.statuses["truth not resolved"]


@pytest.mark.parametrize("part", range(4))
def test_random_systems(part):
    total = Tally()
    for seed in range(250 * part, 250 * (part + 1)):
        total.add(random_system(seed))
    check(total)
    assert {check for check, _ in total.ratios} == set(CHECKS)
    assert total.statuses["CERTIFIED"] > total.statuses.total() / 2
    assert all(total.statuses[name] for name in ("BUDGET", "INACCURATE", "LOCAL_DOES_NOT_PAY", "NO_CERTIFICATE"))


def test_larger_systems():
    total = Tally()
    for seed in range(4):
        total.add(random_system(seed, large=True))
    check(total)


number = st.floats(-1e100, 1e100, allow_subnormal=True)
size = st.floats(1e-100, 1e100)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), number), max_size=12),
    st.lists(size, min_size=6, max_size=6),
    st.floats(1e-9, 1e3),
    st.lists(st.tuples(st.integers(0, 5), number), max_size=3),
    st.lists(st.tuples(st.integers(0, 5), number), max_size=3),
    st.booleans(),
)
def test_any_numbers(entries, diagonal, excess, b, t, by_rows):
    """Whatever the numbers: rows, or columns, that are dominant by construction."""
    off = [(i, j, value) for i, j, value in entries if i != j]
    sums = np.zeros(6)
    for i, j, value in off:
        sums[i if by_rows else j] += abs(value)
    every = off + [(i, i, sums[i] * (1 + excess) + diagonal[i]) for i in range(6)]
    every.sort(key=lambda entry: entry[0])
    rows, columns, values = (np.array(part) for part in zip(*every, strict=True))
    indptr = np.cumsum([0, *np.bincount(rows, minlength=6)])
    vectors = [
        tuple(map(np.array, ([*dict(v)], [*dict(v).values()]))) if v else (np.zeros(0, int), np.zeros(0))
        for v in (b, t)
    ]
    v = None if by_rows else np.ones(6)
    case = Case("any", 0.0, True, 6, rows, columns, values, indptr, columns, None, v, *vectors, np.arange(6.0) - 2)
    check(run(lambda rng: (case, case.system()), [0], "any numbers"))


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.name.removesuffix(".mtx.gz"))
def test_real_matrices(path):
    found = real_system(path, 0)
    if found is not None:
        check(found)
        assert found.statuses.total() == 5
    expected = {"pde2961.mtx.gz", "west0989.mtx.gz"}  # neither dominant, H-matrices, nor walks
    assert (found is None) == (path.name in expected)


def test_what_is_zero_is_refused_or_exact():
    rng = np.random.default_rng(0)
    case = draw(rng, 12, "both")
    case.data[case.rows == 3] = 0.0
    assert not case.system().dominant
    assert real(ROOT / "tests" / "data" / "west0989.mtx.gz") is None


def test_the_referee_sees_a_bound_that_is_too_small():
    tally = Tally("none")
    tally.judge("functional", 1001, 1000, 1, "just inside of what the truth can tell")
    assert not tally.violations
    tally.judge("functional", 1002, 1000, 1, "outside")
    assert len(tally.violations) == 1
    with pytest.raises(UnresolvedError):
        tally.judge("functional", 0, 1000, 2, "a truth that is too coarse")


def test_the_truth_is_that_of_rationals():
    from fractions import Fraction

    rng = np.random.default_rng(5)
    for _ in range(20):
        n = int(rng.integers(1, 7))
        A = rng.standard_normal((n, n)) + np.diag(np.full(n, 2.0 * n))
        A *= 10.0 ** rng.integers(-150, 150, n)[:, None]
        rows, columns = np.nonzero(A)
        b = {0: 1.0, n - 1: 1e-200}
        x, slack, Q = Truth(n, rows, columns, A[rows, columns]).solve(b)
        # x in units of 2^-Q: M x = b up to the slack, in rationals.
        for i in range(n):
            left = sum(Fraction(float(A[i, j])) * x[j] for j in range(n)) - Fraction(b.get(i, 0.0)) * 2**Q
            assert abs(left) <= sum(abs(Fraction(float(A[i, j]))) * slack[j] for j in range(n))
        assert whole(-1.5) == -3 << 1073
