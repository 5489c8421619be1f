"""Substitution: the kernel inside its arrays, the method against dense algebra, its failures and derivatives."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

import backsolve as bs
from backsolve.factor_cache import CACHE
from backsolve.methods import LU, SuperLU, superlu

DTYPES = ("float32", "float64", "complex64", "complex128")
HALVES = {"lower": np.tril, "upper": np.triu}
GUARD = 64


def eps_of(dtype):
    return float(np.finfo(dtype).eps)


def random(rng, shape, dtype="float64"):
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def triangle(rng, n, assume, dtype="float64", batch=(), density=0.4):
    """Dense triangles with a heavy diagonal, on one random pattern: condition numbers of a few units."""
    stored = HALVES[assume](rng.random((n, n)) < density)
    np.fill_diagonal(stored, True)
    values = random(rng, (*batch, n, n), dtype) / max(2, n * density)
    return np.where(stored, values + 3 * np.eye(n), 0).astype(dtype), stored


def sparse(dense, stored, assume, index_dtype=None):
    rows, cols = np.nonzero(stored)
    indptr = np.concatenate(([0], np.cumsum(stored.sum(axis=1))))
    pattern = bs.Pattern(indptr, cols, stored.shape, index_dtype=index_dtype)
    return bs.CSR.from_pattern(np.ascontiguousarray(dense[..., rows, cols]), pattern).assume(assume)


def operator(kind, dense, stored, assume):
    if kind == "dense":
        return bs.Dense(dense).assume(assume)
    return sparse(dense, stored, assume, "int64" if kind == "wide" else None)


def host(x):
    return x.detach().resolve_conj().numpy() if isinstance(x, torch.Tensor) else x


def adjoint_of(dense):
    return dense.conj().swapaxes(-2, -1)


def assert_solves(dense, x, b):
    """Within 10 κ eps of the solution in double precision."""
    wide = dense.astype(np.result_type(dense, np.float64))
    truth = np.linalg.solve(wide, b.astype(wide.dtype))
    kappa = np.linalg.cond(wide).max(initial=1) if wide.size else 1
    bound = 10 * kappa * eps_of(dense.dtype) * np.abs(truth).max(initial=0)
    assert x.dtype == dense.dtype and x.shape == truth.shape and np.abs(x - truth).max(initial=0) <= bound


@pytest.fixture
def no_factorization(monkeypatch):
    """Any factorization raises."""

    def refuse(*args, **kwargs):
        raise AssertionError("a matrix was factored")

    monkeypatch.setattr(superlu.sla, "splu", refuse)
    monkeypatch.setattr(LU, "factor", refuse)
    monkeypatch.setattr(SuperLU, "factor", refuse)


# -- solves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "wide", "dense"])
@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.usefixtures("no_factorization")
def test_solves_and_adjoint_solves_equal_dense_algebra(framework, dtype, assume, kind):
    rng = np.random.default_rng(0)
    for batch, n, k in itertools.product([(), (3,), (2, 2)], [1, 11], [1, 2, 7, 17]):
        dense, stored = triangle(rng, n, assume, dtype, batch)
        b = random(rng, (*batch, n, k), dtype)
        A, right = operator(kind, dense, stored, assume), b
        if framework == "torch":
            A, right = A.with_data(torch.from_numpy(A.data)), torch.from_numpy(b)
        F = bs.factorize(A)
        assert F.method == bs.Triangular()
        assert_solves(dense, host(F.solve(right)), b)
        assert_solves(adjoint_of(dense), host(F.adjoint.solve(right)), b)
        assert_solves(adjoint_of(dense), host(bs.solve(A.H, right)), b)
        assert_solves(dense.swapaxes(-2, -1), host(bs.solve(A.T, right, method="triangular")), b)


@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.usefixtures("no_factorization")
def test_unsorted_and_repeated_values_are_one_triangle(assume):
    rng = np.random.default_rng(1)
    dense, stored = triangle(rng, 9, assume)
    rows, cols = np.nonzero(stored)
    b, g = rng.standard_normal((2, 9, 1))
    by_row = np.lexsort((-cols, rows))
    indptr = np.concatenate(([0], np.cumsum(stored.sum(axis=1))))
    unsorted = bs.CSR(dense[rows, cols][by_row], cols[by_row], indptr, (9, 9))
    order = rng.permutation(2 * rows.size)
    twice_rows, twice_cols = np.tile(rows, 2)[order], np.tile(cols, 2)[order]
    parts = np.concatenate((0.25 * dense[rows, cols], 0.75 * dense[rows, cols]))[order]
    repeated = bs.coo(parts, (twice_rows, twice_cols), (9, 9))
    places = {0: (rows[by_row], cols[by_row]), 1: (twice_rows, twice_cols)}
    for at, A in enumerate((unsorted, repeated)):
        sol, pullback = bs.vjp(A.assume(assume), b)
        assert_solves(dense, sol.x, b)
        data_bar, b_bar, _ = pullback(g)
        assert_solves(dense.T, b_bar, g)
        i, j = places[at]
        bound = 20 * np.linalg.cond(dense) ** 2 * eps_of(dense.dtype)
        np.testing.assert_allclose(data_bar, -np.linalg.solve(dense.T, g)[i, 0] * sol.x[j, 0], rtol=bound, atol=bound)


@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_systems(dtype, kind, assume):
    for shape in ((0, 0), (0, 3), (4, 0)):
        dense = np.eye(shape[0], dtype=dtype)
        A = operator(kind, dense, dense != 0, assume)
        sol = bs.solve_with_info(A, np.ones(shape, dtype))
        assert sol.x.shape == shape and sol.converged and sol.x.dtype == dtype


@pytest.mark.usefixtures("no_factorization")
def test_nothing_is_factored_and_nothing_kept():
    dense, stored = triangle(np.random.default_rng(2), 8, "upper")
    A = sparse(dense, stored, "upper")
    sol = bs.solve_with_info(A, np.ones(8))
    assert int(sol.stats.factorizations) == 0 and sol.converged
    F = bs.factorize(A)
    F.solve(np.ones(8))
    assert F._factored.nbytes == 0
    leaf = torch.from_numpy(A.data).requires_grad_()
    bs.solve(A.with_data(leaf), torch.ones(8).double()).square().sum().backward()
    assert leaf.grad is not None


def test_the_declaration_chooses_the_method_and_the_method_needs_it():
    A = bs.coo(np.ones(3), ([0, 1, 1], [0, 0, 1]), (2, 2))
    assert bs.explain(A.assume("lower")).startswith("triangular, since A is declared triangular. Forward substitution")
    assert "Back substitution by LAPACK" in bs.explain(np.eye(2), assume="upper")
    assert bs.explain(A).startswith("superlu")
    for undeclared in (A, A.assume("spd"), np.eye(2)):
        with pytest.raises(ValueError, match=r"method 'triangular' takes .*: declare assume='lower' or assume='upper'"):
            bs.solve(undeclared, np.ones(2), method="triangular")
    with pytest.raises(ValueError, match=r"Triangular: rtol must be a float in \[0, 1\); got 2"):
        bs.Triangular(rtol=2)


# -- rounding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_is_summed_in_double(dtype, assume, adjoint):
    """Each row holds up to one rounding, of its x_i, however long it is."""
    rng = np.random.default_rng(3)
    dense, stored = triangle(rng, 300, assume, dtype, density=1.0)
    A = sparse(dense, stored, assume)
    b = random(rng, (1, 300, 3), dtype)
    x = A.structure.solve_triangular(A.data[None], b, assume == "lower", adjoint)[0]
    wide = (adjoint_of(dense) if adjoint else dense).astype("complex128")
    rest = np.abs(wide @ x - b[0])
    assert (rest <= 2 * eps_of(dtype) * np.abs(np.diag(wide))[:, None] * np.abs(x)).all()


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_complex_pivots_near_the_ends_of_the_range(size):
    pivot = size * (3 - 4j)
    A = bs.coo(np.array([pivot]), ([0], [0]), (1, 1)).assume("lower")
    x = A.structure.solve_triangular(A.data[None], np.array([[[2 * pivot]]]), True)
    assert abs(x.item() - 2) <= 4 * eps_of("float64")


# -- the kernel --------------------------------------------------------------------------------------------------


def fenced(values):
    """A copy in the middle of NaN: reading outside would show in results, writing in the fence."""
    whole = np.full(values.size + 2 * GUARD, np.nan, values.dtype)
    inner = whole[GUARD : GUARD + values.size].reshape(values.shape)
    inner[...] = values
    return inner, lambda: bool(np.isnan(whole[:GUARD]).all() and np.isnan(whole[GUARD + values.size :]).all())


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 8),
    st.integers(0, 3),
    st.integers(0, 11),
    st.sampled_from(DTYPES),
    st.sampled_from(list(HALVES)),
    st.booleans(),
    st.sampled_from([None, "int64"]),
)
def test_kernel_on_any_pattern(seed, n, batch, k, dtype, assume, adjoint, index_dtype):
    """Only the triangle is read, nothing is written outside x, and a bad diagonal spoils its own item alone."""
    rng = np.random.default_rng(seed)
    half, stored = triangle(rng, n, assume, dtype, (batch,))
    everywhere = stored | ((rng.random((n, n)) < 0.5) & ~HALVES[assume](np.ones((n, n), bool)))
    whole = np.where(stored, half, np.nan).astype(dtype)
    if n and rng.random() < 0.3:
        everywhere[row := rng.integers(n), row] = False
    bad = np.full(batch, n > 0 and not np.diag(everywhere).all())
    if n and batch and rng.random() < 0.3:
        whole[item := rng.integers(batch), -1, -1] = 0
        bad[item] = True
    A = sparse(whole, everywhere, assume, index_dtype)
    b = random(rng, (batch, n, k), dtype)
    (values, values_intact), (right, right_intact) = fenced(A.data), fenced(b)
    x, x_intact = fenced(np.zeros_like(b))
    A.structure._core.solve_triangular(values, right, x, assume == "lower", adjoint)
    assert values_intact() and right_intact() and x_intact()
    np.testing.assert_array_equal(values, A.data)
    np.testing.assert_array_equal(right, b)
    assert np.isnan(x[bad]).all()
    good = half[~bad]
    assert_solves(adjoint_of(good) if adjoint else good, x[~bad], b[~bad])


_DIGEST = """
import hashlib, numpy as np
from backsolve import gallery
digest = hashlib.sha256()
for dtype in "fdFD":
    for name in ("lower_convection", "upper_diffusion"):
        A = gallery.problem(name, 1600).A
        values = np.stack([A.data, 2 * A.data, A.data / 3]).astype(dtype)
        b = np.random.default_rng(0).standard_normal((3, A.shape[0], 101)).astype(dtype)
        assert values.size * 101 > 2**20
        for adjoint in (False, True):
            digest.update(A.structure.solve_triangular(values, b, name.startswith("lower"), adjoint).tobytes())
