"""Gradients of local queries in NumPy: exact within their bounds, everywhere; and estimates that go on."""

import gc
import threading
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from local_cases import band, dense_gradient, spread

import backsolve as bs
from backsolve import _kernels, local

N = 120
B, T = ([5, 9], [1.0, -2.0]), ([7, 30], [2.0, 1.0])
b, t = spread(B, N), spread(T, N)


def full(gradient, count):
    out = np.zeros(count)
    out[gradient.places] = gradient.values
    return out


def slack(n):
    """Rounding of the dense truth."""
    return 200 * n * np.finfo(float).eps


@pytest.mark.parametrize("senses", ["both", "rows", "columns"])
@pytest.mark.parametrize("options", [{}, {"fallback": None}, {"gradient_atol": 1e-7, "fallback": None}])
def test_every_entry_is_within_its_bound(senses, options):
    for seed in range(5):
        A = band(N, gap=0.2, seed=seed, senses=senses)
        x, lam, truth = dense_gradient(A, b, t)
        est, g = local.value_and_grad(A, B, T, 1e-3, **options)
        rows, columns = A.nonzero()
        size = np.abs(lam).max() * np.abs(x).max()
        assert np.all(np.abs(truth[g.A.places] - g.A.values) <= g.A.bounds + slack(N) * size)
        error = np.abs(truth - full(g.A, A.nnz))
        everywhere = g.A.bound_at(rows, columns)
        assert np.all(error <= everywhere + slack(N) * size)
        assert np.all(everywhere <= g.A.bound)
        np.testing.assert_array_equal(g.A.bounds, everywhere[g.A.places])
        assert list(zip(g.A.rows, g.A.columns, strict=True)) == [(rows[k], columns[k]) for k in g.A.places]
        for part, want in ((g.b, lam), (g.t, x)):
            got = spread((part.indices, part.values), N)
            assert np.all(np.abs(got - want) <= part.bound_at(np.arange(N)) + slack(N) * np.abs(want).max())
            assert np.all(part.bound_at(np.arange(N)) <= part.bound)
        if "gradient_atol" in options:
            assert est.certified and g.A.bound <= 1e-7


def exact_inverse(M):
    """By Gauss and Jordan, in rational numbers."""
    n = len(M)
    rows = [[Fraction(float(v)) for v in row] + [Fraction(int(i == j)) for j in range(n)] for i, row in enumerate(M)]
    for c in range(n):
        p = max(range(c, n), key=lambda r: abs(rows[r][c]))
        rows[c], rows[p] = rows[p], rows[c]
        rows[c] = [v / rows[c][c] for v in rows[c]]
        for r in range(n):
            if r != c and rows[r][c]:
                rows[r] = [v - rows[r][c] * w for v, w in zip(rows[r], rows[c], strict=True)]
    return [row[n:] for row in rows]


def within(truth, values, bounds):
    """Every |truth - value| <= bound, exactly; an infinite bound says nothing."""
    finite = [(t, v, d) for t, v, d in zip(truth, values, bounds, strict=True) if np.isfinite(d)]
    return all(abs(t - Fraction(float(v))) <= Fraction(float(d)) for t, v, d in finite)


def test_bounds_hold_to_the_last_digit_at_every_scale():
    rng, n, finite = np.random.default_rng(0), 7, 0
    for trial in range(60):
        A = band(
            n, gap=10.0 ** rng.uniform(-9, -0.1), reach=2, seed=trial, senses=["both", "rows", "columns"][trial % 3]
        )
        A.data *= 10.0 ** rng.uniform(-150, 150) if trial % 2 else 1.0
        size = 10.0 ** rng.uniform(-30, 30) if trial % 2 else 1.0
        inverse, i, j = exact_inverse(A.toarray()), int(rng.integers(n)), int(rng.integers(n))
        x, lam = [row[i] * Fraction(size) for row in inverse], inverse[j]
        atol = float(max(map(abs, x))) * 10.0 ** rng.uniform(-12, -1)
        fallback = "global" if trial % 4 < 2 else None
        est = local.functional(A, ([i], [size]), ([j], [1.0]), atol, fallback=fallback, on_failure="return")
        if not np.isfinite(est.bound):
            continue
        g, h = est.gradient(), local.hvp(est, A)
        rows, columns = A.nonzero()
        every, bounds = np.arange(n), g.A.bound_at(rows, columns)
        finite += np.all(np.isfinite(bounds))
        truth = [-lam[k] * x[m] for k, m in zip(rows, columns, strict=True)]
        assert within(truth, full(g.A, A.nnz), bounds)
        assert within(lam, spread((g.b.indices, g.b.values), n), g.b.bound_at(every))
        assert within(x, spread((g.t.indices, g.t.values), n), g.t.bound_at(every))
        # Along A itself the inverse falls in proportion, x and λ with it: the derivative of -λxᵀ is 2λxᵀ.
        assert within([-2 * v for v in truth], full(h.A, A.nnz), h.A.bound_at(rows, columns))
        slope = sum(v * Fraction(float(w)) for v, w in zip(truth, A.data, strict=True))
        assert within([slope], *([v] for v in g.directional(A)))
    assert finite > 40


