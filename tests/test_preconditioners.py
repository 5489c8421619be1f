"""Preconditioners: what M is, that both passes use it, and that it changes the count and never the answer."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import backsolve as bs
from backsolve import gallery
from backsolve import preconditioners as pre
from backsolve.methods import METHODS
from backsolve.preconditioners import PRECONDITIONERS

DTYPES = ["float32", "float64", "complex64", "complex128"]


def grid(name, n, dtype="float64"):
    """A problem of the gallery; complex ones turned, by a diagonal similarity: Hermitian if they were."""
    problem = gallery.problem(name, n)
    A = sp.coo_array((problem.A.data, (problem.rows, problem.cols)), problem.A.shape)
    if np.dtype(dtype).kind == "c":
        turn = sp.diags_array(np.exp(1j * np.arange(problem.n)))
        A = turn @ A @ turn.conj()
    A = sp.csr_array(A).astype(dtype)
    return bs.CSR(A.data, A.indices, A.indptr, A.shape), A.toarray(), numbers(problem.n, dtype)


def numbers(n, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(n) + (1j * rng.standard_normal(n) if np.dtype(dtype).kind == "c" else 0)
    return v.astype(dtype)


def columns(prepared, n, dtype, adjoint=False):
    """M as a dense matrix."""
    return prepared.apply(np.ascontiguousarray(np.eye(n, dtype=dtype)[None]), adjoint)[0]


def plain(A):
    return A.on(np.ascontiguousarray(A.data[None]))


# -- what M is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(PRECONDITIONERS))
def test_m_is_linear_and_its_adjoint_is_its_adjoint(name, dtype):
    """And Hermitian positive definite for such an A, where it says so."""
    kind = PRECONDITIONERS[name]
    rounding = 1e3 * np.finfo(dtype).eps
    for case in ("diffusion", "convection"):
        if case == "convection" and (kind.hermitian and name not in ("jacobi", "block_jacobi", "ssor")):
            continue  # made for Hermitian A; multigrid has a hierarchy of its own for the adjoint
        A, _, _ = grid(case, 36, dtype)
        prepared = kind().prepare(plain(A))
        assert not prepared.broken
        M, adjoint = columns(prepared, 36, dtype), columns(prepared, 36, dtype, adjoint=True)
        assert M.dtype == np.dtype(dtype)
        np.testing.assert_allclose(adjoint, M.conj().T, atol=rounding * np.abs(M).max())
        v = numbers(36, dtype)
        np.testing.assert_allclose(
            prepared.apply(v[None, :, None], False)[0, :, 0], M @ v, atol=rounding * np.abs(M).max() * 36
        )
        if case == "diffusion" and kind.hermitian:
            assert np.linalg.eigvalsh((M + M.conj().T) / 2).min() > 0


@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_the_simple_ones_are_their_formulas(kind):
    A, dense, _ = grid("convection", 30, "complex128")
    n, D, L, U = 25, np.diag(np.diag(dense)), np.tril(dense, -1), np.triu(dense, 1)
    operand = plain(A) if kind == "csr" else bs.Dense(np.ascontiguousarray(dense[None]))
    made = lambda M: columns(M.prepare(operand), n, dense.dtype)  # noqa: E731
    np.testing.assert_allclose(made(pre.Jacobi()), np.linalg.inv(D), atol=1e-14)
    w = 1.3
    ssor = w / (2 - w) * (D / w + L) @ np.linalg.inv(D) @ (D / w + U)
    np.testing.assert_allclose(made(pre.SSOR(w)), np.linalg.inv(ssor), atol=1e-13)
    np.testing.assert_allclose(made(pre.Sweep(w)), np.linalg.inv(D / w + L), atol=1e-13)
    blocks = np.zeros_like(dense)
    for at in range(0, n, 7):
        here = slice(at, min(at + 7, n))
        blocks[here, here] = np.linalg.inv(dense[here, here])
    np.testing.assert_allclose(made(pre.BlockJacobi(7)), blocks, atol=1e-13)


def reference(dense, relaxation, shift=0.0):
    """Incomplete LU on the pattern of a dense array, row by row, as textbooks have it."""
    stored, n = dense != 0, len(dense)
    a = dense.copy() + shift * np.diag(np.diag(dense))
    for i in range(n):
        for k in np.flatnonzero(stored[i, :i]):
            a[i, k] /= a[k, k]
            for j in range(k + 1, n):
                fill = a[i, k] * a[k, j]
                if stored[i, j]:
                    a[i, j] -= fill
                elif stored[k, j]:
                    a[i, i] -= relaxation * fill
    return (np.tril(a, -1) + np.eye(n)) @ np.triu(a)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("relaxation", [0.0, 0.97, 1.0])
def test_incomplete_factors_are_those_of_the_textbook(relaxation, dtype):
    A, dense, _ = grid("diffusion", 40, dtype)
    M = columns(pre.MIC(relaxation=relaxation).prepare(plain(A)), len(dense), dtype)
    np.testing.assert_allclose(
        np.linalg.inv(M), reference(dense, relaxation), rtol=1e-9, atol=1e-9 * np.abs(dense).max()
    )
    if not relaxation:
        np.testing.assert_array_equal(M, columns(pre.IC0().prepare(plain(A)), len(dense), dtype))
    if relaxation == 1:  # which keeps the row sums
        np.testing.assert_allclose((np.linalg.inv(M) - dense).sum(axis=1), 0, atol=1e-9 * np.abs(dense).max())
    A, dense, _ = grid("convection", 40, dtype)
    M = columns(pre.ILU0().prepare(plain(A)), len(dense), dtype)
    np.testing.assert_allclose(np.linalg.inv(M), reference(dense, 0.0), rtol=1e-9, atol=1e-9 * np.abs(dense).max())


def test_without_fill_in_the_factors_are_complete():
    A, dense, b = grid("indefinite", 30)  # tridiagonal
    M = columns(pre.ILU0().prepare(plain(A)), len(dense), dense.dtype)
    np.testing.assert_allclose(M @ dense, np.eye(len(dense)), atol=1e-11)
    assert int(bs.solve_with_info(A, b, method="gmres", M="ilu0").stats.iterations) <= 2
    assert int(bs.solve_with_info(A, b, method="gmres", M=pre.ILUT(drop_tol=0.0)).stats.iterations) <= 2


def test_a_pivot_that_is_not_positive_raises_the_diagonal_until_all_are():
    """Kershaw's matrix is definite, and has no incomplete Cholesky factor without fill-in."""
    kershaw = np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]])
    A = bs.aslinearoperator(sp.csr_array(kershaw))
    assert pre.IC0(shift=0.0).prepare(plain(A)).broken[0].startswith("IC0: the pivot of row 3 is not positive")
    prepared = pre.IC0().prepare(plain(A))
    assert not prepared.broken and np.linalg.eigvalsh(columns(prepared, 4, float)).min() > 0
    np.testing.assert_allclose(np.linalg.inv(columns(pre.MIC(0.0, shift=0.1).prepare(plain(A)), 4, float)),
                               reference(kershaw, 0.0, 0.1), atol=1e-12)  # fmt: skip
    assert bs.solve_with_info(A, np.ones(4), method="cg", M="ic0").converged


