"""What has gone wrong, silently, in differentiable linear solvers: each case here, with a proof that it would show.

Where users have reported a case in public, the thread is named as repository#number.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import backsolve as bs
from backsolve.frontends import torch_compile

N = 24
OFFSETS = (0, 1, 2, -1)
ROWS = torch.cat([torch.arange(max(0, -k), N - max(0, k)) for k in OFFSETS])
COLS = torch.cat([torch.arange(max(0, -k), N - max(0, k)) + k for k in OFFSETS])
PATTERN = bs.coo(torch.zeros(len(ROWS)), (ROWS, COLS), (N, N))


def product(w, v):
    return torch.zeros_like(v).index_add(0, ROWS, w * v[COLS])


def scatter(w):
    return torch.zeros(N, N, dtype=w.dtype).index_put((ROWS, COLS), w)


# Every way to solve with the same numbers: name -> (w, b, options) to x.
WAYS = {
    "superlu": lambda w, b, **o: bs.solve(PATTERN.with_data(w), b, **o),
    "sparse bicgstab": lambda w, b, **o: bs.solve(PATTERN.with_data(w), b, method="bicgstab", **o),
    "lu": lambda w, b, **o: bs.solve(scatter(w), b, **o),
    "dense bicgstab": lambda w, b, **o: bs.solve(scatter(w), b, method="bicgstab", **o),
    "matrix-free": lambda w, b, **o: bs.solve(bs.MatrixFree(product, w, (N, N)), b, **o),
}


def truth(w, b):
    return torch.linalg.solve(scatter(w), b)


def values(dtype=torch.float64, seed=0):
    """Well conditioned, and far from symmetric: twice as much above the diagonal as on it."""
    w = 0.2 * torch.randn(len(ROWS), dtype=dtype, generator=torch.Generator().manual_seed(seed))
    shift = torch.cat([torch.full((N - abs(k),), v) for k, v in zip(OFFSETS, (3.0, -1.7, 0.9, 0.0), strict=True)])
    return w + shift


def vector(dtype=torch.float64, seed=1):
    return torch.randn(N, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def off(actual, expected):
    """Relative error."""
    return float(((actual - expected).norm() / expected.norm()).detach())


class OpaqueBackward(torch.autograd.Function):
    """How a solve is often wrapped by hand: its backward calls an engine that autograd cannot see into."""

    @staticmethod
    def forward(ctx, w, b):
        x = truth(w, b)
        ctx.save_for_backward(w, x)
        return x

    @staticmethod
    def backward(ctx, g):
        w, x = ctx.saved_tensors
        lam = torch.from_numpy(np.linalg.solve(scatter(w.detach()).numpy().conj().T, g.detach().numpy()))
        return -lam[ROWS] * x[COLS], lam


@pytest.mark.parametrize("way", WAYS)
def test_hessians_are_those_of_the_dense_problem(way):
    """An opaque backward makes second derivatives silently wrong; asked for in torchsparsegradutils#81."""
    w, b = values(), vector()
    at = torch.arange(0, len(w), 18)  # some of the values are enough to tell

    def hessian(solve):
        f = lambda part: solve(w.index_put((at,), part), b).pow(3).sum()  # noqa: E731
        return torch.autograd.functional.hessian(f, w[at])

    expected = hessian(truth)
    assert off(hessian(OpaqueBackward.apply), expected) > 0.1, "the case does not show the mistake"
    options = {} if way in ("superlu", "lu") else {"rtol": 1e-13}
    assert off(hessian(lambda w, b: WAYS[way](w, b, **options)), expected) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_solve_with_the_adjoint_of_a_strongly_nonsymmetric_matrix(way, dtype):
    w, b = values(dtype).requires_grad_(), vector(dtype).requires_grad_()
    options = {} if way in ("superlu", "lu") else {"rtol": 1e-13}
    expected = torch.autograd.grad((truth(w, b).abs() ** 2).sum(), (w, b))
    actual = torch.autograd.grad((WAYS[way](w, b, **options).abs() ** 2).sum(), (w, b))
    for a, e in zip(actual, expected, strict=True):
        assert off(a, e) < 1e-9
    with torch.no_grad():
        A, x = scatter(w), truth(w, b)
        for wrong in (A, A.mT) if dtype.is_complex else (A,):  # A itself, or transposed without conjugation
            lam = torch.linalg.solve(wrong, 2 * x)
            assert off(lam, expected[1]) > 0.1 and off(-lam[ROWS] * x[COLS].conj(), expected[0]) > 0.1