def test_entries_that_were_dropped_have_a_bound_that_is_no_better_than_the_truth():
    A = band(2000)
    est, g = local.value_and_grad(A, ([50], [1.0]), ([55], [1.0]), 1e-6, fallback=None)
    assert len(g.A.places) < 800 and est.touched < A.nnz / 4
    assert 0 < g.A.bound_at(1900, 1900)[0] < 1e-2
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 2000\); got -1"):
        g.A.bound_at(-1, 0)


@pytest.mark.parametrize("fallback", ["global", None])
def test_gradient_atol_costs_more_and_keeps_its_word(fallback):
    A = band(5000, gap=0.1)
    plain, pushed = (
        local.functional(A, B, T, 1e-4, fallback=fallback, gradient_atol=wanted) for wanted in (None, 1e-8)
    )
    assert plain.gradient().A.bound > 1e-8 >= pushed.gradient().A.bound
    assert pushed.touched > plain.touched and pushed.certified


def test_gradient_atol_needs_a_margin_that_is_known():
    A = band(200, senses="rows")
    with pytest.raises(bs.SolveError, match="gradient_atol needs the smallest margin of A, which is not known"):
        local.functional(local.DiagonallyDominant(A, promise="rows"), B, T, 1e-4, gradient_atol=1e-6, fallback=None)


def test_directional_derivatives_are_those_of_finite_differences():
    A = band(N)
    _, g = local.value_and_grad(A, B, T, 1e-4, fallback=None)
    rng = np.random.default_rng(1)
    V = A.copy()
    V.data = rng.standard_normal(A.nnz) * (rng.random(A.nnz) < 0.2)
    db, dt = ([3, 5], [0.5, 1.0]), ([7], [-1.0])

    def phi(h):
        moved = sp.csr_array((A.data + h * V.data, A.indices, A.indptr), shape=A.shape).toarray()
        return (t + h * spread(dt, N)) @ np.linalg.solve(moved, b + h * spread(db, N))

    for dA in (V, V.data, (np.arange(A.nnz), V.data)):
        got, bound = g.directional(dA, db, dt)
        want = (phi(1e-5) - phi(-1e-5)) / 2e-5
        assert abs(got - want) <= bound + 1e-9 and bound < 0.2
    assert g.directional() == (0.0, pytest.approx(0.0, abs=1e-300))


def test_unsorted_and_repeated_triplets_get_their_gradients_in_their_order():
    A = band(N)
    rows, columns = A.nonzero()
    order = np.random.default_rng(2).permutation(A.nnz + 3)
    again = np.concatenate([np.arange(A.nnz), [4, 4, 50]])[order]
    values = A.data[again] / np.bincount(again, minlength=A.nnz)[again]
    operator = bs.coo(values, (rows[again], columns[again]), A.shape)
    g = local.functional(operator, B, T, 1e-10, gradient_atol=1e-9).gradient()
    want = dense_gradient(A, b, t)[2][again]
    np.testing.assert_allclose(full(g.A, len(again)), want, atol=1e-9)
    assert np.all(np.diff(g.A.places) > 0)
    step, bound = g.directional((np.array([0, 1]), np.array([1.0, -2.0])))
    assert abs(step - (want[0] - 2 * want[1])) <= bound + 1e-15
    with pytest.raises(ValueError, match="summed from triplets that were unsorted or repeated"):
        local.functional(operator, B, T, 1e-10).update(dA=([0], [0.1]))