print(digest.hexdigest())
"""


def test_runs_are_bit_equal_for_every_thread_count():
    digests = set()
    for threads in ("1", "2", "5"):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST],
            env={"BACKSOLVE_NUM_THREADS": threads, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("assume", HALVES)
def test_a_false_declaration_is_told(assume, kind):
    rng = np.random.default_rng(4)
    dense = rng.standard_normal((9, 9)) + 2 * np.eye(9)
    A = operator(kind, dense, np.ones((9, 9), bool), assume)
    F = bs.factorize(A)
    for solve in (F.solve, F.adjoint.solve):
        with pytest.raises(bs.SolveError, match=r"INACCURATE.*check what was declared about A"):
            solve(np.ones(9))


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_a_slightly_false_declaration_never_changes_the_answer(kind, adjoint):
    """Refinement with the residual of the stored matrix finds its solution, or the status says that it did not."""
    rng = np.random.default_rng(5)
    outcomes = set()
    for size in (1e-18, 1e-12, 1e-8, 1e-4, 1e-2):
        dense = triangle(rng, 9, "lower")[0] + size * np.triu(rng.standard_normal((9, 9)), 1)
        F = bs.factorize(operator(kind, dense, np.ones((9, 9), bool), "lower"), on_failure="return")
        sol = (F.adjoint if adjoint else F).solve_with_info(np.ones(9))
        outcomes.add(sol.converged)
        if sol.converged:
            assert_solves(dense.T if adjoint else dense, sol.x, np.ones(9))
        else:
            assert int(sol.status) == bs.Status.INACCURATE
    assert outcomes == {True, False}


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["csr", "missing", "dense"])
@pytest.mark.parametrize("assume", HALVES)
def test_a_zero_on_the_diagonal_is_named(assume, kind, framework):
    dense, stored = triangle(np.random.default_rng(6), 6, assume)
    dense[3, 3] = 0
    stored[3, 3] = kind != "missing"
    A, b = operator(kind, dense, stored, assume), np.ones(6)
    if framework == "torch":
        A, b = A.with_data(torch.from_numpy(A.data)), torch.from_numpy(b)
    F = bs.factorize(A)
    for solve in (F.solve, F.adjoint.solve):
        said = r"SINGULAR.*the diagonal entry of row 3 is zero or not stored.*ground the null space"
        with pytest.raises(bs.SolveError, match=said):
            solve(b)


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_failed_items_leave_the_others_alone(framework, kind):
    rng = np.random.default_rng(7)
    dense, stored = triangle(rng, 6, "lower", batch=(5,))
    dense[1, 2, 2] = 0
    dense[3, 5, 5] = np.nan
    b = rng.standard_normal((5, 6, 2))
    b[4, 0, 1] = np.inf
    A, right = operator(kind, dense, stored, "lower"), b
    if framework == "torch":
        leaf = torch.from_numpy(A.data).requires_grad_()
        A, right = A.with_data(leaf), torch.from_numpy(b)
    sol = bs.solve_with_info(A, right, on_failure="return")
    names = [bs.Status(int(s)).name for s in sol.status]
    assert names == ["CONVERGED_BACKWARD", "SINGULAR", "CONVERGED_BACKWARD", "NONFINITE", "NONFINITE"]
    assert "diagonal entry of row 2" in sol.message and "A has nan in row 5, column 5 of system 3" in sol.message
    x, good = host(sol.x), [0, 2]
    assert np.isnan(x[[1, 3, 4]]).all()
    assert_solves(dense[good], x[good], b[good])
    if framework == "torch":
        sol.x.sum().backward()
        assert leaf.grad[[1, 3, 4]].isnan().flatten(1).all() and leaf.grad[good].isfinite().all()


# -- derivatives -------------------------------------------------------------------------------------------------

N = 5


def problem(kind, assume, dtype="float64", batch=()):
    """solve(w, b) for the stored numbers w of a triangle; "full" stores zeros in the other triangle too."""
    dense, stored = triangle(np.random.default_rng(8), N, assume, dtype, batch, density=0.7)
    if kind == "full":
        stored = np.ones_like(stored)
    A = operator("dense" if kind == "dense" else "csr", dense, stored, assume)
    rows, cols = np.nonzero(np.ones_like(stored) if kind == "dense" else stored)
    w = torch.from_numpy(dense[..., rows, cols].copy())

    def ours(w, b):
        return bs.solve(A.with_data(w.reshape(*w.shape[:-1], N, N) if kind == "dense" else w), b)

    def truth(w, b):
        full = torch.zeros(N * N, dtype=w.dtype).index_add(-1, torch.from_numpy(rows * N + cols), w)
        return torch.linalg.inv(full.reshape(N, N)) @ b  # mapped, the hessian of torch.linalg.solve is NaN

    b = torch.from_numpy(random(np.random.default_rng(9), (*batch, N, 2), dtype))
    return ours, truth, w, b


def close(actual, expected):
    """Equal up to rounding: condition numbers are below ten."""
    eps = torch.finfo(expected.dtype).eps
    torch.testing.assert_close(actual, expected, rtol=2e3 * eps, atol=2e3 * eps)


def energy(solve):
    return lambda w, b: (solve(w, b).abs() ** 2).sum() + (solve(w, b).real ** 3).sum()


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.usefixtures("no_factorization")
def test_gradcheck(kind, assume, dtype):
    ours, _, w, b = problem(kind, assume, dtype)
    if kind == "dense":  # differences may not leave the triangle
        inside = torch.from_numpy(HALVES[assume](np.ones((N, N))).ravel())
        solve = ours
        ours = lambda w, b: solve(w * inside, b)  # noqa: E731
    h = eps_of("float64") ** (1 / 3)
    steps = {"eps": h, "atol": 1e3 * h**2, "rtol": 1e3 * h**2}
    inputs = (w.requires_grad_(), b.requires_grad_())
    assert gradcheck(ours, inputs, **steps, check_forward_ad=True)
    assert gradgradcheck(ours, inputs, **steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("kind", ["csr", "full", "dense"])
def test_derivatives_equal_dense_ones(kind, assume, dtype):
    """Those of the whole stored matrix: entries of the other triangle have their gradients too."""
    ours, truth, w, b = problem(kind, assume, "complex128" if dtype.is_complex else "float64")
    w, b = w.to(dtype), b.to(dtype)
    grads = [torch.autograd.grad(energy(f)(*leaves), leaves) for f in (ours, truth) if (leaves := fresh(w, b))]
    for mine, theirs in zip(*grads, strict=True):
        close(mine, theirs)
    tangents = (torch.ones_like(w), torch.ones_like(b))
    for mine, theirs in zip(jvp(ours, (w, b), tangents), jvp(truth, (w, b), tangents), strict=True):
        close(mine, theirs)
    if not dtype.is_complex:
        close(hessian(energy(ours))(w, b), hessian(energy(truth))(w, b))
        close(jacrev(jacfwd(energy(ours), 1), 0)(w, b), jacrev(jacfwd(energy(truth), 1), 0)(w, b))


def fresh(*tensors):
    return tuple(t.detach().clone().requires_grad_() for t in tensors)


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
def test_vmap(in_dims, kind):
    ours, truth, w, b = problem(kind, "lower", batch=(3,))
    args = [t if dim == 0 else t[0] for t, dim in zip((w, b), in_dims, strict=True)]
    close(vmap(ours, in_dims)(*args), vmap(truth, in_dims)(*args))
    derivatives = (vmap(hessian(energy(f)), in_dims)(*args) for f in (ours, truth))
    close(*derivatives)


@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_explicit_derivatives(dtype, assume):
    rng = np.random.default_rng(10)
    dense, stored = triangle(rng, 7, assume, dtype)
    A = sparse(dense, stored, assume)
    rows, cols = np.nonzero(stored)
    b, g, b_dot = (random(rng, (7, 2), dtype) for _ in range(3))
    data_dot = random(rng, rows.size, dtype)
    sol, pullback = bs.vjp(A, b)
    data_bar, b_bar, adjoint = pullback(g)
    assert adjoint.converged
    assert_solves(adjoint_of(dense), b_bar, g)
    bound = 100 * np.linalg.cond(dense) ** 2 * eps_of(dtype)
    np.testing.assert_allclose(data_bar, -(b_bar @ sol.x.conj().T)[rows, cols], rtol=bound, atol=bound)
    change = np.zeros_like(dense)
    change[rows, cols] = data_dot
    assert_solves(dense, bs.jvp(A, b, data_dot=data_dot, b_dot=b_dot)[1].x, b_dot - change @ sol.x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the compiler, about itself
@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.usefixtures("no_factorization")
def test_compiled_solves(kind):
    dense, stored = triangle(np.random.default_rng(11), N, "lower")
    A = operator(kind, dense, stored, "lower")
    w, b = torch.from_numpy(A.data), torch.ones(N).double()

    def loss(w, b):
        return bs.solve(w if kind == "dense" else A.with_data(w), b, assume="lower").square().sum()

    CACHE.clear()
    try:
        grads = []
        for f in (loss, torch.compile(loss, fullgraph=True)):
            leaves = fresh(w, b)
            f(*leaves).backward()
            grads.append([leaf.grad for leaf in leaves])
        for eager, compiled in zip(*grads, strict=True):
            close(compiled, eager)
        assert CACHE.info().nbytes == 0
    finally:
        CACHE.clear()
        torch._dynamo.reset()


# -- determinants ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("assume", HALVES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("no_factorization")
def test_slogdet(dtype, assume, batch):
    rng = np.random.default_rng(12)
    dense, stored = triangle(rng, 7, assume, dtype, batch)
    stored |= rng.random((7, 7)) < 0.3  # zeros that are stored do no harm
    dense[..., 2, 2] *= -2
    wide = dense.astype(np.result_type(dense, np.float64))
    want_sign, want_size = np.linalg.slogdet(wide)
    bound = 10 * 7 * np.linalg.cond(wide).max() * eps_of(dtype)
    A = sparse(dense, stored, assume)
    F = bs.factorize(A.with_data(torch.from_numpy(A.data)))
    for sign, size in (bs.slogdet(A), bs.slogdet(bs.factorize(A)), bs.slogdet(F)):
        sign, size = host(sign), host(size)
        assert np.asarray(sign).dtype == dtype and np.shape(sign) == batch == np.shape(size)
        assert np.abs(sign - want_sign).max() <= bound and np.abs(size - want_size).max() <= bound
    assert np.abs(host(bs.slogdet(F.adjoint)[0]) - want_sign.conj()).max() <= bound


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.usefixtures("no_factorization")
def test_derivatives_of_slogdet(dtype):
    dense, stored = triangle(np.random.default_rng(13), N, "upper", dtype)
    A = sparse(dense, stored, "upper")
    w = torch.from_numpy(A.data).requires_grad_()
    (grad,) = torch.autograd.grad(bs.slogdet(A.with_data(w))[1], w)
    rows, cols = np.nonzero(stored)
    want = np.where(rows == cols, 1 / dense[rows, cols].conj(), 0)
    np.testing.assert_allclose(grad.resolve_conj().numpy(), want, atol=10 * np.linalg.cond(dense) * eps_of(dtype))
    h = eps_of("float64") ** (1 / 3)
    steps = {"eps": h, "atol": 1e3 * h**2, "rtol": 1e3 * h**2}
    assert gradcheck(lambda w: bs.slogdet(A.with_data(w))[1], (w,), **steps)
    assert gradgradcheck(lambda w: bs.slogdet(A.with_data(w))[1], (w,), **steps)


def test_slogdet_of_singular_and_nonfinite_items():
    data = np.array([[2.0, 3, -4], [0, 3, 4], [1, np.nan, 1]])
    A = bs.coo(data, ([0, 1, 1], [0, 0, 1]), (2, 2)).assume("lower")
    sign, size = bs.slogdet(A)
    np.testing.assert_array_equal(sign, [-1, 0, np.nan])
    np.testing.assert_allclose(size, [np.log(8), -np.inf, np.nan], rtol=4 * eps_of("float64"))
    missing = bs.coo(np.ones(1), ([1], [0]), (2, 2)).assume("lower")
    assert [float(part) for part in bs.slogdet(missing)] == [0, -np.inf]
    assert [float(part) for part in bs.slogdet(bs.coo(np.ones(0), ([], []), (0, 0)).assume("lower"))] == [1, 0]


@pytest.mark.parametrize("assume", HALVES)
def test_slogdet_of_a_false_declaration_raises(assume):
    A = bs.coo(np.array([1.0, 2, 3, 0]), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2)).assume(assume)
    place = "2.0 in row 0, column 1" if assume == "lower" else "3.0 in row 1, column 0"
    with pytest.raises(ValueError, match=rf"declared to be, '{assume}'; got {place}: declare assume='general'"):
        bs.slogdet(A)
