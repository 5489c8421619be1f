"""Least squares by the saddle system, and systems that determine x but for a constant."""

from contextlib import nullcontext

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import hessian, jacfwd, jacrev, vmap

import backsolve as bs
from backsolve import gallery

SHAPES = [(9, 4), (4, 9), (5, 5), (7, 1), (1, 3)]


def draw(shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(shape)
    return (v + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else v).astype(dtype)


def truth(A, b, ridge=0.0):
    """By the pseudo-inverse, which torch differentiates."""
    if not isinstance(ridge, torch.Tensor) and ridge == 0:
        return torch.linalg.pinv(A) @ b
    m, n = A.shape
    if m >= n:
        return torch.linalg.solve(A.mH @ A + ridge * torch.eye(n), A.mH @ b)
    return A.mH @ torch.linalg.solve(A @ A.mH + ridge * torch.eye(m), b)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
def test_minimisers_are_numpys(shape, dtype):
    A, b = draw(shape, dtype), draw((shape[0], 2), dtype, 1)
    want = np.linalg.lstsq(A.astype(complex), b)[0]
    level = 100 * np.finfo(dtype).eps * np.linalg.cond(A) * np.abs(want).max()
    for operator in (A, sp.csr_array(A), bs.Dense(A), sp.coo_array(A)):
        x = bs.lstsq(operator, b)
        assert x.dtype == np.dtype(dtype) and x.shape == want.shape
        np.testing.assert_allclose(x, want, atol=level)
    np.testing.assert_allclose(bs.lstsq(A, b[:, 0]), want[:, 0], atol=level)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_of_every_order(shape, ridge):
    A, b = (torch.from_numpy(draw(s, seed=i)).requires_grad_() for i, s in enumerate((shape, (shape[0], 2))))
    f = lambda A, b: bs.lstsq(A, b, ridge=ridge)  # noqa: E731
    assert torch.autograd.gradcheck(f, (A, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (A, b), check_fwd_over_rev=True)
    loss = lambda g: lambda A: g(A, b.detach(), ridge).square().sum()  # noqa: E731
    ours, wants = (hessian(loss(g))(A.detach()) for g in (lambda A, b, r: bs.lstsq(A, b, ridge=r), truth))
    torch.testing.assert_close(ours, wants, rtol=1e-7, atol=1e-7 * float(wants.abs().max()))


def test_the_ridge_has_a_derivative_and_rank_does_not_matter_with_it():
    A, b = torch.from_numpy(draw((6, 3))), torch.from_numpy(draw(6, seed=1))
    ridge = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: bs.lstsq(A, b, ridge=r), (ridge,))
    ones = np.ones((4, 3))
    np.testing.assert_allclose(bs.lstsq(ones, np.arange(4.0), ridge=1e-3), np.full(3, 6 / (12 + 1e-3)), rtol=1e-9)
    with pytest.raises(bs.SolveError, match="lstsq: A is not of full rank, or not to working precision: give a ridge"):
        bs.lstsq(ones, np.arange(4.0))


def test_sparse_gradients_stay_sparse_and_transforms_apply():
    A = sp.random_array((60, 20), density=0.2, rng=np.random.default_rng(0), format="csr") + sp.eye_array(60, 20)
    A = sp.csr_array(A)
    w, b = torch.from_numpy(A.data).requires_grad_(), torch.from_numpy(draw(60))
    op = lambda w: bs.CSR(w, A.indices, A.indptr, A.shape)  # noqa: E731
    (bar,) = torch.autograd.grad(bs.lstsq(op(w), b).square().sum(), w)
    assert bar.shape == w.shape
    dense = torch.from_numpy(A.toarray()).requires_grad_()
    (full,) = torch.autograd.grad(truth(dense, b).square().sum(), dense)
    torch.testing.assert_close(bar, full[sp.coo_array(A).coords], rtol=1e-9, atol=1e-10)
    f = lambda w: bs.lstsq(op(w), b)  # noqa: E731
    torch.testing.assert_close(jacfwd(f)(w.detach()), jacrev(f)(w.detach()), rtol=1e-9, atol=1e-9)
    many = torch.stack([w.detach(), 2 * w.detach()])
    torch.testing.assert_close(vmap(f)(many)[1], f(many[1]), rtol=1e-10, atol=1e-10)
    batch = bs.lstsq(op(many), b)
    torch.testing.assert_close(batch[1], f(many[1]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        bs.lstsq(op(w.detach()), b, method="minres", rtol=1e-13), f(w.detach()), rtol=1e-6, atol=1e-8
    )


@settings(max_examples=80, deadline=None)
@given(m=st.integers(1, 12), n=st.integers(1, 12), seed=st.integers(0, 10**6), spread=st.floats(0, 4))
def test_ill_conditioned_problems_are_solved_as_orthogonal_methods_do(m, n, seed, spread):
    """Residuals orthogonal to the range, minimisers orthogonal to the null space; by Aᴴ A half the digits were lost."""
    rng = np.random.default_rng(seed)
    rank = min(m, n)
    U, V = (np.linalg.qr(rng.standard_normal((k, rank)))[0] for k in (m, n))
    A = (U * np.logspace(0, -spread, rank)) @ V.T
    b = rng.standard_normal(m)
    x, want = bs.lstsq(A, b), np.linalg.lstsq(A, b, rcond=1e-12)[0]
    kappa = 10**spread
    scale = np.linalg.norm(want) + kappa * np.linalg.norm(b - A @ want)
    assert np.linalg.norm(x - want) <= 1e3 * np.finfo(float).eps * kappa * scale + 1e-13


def problem(m, n, kappa, dtype="float64", noise=0.0, seed=0):
    """A of that condition, b, and x in sixty digits."""
    rng, rank = np.random.default_rng(seed), min(m, n)
    U, V = (np.linalg.qr(draw((k, rank), dtype, seed + i))[0] for i, k in enumerate((m, n)))
    A = ((U * np.logspace(0, -np.log10(kappa), rank)) @ V.conj().T).astype(dtype)
    b = (A @ draw(n, dtype, seed + 2) + noise * rng.standard_normal(m)).astype(dtype)
    return A, b, pseudo_inverse(A) @ b.astype(complex)


def pseudo_inverse(A):
    """Of sixty digits, of which Aᴴ A loses none that matter."""
    with mpmath.workdps(60):
        M = mpmath.matrix(A.astype(complex).tolist())
        P = mpmath.inverse(M.H * M) * M.H if M.rows >= M.cols else M.H * mpmath.inverse(M * M.H)
        return np.array(P.tolist(), object)


@pytest.mark.parametrize("units", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("kappa", [1e3, 1e6, 1e9])
def test_errors_are_those_of_orthogonal_methods(kappa, units):
    """At most 100 κ eps for small residuals, which the saddle system has without its α for κ < 1e7 alone."""
    for seed, (m, n) in enumerate([(20, 6), (6, 20), (9, 9)]):
        for dtype in ("float64", "complex128"):
            A, b, _ = problem(m, n, kappa, dtype, seed=seed)
            A = A * units  # rounds
            want = np.array((pseudo_inverse(A) @ b.astype(complex)).tolist(), complex)
            for operator in (A, sp.csr_array(A)):
                error = np.linalg.norm(bs.lstsq(operator, b) - want)
                assert error <= 100 * kappa * np.finfo(float).eps * np.linalg.norm(want)


def test_x_is_right_to_the_last_bit_of_well_conditioned_problems_with_residuals():
    for dtype in ("float64", "complex128", "float32"):
        for m, n in ((20, 6), (6, 20)):
            A, b, want = problem(m, n, 1e3 if dtype == "float32" else 1e6, dtype, noise=1.0)
            want = np.array(want.tolist(), complex)
            assert np.linalg.norm(bs.lstsq(A, b) - want) <= np.sqrt(n) * np.finfo(dtype).eps * np.linalg.norm(want) * 10


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("kappa", [1e13, 1e15, 1e18])
def test_what_cannot_be_solved_is_told(kappa, consistent):
    """Also where b is in the range of A, of which the residual says nothing."""
    for m, n in ((20, 6), (6, 20)):
        A, b, _ = problem(m, n, kappa, noise=0.0 if consistent else 1.0)
        with pytest.raises(
            bs.SolveError, match=r"lstsq: A is (not of full rank|ill-conditioned).*: give a ridge, scale"
        ):
            bs.lstsq(A, b)
        assert np.isnan(bs.lstsq(A, b, on_failure="return")).all()
        good = problem(m, n, 10.0)[0]
        x = bs.lstsq(np.stack([good, A]), b, on_failure="return")
        np.testing.assert_allclose(x[0], np.linalg.lstsq(good, b)[0], rtol=1e-12, atol=1e-13)
        assert np.isnan(x[1]).all()
        assert np.isfinite(bs.lstsq(A, b, ridge=1e-6)).all()


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"])
def test_frameworks_agree_and_refuse_alike(framework):
    module = pytest.importorskip(framework)
    A, b, _ = problem(20, 6, 1e9)
    with module.enable_x64(True) if framework == "jax" else nullcontext():
        array = {"torch": "asarray", "tensorflow": "constant"}.get(framework)
        array = module.numpy.asarray if array is None else getattr(module, array)
        np.testing.assert_allclose(np.asarray(bs.lstsq(array(A), array(b))), bs.lstsq(A, b), rtol=1e-15)
        with pytest.raises(bs.SolveError, match="lstsq: A is "):
            bs.lstsq(array(problem(20, 6, 1e14)[0]), array(b))


def test_compiled_programs_refuse_too(request):
    jax = pytest.importorskip("jax")
    request.addfinalizer(lambda before=jax.config.jax_enable_x64: jax.config.update("jax_enable_x64", before))
    jax.config.update("jax_enable_x64", True)  # not for this thread alone: programs call the host from others
    solve = jax.jit(lambda A, b: bs.lstsq(A, b, on_failure="return"))
    A, b, _ = problem(20, 6, 1e9)
    np.testing.assert_allclose(solve(A, b), bs.lstsq(A, b), rtol=1e-15)
    assert np.isnan(solve(problem(20, 6, 1e14)[0], b)).all()


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_derivatives_of_an_ill_conditioned_problem(shape):
    """Along directions of A, by the formula of Golub and Pereyra in sixty digits: no double precision has them."""
    A, b, _ = problem(*shape, 1e6, noise=1e-3)
    dA, eps = draw(shape, seed=7), np.finfo(float).eps
    step = mpmath.mpf(10) ** -20
    with mpmath.workdps(60):
        M, D, right = (mpmath.matrix(v.tolist()) for v in (A, dA, b))

        def x(t):
            S = M + t * D
            return mpmath.lu_solve(S.T * S, S.T * right) if S.rows >= S.cols else S.T * mpmath.lu_solve(S * S.T, right)

        first = np.array(((x(step) - x(-step)) / (2 * step)).tolist(), float)[:, 0]
        second = np.array(((x(step) - 2 * x(0) + x(-step)) / step**2).tolist(), float)[:, 0]
    f = lambda t: bs.lstsq(torch.from_numpy(A) + t * torch.from_numpy(dA), torch.from_numpy(b))  # noqa: E731
    zero = torch.tensor(0.0, dtype=torch.float64)
    for derivative, want in ((jacrev(f), first), (jacfwd(f), first), (jacfwd(jacrev(f)), second)):
        error = np.linalg.norm(derivative(zero).numpy() - want)
        assert error <= 100 * 1e6 * eps * np.linalg.norm(want)


def test_the_units_of_a_do_not_matter_to_minres_either():
    A, b, want = problem(20, 6, 30.0)
    for units in (1e-8, 1e8):
        x = bs.lstsq(units * A, b, method="minres", rtol=1e-13)
        np.testing.assert_allclose(units * x, np.array(want.tolist(), complex).real, rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: bs.lstsq(np.ones((3, 2)), np.ones(2)), ValueError, "b must have length 3, the number of rows of A"),
        (lambda: bs.lstsq(np.eye(3), np.ones(3), ridge=-1.0), ValueError, "lstsq: ridge must be a float of at least 0"),
        (lambda: bs.lstsq(np.eye(3), np.ones(3), method="cg"), ValueError, "method must take an indefinite matrix"),
        (lambda: bs.lstsq(bs.MatrixFree(lambda p, v: v, (), (3, 3)), np.ones(3)), ValueError, "needs the entries of A"),
        (lambda: bs.lstsq(np.full((3, 2), np.nan), np.ones(3)), bs.SolveError, "NONFINITE"),
    ],
)
def test_sentences(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


# -- but for a constant ------------------------------------------------------------------------------------------


WAYS = [
    {},
    {"method": "superlu"},
    {"method": "cg"},
    {"method": "minres"},
    {"method": "cg", "M": "amg"},
    {"method": bs.CG(M="ic0")},
    {"method": "gmres", "M": "ssor"},
]


def floating(n=100):
    p = gallery.problem("singular", n)
    return p, p.b - p.b.mean()


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_the_solution_of_mean_zero_and_its_derivatives(options):
    p, b = floating()
    dense = p.toarray()
    inverse = torch.from_numpy(np.linalg.pinv(dense))
    sol = bs.solve_with_info(p.A, b, nullspace="constant", rtol=1e-11, **options)
    assert sol.converged
    np.testing.assert_allclose(sol.x, inverse.numpy() @ b, atol=1e-8)
    weights = torch.ones(len(p.A.data), dtype=torch.float64, requires_grad=True)
    tb = torch.from_numpy(b).requires_grad_()
    # edge weights leave constants in the null space: the diagonal follows the others
    off = torch.from_numpy(np.asarray(p.rows != p.cols))

    def laplacian(w):
        values = torch.where(off, torch.from_numpy(p.A.data) * w, 0)
        at = torch.from_numpy(p.rows)
        sums = torch.zeros(p.n, dtype=w.dtype).index_add(0, at, values)
        return torch.where(off, values, -sums[at])

    def loss(w, b):
        x = bs.solve(p.A.with_data(laplacian(w)), b, nullspace="constant", rtol=1e-11, **options)
        return (x**3).sum()

    def true_loss(w, b):
        places = torch.from_numpy(p.rows * p.n + p.cols)
        A = torch.zeros(p.n**2, dtype=w.dtype).index_add(0, places, laplacian(w)).reshape(p.n, p.n)
        shifted = torch.linalg.inv(A + 1 / p.n) - 1 / p.n  # the pseudo-inverse of a matrix with that null space
        return ((shifted @ b) ** 3).sum()

    ours = torch.autograd.grad(loss(weights, tb), (weights, tb))
    wants = torch.autograd.grad(true_loss(weights, tb), (weights, tb))
    mirror = {(int(i), int(j)): at for at, (i, j) in enumerate(zip(p.rows, p.cols, strict=True))}
    swap = torch.tensor([mirror[int(j), int(i)] for i, j in zip(p.rows, p.cols, strict=True)])
    for our, want, symmetric in zip(ours, wants, (True, False), strict=True):
        if symmetric:  # weights of one edge change together, or constants from the left are lost
            our, want = our + our[swap], want + want[swap]
        torch.testing.assert_close(our, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


def test_without_it_the_matrix_is_singular_and_what_does_not_fit_is_told():
    p, b = floating()
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        bs.solve(p.A, p.b)
    with pytest.raises(ValueError, match="b must have mean zero, else A x = b has no solution"):
        bs.solve(p.A, b + 1, nullspace="constant")
    regular = gallery.problem("poisson2d", 100)
    with pytest.raises(ValueError, match=r"A must map constants to zero from both sides; A @ 1 has entries of"):
        bs.solve(regular.A, b, nullspace="constant")
    with pytest.raises(ValueError, match="nullspace must be None or 'constant'; got 'all'"):
        bs.solve(p.A, b, nullspace="all")
    with pytest.raises(TypeError, match="is for matrices with entries"):
        bs.solve(bs.MatrixFree(lambda q, v: v, (), (100, 100)), b, nullspace="constant")


def test_batches_and_columns_of_floating_systems():
    p, b = floating(49)
    data = np.stack([p.A.data, 2 * p.A.data])
    many = np.stack([b, b[::-1], np.roll(b, 3)], axis=1)
    inverse = np.linalg.pinv(p.toarray())
    for options in ({}, {"method": "cg", "M": "jacobi"}):
        x = bs.solve(p.A.with_data(data), many, nullspace="constant", rtol=1e-11, **options)
        for item, factor in enumerate((1, 2)):
            np.testing.assert_allclose(x[item], inverse @ many / factor, atol=1e-8)
    np.testing.assert_allclose(bs.solve(p.toarray(), b, nullspace="constant"), inverse @ b, atol=1e-10)