@pytest.mark.parametrize("senses", ["both", "rows", "columns"])
def test_vjp_of_a_solution(senses):
    A = band(N, senses=senses)
    rows, columns = A.nonzero()
    est = local.solve(A, B, 1e-6, fallback=None)
    index = est.value.coords[0]
    cotangent = np.random.default_rng(3).standard_normal(len(index))
    for g in (cotangent, (index, cotangent), spread((index, cotangent), N)):
        found = est.vjp(g, atol=1e-8)
        _, lam, truth = dense_gradient(A, b, spread((index, cotangent), N))
        assert np.all(np.abs(truth - full(found.A, A.nnz)) <= found.A.bound_at(rows, columns) + 1e-14)
        got = spread((found.b.indices, found.b.values), N)
        assert np.all(np.abs(got - lam) <= found.b.bound_at(np.arange(N)) + 1e-13)
        assert est.adjoint.certified and est.adjoint.bound <= 1e-8 and est.adjoint.value.shape == (N, 1)


def test_vjp_works_under_a_promise_of_rows_alone():
    A = band(N, senses="rows")
    est = local.solve(local.DiagonallyDominant(A, promise="rows"), B, 1e-6, fallback=None)
    found = est.vjp(T)
    rows, columns = A.nonzero()
    truth = dense_gradient(A, b, t)[2]
    assert np.all(np.abs(truth - full(found.A, A.nnz)) <= found.A.bound_at(rows, columns) + 1e-14)
    assert found.b.bound == np.inf and np.all(np.isfinite(found.b.bounds))


@pytest.mark.parametrize("senses", ["both", "rows", "columns"])
@pytest.mark.parametrize("options", [{"fallback": None}, {}])
def test_hessian_products_are_within_their_bounds(senses, options):
    for seed in range(4):
        A = band(N, seed=seed, senses=senses)
        rows, columns = A.nonzero()
        inverse = np.linalg.inv(A.toarray())
        x, lam, _ = dense_gradient(A, b, t)
        rng = np.random.default_rng(seed)
        V = A.copy()
        V.data = rng.standard_normal(A.nnz) * (rng.random(A.nnz) < 0.1)
        x_dot, lam_dot = -inverse @ (V @ x), -inverse.T @ (V.T @ lam)
        want = -(lam_dot[rows] * x[columns] + lam[rows] * x_dot[columns])
        est = local.functional(A, B, T, 1e-5, **options)
        for atol in (None, 1e-3):
            h = local.hvp(est, V, atol)
            size = np.abs(inverse).max() ** 2 * np.abs(V.data).max()
            bound = h.A.bound_at(rows, columns)
            assert np.all(np.abs(want - full(h.A, A.nnz)) <= bound + slack(N) * size)
            assert np.all(bound <= h.A.bound)
            for part, truth in ((h.b, lam_dot), (h.t, x_dot)):
                error = np.abs(spread((part.indices, part.values), N) - truth)
                assert np.all(error <= part.bound_at(np.arange(N)) + slack(N) * size)
        tight = local.hvp(est.refine(1e-10, gradient_atol=1e-9), V)
        assert tight.A.bound_at(rows, columns).max() < 1e-2 * bound.max()


def test_hessian_products_are_differences_of_gradients():
    A = band(N)
    V = sp.coo_array(([1.0, -0.5], ([6, 8], [6, 9])), shape=A.shape)
    h = local.hvp(local.functional(A, B, T, 1e-12, gradient_atol=1e-11), V)

    def gradient(step):
        return dense_gradient((A + step * V).tocsr(), b, t)[2]

    want = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    np.testing.assert_allclose(full(h.A, A.nnz), want, atol=1e-8)


def test_refining_reads_less_than_asking_again():
    A = band(20000, gap=0.05)
    D = local.DiagonallyDominant(A)
    est = local.functional(D, B, T, 1e-4)
    first, fresh = est.touched, local.functional(D, B, T, 1e-9)
    refined = est.refine(1e-9)
    assert refined.certified and refined.bound <= 1e-9
    assert refined.touched - first < fresh.touched
    assert abs(refined.value - fresh.value) <= refined.bound + fresh.bound
    assert refined.refine(1e-9, gradient_atol=1e-7).gradient().A.bound <= 1e-7
    with pytest.raises(bs.SolveError, match="INACCURATE"):
        refined.refine(1e-40)
    assert refined.refine(1e-10).bound <= 1e-10


def test_a_solution_is_refined_and_updated():
    A = band(5000, gap=0.1)
    est = local.solve(A, B, 1e-3).refine(1e-8)
    new = est.update(db=([9], [0.5]))
    want = np.zeros(5000)
    want[[5, 9]] = 1.0, -1.5
    assert np.abs(new.value.toarray()[:, 0] - bs.solve(A, want)).max() <= new.bound <= 1e-8
    with pytest.raises(ValueError, match=r"dt has no meaning for local.solve"):
        new.update(dt=([0], [1.0]))