@pytest.mark.parametrize("way", WAYS)
def test_one_value_changed_in_place_is_seen(way):
    """A cache keyed by a sample of the values solves the old system (LinearSolve.jl PR#1067)."""
    w, b = values(), vector()
    before = WAYS[way](w, b)
    w[len(w) // 2] += 0.5
    after, expected = WAYS[way](w, b), truth(w, b)
    assert off(after, expected) < 1e-7 < 1e-3 < off(before, expected)


def test_one_value_changed_in_place_is_seen_by_numpy_by_factors_and_by_the_cache():
    w, b = values(), vector()
    A = bs.coo(w.numpy(), (ROWS.numpy(), COLS.numpy()), (N, N))  # shares its memory
    F, before = bs.factorize(PATTERN.with_data(w)), bs.solve(A, b.numpy())

    def compiled():
        key = PATTERN.template.key
        return torch_compile._solve(w, b, key, "auto", "general", None, None, None, None, "raise", "raise")

    assert off(compiled(), truth(w, b)) < 1e-12 > off(compiled(), truth(w, b)), "served from the cache"
    w[len(w) // 2] += 0.5
    expected = truth(w, b)
    assert off(torch.from_numpy(before), expected) > 1e-3
    assert off(torch.from_numpy(bs.solve(A.with_data(w.numpy()), b.numpy())), expected) < 1e-12
    assert off(compiled(), expected) < 1e-12
    with pytest.raises(RuntimeError, match="refactorize"):
        F.solve(b)


def test_a_value_changed_before_backward_raises():
    w, b = values().requires_grad_(), vector()
    doubled = 2 * w
    x = bs.solve(bs.MatrixFree(product, doubled, (N, N)), b)
    with torch.no_grad():
        doubled[0] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


NOT_DEFINITE = {
    "skewed": np.eye(N) + 4 * (np.eye(N, k=1) - np.eye(N, k=-1)),  # pᵀ A p > 0 for every p, and yet no SPD matrix
    "triangular": np.eye(N) * 3 + 2 * np.triu(np.ones((N, N)), 1),
    "indefinite": np.diag(np.where(np.arange(N) % 3, 1.0, -1.0) * np.arange(1, N + 1)),
    "skewed part only": np.eye(N, k=1) - np.eye(N, k=-1),
}


@pytest.mark.parametrize("kind", ["numpy", "torch", "matrix-free"])
@pytest.mark.parametrize("name", NOT_DEFINITE)
def test_conjugate_gradients_never_claims_what_it_did_not_reach(name, kind):
    """Iterative methods that return anything, with success, on matrices not made for them (jax#6490, jax#15837)."""
    M, b = NOT_DEFINITE[name], np.random.default_rng(0).standard_normal(N)
    T = torch.from_numpy(M)
    A = {"numpy": M, "torch": T, "matrix-free": bs.MatrixFree(lambda M, v: M @ v, T, (N, N))}[kind]
    right = b if kind == "numpy" else torch.from_numpy(b)
    sol = bs.solve_with_info(A, right, method="cg", on_failure="return")
    residual = np.linalg.norm(M @ np.asarray(sol.x) - b) / np.linalg.norm(b)
    assert not sol.converged and not residual <= 1e-8
    if int(sol.status) != bs.Status.SINGULAR:  # which leaves no iterate
        assert float(sol.stats.relative_residual) == pytest.approx(residual, rel=1e-6)
    assert bs.Status(int(sol.status)).advice in sol.message
    with pytest.raises(bs.SolveError, match=bs.Status(int(sol.status)).name):
        bs.solve(A, right, method="cg")


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_a_recursive_residual_that_drifts_does_not_count(backward):
    """In float32 the recurrence believes itself long after b - A x has stopped (warp#1708); backward is judged too."""
    n = 40
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    M = torch.from_numpy(((Q * np.logspace(0, 5, n)) @ Q.T).astype("float32"))
    b = torch.ones(n, requires_grad=True)
    method = bs.CG(maxiter=800)
    A = bs.MatrixFree(lambda M, v: M @ v, M, (n, n))
    unreachable, loose = bs.Adjoint(rtol=1e-7), bs.Adjoint(rtol=1e-7, on_failure="return")
    if not backward:
        with pytest.raises(bs.SolveError, match=r"STAGNATION|MAXITER"):
            bs.solve(A, b, method=method, rtol=1e-7)
        return
    x = bs.solve(A, b, method=method, rtol=1e-2, adjoint=unreachable)
    with pytest.raises(bs.SolveError, match=r"adjoint \(backward\) solve failed: (STAGNATION|MAXITER)"):
        x.sum().backward()
    sol = bs.solve_with_info(A, b, method=method, rtol=1e-2, adjoint=loose)
    (b_bar,) = torch.autograd.grad(sol.x.sum(), b)
    lam = sol.adjoint
    assert sol.converged and not lam.converged and b_bar.isnan().all()
    assert float(lam.stats.relative_residual) > 1e-7


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-13, 1e13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_tiny_cotangents_give_tiny_gradients(way, dtype, size):
    """A gradient of NaN though the primal converged (jax#40254): inner products of small numbers underflow."""
    w, b = values(dtype).requires_grad_(), vector(dtype).requires_grad_()
    x = WAYS[way](w, b)
    bars = torch.autograd.grad(x, (w, b), torch.full_like(x, size))
    wide = [t.detach().to(torch.complex128 if dtype.is_complex else torch.float64).requires_grad_() for t in (w, b)]
    y = truth(*wide)
    for bar, e in zip(bars, torch.autograd.grad(y, wide, torch.ones_like(y)), strict=True):
        assert bar.dtype == dtype and not bar.isnan().any()
        if size:
            assert off(bar.to(e.dtype) / size, e) < 1e-3
        else:
            assert not bar.any()


@pytest.mark.parametrize("bad", ["zero row", "nan"])
@pytest.mark.parametrize("way", WAYS)
def test_one_bad_system_of_a_batch_spoils_its_own_gradient_only(way, bad):
    """One singular matrix kills the batch (pytorch#31546), or its NaN spreads over all gradients."""
    options = {"on_failure": "return"} | ({} if way in ("superlu", "lu") else {"rtol": 1e-12})
    method = "bicgstab" if "bicgstab" in way else "auto"
    if way == "matrix-free":  # its batches are maps over the parameters
        solve = torch.func.vmap(lambda w, b: WAYS[way](w, b, **options))
    else:
        sparse = way in ("superlu", "sparse bicgstab")
        matrices = PATTERN.with_data if sparse else torch.func.vmap(scatter)
        solve = lambda w, b: bs.solve(matrices(w), b[..., None], method=method, **options)[..., 0]  # noqa: E731
    w, b = torch.stack([values(seed=s) for s in range(3)]), torch.stack([vector(seed=s) for s in range(3)])
    w[1, ROWS == 5] = 0.0 if bad == "zero row" else float("nan")
    w.requires_grad_(), b.requires_grad_()
    x = solve(w, b)
    good = [0, 2]
    expected = torch.func.vmap(truth)(w[good], b[good])
    assert x[1].isnan().all() and off(x[good], expected) < 1e-9
    bars = torch.autograd.grad(x[good].pow(2).sum(), (w, b))
    for bar, e in zip(bars, torch.autograd.grad(expected.pow(2).sum(), (w, b)), strict=True):
        assert off(bar[good], e[good]) < 1e-9