def test_the_polynomial_is_chebyshevs():
    A, dense, _ = grid("poisson2d", 36)
    low, high = np.linalg.eigvalsh(dense)[[0, -1]]
    M = columns(pre.Chebyshev(degree=5, bounds=(low, high)).prepare(plain(A)), 36, float)
    left = np.abs(np.linalg.eigvalsh(np.eye(36) - M @ dense)).max()
    t = (high + low) / (high - low)
    best = 1 / np.cosh(6 * np.arccosh(t))  # the smallest that a polynomial of degree 6 with value 1 at 0 can be
    assert 0.8 * best <= left <= best * (1 + 1e-10)


def test_low_rank_is_the_inverse():
    rng = np.random.default_rng(0)
    d, U = 1 + rng.random(20), rng.standard_normal((20, 3))
    A = np.diag(d) + U @ U.T
    M = columns(pre.LowRank(d, U).prepare(bs.Dense(A[None])), 20, float)
    np.testing.assert_allclose(M @ A, np.eye(20), atol=1e-12)
    UC = U + 1j * rng.standard_normal((20, 3))
    A = np.diag(d) + UC @ UC.conj().T
    M = columns(pre.LowRank(torch.from_numpy(d), UC).prepare(bs.Dense(A[None])), 20, complex)
    np.testing.assert_allclose(M @ A, np.eye(20), atol=1e-12)
    with pytest.raises(TypeError, match="LowRank: U must be real where A is"):
        bs.solve(np.eye(20), d, method="cg", M=pre.LowRank(d, UC))


@pytest.mark.parametrize("name", sorted(PRECONDITIONERS))
def test_two_runs_are_equal_to_the_bit(name):
    A, _, b = grid("diffusion", 400)
    state = np.random.get_state()[1].copy()
    x = [
        bs.solve(A, b, method="cg" if PRECONDITIONERS[name].hermitian else "gmres", M=PRECONDITIONERS[name]())
        for _ in (0, 1)
    ]
    np.testing.assert_array_equal(*x)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # and nobody's random numbers are spent


