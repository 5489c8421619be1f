"""Margins of dominance: never above the exact ones, close to them, and named errors for damaged arrays."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from backsolve import _kernels
from backsolve._local.access import INDEX_DTYPES, VALUE_DTYPES, Access
from backsolve._local.margins import margins
from backsolve.pattern import Pattern

U = Fraction(2) ** -53
SMALLEST = Fraction(np.finfo(float).smallest_subnormal)
LEAST_NORMAL = {dtype: Fraction(float(np.finfo(dtype).tiny)) for dtype in VALUE_DTYPES}


def draw(rng, index_dtypes=("int64", "int64"), dtype="float64", scale=0):
    """Rows with repeats, missing and cancelling diagonals, of any signs: (Access, lists of (column, value))."""
    n = int(rng.integers(1, 12))
    lists = []
    for i in range(n):
        m = int(rng.integers(0, 9))
        entries = [(int(j), float(v)) for j, v in zip(rng.integers(0, n, m), rng.standard_normal(m), strict=True)]
        if rng.random() < 0.7:
            entries.append((i, float(rng.choice([1, -1])) * sum(abs(v) for j, v in entries if j != i)))
        lists.append([(j, float(np.dtype(dtype).type(v * 10.0**scale))) for j, v in entries])
    position, index = index_dtypes
    indptr = np.cumsum([0, *map(len, lists)]).astype(position)
    indices = np.array([j for row in lists for j, _ in row], index)
    data = np.array([v for row in lists for _, v in row], dtype)
    order = np.argsort(indices, kind="stable").astype(position)
    rows = np.repeat(np.arange(n), np.diff(indptr)).astype(index)
    t_indptr = np.cumsum([0, *np.bincount(indices, minlength=n)]).astype(position)
    return Access(n, indptr, indices, data, t_indptr, rows[order], order), lists


def transposed(lists):
    columns = [[] for _ in lists]
    for i, row in enumerate(lists):
        for j, v in row:
            columns[j].append((i, v))
    return columns


def exact(lists, weights=None):
    """(margin, Σ_j |M_ij| w_j) of each list, in rationals."""
    w = [Fraction(1)] * len(lists) if weights is None else [Fraction(float(x)) for x in weights]
    for i, row in enumerate(lists):
        terms = [(j, Fraction(v) * w[j]) for j, v in row]
        off = sum((abs(t) for j, t in terms if j != i), Fraction(0))
        yield abs(sum((t for j, t in terms if j == i), Fraction(0))) - off, sum((abs(t) for _, t in terms), Fraction(0))


def held(found, lists, weights=None, lost=Fraction(0)):
    """Each bound is below the exact margin, and by little."""
    for bound, (margin, size), row in zip(found, exact(lists, weights), lists, strict=True):
        m = len(row)
        room = 5 * U * abs(margin) + (m + 9) ** 2 * U**2 * size + 2 * (m + 9) * SMALLEST + (17 * m + 40) * lost
        if weights is not None:
            room += 3 * U * size
        assert margin - room <= Fraction(float(bound)) <= margin, (float(margin), bound, row)


@pytest.mark.parametrize("dtype", VALUE_DTYPES)
@pytest.mark.parametrize("index_dtypes", INDEX_DTYPES, ids="-".join)
def test_bounds_hold_in_rationals(index_dtypes, dtype):
    rng = np.random.default_rng(0)
    for trial in range(400):
        scale = (0, -30, 30)[trial % 3] if dtype == "float32" else (0, -150, 150, -307, -320)[trial % 5]
        A, lists = draw(rng, index_dtypes, dtype, scale)
        weights = rng.random(A.n) * 10.0 ** rng.integers(-3, 4, A.n) if trial % 2 else None
        held(margins(A, weights=weights), lists, weights)
        held(margins(A, columns=True, weights=weights), transposed(lists), weights)


def test_sums_that_do_not_round_are_exact():
    """A Laplacian of integers has margins of exactly zero, one of decimals has none that is falsely positive."""
    rng = np.random.default_rng(1)
    n, m = 400, 9
    for integer in (True, False):
        off = rng.integers(1, 1000, (n, m)) * (1.0 if integer else 0.1)
        diagonal = off.sum(axis=1)
        columns = np.array([rng.choice(np.delete(np.arange(n), i), m, replace=False) for i in range(n)])
        indices = np.column_stack((np.arange(n), columns)).ravel()
        A = Access(n, np.arange(n + 1) * (m + 1), indices, np.column_stack((diagonal, -off)).ravel())
        lists = [
            list(zip(c, v, strict=True)) for c, v in zip(indices.reshape(n, -1), A.data.reshape(n, -1), strict=True)
        ]
        found = margins(A)
        held(found, lists)
        if integer:
            assert (found == 0).all()
        else:
            naive = diagonal - off[:, ::-1].sum(axis=1)
            wrong = [i for i, (margin, _) in enumerate(exact(lists)) if margin <= 0 < naive[i]]
            assert wrong and not (found[wrong] > 0).any()


def test_bounds_hold_where_small_numbers_are_flushed():
    rng = np.random.default_rng(2)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        kept = []
        for trial in range(300):
            dtype = VALUE_DTYPES[trial % 2]
            A, lists = draw(rng, dtype=dtype, scale=(-38 if trial % 2 == 0 else -307))
            weights = np.exp2(rng.integers(-3, 3, A.n)) if trial % 3 == 0 else None
            kept.append((margins(A, weights=weights), lists, weights, LEAST_NORMAL[dtype]))
    finally:
        torch.set_flush_denormal(False)
    for found, lists, weights, lost in kept:
        held(found, lists, weights, 8 * lost)


def small(data, **other):
    parts = {"indptr": [0, 2, 4], "indices": [0, 1, 0, 1], **other}
    return Access(2, np.array(parts["indptr"]), np.array(parts["indices"]), np.array(data, float))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_finite_has_no_margin(value, place):
    data = [3.0, 1.0, 1.0, 3.0]
    data[place] = value
    found = margins(small(data))
    assert np.isnan(found[0]) and found[1] == 2
    big = np.finfo(float).max
    assert np.isnan(margins(Access(3, np.array([0, 2, 2, 2]), np.array([1, 2]), np.array([big, big])))[0])
    for weight in (np.nan, np.inf, -1.0):
        assert np.isnan(margins(small([3.0, 1.0, 1.0, 3.0]), weights=np.array([weight, 1.0]))).all()


def test_empty_rows_and_missing_diagonals():
    A = Access(3, np.array([0, 0, 1, 2]), np.array([0, 2]), np.array([2.0, -5.0]))
    assert margins(A).tolist() == [0.0, -2.0, 5.0]
    assert margins(A, first=1).tolist() == [-2.0, 5.0]
    assert margins(A, first=1, last=2).tolist() == [-2.0]
    assert margins(Access(0, np.array([0]), np.array([], int), np.array([]))).shape == (0,)


DAMAGED = {
    "index above": (dict(indices=[0, 1, 0, 2]), r"row 1 has the index 2 \(position 3\); indices must lie in \[0, 2\)"),
    "index below": (dict(indices=[0, -1, 0, 1]), r"row 0 has the index -1 \(position 1\)"),
    "pointer above": (dict(indptr=[0, 9, 4]), r"positions of row 0 run from 0 to 9; .* must lie in \[0, 4\]"),
    "pointer below": (dict(indptr=[0, -2, 4]), "positions of row 0 run from 0 to -2"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named_where_it_is_met(damage, message):
    with pytest.raises(ValueError, match=message):
        margins(small([3.0, 1.0, 1.0, 3.0], **damage))


def test_damage_in_the_columns_is_named():
    A, _ = draw(np.random.default_rng(3))
    slot = A.t_slot.copy()
    slot[0] = A.nnz
    B = Access(A.n, A.indptr, A.indices, A.data, A.t_indptr, A.t_indices, slot)
    with pytest.raises(ValueError, match=rf"column \d+ points to the value {A.nnz} of {A.nnz}"):
        margins(B, columns=True)


def test_threads_change_nothing(monkeypatch):
    """Neither a bit of the bounds, nor which damaged row is named."""
    rng = np.random.default_rng(4)
    n, m = 100_000, 12
    indices = rng.integers(0, n, n * m)
    A = Access(n, np.arange(n + 1) * m, indices, rng.standard_normal(n * m))
    monkeypatch.setenv("BACKSOLVE_NUM_THREADS", "1")
    alone = margins(A)
    indices[[m * 5_000, m * 50_000, m * 90_000]] = n
    monkeypatch.setenv("BACKSOLVE_NUM_THREADS", "4")
    for _ in range(20):
        with pytest.raises(ValueError, match="row 5000 has the index 100000"):
            margins(A)
    indices[[m * 5_000, m * 50_000, m * 90_000]] = 0
    several = margins(A)
    monkeypatch.setenv("BACKSOLVE_NUM_THREADS", "1")
    assert (several == margins(A)).all() and (np.delete(several, [5_000, 50_000, 90_000]) != alone[:3].max()).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(indptr=np.array([0, 1], np.int32)), "indptr and indices must both be int32 .* got int32 and int64"),
        (dict(data=np.array([1.0 + 1j])), "data must be float32 or float64; got complex128"),
        (
            dict(data=np.ones(2)),
            r"data must be .* shape \(1,\), as the other arrays; got numpy ndarray .* shape \(2,\)",
        ),
        (dict(indptr=np.array([1, 1])), "indptr must run from 0 to the number of entries, 1; got 1 to 1"),
        (dict(t_indptr=np.array([0, 1])), "t_indptr, t_indices and t_slot must be given together"),
        (dict(t_indptr=np.array([0, 2]), t_indices=np.array([0]), t_slot=np.array([0])), "t_indptr must run from 0"),
        (dict(n=2), r"indptr must be .* shape \(3,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    parts = dict(n=1, indptr=np.array([0, 1]), indices=np.array([0]), data=np.array([1.0]))
    with pytest.raises(ValueError, match=message):
        Access(**{**parts, **change})


def test_access_of_a_pattern():
    pattern = Pattern([0, 2, 3], [0, 1, 1], (2, 2))
    A = Access.of_pattern(pattern, np.array([3.0, -1.0, 2.0]))
    assert not A.symmetric and A.nnz == 3
    assert margins(A).tolist() == [2.0, 2.0] and margins(A, columns=True).tolist() == [3.0, 1.0]
    assert Access.of_pattern(pattern, A.data, symmetric=True).columns == A.rows
    assert margins(A.with_data(np.array([1.0, 5.0, 2.0]))).tolist() == [-4.0, 2.0]
    with pytest.raises(ValueError, match=r"A must be square; got shape \(1, 2\)"):
        Access.of_pattern(Pattern([0, 1], [1], (1, 2)), np.ones(1))


def test_the_kernel_refuses_lengths_that_do_not_fit():
    one, pointers = np.zeros(1), np.array([0, 1])
    for indptr, slot, data, weights, out, first in [
        (np.array([], int), None, one, None, one, 0),
        (pointers, None, np.zeros(2), None, one, 0),
        (pointers, np.array([0, 0]), one, None, one, 0),
        (pointers, None, one, np.zeros(2), one, 0),
        (pointers, None, one, None, np.zeros(2), 0),
        (pointers, None, one, None, one, -1),
        (pointers, None, one, None, one, 1),
    ]:
        with pytest.raises(ValueError):
            _kernels.local_margins(indptr, np.array([0]), slot, data, weights, out, first, False)
