"""Matrices that are functions of rows: the answers of stored ones, in memory and calls that do not see n."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from backsolve import SolveError, Status, local

U = np.uint64


def mixed(a):
    """The finalizer of splitmix64."""
    a = np.asarray(a).astype(U)
    a = (a ^ (a >> U(30))) * U(0xBF58476D1CE4E5B9)
    a = (a ^ (a >> U(27))) * U(0x94D049BB133111EB)
    return a ^ (a >> U(31))


class Torus:
    """A grid of side x side nodes; couplings are hashes of where a node lies relative to the middle."""

    def __init__(self, side, symmetric, gap=0.2):
        self.side, self.symmetric, self.gap, self.batches = side, symmetric, gap, []

    def weights(self, a, b):
        """In (1/2, 3/2), the same for every side."""
        side, middle = self.side, self.side // 2
        keys = [(i // side - middle) * 1_000_003 + (i % side - middle) for i in (a, b)]
        if self.symmetric:
            keys = [np.minimum(*keys), np.maximum(*keys)]
        return 0.5 + (mixed(mixed(keys[0]) + keys[1].astype(U)) >> U(11)).astype(float) * 2.0**-53

    def lists(self, i, transposed=False):
        self.batches.append(len(i))
        side = self.side
        row, column = i // side, i % side
        near = [((row - 1) % side, column), ((row + 1) % side, column)]
        near += [(row, (column - 1) % side), (row, (column + 1) % side)]
        j = np.stack([r * side + c for r, c in near], axis=1)
        own = np.repeat(i[:, None], 4, axis=1)
        w = -self.weights(j, own) if transposed else -self.weights(own, j)
        d = np.abs(w).sum(1) / (1 - self.gap) if self.symmetric else np.full(len(i), 6 / (1 - self.gap))
        return (
            np.full(len(i), 5),
            np.concatenate([j, i[:, None]], 1).ravel(),
            np.concatenate([w, d[:, None]], 1).ravel(),
        )

    def columns(self, j):
        return self.lists(j, transposed=True)

    def implicit(self, promise):
        n = self.side**2
        if self.symmetric:
            return local.Rows(self.lists, n, symmetric=True, promise=promise)
        return local.Rows(self.lists, n, columns=self.columns, promise=promise)

    def stored(self):
        count, index, value = self.lists(np.arange(self.side**2))
        return sp.csr_array((value, index, np.r_[0, np.cumsum(count)]))

    @property
    def center(self):
        return self.side // 2 * self.side + self.side // 2


KINDS = [(s, p) for s in (True, False) for p in ("rows", "columns", "both")]


@pytest.mark.parametrize("symmetric, promise", KINDS)
def test_a_function_gives_the_answers_of_the_stored_matrix(symmetric, promise):
    small, huge = Torus(60, symmetric), Torus(10**9, symmetric)
    A = small.stored()
    x = spsolve(A.tocsc(), np.eye(1, 3600, small.center).ravel())
    for torus in (small, huge):
        M = torus.implicit(promise)
        far = torus.center + 2 * torus.side + 1
        est = local.functional(M, ([torus.center], [1.0]), ([far], [2.0]), 1e-8)
        truth = 2 * x[small.center + 2 * small.side + 1]
        assert est.status == Status.CERTIFIED and est.bound <= 1e-8
        assert abs(est.value - truth) <= est.bound + 1e-15
        entry = local.entry(M, ([torus.center], [1.0]), far, 1e-8)
        assert abs(entry.value - truth / 2) <= 1e-8


@pytest.mark.parametrize("symmetric", [True, False])
def test_solve_returns_a_sparse_vector_of_any_length(symmetric):
    small, huge = Torus(60, symmetric), Torus(10**9, symmetric)
    x = spsolve(small.stored().tocsc(), np.eye(1, 3600, small.center).ravel())
    for torus in (small, huge):
        est = local.solve(torus.implicit("rows"), ([torus.center], [1.0]), 1e-6)
        assert est.value.shape == (torus.side**2, 1) and est.value.nnz < 3600
        row, column = np.divmod(est.value.coords[0], torus.side)
        near = (row - torus.side // 2 + 30) * 60 + column - torus.side // 2 + 30
        found = np.zeros(3600)
        found[near] = est.value.data
        assert np.max(np.abs(found - x)) <= est.bound <= 1e-6


def test_work_does_not_depend_on_n():
    work, memory = {}, {}
    for side in (10**2, 10**3, 10**6, 10**9):
        M = (torus := Torus(side, False)).implicit("rows")
        est = local.functional(M, ([torus.center], [1.0]), ([torus.center + 3], [1.0]), 1e-9)
        entries = len(est.gradient().A.values)
        work[side**2], memory[side**2] = (est.touched, entries), M.fetched[1]
    for counts in (np.array([w[0] for w in work.values()]), np.array([w[1] for w in work.values()])):
        assert counts.max() <= 1.25 * counts.min(), work
    assert max(memory.values()) <= 1.25 * min(memory.values()) < 50_000


def test_the_function_is_called_for_frontiers_not_for_rows():
    M = (torus := Torus(10**9, True)).implicit("rows")
    local.solve(M, ([torus.center], [1.0]), 1e-9)
    lists, entries = M.fetched
    assert lists == sum(torus.batches) and entries == 5 * lists, "no row twice"
    assert M.calls == len(torus.batches) < lists / 10
    calls = M.calls
    local.solve(M, ([torus.center], [1.0]), 1e-9)
    assert M.calls <= calls + calls // 10, "rows that are there are not asked for again"
    calls = M.calls
    M.forget()
    assert M.fetched == (0, 0) and M.calls == calls


def test_rows_alone_suffice_for_functionals():
    small = Torus(60, False)
    x = spsolve(small.stored().tocsc(), np.eye(1, 3600, small.center).ravel())
    M = local.Rows(small.lists, 3600)
    est = local.entry(M, ([small.center], [1.0]), small.center + 1, 1e-7)
    assert abs(est.value - x[small.center + 1]) <= est.bound <= 1e-7
    with pytest.raises(SolveError):
        local.solve(M, ([small.center], [1.0]), 1e-7)


@pytest.mark.parametrize("symmetric, promise", KINDS)
def test_gradients_are_triples_with_bounds(symmetric, promise):
    torus = Torus(40, symmetric)
    A = torus.stored().toarray()
    s, t = torus.center, torus.center + 1
    x, lam = np.linalg.solve(A, np.eye(1600)[s]), np.linalg.solve(A.T, np.eye(1600)[t])
    est = local.functional(torus.implicit(promise), ([s], [1.0]), ([t], [1.0]), 1e-6)
    found = est.gradient()
    g = found.A
    assert 0 < len(g.values) < np.count_nonzero(A)
    assert np.all(np.diff(g.rows) >= 0)
    assert np.all(np.abs(g.values + lam[g.rows] * x[g.columns]) <= g.bounds)
    rows, columns = np.nonzero(A)
    full = np.zeros_like(A)
    full[g.rows, g.columns] = g.values
    assert np.all(np.abs(full + np.outer(lam, x))[rows, columns] <= g.bound_at(rows, columns))
    direction = np.random.default_rng(0).standard_normal(len(rows))
    value, bound = found.directional((rows, columns, direction))
    assert abs(value + np.sum(direction * lam[rows] * x[columns])) <= bound


def test_a_certificate_can_be_made_smaller_later():
    M = (torus := Torus(10**9, True)).implicit("rows")
    est = local.functional(M, ([torus.center], [1.0]), ([torus.center + 1], [1.0]), 1e-3)
    better = est.refine(1e-9)
    assert better.bound <= 1e-9 < est.bound and abs(better.value - est.value) <= est.bound + better.bound


def test_budgets_end_with_a_bound_that_holds():
    M = (torus := Torus(10**9, False)).implicit("rows")
    truth = local.functional(M, ([torus.center], [1.0]), ([torus.center + 1], [1.0]), 1e-10)
    for budget in (0, 100, 1000):
        M.forget()
        est = local.functional(M, ([torus.center], [1.0]), ([torus.center + 1], [1.0]), 1e-10, max_touched=budget)
        assert est.status == Status.BUDGET
        assert abs(est.value - truth.value) <= est.bound + truth.bound
    est = local.functional(M, ([torus.center], [1.0]), ([torus.center + 1], [1.0]), 1e-10, max_seconds=0.0)
    assert est.status == Status.BUDGET


def chain(i, value=-1.0, diagonal=3.0):
    """A tridiagonal matrix of 100 rows, as a ring."""
    index = np.stack([(i - 1) % 100, i, (i + 1) % 100], 1).ravel()
    return np.full(len(i), 3), index, np.tile([value, diagonal, value], len(i))


def at(i, place, new):
    """`chain` with one of (counts, indices, values) spoilt."""
    parts = list(chain(i))
    parts[place] = new(parts[place].copy())
    return tuple(parts)


def put(position, value):
    def spoil(array):
        array[position] = value
        return array

    return spoil


@pytest.mark.parametrize(
    "fn, error, says",
    [
        (lambda i: at(i, 1, put(0, 100)), ValueError, r"row 50 has the index 100; indices must lie in \[0, 100\)"),
        (lambda i: at(i, 1, put(0, -1)), ValueError, r"row 50 has the index -1"),
        (lambda i: at(i, 1, put(0, 50)), ValueError, r"row 50 has the index 50 twice; add up"),
        (lambda i: at(i, 2, put(0, np.nan)), ValueError, r"row 50 has the value nan at 49; values must be finite"),
        (lambda i: at(i, 2, put(0, np.inf)), ValueError, r"row 50 has the value inf at 49"),
        (lambda i: at(i, 2, put(1, 0.0)), ValueError, r"row 50 has no diagonal entry, or zero there"),
        (lambda i: at(i, 1, put(1, 52)), ValueError, r"row 50 has no diagonal entry"),
        (
            lambda i: chain(i, diagonal=2.0),
            ValueError,
            r"row 50 is not dominant: its margin, .*, is 0; dominance by rows",
        ),
        (lambda i: chain(i)[:2], TypeError, r"fn must return \(counts, columns, values\)"),
        (lambda i: None, TypeError, r"fn must return \(counts, columns, values\); got None"),
        (lambda i: at(i, 0, lambda c: c[:-1]), ValueError, r"one count for each of the 1 ids.*; got 0"),
        (lambda i: at(i, 0, put(0, 4)), ValueError, r"got 4 by the counts, 3 indices and 3 values"),
        (lambda i: at(i, 0, put(0, -1)), ValueError, r"none of them negative"),
        (lambda i: at(i, 1, lambda c: c.astype(float)), TypeError, r"its indices are"),
        (lambda i: at(i, 2, lambda c: c.astype(complex)), TypeError, r"its values are"),
    ],
)
def test_what_functions_return_is_checked(fn, error, says):
    with pytest.raises(error, match=says):
        local.entry(local.Rows(fn, 100), ([50], [1.0]), 50, 1e-6)


def test_promised_margins_are_checked():
    M = local.Rows(chain, 100, symmetric=True, promise="both", margin=1.0)
    assert local.solve(M, ([50], [1.0]), 1e-6).certified
    with pytest.raises(ValueError, match=r"row 50 has the margin 1; at least 1.5 was promised"):
        local.solve(local.Rows(chain, 100, symmetric=True, margin=1.5), ([50], [1.0]), 1e-6)


def test_solve_by_columns_needs_a_margin():
    with pytest.raises(SolveError, match="NO_CERTIFICATE"):
        local.solve(local.Rows(chain, 100, columns=chain, promise="columns"), ([50], [1.0]), 1e-6)
    M = local.Rows(chain, 100, columns=chain, promise="columns", margin=1.0)
    est = local.solve(M, ([50], [1.0]), 1e-6)
    A = np.zeros((100, 100))
    _, index, value = chain(np.arange(100))
    A[np.repeat(np.arange(100), 3), index] = value
    x = np.linalg.solve(A, np.eye(100)[50])
    assert np.max(np.abs(est.value.toarray()[:, 0] - x)) <= est.bound <= 1e-6


def lopsided(i):
    count, index, value = chain(i)
    return count, index, np.where((np.repeat(i, 3) == 51) & (index == 50), -0.5, value)


def without(i):
    """Row 53 lacks the entry of column 52."""
    _, index, value = chain(i)
    keep = ~((np.repeat(i, 3) == 53) & (index == 52))
    return np.bincount(np.repeat(np.arange(len(i)), 3)[keep], minlength=len(i)), index[keep], value[keep]


@pytest.mark.parametrize("fn, pair", [(lopsided, r"-0.5 at 50|-0.5 at 51"), (without, r"at 52")])
def test_claims_about_symmetry_and_columns_are_checked_where_both_are_there(fn, pair):
    with pytest.raises(ValueError, match=rf"{pair}.*: the matrix was said to be symmetric"):
        local.solve(local.Rows(fn, 100, symmetric=True), ([50], [1.0]), 1e-6)
    with pytest.raises(ValueError, match=r"rows and columns must be of one matrix"):
        local.solve(local.Rows(fn, 100, columns=chain), ([50], [1.0]), 1e-6)
    with pytest.raises(ValueError, match=r"rows and columns must be of one matrix"):
        local.solve(local.Rows(chain, 100, columns=fn), ([50], [1.0]), 1e-6)


def test_pointers_serve_as_counts_and_float32_as_values():
    def rows(i):
        count, index, value = chain(i)
        return np.r_[0, np.cumsum(count)], index.astype(np.int32), value.astype(np.float32)

    est = local.entry(local.Rows(rows, 100, symmetric=True), ([50], [1.0]), 51, 1e-9)
    plain = local.entry(local.Rows(chain, 100, symmetric=True), ([50], [1.0]), 51, 1e-9)
    assert est.value == plain.value


def test_errors_of_the_function_reach_the_user_and_leave_the_matrix_usable():
    calls = []

    def rows(i):
        calls.append(len(i))
        if len(calls) == 3:
            raise RuntimeError("the data base is away")
        return chain(i)

    M = local.Rows(rows, 100, symmetric=True)
    with pytest.raises(RuntimeError, match="the data base is away"):
        local.entry(M, ([50], [1.0]), 51, 1e-9)
    assert local.entry(M, ([50], [1.0]), 51, 1e-9).certified


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"n": 0}, r"n must be an integer in \[1, 2\*\*62\]; got 0"),
        ({"n": 2**63}, r"n must be an integer"),
        ({"n": 10, "promise": "diagonal"}, r"promise must be one of"),
        ({"n": 10, "margin": -1.0}, r"margin must be a positive number; got -1"),
        ({"n": 10, "symmetric": True, "columns": chain}, r"leave columns out"),
        ({"n": 10, "promise": "columns"}, r"can only be checked with columns"),
    ],
)
def test_arguments_are_checked(arguments, says):
    with pytest.raises(ValueError, match=says):
        local.Rows(chain, **arguments)
    with pytest.raises(TypeError, match="fn and columns must be functions"):
        local.Rows(3, 10)  # type: ignore[arg-type]


def test_threads_share_one_matrix():
    from concurrent.futures import ThreadPoolExecutor

    M = (torus := Torus(10**9, False)).implicit("rows")

    def query(k):
        return local.functional(M, ([torus.center + k], [1.0]), ([torus.center + k + 1], [1.0]), 1e-9).value

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(query, range(16)))
    M.forget()
    assert np.max(np.abs(np.array(together) - [query(k) for k in range(16)])) <= 2e-9