# -- counts --------------------------------------------------------------------------------------------------


def model_problem(side, seed, sigma=1.0):
    """-div(k grad u) on the unit square, k = exp(sigma g) for a periodic Gaussian field g of correlation length 0.1."""
    rng = np.random.default_rng(seed)
    at = np.minimum(np.arange(side), side - np.arange(side)) / side
    covariance = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 0.1**2))
    spectrum = np.maximum(np.fft.fft2(covariance).real, 0)
    g = np.fft.ifft2(np.sqrt(spectrum) * np.fft.fft2(rng.standard_normal((side, side)))).real
    k = np.exp(sigma * g)
    nodes = np.arange(side**2).reshape(side, side)
    rows, cols, values = [], [], []
    diagonal = np.zeros((side, side))
    for here, there in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
                        ((slice(None, -1), slice(None)), (slice(1, None), slice(None)))):  # fmt: skip
        flux = 2 * k[here] * k[there] / (k[here] + k[there])
        diagonal[here] += flux
        diagonal[there] += flux
        rows += [nodes[here].ravel(), nodes[there].ravel()]
        cols += [nodes[there].ravel(), nodes[here].ravel()]
        values += [-flux.ravel(), -flux.ravel()]
    for edge in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        diagonal[edge] += 2 * k[edge]  # half cells to the boundary
    rows, cols, values = (np.concatenate(part) for part in (
        [*rows, nodes.ravel()], [*cols, nodes.ravel()], [*values, diagonal.ravel()]))  # fmt: skip
    return bs.coo(values, (rows, cols), (side**2, side**2)), rng.standard_normal(side**2)


@pytest.mark.parametrize(("M", "counts"), [("ic0", (71, 137)), ("mic", (35, 51))])
def test_incomplete_factors_take_the_iterations_that_the_literature_has(M, counts):
    """Within a tenth, means over three fields; larger grids are in benchmarks/iterative.py."""
    for side, expected in zip((64, 128), counts, strict=True):
        made = [
            int(bs.solve_with_info(*model_problem(side, seed), method="cg", M=M).stats.iterations) for seed in range(3)
        ]
        assert abs(np.mean(made) - expected) <= 0.1 * expected


def test_multigrid_hardly_notices_the_size():
    made = []
    for side in (16, 32, 64):
        p = gallery.problem("poisson2d", side**2)
        sol, pull = bs.vjp(p.A, p.b, method="cg", M="amg")
        made += [int(sol.stats.iterations), int(pull(p.b)[2].stats.iterations)]
    assert max(made) <= 12


METHOD_FOR = {
    "ilu0": "gmres",
    "ilut": "bicgstab",
    "ssor": "gmres",
    "jacobi": "bicgstab",
    "amg": "gmres",
    "block_jacobi": "lsmr",
}


@pytest.mark.parametrize("case", ["convection", "duplicates", "contraction"])
@pytest.mark.parametrize("M", sorted(METHOD_FOR))
def test_the_adjoint_is_preconditioned_as_well_as_the_system(M, case):
    """On matrices far from symmetric: at most one and a half times the iterations."""
    if M == "amg":
        case = "convection"  # what multigrid is made for
    p = gallery.problem(case, 900)
    sol, pull = bs.vjp(p.A, p.b, method=METHOD_FOR[M], M=M)
    adjoint = pull(p.b)[2]
    assert adjoint.converged
    assert int(adjoint.stats.iterations) <= max(1.5 * int(sol.stats.iterations), int(sol.stats.iterations) + 2)


@pytest.mark.parametrize("M", ["ilu0", "ilut"])
def test_a_preconditioner_that_is_not_adjointed_would_be_noticed(M, monkeypatch):
    p = gallery.problem("convection", 900)
    kind = PRECONDITIONERS[M]
    prepare = kind.prepare

    def forgetful(self, A):
        prepared = prepare(self, A)
        apply = prepared.apply
        prepared.apply = lambda v, adjoint: apply(v, False)
        return prepared

    right = int(bs.factorize(p.A, method="gmres", M=M).adjoint.solve_with_info(p.b).stats.iterations)
    monkeypatch.setattr(kind, "prepare", forgetful)
    wrong = bs.factorize(p.A, method="gmres", M=M, on_failure="return").adjoint.solve_with_info(p.b)
    assert not wrong.converged or int(wrong.stats.iterations) > 3 * right