@pytest.mark.parametrize("unseen", [False, True])
def test_updates_read_less_than_asking_again(unseen):
    A = band(20000, gap=0.05)
    D = local.DiagonallyDominant(A)
    est = local.functional(D, B, T, 1e-7)
    before = est.touched
    moved = est.update(db=([5], [1e-3]), dt=([30], [-1e-3]))
    rng = np.random.default_rng(4)
    V = A[[40], :].tocoo()
    V = sp.coo_array((1e-2 * rng.standard_normal(V.nnz), (np.full(V.nnz, 40), V.coords[1])), shape=A.shape)
    values = A.data.copy()
    if unseen:
        A[[40], V.coords[1]] = A[[40], V.coords[1]] + V.data  # by the user
        new = moved.update()
    else:
        new = moved.update(dA=V)
    assert np.count_nonzero(A.data != values) == V.nnz
    b2, t2 = ([5, 9], [1.001, -2.0]), ([7, 30], [2.0, 0.999])
    fresh = local.functional(A, b2, t2, 1e-7)
    assert new.certified and abs(new.value - fresh.value) <= new.bound + fresh.bound
    assert new.touched - moved.touched < 0.7 * fresh.touched <= before * 0.84
    for old in (est, moved):
        with pytest.raises(RuntimeError, match="has been updated: use the one that update returned"):
            old.gradient()
        with pytest.raises(RuntimeError, match="has been updated"):
            old.refine(1e-9)


def test_an_update_keeps_what_is_known_of_margins_elsewhere():
    A = band(300)
    D = local.DiagonallyDominant(A)
    est = local.functional(D, B, T, 1e-6)
    before = A.data.copy()
    with pytest.raises(ValueError, match=r"dA must leave A dominant; row 200 .* nothing was changed"):
        est.update(dA=sp.coo_array(([-A[200, 200]], ([200], [200])), shape=A.shape))
    np.testing.assert_array_equal(A.data, before)
    assert est.refine(1e-7).certified


def test_an_update_may_leave_dominance_in_one_sense_alone():
    A = sp.diags_array([np.full(299, -1.0), np.full(300, 4.0), np.full(299, -1.0)], offsets=[-1, 0, 1]).tocsr()
    D = local.DiagonallyDominant(A)
    est = local.functional(D, B, T, 1e-6)
    new = est.update(dA=sp.coo_array(([-1.5, -1.0], ([200, 200], [199, 201])), shape=A.shape))
    assert (D.by_rows, D.by_columns) == (False, True)
    assert new.certified and new.kind == "columns"
    x = np.linalg.solve(A.toarray(), spread(B, 300))
    assert abs(new.value - spread(T, 300) @ x) <= new.bound + 1e-15
    with pytest.raises(ValueError, match="nothing was changed"):
        new.update(dA=sp.coo_array(([-3.0], ([199], [200])), shape=A.shape))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda e, A: e.update(dA=sp.coo_array(([1.0], ([0], [90])), shape=A.shape)), ValueError, r"none at \(0, 90\)"),
        (lambda e, A: e.update(dA=([-1], [1.0])), ValueError, r"places in \[0, \d+\); got -1"),
        (lambda e, A: e.update(dA=([0.5], [1.0])), TypeError, "integer places"),
        (lambda e, A: e.update(dA=([0], [np.nan])), ValueError, "dA must be finite"),
        (lambda e, A: e.update(dA=([0], [1j])), TypeError, "dA must be real"),
        (lambda e, A: e.update(dA=np.ones(3)), ValueError, "increments, one for each value of A; got numpy ndarray"),
        (lambda e, A: e.update(dA=([0, 1], [1.0])), ValueError, "one place for each increment"),
        (lambda e, A: e.update(dA=sp.eye_array(3)), ValueError, "must have the shape of A"),
        (lambda e, A: e.vjp(b), TypeError, "vjp is for estimates of local.solve"),
        (lambda e, A: local.solve(A, B, 1e-3).gradient(), TypeError, r"of local.solve take estimate.vjp\(g\)"),
        (
            lambda e, A: local.solve(A, B, 1e-3).vjp(np.ones(3)),
            ValueError,
            "g must have one number for each of the 120",
        ),
        (lambda e, A: local.entry(A, np.ones(N), 3, 1e-3).gradient(), ValueError, "b must be sparse for a gradient"),
        (lambda e, A: local.hvp(local.entry(A, np.ones(N), 3, 1e-3), A), ValueError, "b must be sparse"),
        (lambda e, A: local.hvp(1.0, A), TypeError, "estimate must be an Estimate"),
        (lambda e, A: local.functional(A, B, T, 1e-3, gradient_atol=-1), ValueError, "gradient_atol"),
        (lambda e, A: e.gradient().directional(np.ones(4)), ValueError, "dA must be a scipy.sparse matrix on the"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, message):
    A = band(N)
    est = local.functional(A, B, T, 1e-3)
    with pytest.raises(error, match=message) as caught:
        call(est, A)
    assert "\n" not in str(caught.value)


