"""Batches: items side by side are items alone, one that fails disturbs none, and no factors are held in vain."""

import logging
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve.full import Full
from backsolve.methods import KLU, METHODS, lapack
from backsolve.methods.lanes import by_item, in_lanes

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]


def grid(m=7):
    """A convection-diffusion matrix on m x m points."""
    line = sp.diags_array([-1.4, 2.5, -0.6], offsets=[-1, 0, 1], shape=(m, m))
    A = sp.csr_array(sp.kronsum(line, line))
    A.sort_indices()
    return A


def random(*shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(shape)
    return (v + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else v).astype(dtype)


def batch(items, dtype=np.float64, A=None):
    """Matrices near `grid`, on one pattern."""
    A = grid() if A is None else A
    return bs.CSR((A.data * (1 + 0.1 * random(items, A.nnz, dtype=dtype))).astype(dtype), A.indices, A.indptr, A.shape)


def singular(A, item):
    """The same batch with a row of zeros in one item."""
    data = A.data.copy()
    data[item, A.structure.indptr[5] : A.structure.indptr[6]] = 0
    return A.with_data(data)


@pytest.mark.engine("klu")
@pytest.mark.parametrize("k", [1, 3, 13])
@pytest.mark.parametrize("dtype", DTYPES)
def test_items_side_by_side_are_equal_to_items_alone(dtype, k):
    A = batch(7, dtype)  # a group of four, and three for themselves
    b = random(7, A.shape[0], k, dtype=dtype)
    together = KLU().prepare(A).factors
    for adjoint in (False, True):
        x = together.solve(b, adjoint)
        for item in range(7):
            alone = KLU().prepare(A.on(A.data[item : item + 1])).factors
            assert np.array_equal(alone.solve(b[item : item + 1], adjoint)[0], x[item])


@pytest.mark.engine("klu")
@pytest.mark.parametrize("item", range(6))
def test_a_singular_item_in_any_lane_disturbs_no_other(item):
    A, b = batch(6), random(6, 49, 1)
    whole = bs.solve(A, b, method="klu")
    sol = bs.solve_with_info(singular(A, item), b, method="klu", on_failure="return")
    others = [i for i in range(6) if i != item]
    assert (sol.status[others] > 0).all() and sol.status[item] == bs.Status.SINGULAR
    assert np.isnan(sol.x[item]).all() and np.array_equal(sol.x[others], whole[others])


@pytest.mark.parametrize("method", ["superlu", pytest.param("pardiso", marks=pytest.mark.engine("pardiso")), "lu"])
def test_a_singular_item_disturbs_no_other(method):
    A, b = batch(6), random(6, 49, 1)
    bad, good = singular(A, 2), A
    if method == "lu":
        bad, good = bs.Dense(bad.toarray()), bs.Dense(A.toarray())
    whole = bs.solve(good, b, method=method)
    sol = bs.solve_with_info(bad, b, method=method, on_failure="return")
    others = [0, 1, 3, 4, 5]
    assert (sol.status[others] > 0).all() and sol.status[2] == bs.Status.SINGULAR
    assert np.isnan(sol.x[2]).all() and np.allclose(sol.x[others], whole[others], rtol=1e-11, atol=1e-13)


def test_an_indefinite_item_disturbs_no_other():
    G = random(5, 20, 20)
    A, b = G @ G.transpose(0, 2, 1) + np.eye(20), random(5, 20, 1)
    whole = bs.solve(A, b, assume="spd")
    A[3] -= 100 * np.eye(20)
    sol = bs.solve_with_info(A, b, assume="spd", on_failure="return")
    assert sol.status.tolist() == [2 if s > 0 else s for s in sol.status] or (sol.status[[0, 1, 2, 4]] > 0).all()
    assert sol.status[3] == bs.Status.INDEFINITE and np.array_equal(sol.x[[0, 1, 2, 4]], whole[[0, 1, 2, 4]])


@pytest.mark.parametrize("items", [0, 1, 3, 4, 11])
def test_lanes_and_items_are_inverse(items):
    numbers = random(items, 5)
    assert np.array_equal(by_item(in_lanes(numbers)), numbers)
    assert items < 4 or np.array_equal(in_lanes(numbers)[:4].ravel()[:4], numbers[:4, 0])


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 8, 21])
def test_the_dense_residual_is_that_of_the_namespace(n, dtype, adjoint):
    A, x, b = (random(3, *shape, dtype=dtype, seed=n) for shape in ((n, n), (n, 2), (n, 2)))
    A[1], b[1] = 0, 0
    full = Full((n, n), lapack)
    r, norms = full.residual(A, x, b, adjoint)
    want_r, want = full._residual(A, x, b, adjoint)
    eps = np.finfo(dtype).eps
    assert r.dtype == dtype and np.abs(r - want_r).max() <= 10 * n * eps * max(np.abs(want_r).max(), 1)
    assert np.allclose(norms, want, rtol=1e-10 * n, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 4])