# -- the answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("M", sorted(PRECONDITIONERS))
def test_values_and_gradients_do_not_depend_on_m(M):
    p = gallery.problem("diffusion", 100)
    method = "cg" if PRECONDITIONERS[M].hermitian else "bicgstab"
    bars = []
    for options in ({"method": method, "M": M, "rtol": 1e-12}, {"method": "superlu"}):
        w, b = torch.from_numpy(p.A.data).requires_grad_(), torch.from_numpy(p.b).requires_grad_()
        x = bs.solve(p.A.with_data(w), b, **options)
        bars.append(torch.autograd.grad(x.square().sum(), (w, b)))
    for ours, truth in zip(*bars, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-8, atol=1e-8 * float(truth.abs().max()))


def test_second_derivatives_through_a_preconditioned_solve():
    p = gallery.problem("convection", 9)
    w, b = torch.from_numpy(p.A.data).requires_grad_(), torch.from_numpy(p.b).requires_grad_()
    f = lambda w, b: bs.solve(p.A.with_data(w), b, method="gmres", M="ilu0", rtol=1e-14, atol=1e-14)  # noqa: E731
    assert torch.autograd.gradcheck(f, (w, b), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, (w, b), fast_mode=True)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_batches_have_one_preconditioner_each(kind, framework):
    wrap = torch.from_numpy if framework == "torch" else np.asarray
    A, dense, _ = grid("diffusion", 49)
    data = np.stack([A.data, 3 * A.data, A.data]) if kind == "csr" else np.stack([dense, 3 * dense, dense])
    make = (lambda d: A.with_data(wrap(d))) if kind == "csr" else (lambda d: bs.Dense(wrap(d)))
    b = numbers((3, 49, 2))
    for M in ("jacobi", "block_jacobi", "ssor", "chebyshev", *(("ic0", "amg") if kind == "csr" else ())):
        x = np.asarray(bs.solve(make(data), wrap(b), method="cg", M=M, rtol=1e-11))
        for item, factor in enumerate((1, 3, 1)):
            np.testing.assert_allclose(factor * dense @ x[item], b[item], atol=1e-8)
    bad = data.copy()
    place = A.pattern.diagonal[3] if kind == "csr" else (3, 3)
    bad[1][place] = 0
    bad[2][place] = np.nan
    sol = bs.solve_with_info(make(bad), wrap(b), method="cg", M="jacobi", on_failure="return")
    assert [bs.Status(int(s)).name for s in sol.status] == ["CONVERGED_RESIDUAL", "BREAKDOWN", "NONFINITE"]
    assert "the diagonal entry of row 3 is zero or not stored" in sol.message
    np.testing.assert_allclose(dense @ np.asarray(sol.x[0]), b[0], atol=1e-6)


# -- functions of the user's ---------------------------------------------------------------------------------


def test_a_function_is_enough_and_its_adjoint_is_asked_for_when_needed():
    A, dense, b = grid("convection", 100)
    inverse = np.linalg.inv(dense + 0.5 * np.eye(100))
    assert int(bs.solve_with_info(A, b, method="gmres", M=lambda v: inverse @ v).stats.iterations) < 10
    _, pull = bs.vjp(A, b, method="gmres", M=lambda v: inverse @ v)
    with pytest.raises(ValueError, match=r"^M: a backward solve needs Mᴴ; got a function without it"):
        pull(b)
    M = pre.Function(lambda v: inverse @ v, lambda v: inverse.T @ v)
    sol, pull = bs.vjp(A, b, method="gmres", M=M)
    assert int(pull(b)[2].stats.iterations) <= int(sol.stats.iterations) + 2
    with pytest.raises(ValueError, match="takes a Hermitian positive definite M only"):
        bs.solve(A, b, method="cg", M=M)
    with pytest.raises(ValueError, match=r"M: apply\(v\) must return an array of shape \(100,\) and dtype float64"):
        bs.solve(A, b, method="gmres", M=lambda v: v[:5])


def test_scipys_preconditioners_are_taken():
    A, dense, b = grid("poisson2d", 100)
    factors = sp.linalg.spilu(sp.csc_array(dense))
    M = sp.linalg.LinearOperator(dense.shape, factors.solve, rmatvec=lambda v: factors.solve(v, "T"), dtype=float)
    sol, pull = bs.vjp(A, b, method="gmres", M=M)
    assert max(int(sol.stats.iterations), int(pull(b)[2].stats.iterations)) < 6


