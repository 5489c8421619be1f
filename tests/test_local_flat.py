"""What local solves read does not grow with the matrix, nor the memory; order and thresholds save what they claim."""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from backsolve import local
from backsolve._local.access import Access
from backsolve._local.budget import Budget
from backsolve._local.forecast import pays
from backsolve._local.functional import FunctionalQuery
from backsolve._local.half import Half
from backsolve._local.system import System
from backsolve.status import Status

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
from local_flat import COUNTS, FAMILIES, flat, resident, system  # noqa: E402

sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_do_not_grow_with_the_matrix(family):
    found = [flat(system(family, n), family) for n in (10**4, 10**5, 10**6)]
    for name in COUNTS:
        counts = [row[name] for row in found]
        assert 0 < max(counts) <= 1.25 * min(counts), (name, counts)
    assert found[0]["unknowns touched"] < 1500


def reach(M, by_rows, share, omega=None):
    """A side that has been pushed until its size is this share of the first."""
    half = Half(M, (np.array([M.n // 2]), np.ones(1)), False, by_rows)
    half.omega = half.omega if omega is None else omega
    budget, goal = Budget(3 * 10**7), share * half.size
    while half.size > goal and half.reduce(budget, goal):
        pass
    assert half.size <= goal and not budget.empty
    return half


@pytest.mark.parametrize("gap", [0.1, 0.03])
@pytest.mark.parametrize("by_rows", [True, False])
def test_over_relaxation_saves_pushes_where_they_go_round(gap, by_rows):
    M = system("mesh", 40_000, gap)
    assert 1.5 * reach(M, by_rows, 1e-4).touched < reach(M, by_rows, 1e-4, omega=1.0).touched


@pytest.mark.parametrize("signs", [[-1.0], [-1.0, 1.0]], ids=["M-matrix", "any signs"])
@pytest.mark.parametrize("gap", [0.06, 0.005])
@pytest.mark.parametrize("by_rows", [True, False])
def test_over_relaxation_is_given_up_where_it_diverges(gap, signs, by_rows):
    given_up = 0
    for seed in range(6):
        rng, n = np.random.default_rng(seed), 2000
        i = rng.integers(0, n, 5 * n)
        j = (i + rng.integers(-30, 31, 5 * n)) % n
        A = sp.csr_array(sp.coo_array((rng.random(5 * n) * rng.choice(signs, 5 * n), (i, j)), (n, n)))
        A.setdiag(0.0)
        A = sp.csr_array(A + sp.diags_array(abs(A).sum(axis=1 if by_rows else 0) / (1 - gap) + 1e-3))
        A.data.flags.writeable = False
        M = local.DiagonallyDominant(A).system
        pushed, plain = reach(M, by_rows, 1e-8), reach(M, by_rows, 1e-8, omega=1.0)
        assert pushed.touched < 6 * plain.touched
        given_up += pushed.omega == 1.0
    assert given_up


def test_blocks_end_what_pushes_would_go_round_in(monkeypatch):
    M = system("mesh", 10_000, 0.001)
    with_blocks = reach(M, True, 1e-3)
    monkeypatch.setattr("backsolve._local.half._PILE", 10**9)
    assert 2 * with_blocks.side.pushes < reach(M, True, 1e-3).side.pushes


def test_a_global_solve_takes_over_where_all_would_be_touched():
    M = system("mesh", 10_000, 1e-4)
    query = FunctionalQuery(M, *((np.array([i]), np.ones(1)) for i in (20, 8000)))
    estimate = query.run(1e-8, Budget())
    assert estimate.status == Status.LOCAL_DOES_NOT_PAY and not pays(M, query.touched, 2 * query.touched)
    near = FunctionalQuery(system("mesh", 10_000, 0.1), *((np.array([i]), np.ones(1)) for i in (20, 21)))
    assert near.run(1e-8, Budget()).certified


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and needs mappings without reserve")
def test_memory_is_that_of_what_is_touched():
    """A billion unknowns, of which a chain of 41 has rows: 40 GB of addresses, a few pages."""
    n, at, m = 10**9, 600_000_000, 41
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    indptr = np.frombuffer(mmap.mmap(-1, 8 * (n + 1), flags=flags), np.int64)
    chain = sp.diags_array([-np.ones(m - 1), np.full(m, 3.0), -np.ones(m - 1)], offsets=[-1, 0, 1]).tocsr()
    indptr[at : at + m + 1] = chain.indptr
    indptr[n] = chain.nnz
    before = resident()
    M = System(Access(n, indptr, chain.indices + np.int64(at), chain.data), promise="both")
    b, t = ((np.array([at + k]), np.ones(1)) for k in (20, 22))
    found = FunctionalQuery(M, b, t).run(1e-12, Budget())
    truth = np.linalg.inv(chain.toarray())[20, 22]
    assert found.certified and abs(found.value - truth) <= found.bound + 1e-15
    assert resident() - before < 4 << 20