def test_dense_factors_solve_with_a_and_with_its_adjoint(dtype, k):
    G, b = random(3, 13, 13, dtype=dtype), random(3, 13, k, dtype=dtype)
    H = G @ G.conj().swapaxes(1, 2) + 13 * np.eye(13, dtype=dtype)
    tolerance = 1e3 * np.finfo(dtype).eps
    lu, pivots, info = lapack.lu_factor(G)
    assert not info.any()
    for adjoint, M in ((False, G), (True, G.conj().swapaxes(1, 2))):
        x = lapack.lu_solve(lu, pivots, b, adjoint)
        assert np.abs(M @ x - b).max() <= tolerance * (np.abs(M).sum(-1).max() * np.abs(x).max() + np.abs(b).max())
    H[:, 0, 5] = 7  # of the upper triangle nothing is read
    factor, info = lapack.cholesky(H)
    H[:, 0, 5] = H[:, 5, 0].conj()
    x = lapack.cholesky_solve(factor, b)
    assert not info.any()
    assert np.abs(H @ x - b).max() <= tolerance * (np.abs(H).sum(-1).max() * np.abs(x).max() + np.abs(b).max())


# -- how many factors are held -------------------------------------------------------------------------------------


ENGINES = ["superlu", *(pytest.param(name, marks=pytest.mark.engine(name)) for name in ("klu", "pardiso"))]


def watched(monkeypatch, method):
    """(items, factorizations still alive) for each call of `prepare`."""
    calls, alive, prepare = [], weakref.WeakSet(), METHODS[method].prepare

    def noted(self, A):
        calls.append((len(A.data), len(alive)))
        state = prepare(self, A)
        alive.add(state)
        return state

    monkeypatch.setattr(METHODS[method], "prepare", noted)
    return calls