def test_varying_preconditioners_go_to_flexible_methods_only():
    A, _, b = grid("poisson2d", 400)
    inner = bs.CG(maxiter=10)

    def ten_steps(r):
        return bs.solve_with_info(A, r, method=inner, on_failure="return").x

    M = pre.Function(ten_steps, symmetric=True, varying=True)
    for method in ("cg", "minres", "gmres", "bicgstab", "lsmr"):
        with pytest.raises(ValueError, match=r"takes a fixed M, and .* varies: use 'fcg' or 'fgmres'"):
            bs.solve(A, b, method=method, M=M)
    for method in ("fcg", "fgmres"):
        sol, pull = bs.vjp(A, b, method=method, M=M)
        assert sol.converged and pull(b)[2].converged and int(sol.stats.iterations) < 30


@pytest.mark.parametrize("method", ["cg", "gmres"])
def test_matrix_free_operators_on_tensors(method):
    p = gallery.problem("poisson2d", 400)
    dense = torch.from_numpy(p.toarray()).requires_grad_()
    A = bs.MatrixFree(lambda M, v: M @ v, dense, (400, 400))
    b = torch.from_numpy(p.b)
    counts = []
    for M in (
        None,
        "chebyshev",
        pre.Function(lambda v: v / 4, symmetric=True),
        pre.LowRank(np.full(400, 4.0), np.ones((400, 1))),
    ):
        sol = bs.solve_with_info(A, b, method=method, M=M)
        (bar,) = torch.autograd.grad(sol.x.sum(), dense)
        assert sol.adjoint.converged and bar.shape == dense.shape
        counts.append(int(sol.stats.iterations))
    assert counts[1] < counts[0] / 2 and counts[2] == counts[0]
    for M in ("jacobi", "ssor", "ic0", "ilut", "amg", "block_jacobi"):
        with pytest.raises(ValueError, match="needs the entries of A"):
            bs.solve(A, b, method="gmres", M=M)


# -- kept from matrix to matrix ------------------------------------------------------------------------------


def test_a_preconditioner_is_kept_until_its_policy_says_otherwise():
    p = gallery.problem("diffusion", 900)
    rng = np.random.default_rng(0)
    M = pre.Kept("ic0", growth=1.5)
    for _ in range(6):  # a training loop: values that drift
        data = p.A.data * (1 + 0.01 * rng.random())
        bs.solve(p.A.with_data(data), p.b, method="cg", M=M)
    assert M.made == 1
    symmetric = p.A.scale(*[np.exp(rng.standard_normal(p.n))] * 2)
    bs.solve(symmetric, p.b, method=bs.CG(maxiter=5000), M=M, rtol=1e-6)  # slow, so the next one is made anew
    before = M.made
    bs.solve(symmetric, p.b, method=bs.CG(maxiter=5000), M=M, rtol=1e-6)
    assert (before, M.made) == (1, 2)
    every = pre.Kept("jacobi", every=3, growth=None)
    for _ in range(7):
        bs.solve(p.A, p.b, method="cg", M=every)
    assert every.made == 3
    every.refresh()
    bs.solve(p.A, p.b, method="cg", M=every)
    assert every.made == 4
    bs.solve(gallery.problem("diffusion", 400).A, numbers(400), method="cg", M=every)  # another shape
    assert every.made == 5


def test_what_is_kept_serves_forward_and_backward_in_training():
    p = gallery.problem("diffusion", 400)
    M = pre.Kept("amg")
    theta = torch.zeros(p.n, dtype=torch.float64, requires_grad=True)
    A, b = p.A.with_data(torch.from_numpy(p.A.data)), torch.from_numpy(p.b)
    target = bs.solve(A, b)
    step, losses = torch.optim.Adam([theta], lr=0.02), []
    for _ in range(12):
        step.zero_grad()
        scale = torch.exp(theta / 2 + 0.05)
        x = bs.solve(A.scale(scale, scale), b, method="cg", M=M)
        loss = (x - target).square().mean() / target.square().mean()
        loss.backward()
        step.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] and M.made == 1


# -- where to begin, and who is told -------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("method", ["cg", "fcg", "minres", "bicgstab", "gmres", "lsmr", "chebyshev", "jacobi", "sor"])
def test_a_warm_start_saves_iterations_and_never_moves_the_target(method, framework):
    wrap = torch.from_numpy if framework == "torch" else np.asarray
    p = gallery.problem("poisson2d", 64)
    A, b, x = p.A.with_data(wrap(p.A.data)), wrap(p.b), p.solution()
    chosen = METHODS[method](maxiter=5000)
    cold = bs.solve_with_info(A, b, method=chosen, rtol=1e-9)
    near = bs.solve_with_info(A, b, method=chosen, rtol=1e-9, x0=wrap(x + 1e-6 * numbers(64)))
    there = bs.solve_with_info(A, b, method=chosen, rtol=1e-9, x0=wrap(x))
    far = bs.solve_with_info(A, b, method=chosen, rtol=1e-9, x0=wrap(1e6 * numbers(64)))
    assert int(there.stats.iterations) == 0 < int(near.stats.iterations) < int(cold.stats.iterations)
    for sol in (near, there, far):
        assert sol.converged
        assert np.linalg.norm(p.toarray() @ np.asarray(sol.x) - p.b) <= 1e-9 * np.linalg.norm(p.b) * (1 + 1e-6)