def test_values_that_cannot_be_written_are_refused():
    A = band(N)
    A.data.flags.writeable = False
    est = local.functional(A, B, T, 1e-3)
    with pytest.raises(ValueError, match="which are read only"):
        est.update(dA=([0], [0.1]))


def test_folders_are_updated_and_differentiated(tmp_path):
    A = band(N)
    local.save(tmp_path / "A", A)
    folder = local.open(tmp_path / "A", "r+")
    est = local.functional(folder, B, T, 1e-9, gradient_atol=1e-9)
    np.testing.assert_allclose(full(est.gradient().A, A.nnz), dense_gradient(A, b, t)[2], atol=1e-8)
    place = int(np.flatnonzero((A.nonzero()[0] == 7) & (A.nonzero()[1] == 7))[0])
    new = est.update(dA=([place], [0.25 * np.sign(A.data[place])]))
    assert folder.data[place] == A.data[place] + 0.25 * np.sign(A.data[place])
    M = sp.csr_array((np.array(folder.data), folder.indices, folder.indptr), shape=A.shape).toarray()
    assert abs(new.value - t @ np.linalg.solve(M, b)) <= new.bound + 1e-15
    with pytest.raises(ValueError, match="which are read only"):
        local.functional(local.open(tmp_path / "A"), B, T, 1e-9).update(dA=([place], [0.1]))
    symmetric = (A + A.T + sp.diags_array(np.full(N, 60.0))).tocsr()
    local.save(tmp_path / "S", symmetric, symmetric=True)
    est = local.functional(local.open(tmp_path / "S", "c"), B, T, 1e-9)
    with pytest.raises(ValueError, match="dA must be symmetric, as A was saved with symmetric=True"):
        est.update(dA=sp.coo_array(([0.1], ([3], [4])), shape=A.shape))
    new = est.update(dA=sp.coo_array(([0.1, 0.1], ([3, 4], [4, 3])), shape=A.shape))
    dense = symmetric.toarray()
    dense[3, 4] += 0.1
    dense[4, 3] += 0.1
    assert abs(new.value - t @ np.linalg.solve(dense, b)) <= new.bound + 1e-15


def test_sides_go_back_to_the_pool(monkeypatch):
    made, Side = [], _kernels.LocalSide
    monkeypatch.setattr(_kernels, "LocalSide", lambda n: made.append(n) or Side(n))
    D = local.DiagonallyDominant(band(N))
    for k in range(200):
        g = local.functional(D, ([k % N], [1.0]), T, 1e-3).gradient()
        local.solve(D, B, 1e-3).vjp(T)
    gc.collect()
    assert len(made) <= 6 and g.A.bound > 0  # the gradient holds no side


def test_one_thread_at_a_time_works_with_a_query():
    A = band(3000, gap=0.02)
    est = local.functional(A, B, T, 1e-2, fallback=None)
    found, errors = [], []

    def work(k):
        try:
            found.append(est.refine(10.0 ** -(3 + k)) if k % 2 else est.gradient())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(found) == 6
    want = spread(T, 3000) @ bs.solve(A, spread(B, 3000))
    assert all(abs(e.value - want) <= e.bound + 1e-14 for e in found if isinstance(e, local.Estimate))


def test_bounds_of_gradients_are_those_of_the_values_as_they_are():
    """Nobody tells that an array of NumPy has changed: what was pushed for the old values is judged by the new ones."""
    A = band(N, gap=0.05)
    est = local.functional(A, B, T, 1e-7)
    before = est.gradient()
    A.data *= np.where(A.data == A.diagonal()[A.nonzero()[0]], 1.0, 0.1)
    after = est.gradient()
    truth = dense_gradient(A, b, t)[2]
    rows, columns = A.nonzero()
    assert np.all(np.abs(full(after.A, A.nnz) - truth) <= after.A.bound_at(rows, columns) + slack(N))
    assert np.any(np.abs(before.A.values - truth[before.A.places]) > before.A.bounds)