@pytest.mark.parametrize("method", ENGINES)
def test_without_a_gradient_the_factors_of_one_block_are_held(monkeypatch, method):
    S = grid(40)
    A, b = batch(70, A=S), random(70, S.shape[0], 1)
    calls = watched(monkeypatch, method)
    x = bs.solve(A, b, method=method)
    block = max(METHODS[method].together, 50_000 // S.nnz)
    assert [items for items, _ in calls] == [min(block, 70 - first) for first in range(0, 70, block)]
    assert all(held == 0 for _, held in calls)
    data, right = torch.from_numpy(A.data), torch.from_numpy(b)
    del calls[:]
    assert torch.equal(bs.solve(A.with_data(data), right, method=method), torch.from_numpy(x))
    assert len(calls) > 1


@pytest.mark.parametrize("method", ENGINES)
def test_with_a_gradient_all_are_held_and_made_once(monkeypatch, method):
    S = grid(40)
    A, b = batch(40, A=S), torch.from_numpy(random(40, S.shape[0], 1))
    data = torch.from_numpy(A.data).requires_grad_()
    calls = watched(monkeypatch, method)
    x = bs.solve(A.with_data(data), b, method=method)
    x.sum().backward()
    assert calls == [(40, 0)]
    del calls[:]
    assert np.allclose(bs.solve(A, b.numpy(), method=method), x.detach().numpy(), rtol=1e-12, atol=1e-12)
    _, pullback = bs.vjp(A, b.numpy(), method=method)
    del calls[:]
    assert np.allclose(pullback(np.ones(b.shape))[0], data.grad.numpy(), rtol=1e-9, atol=1e-9) and calls == []


@pytest.mark.parametrize("method", ENGINES)
def test_blocks_are_numbered_and_judged_as_the_batch_is(method):
    S = grid(40)
    A, b = batch(40, A=S), random(40, S.shape[0], 1)
    data = A.data.copy()
    data[37, 5] = np.nan
    data[9, S.indptr[3] : S.indptr[4]] = 0
    sol = bs.solve_with_info(A.with_data(data), b, method=method, on_failure="return")
    failed = np.flatnonzero(sol.status <= 0).tolist()
    assert failed == [9, 37] and sol.status[9] == bs.Status.SINGULAR and sol.status[37] == bs.Status.NONFINITE
    assert "of system 37" in sol.message and "(1 of 40 systems, first 9)" in sol.message
    assert sol.stats.factorizations.shape == (40,)
    b[21, 4] = np.inf
    told = bs.solve_with_info(A, b, method=method, on_failure="return")
    assert np.flatnonzero(told.status <= 0).tolist() == [21] and "right-hand side has inf in row 4" in told.message
    assert "of system 21" in told.message


# -- what "auto" may iterate with ----------------------------------------------------------------------------------


def cube(m=16):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))
    A = sp.csr_array(sp.kronsum(sp.kronsum(line, line), line))
    A.sort_indices()
    return A


def test_definite_meshes_in_space_are_iterated_with_and_nothing_else_is():
    A, n = cube(20), 8_000
    sol = bs.solve_with_info(A, random(n), assume="spd")
    assert isinstance(sol.method, bs.CG) and sol.converged and sol.stats.iterations > 0
    assert float(sol.stats.relative_residual) <= 1e-10
    assert "fills in as space does" in bs.explain(A, assume="spd") and "does not converge" in bs.explain(
        A, assume="spd"
    )
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(100, 100))
    plane, nine = (
        sp.csr_array(sp.kronsum(line, line)),
        sp.diags_array([1.0, 4.0, 1.0], offsets=[-1, 0, 1], shape=(100, 100)),
    )
    nine = sp.csr_array(sp.kron(nine, nine))  # rows of nine entries, but in the plane
    for other, assume in ((A, "general"), (A, "sym"), (plane, "spd"), (nine, "spd"), (cube(8), "spd")):
        assert isinstance(
            bs.solve_with_info(other, np.ones(other.shape[0]), assume=assume).method, bs.SuperLU | bs.Pardiso | KLU
        )
    for b in (random(n, 20), random(n).astype(np.float32)):
        values = A if b.dtype == float else A.astype(np.float32)
        assert not isinstance(bs.solve_with_info(values, b, assume="spd").method, bs.CG)
    F = bs.factorize(A, assume="spd")
    assert not isinstance(F.solve_with_info(random(n)).method, bs.CG)
    assert np.isfinite(bs.slogdet(bs.aslinearoperator(cube(16)).assume("spd"))[1])


def test_a_target_of_the_call_replaces_that_of_the_choice():
    A, b = cube(20), random(8_000)
    loose, usual = (bs.solve_with_info(A, b, assume="spd", **target) for target in ({"rtol": 1e-4}, {}))
    assert loose.stats.iterations < usual.stats.iterations and float(loose.stats.relative_residual) <= 1e-4


