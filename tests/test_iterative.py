"""The iterative methods: what they promise about residuals, batches, adjoints, derivatives and counts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import hessian, vmap

import backsolve as bs
from backsolve import gallery
from backsolve.methods import METHODS
from backsolve.methods.iterative import IterativeMethod

NAMES = [name for name, method in METHODS.items() if issubclass(method, IterativeMethod)]
FREE = [name for name in NAMES if METHODS[name]().M is None]  # the others are made of the entries of A
HERMITIAN = {name for name in NAMES if METHODS[name].requires & {"positive_definite", "hermitian"}}
DTYPES = ["float32", "float64", "complex64", "complex128"]


def skewed(n, dtype="float64", seed=0, shift=4.0):
    """Strongly non-symmetric: a solve with A in place of Aᴴ is far off."""
    rng = np.random.default_rng(seed)
    A = np.triu(rng.standard_normal((n, n)), 1) / np.sqrt(n)
    if np.dtype(dtype).kind == "c":
        A = A + 1j * np.triu(rng.standard_normal((n, n)), 1) / np.sqrt(n)
    return (A + shift * np.eye(n) + 0.1 * np.tril(rng.standard_normal((n, n)), -1)).astype(dtype)


def definite(n, dtype="float64", seed=0):
    G = skewed(n, dtype, seed)
    return ((G @ G.conj().T) / 8).astype(dtype)


def matrix_for(name, n, dtype="float64", seed=0):
    """A matrix of the kind that the method is for."""
    wanted = METHODS[name].requires
    if name in HERMITIAN:
        return definite(n, dtype, seed)
    if "near_identity" in wanted:
        return (np.eye(n) + 0.1 * (skewed(n, dtype, seed, shift=0.0))).astype(dtype)
    return skewed(n, dtype, seed, shift=6.0 if wanted else 4.0)


def numbers(shape, dtype="float64", seed=1):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(shape)
    return (b + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else b).astype(dtype)


def as_operator(dense, kind):
    if kind == "dense":
        return bs.Dense(dense)
    rows, cols = np.indices(dense.shape[-2:]).reshape(2, -1)
    return bs.coo(dense.reshape(*dense.shape[:-2], -1), (rows, cols), dense.shape[-2:])


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_both_systems_reach_their_own_targets(name, dtype, kind):
    dense, b = matrix_for(name, 20, dtype), numbers((20, 3), dtype)
    single = np.finfo(dtype).eps > 1e-10
    loose, tight = (1e-2, 1e-4) if single else (1e-3, 1e-11)
    F = bs.factorize(as_operator(dense, kind), method=name, rtol=loose, adjoint=bs.Adjoint(rtol=tight))
    forward, backward = F.solve_with_info(b), F.adjoint.solve_with_info(b)
    for sol, A, rtol in ((forward, dense, loose), (backward, dense.conj().T, loose)):
        assert sol.x.dtype == b.dtype and sol.converged and int(sol.status) == bs.Status.CONVERGED_RESIDUAL
        residual = np.linalg.norm(A.astype("complex128") @ sol.x - b, axis=0)
        assert (residual <= rtol * np.linalg.norm(b, axis=0) * (1 + 1e-3)).all()
    sol, pull = bs.vjp(as_operator(dense, kind), b, method=name, rtol=loose, adjoint=bs.Adjoint(rtol=tight))
    adjoint = pull(b)[2]
    assert int(adjoint.stats.iterations) > int(sol.stats.iterations)
    residual = np.linalg.norm(dense.conj().T.astype("complex128") @ adjoint.x - b, axis=0)
    assert (residual <= tight * np.linalg.norm(b, axis=0) * (1 + 1e-2)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_adjoint_is_that_of_a_strongly_nonsymmetric_matrix(name):
    dense = matrix_for(name, 12, "complex128" if name in HERMITIAN else "float64")
    wrong = dense.T if name in HERMITIAN else dense  # of a Hermitian A the adjoint is A, the transpose is not
    g = numbers(12, dense.dtype)
    lam = bs.factorize(bs.Dense(dense), method=name, rtol=1e-12).adjoint.solve(g)
    truth, mistaken = np.linalg.solve(dense.conj().T, g), np.linalg.solve(wrong, g)
    assert np.linalg.norm(mistaken - truth) > 0.05 * np.linalg.norm(truth)
    np.testing.assert_allclose(lam, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_torch_make_the_same_iterations(name, kind):
    dense, b = matrix_for(name, 40), numbers(40)
    one = bs.solve_with_info(as_operator(dense, kind), b, method=name)
    two = bs.solve_with_info(as_operator(torch.from_numpy(dense), kind), torch.from_numpy(b), method=name)
    counts = [int(one.stats.iterations), int(two.stats.iterations)]
    if name in FREE:
        A = bs.MatrixFree(lambda M, v: M @ v, torch.from_numpy(dense), (40, 40))
        counts.append(int(bs.solve_with_info(A, torch.from_numpy(b), method=name).stats.iterations))
    assert min(counts) == max(counts) > 3


def test_as_many_iterations_as_scipy_needs():
    problem = gallery.problem("poisson2d", 900)
    A = sp.csr_array(sp.coo_array((problem.A.data, (problem.rows, problem.cols)), problem.A.shape))
    made = []
    _, info = sla.cg(A, problem.b, rtol=1e-8, callback=lambda _: made.append(1))
    sol = bs.solve_with_info(problem.A, problem.b, method="cg")
    assert info == 0 and abs(int(sol.stats.iterations) - len(made)) <= 1


@pytest.mark.parametrize("name", FREE)
def test_products_are_counted(name):
    made = []
    method = bs.Chebyshev(bounds=(0.5, 6.0)) if name == "chebyshev" else METHODS[name]()
    dense = torch.from_numpy(matrix_for(name, 15))
    given = (lambda M, g: (made.append(1), M.mT @ g)[1]) if method.two_sided else None
    A = bs.MatrixFree(lambda M, v: (made.append(1), M @ v)[1], dense, (15, 15), adjoint=given)
    with torch.no_grad():
        sol = bs.solve_with_info(A, torch.from_numpy(numbers(15)), method=method)
    once = 2 + method.products_at_start
    made = made[2:] if given else made  # the dot test of the adjoint that is given
    assert len(made) == int(sol.stats.matvecs) == method.products * int(sol.stats.iterations) + once


# -- batches and columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_every_system_of_a_batch_runs_for_itself(name, kind):
    dense = np.stack([matrix_for(name, 16, seed=s) for s in range(3)])
    dense[1] = np.eye(16) + (dense[1] - np.eye(16)) / 30  # converges much sooner
    b = numbers((3, 16, 2))
    b[0, :, 1] = 0
    batch = bs.solve_with_info(as_operator(dense, kind), b, method=name, rtol=1e-10)
    counts = []
    for item in range(3):
        alone = bs.solve_with_info(as_operator(dense[item], kind), b[item], method=name, rtol=1e-10)
        counts.append(int(alone.stats.iterations))
        np.testing.assert_allclose(batch.x[item], alone.x, rtol=1e-9, atol=1e-12)
    assert batch.stats.iterations.tolist() == counts and counts[1] < min(counts[0], counts[2])
    assert (batch.x[0, :, 1] == 0).all() and batch.converged


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_one_bad_system_does_not_disturb_the_others(name, framework):
    dense = np.stack([matrix_for(name, 10, seed=s) for s in range(4)])
    dense[1] = np.ones((10, 10))  # singular
    dense[2, 3, 4] = np.nan
    b = numbers((4, 10))[..., None]
    wrap = torch.from_numpy if framework == "torch" else np.asarray
    sol = bs.solve_with_info(bs.Dense(wrap(dense)), wrap(b), method=name, on_failure="return")
    statuses = [bs.Status(int(s)) for s in sol.status]
    assert statuses[0] > 0 and statuses[3] > 0 and statuses[1] < 0 and statuses[2] is bs.Status.NONFINITE
    for good in (0, 3):
        np.testing.assert_allclose(dense[good] @ np.asarray(sol.x[good]), b[good], rtol=1e-5, atol=1e-6)
    x = bs.solve(bs.Dense(wrap(dense)), wrap(b), method=name, on_failure="return")
    assert np.isnan(np.asarray(x[[1, 2]])).all() and not np.isnan(np.asarray(x[[0, 3]])).any()


# -- honesty ----------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 12),
    name=st.sampled_from(NAMES),
    kind=st.sampled_from(["general", "symmetric", "definite", "singular", "skew"]),
    dtype=st.sampled_from(DTYPES),
    adjoint=st.booleans(),
)
def test_nothing_converged_misses_its_target(n, seed, spread, name, kind, dtype, adjoint):
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if np.dtype(dtype).kind == "c" else 0)
    scale = 10.0 ** (-spread * rng.random(n) / 2)
    G = scale[:, None] * G
    dense = {
        "general": lambda: G,
        "symmetric": lambda: G + G.conj().T,
        "definite": lambda: G @ G.conj().T,
        "singular": lambda: G[:, :1] @ G[:, :1].conj().T,
        "skew": lambda: G - G.conj().T,
    }[kind]().astype(dtype)
    b = numbers(n, dtype, seed)
    F = bs.factorize(bs.Dense(dense), method=name, on_failure="return")
    sol = (F.adjoint if adjoint else F).solve_with_info(b)
    if sol.converged:
        A = (dense.conj().T if adjoint else dense).astype("complex128")
        rtol = 1e-5 if np.finfo(dtype).eps > 1e-10 else 1e-8
        rounding = 2 * np.finfo("float64").eps * n * np.linalg.norm(np.abs(A) @ np.abs(sol.x))
        assert np.linalg.norm(A @ sol.x - b) <= rtol * np.linalg.norm(b) * (1 + 1e-6) + rounding
    else:
        assert int(sol.status) < 0 and bs.Status(int(sol.status)).advice in sol.message


def test_a_drifting_residual_is_found_out_and_replaced():
    """In float32 the recursive residual of CG falls below what the true one can reach."""
    n = 60
    values = np.logspace(0, 5, n)
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    dense = ((Q * values) @ Q.T).astype("float32")
    b = numbers(n, "float32")
    for rtol in (1e-3, 1e-7):
        sol = bs.solve_with_info(bs.Dense(dense), b, method=bs.CG(maxiter=5000), rtol=rtol, on_failure="return")
        true = np.linalg.norm(dense.astype("float64") @ sol.x - b) / np.linalg.norm(b)
        assert float(sol.stats.relative_residual) == pytest.approx(true, rel=1e-3)
        assert sol.converged == (true <= rtol)
    assert bs.Status(int(sol.status)) is bs.Status.STAGNATION
    # a textbook loop in the same precision believes itself
    x, r = np.zeros_like(b), b.copy()
    p, rr = r.copy(), r @ r
    for _ in range(5000):
        Ap = dense @ p
        alpha = rr / (p @ Ap)
        x, r = x + alpha * p, r - alpha * Ap
        rr, old = r @ r, rr
        p = r + rr / old * p
        if np.sqrt(rr) <= 1e-7 * np.linalg.norm(b):
            break
    assert np.sqrt(rr) <= 1e-7 * np.linalg.norm(b) < np.linalg.norm(dense.astype("float64") @ x - b)


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-13, 1e-3, 1e13, 1e30])
@pytest.mark.parametrize("name", NAMES)
def test_tiny_and_huge_right_hand_sides_and_cotangents_in_single_precision(name, size):
    dense = torch.from_numpy(matrix_for(name, 12, "float32")).requires_grad_()
    b = torch.from_numpy(numbers(12, "float32"))
    truth = torch.linalg.solve(dense.detach().double(), b.double())
    x = bs.solve(dense, size * b.double().float() if size > 1e-38 else b * size, method=name)
    if size > 1e-38:  # below, b itself is rounded to a few bits
        torch.testing.assert_close(x.double() / size, truth, rtol=1e-3, atol=1e-3 * float(truth.abs().max()))
    x = bs.solve(dense, b, method=name, rtol=1e-6)
    if 1e-30 <= size <= 1e13:
        (bar,) = torch.autograd.grad(x, dense, torch.full_like(x, size))
        expected = -torch.outer(torch.linalg.solve(dense.detach().double().mT, torch.ones(12).double()), truth)
        torch.testing.assert_close(bar.double() / size, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_best_iterate_and_maxiter(name):
    problem = gallery.problem("poisson2d", 400)
    few = bs.solve_with_info(problem.A, problem.b, method=METHODS[name](maxiter=5), on_failure="return")
    assert bs.Status(int(few.status)) is bs.Status.MAXITER and int(few.stats.iterations) == 5
    assert float(few.stats.relative_residual) <= 1.0 and np.isfinite(few.x).all()
    with pytest.warns(bs.SolveWarning, match="MAXITER"):
        x = bs.solve(problem.A, problem.b, method=METHODS[name](maxiter=5), on_failure="warn")
    assert np.isnan(x).all()


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_empty(name):
    for n, k in ((4, 0), (0, 2), (1, 1)):
        A = bs.Dense(np.eye(n))
        assert bs.solve(A, np.ones((n, k)), method=name).shape == (n, k)
    sol = bs.solve_with_info(bs.Dense(definite(5)), np.zeros(5), method=name, rtol=0.0)
    assert sol.converged and (sol.x == 0).all() and int(sol.stats.iterations) == 0


def test_absolute_tolerance_and_options():
    A, b = bs.Dense(definite(20)), numbers(20)
    sol = bs.solve_with_info(A, 100 * b, method="cg", atol=1e-3)
    assert 1e-6 < float(sol.stats.residual_norm) <= 1e-3
    both = bs.solve_with_info(A, 100 * b, method="cg", atol=1e-3, rtol=0.1)
    assert int(both.stats.iterations) < int(sol.stats.iterations)
    for bad in (0, -1, 2.0, True, "many"):
        with pytest.raises(ValueError, match=r"CG: maxiter must be an integer of at least 1; got"):
            bs.CG(maxiter=bad)
    with pytest.raises(ValueError, match=r"BiCGStab: rtol must be a float in \[0, 1\); got -1"):
        bs.BiCGStab(rtol=-1)
    with pytest.raises(TypeError, match="rtol was given twice"):
        bs.solve(A, b, method=bs.CG(rtol=1e-3), rtol=1e-4)
    assert str(bs.CG(maxiter=7)) == "CG(maxiter=7)"
    assert f"by CG(), {int(sol.stats.iterations)} iterations" in repr(sol)
    assert bs.explain(A, method="cg").startswith("cg, as named. conjugate gradients")


# -- derivatives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        *((name, *each) for name in NAMES for each in ((torch.complex128, "csr"), (torch.float64, "dense"))),
        ("cg", torch.complex128, "dense"),
        ("bicgstab", torch.complex128, "dense"),
    ],
)
def test_gradients_of_every_order(name, dtype, kind):
    n = 3
    dense = torch.from_numpy(matrix_for(name, n, str(dtype).removeprefix("torch.")))
    b = torch.from_numpy(numbers(n, str(dtype).removeprefix("torch.")))

    def f(M, b):
        M = (M + M.mH) / 2 if name in HERMITIAN else M
        return bs.solve(as_operator(M, kind), b, method=name, rtol=1e-14, atol=1e-14)

    args = dense.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(f, args, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, args, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_hessian_and_vmap_against_dense(name):
    M, b = torch.from_numpy(matrix_for(name, 5)), torch.from_numpy(numbers((3, 5)))
    sym = (lambda M: (M + M.mT) / 2) if name in HERMITIAN else (lambda M: M)
    ours = lambda M, b: bs.solve(bs.Dense(sym(M)), b, method=name, rtol=1e-13)  # noqa: E731
    truth = lambda M, b: torch.linalg.solve(sym(M), b)  # noqa: E731
    h = [hessian(lambda M, f=f: f(M, b[0]).square().sum())(M) for f in (ours, truth)]
    torch.testing.assert_close(*h, rtol=1e-9, atol=1e-9)
    many = torch.stack([M, 1.2 * M, (M + torch.eye(5)) / 2])
    for axes in ((None, 0), (0, None), (0, 0)):
        args = (many if axes[0] == 0 else M, b if axes[1] == 0 else b[0])
        torch.testing.assert_close(vmap(ours, axes)(*args), vmap(truth, axes)(*args), rtol=1e-9, atol=1e-9)


def test_backward_is_judged_by_itself():
    problem = gallery.problem("poisson2d", 400)
    w, b = torch.from_numpy(problem.A.data).requires_grad_(), torch.from_numpy(problem.b)
    sol = bs.solve_with_info(problem.A.with_data(w), b, method="cg", rtol=1e-4, adjoint=bs.Adjoint(rtol=1e-12))
    sol.x.square().sum().backward()
    assert sol.adjoint.converged and int(sol.adjoint.stats.iterations) > int(sol.stats.iterations)
    assert float(sol.adjoint.stats.relative_residual) <= 1e-12 < float(sol.stats.relative_residual)
    x = bs.solve(problem.A.with_data(w), b, method=bs.CG(maxiter=60), rtol=1e-4, adjoint=bs.Adjoint(rtol=1e-12))
    with pytest.raises(bs.SolveError, match=r"the adjoint \(backward\) solve failed: MAXITER"):
        x.square().sum().backward()


def test_gradients_reach_the_network_through_an_iterative_solve_in_training():
    problem = gallery.problem("diffusion", 100)
    A, b = problem.A, torch.from_numpy(problem.b)
    k = torch.full((100,), 0.3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        target = bs.solve(A.with_data(torch.from_numpy(A.data)), b, rtol=1e-10)
    step = torch.optim.Adam([k], lr=0.05)
    losses = []
    for _ in range(15):
        step.zero_grad()
        x = bs.solve(A.with_data(torch.from_numpy(A.data)).scale(rows=torch.exp(k)), b, method="bicgstab", rtol=1e-9)
        loss = (x - target).square().sum()
        loss.backward()
        step.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


# -- what is made once, and what is kept -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_the_adjoint_are_brought_in_order_once_for_the_same_bits(dtype):
    rng = np.random.default_rng(0)
    S = sp.random_array((40, 30), density=0.2, rng=rng, format="csr")
    pattern = bs.CSR(S.data, S.indices, S.indptr, S.shape).structure
    data, x = numbers((3, pattern.nnz), dtype), numbers((3, 40, 5), dtype)
    apply, found = pattern.product(data, True), []
    for _ in range(12):
        found.append(apply(x))
    assert all((y == pattern.matvec(data, x, True)).all() for y in found)
    data[:] = 0  # the ninth product has made a copy, which those before did not need
    assert (apply(x) == found[0]).all() and not pattern.product(data, True)(x).any()


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_more_directions_make_up_for_a_rough_preconditioner(framework):
    problem = gallery.problem("poisson2d", 400)
    wrap = torch.from_numpy if framework == "torch" else np.asarray
    counts = {}
    for k in (1, 5):
        noise = iter(wrap(np.random.default_rng(0).standard_normal((2000, 400))))
        M = bs.preconditioners.Function(lambda v, noise=noise: v * (1 + 0.3 * next(noise)), varying=True)
        A = bs.Dense(wrap(problem.toarray()))
        sol = bs.solve_with_info(A, wrap(problem.b), method=bs.FCG(directions=k), M=M)
        counts[k] = int(sol.stats.iterations)
    assert counts[5] < 0.6 * counts[1]
    with pytest.raises(ValueError, match="FCG: directions must be an integer of at least 1; got 0"):
        bs.FCG(directions=0)