def test_a_start_has_no_gradient_and_is_laid_out_like_x():
    p = gallery.problem("poisson2d", 25)
    w = torch.from_numpy(np.stack([p.A.data, 2 * p.A.data])).requires_grad_()
    b = torch.from_numpy(numbers((25, 3)))
    x0 = torch.zeros(2, 25, 3, dtype=torch.float64, requires_grad=True)
    x = bs.solve(p.A.with_data(w), b, method="cg", x0=x0 + 1)
    truth = bs.solve(p.A.with_data(w), b)
    torch.testing.assert_close(x, truth, rtol=1e-6, atol=1e-6)
    x.sum().backward()
    assert x0.grad is None or not x0.grad.any()
    again = bs.solve_with_info(p.A.with_data(w.detach()), b, method="cg", x0=truth.detach())
    assert not again.stats.iterations.any()
    A = p.A
    for wrong, sentence in (
        (np.zeros(24), r"x0 must have the shape of x, \(25,\); got shape \(24,\)"),
        (np.full(25, np.nan), "x0 must be finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            bs.solve(A, p.b, method="cg", x0=wrong)
    with pytest.raises(ValueError, match=r"x0 is for iterative methods; the method is SuperLU\(\): leave it out"):
        bs.solve(A, p.b, method="superlu", x0=np.zeros(25))
    with pytest.raises(TypeError, match=r"not for torch\.func transforms"):
        torch.func.vmap(lambda b: bs.solve(A, b, method="cg", x0=torch.zeros(25).double()))(b.T.contiguous())


@pytest.mark.parametrize("method", ["cg", "gmres", "fgmres", "bicgstab", "minres", "lsmr"])
def test_who_is_told_hears_of_every_iteration_with_the_norms_of_true_residuals(method):
    p = gallery.problem("poisson2d", 64)
    told = []
    sol = bs.solve_with_info(p.A, p.b, method=METHODS[method](), callback=lambda *args: told.append(args))
    assert [i for i, _, _ in told] == list(range(int(sol.stats.iterations) + 1))
    assert told[0][1] == pytest.approx(np.linalg.norm(p.b)) and not told[0][2].any()
    for _, norm, x in told:
        assert isinstance(norm, float) and x.shape == (64,)
        assert norm == pytest.approx(np.linalg.norm(p.b - p.toarray() @ x), rel=1e-6, abs=1e-12)
    np.testing.assert_allclose(told[-1][2], sol.x, rtol=1e-12)
    many = []
    b = torch.from_numpy(numbers((2, 64, 3)))
    bs.solve(p.A.with_data(torch.from_numpy(p.A.data)), b, method=method, callback=lambda i, n, x: many.append((n, x)))
    assert many[0][0].shape == (2, 3) and many[0][1].shape == (2, 64, 3) and isinstance(many[0][1], torch.Tensor)
    np.testing.assert_allclose(many[0][0], b.norm(dim=1), rtol=1e-12)


def test_what_a_callback_raises_ends_the_solve():
    p = gallery.problem("poisson2d", 64)

    def impatient(iteration, norm, x):
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bs.solve(p.A, p.b, method="cg", callback=impatient)
    with pytest.raises(ValueError, match="callback is for iterative methods"):
        bs.solve(p.A, p.b, method="superlu", callback=impatient)
    with pytest.raises(TypeError, match=r"callback must be a function \(iteration, residual_norm, x\); got 3"):
        bs.solve(p.A, p.b, method="cg", callback=3)


# -- the Neumann series --------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 10**6), terms=st.integers(1, 40), gap=st.floats(0.01, 0.9),
       kind=st.sampled_from(["csr", "dense"]), dtype=st.sampled_from(DTYPES), adjoint=st.booleans())  # fmt: skip
def test_the_truncation_bound_is_never_below_the_error(n, seed, terms, gap, kind, dtype, adjoint):
    rng = np.random.default_rng(seed)
    N = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if np.dtype(dtype).kind == "c" else 0)
    np.fill_diagonal(N, 0)
    N *= (1 - gap) / max(np.abs(N).sum(axis=1).max(), np.abs(N).sum(axis=0).max(), 1e-30)
    dense = ((np.eye(n) - N) * 10.0 ** rng.integers(-3, 4)).astype(dtype)
    b = numbers(n, dtype, seed)
    A = bs.Dense(dense) if kind == "dense" else bs.aslinearoperator(sp.csr_array(dense))
    sol = bs.solve_with_info(A.H if adjoint else A, b, method=bs.Neumann(maxiter=terms), on_failure="return")
    matrix = dense.astype("clongdouble")
    wide = np.linalg.solve((matrix.conj().T if adjoint else matrix).astype(complex), b.astype(complex))
    error = np.abs(sol.x - wide).max()
    assert error <= float(sol.stats.error_bound) + 1e-14 * np.abs(wide).max() / gap
    if terms > 1 and n > 1:
        assert float(sol.stats.error_bound) < np.inf