def test_gradients_through_the_choice():
    A = cube(20)
    data = torch.from_numpy(A.data).requires_grad_()
    b = torch.from_numpy(random(8_000))
    sol = bs.solve_with_info(bs.CSR(data, A.indices, A.indptr, A.shape), b, assume="spd")
    sol.x.square().sum().backward()
    want = torch.from_numpy(A.data).requires_grad_()
    bs.solve(bs.CSR(want, A.indices, A.indptr, A.shape), b, method="superlu").square().sum().backward()
    assert isinstance(sol.adjoint.method, bs.CG) and sol.adjoint.converged
    assert (data.grad - want.grad).norm() <= 1e-7 * want.grad.norm()


def test_what_does_not_converge_is_solved_directly_and_said(caplog):
    A = cube(20)
    d = np.logspace(-7, 7, 8_000)[np.random.default_rng(0).permutation(8_000)]
    S = sp.csr_array(sp.diags_array(d) @ (A - 0.06 * sp.eye_array(8_000)) @ sp.diags_array(d))  # nearly singular
    S.sort_indices()
    data, b = torch.from_numpy(S.data).requires_grad_(), torch.from_numpy(random(8_000))
    with caplog.at_level(logging.WARNING, "backsolve"):
        sol = bs.solve_with_info(bs.CSR(data, S.indices, S.indptr, S.shape), b, assume="spd")
    assert sol.converged and not isinstance(sol.method, bs.CG)
    assert "solved by" in caplog.text and "name a method" in caplog.text
    sol.x.sum().backward()
    assert sol.adjoint.converged and not isinstance(sol.adjoint.method, bs.CG)


def test_a_pattern_remembers_that_iterating_failed(caplog):
    A = cube(24)
    hard = bs.aslinearoperator(sp.csr_array(A - 1.3 * sp.eye_array(24**3)))  # indefinite, as in acoustics
    b = random(24**3)
    with caplog.at_level(logging.WARNING, "backsolve"):
        first = bs.solve_with_info(hard, b)
        assert caplog.text.count("solved by") == 1
        again = bs.solve_with_info(hard.with_data(1.1 * hard.data), b)
    assert caplog.text.count("solved by") == 1
    for sol in (first, again):
        assert sol.status == bs.Status.CONVERGED_BACKWARD and not isinstance(sol.method, bs.BiCGStab)
    assert "bicgstab" not in bs.explain(hard).lower()


def test_general_meshes_in_space_are_iterated_with_to_the_residual_of_factors():
    A = cube(24)
    wind = sp.diags_array([-0.3, 0.3], offsets=[-1, 1], shape=A.shape)
    A = sp.csr_array(A + wind.multiply(A != 0))
    data, b = torch.from_numpy(A.data).requires_grad_(), torch.from_numpy(random(24**3))
    sol = bs.solve_with_info(bs.CSR(data, A.indices, A.indptr, A.shape), b)
    assert isinstance(sol.method, bs.BiCGStab) and sol.converged and float(sol.stats.relative_residual) <= 1e-12
    sol.x.square().sum().backward()
    assert isinstance(sol.adjoint.method, bs.BiCGStab) and sol.adjoint.converged
    want = torch.from_numpy(A.data).requires_grad_()
    bs.solve(bs.CSR(want, A.indices, A.indptr, A.shape), b, method="pardiso").square().sum().backward()
    assert (data.grad - want.grad).norm() <= 1e-10 * want.grad.norm()
    small, askew = cube(20), sp.csr_array(A + sp.eye_array(24**3, k=5))
    for other in (small, askew):
        assert not isinstance(bs.solve_with_info(other, np.ones(other.shape[0])).method, bs.BiCGStab)


def test_a_false_declaration_is_told_as_by_direct_methods():
    A = sp.csr_array(cube(20) - 3 * sp.eye_array(8_000))
    sol = bs.solve_with_info(A, random(8_000), assume="spd", on_failure="return")
    assert sol.status == bs.Status.INDEFINITE and np.isnan(sol.x).all() == np.isnan(sol.x).any()