def test_no_bound_where_the_series_need_not_converge():
    p = gallery.problem("poisson2d", 25)
    sol = bs.solve_with_info(p.A, p.b, method="neumann")
    assert sol.converged and float(sol.stats.error_bound) == np.inf
    assert np.isnan(float(bs.solve_with_info(p.A, p.b, method="cg").stats.error_bound))


# -- sentences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: pre.SSOR(2.0), ValueError, r"SSOR: omega must be a float in \(0, 2\); got 2.0"),
        (lambda: pre.BlockJacobi(0), ValueError, "BlockJacobi: size must be an integer of at least 1; got 0"),
        (lambda: pre.MIC(1.5), ValueError, r"MIC: relaxation must be a float in \[0, 1\]; got 1.5"),
        (lambda: pre.ILU0(shift=-1), ValueError, "ILU0: shift must be a float of at least 0, or None; got -1"),
        (lambda: pre.ILUT(drop_tol=2), ValueError, r"ILUT: drop_tol must be a float in \[0, 1\]; got 2"),
        (lambda: pre.ILUT(fill_factor=0), ValueError, "ILUT: fill_factor must be a float of at least 1; got 0"),
        (lambda: pre.AMG(kind="x"), ValueError, "AMG: kind must be one of 'smoothed_aggregation', 'ruge_stuben'"),
        (lambda: pre.AMG(cycle="X"), ValueError, "AMG: cycle must be 'V', 'W' or 'F'"),
        (lambda: pre.AMG("ruge_stuben", np.ones((3, 1))), ValueError, "near_nullspace is for kind"),
        (lambda: pre.AMG(near_nullspace=np.ones(3)), ValueError, "near_nullspace must be a finite array"),
        (lambda: pre.Chebyshev(degree=-1), ValueError, "Chebyshev: degree must be an integer of at least 0"),
        (lambda: pre.Chebyshev(bounds=(2, 1)), ValueError, "bounds must be a pair of floats with 0 < low < high"),
        (lambda: pre.LowRank(np.ones(3), np.ones((2, 1))), ValueError, r"LowRank: d must have shape \(n,\) and U"),
        (lambda: pre.LowRank(-np.ones(3), np.ones((3, 1))), ValueError, "LowRank: d must be real, positive and finite"),
        (lambda: pre.Function(3), TypeError, "Function: apply must be a function v -> M v; got 3"),
        (lambda: pre.Kept(None), TypeError, "Kept: M must be the name of a preconditioner"),
        (lambda: pre.Kept("amg", every=0), ValueError, "Kept: every must be an integer of at least 1"),
        (lambda: pre.Kept("amg", growth=0.5), ValueError, "Kept: growth must be a float of at least 1"),
        (lambda: bs.CG(M="magic"), ValueError, r"M must be one of 'jacobi', .* or a function v -> M v; got 'magic'"),
        (lambda: bs.CG(M=pre.Jacobi), TypeError, r"got the class Jacobi: write Jacobi\(\)"),
        (lambda: bs.CG(M=np.eye(3)), TypeError, "M must be a name, a preconditioner, or a function v -> M v; got"),
        (lambda: bs.Jacobi(M="amg"), ValueError, r"Jacobi: M is the inverse diagonal of A; got AMG\(\)"),
        (lambda: bs.GMRES(restart=0), ValueError, "GMRES: restart must be an integer of at least 1; got 0"),
        (lambda: bs.Richardson(omega=0), ValueError, "Richardson: omega must be a positive float; got 0"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def test_what_does_not_go_together():
    A, dense, b = grid("poisson2d", 25)
    with pytest.raises(ValueError, match=r"M is for iterative methods; the method is SuperLU\(\): leave it out"):
        bs.solve(A, b, method="superlu", M="jacobi")
    with pytest.raises(TypeError, match=r"M was given twice: in CG\(M=Jacobi\(\)\), and amg in the call: give one"):
        bs.solve(A, b, method=bs.CG(M="jacobi"), M="amg")
    for M in ("ic0", "mic", "ilu0", "ilut", "amg"):
        with pytest.raises(ValueError, match="is for sparse A"):
            bs.solve(dense, b, method="fgmres", M=M)
    hollow = bs.coo(np.ones(2), ([0, 1], [1, 0]), (2, 2))
    with pytest.raises(ValueError, match="needs every diagonal entry to be stored; that of row 0 is not: use 'ilut'"):
        bs.solve(hollow, np.ones(2), method="gmres", M="ilu0")
    with pytest.raises(ValueError, match="has near_nullspace of 3 rows, but A has 25"):
        bs.solve(A, b, method="cg", M=pre.AMG(near_nullspace=np.ones((3, 1))))
    with pytest.raises(ValueError, match="is for 3 unknowns, but A has 25"):
        bs.solve(A, b, method="cg", M=pre.LowRank(np.ones(3), np.ones((3, 1))))
    with pytest.raises(ValueError, match="of kind 'ruge_stuben' is for real A"):
        bs.solve(A * 1j, b, method="gmres", M=pre.AMG("ruge_stuben"))


def test_explain_and_auto_know_of_m():
    A, _, b = grid("poisson2d", 25)
    assert bs.explain(A, M="amg").startswith("gmres, since A is not declared definite, and M is given.")
    assert bs.explain(A, M="mic", assume="spd").startswith("cg, since A is declared positive definite, and M is given.")
    assert "M is modified incomplete Cholesky factors" in bs.explain(A, M="mic", assume="spd")
    assert bs.solve_with_info(A, b, M="amg", assume="spd").method == bs.CG(M="amg")
    assert str(bs.CG(M=pre.MIC(0.9))) == "CG(M=MIC(relaxation=0.9))"


@pytest.mark.parametrize(
    "M", [pre.MIC(0.9), pre.AMG(), pre.Kept("amg", every=2), pre.LowRank(np.ones(2), np.ones((2, 1)))]
)
def test_preconditioners_are_copied_and_pickled(M):
    for other in (copy.deepcopy(M), pickle.loads(pickle.dumps(M))):
        assert str(other) == str(M)
    assert hash(bs.CG(M=M)) == hash(bs.CG(M=M))


def test_multigrid_takes_what_nearly_vanishes():
    """Two coupled copies of a problem, unknowns interleaved: constants of each copy are what is slow."""
    p = gallery.problem("poisson2d", 400)
    A = sp.csr_array(sp.kron(sp.coo_array(p.toarray()), np.array([[2.0, 1.9], [1.9, 2.0]])))
    A = bs.CSR(A.data, A.indices, A.indptr, A.shape)
    b = numbers(800)
    modes = np.kron(np.ones((400, 1)), np.eye(2))
    plain, knowing = (int(bs.solve_with_info(A, b, method="cg", M=M).stats.iterations)
                      for M in (pre.AMG(), pre.AMG(near_nullspace=modes)))  # fmt: skip
    assert knowing < 0.6 * plain
    assert bs.solve_with_info(p.A, p.b, method="cg", M=pre.AMG("ruge_stuben", cycle="W")).converged


def test_what_pyamg_makes_of_a_matrix_that_is_not_for_it_is_told():
    ring = np.roll(np.eye(30), 1, axis=0)
    rows, columns = np.nonzero(ring + np.eye(30))
    A = bs.coo(ring[rows, columns], (rows, columns), (30, 30))
    sol = bs.solve_with_info(A, numbers(30), method="gmres", M="amg", on_failure="return")
    assert bs.Status(int(sol.status)) is bs.Status.BREAKDOWN
    assert "AMG: pyamg found no hierarchy" in sol.message and "use 'mic' or 'ilu0'" in sol.message


def test_a_preconditioner_that_is_not_finite_is_to_blame_and_not_the_matrix():
    A, _, b = grid("poisson2d", 25)
    sol = bs.solve_with_info(A, b, method="gmres", M=lambda v: v * np.inf, on_failure="return")
    assert bs.Status(int(sol.status)) is bs.Status.BREAKDOWN
    assert "M v, or A M v, is not finite for a finite v: use another preconditioner" in sol.message
