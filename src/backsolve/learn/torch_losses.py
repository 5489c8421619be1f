"""Losses of preconditioners by the spectrum of M A, and which losses teach nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch

from ..determinant import slogdet
from ..errors import describe
from .torch_batch import linear

__all__ = ["check_loss", "condition_loss", "kaporin_loss"]

_CONVERGED = (
    "a converged solution does not depend on its preconditioner, so a loss of it cannot teach one: train through a few "
    "steps of a solver, loss='steps', or with a spectral loss, 'kaporin' or 'condition'"
)


def check_loss(loss: torch.Tensor, module: torch.nn.Module) -> None:
    """Raise if a loss cannot teach a module: where its derivatives by all parameters are zero, or rounding.

    The usual reason: x = A⁻¹ b whatever M is, so ∂x/∂M = 0 for a converged solve, exactly if it is differentiated
    implicitly, and up to the tolerance if through its iterations.

    Parameters
    ----------
    loss : tensor ()
        Made with the parameters as they are.
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If the sum of moduli of the derivatives is below a millionth of the loss.

    Examples
    --------
    >>> import torch
    >>> from backsolve import learn
    >>> M = torch.nn.Linear(2, 2)
    >>> learn.check_loss(M(torch.ones(2)).square().sum(), M)
    """
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        raise ValueError(f"check_loss: loss must be a scalar tensor; got {describe(loss)}.")
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters or not loss.requires_grad:
        what = "has no gradient" if parameters else "cannot be learned from: no parameter requires a gradient"
        raise ValueError(f"check_loss: the loss {what}; {_CONVERGED}.")
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    total = sum(float(g.abs().sum()) for g in found if g is not None)
    size = abs(float(loss.detach()))
    if not total > 1e-6 * size:
        raise ValueError(
            f"check_loss: the loss must change with the parameters; it is {size:.2e}, and its derivatives add up to "
            f"{total:.1e}, if not NaN: {_CONVERGED}."
        )


def kaporin_loss(M: Any, A: Any, *, logdet: float | None = None) -> torch.Tensor:
    """log K / n for Kaporin's condition number K = (tr(M A)/n)ⁿ / det(M A), at least 0, and 0 for M = c A⁻¹ alone.

    CG reduces the residual by ε in at most log₂ K + log₂ 1/ε iterations, nearly. Exact: a module with methods
    ``trace(A)`` and ``logdet(A)``, as `LowRankDiagonal`, costs a product of A with its columns; another M is made
    dense, in n applications.

    Parameters
    ----------
    M : torch.nn.Module or tensor (n, n)
        Symmetric positive definite; a module maps (A, r (n, k)) to M r, differentiably.
    A : scipy.sparse array or matrix (n, n)
        Symmetric positive definite.
    logdet : float, optional
        log det A, if it is known.

    Returns
    -------
    tensor ()

    Raises
    ------
    ValueError
        If A or M is not of this kind.

    References
    ----------
    Kaporin 1994, doi:10.1002/nla.1680010208.

    Examples
    --------
    >>> import scipy.sparse as sp, torch
    >>> from backsolve import learn
    >>> A = sp.diags_array([1.0, 2.0, 4.0]).tocsr()
    >>> round(float(learn.kaporin_loss(torch.eye(3, dtype=torch.float64), A)), 6)
    0.154151
    """
    A = _matrix("kaporin_loss", A)
    n = A.shape[0]
    if logdet is None:
        logdet = log_determinant(A)
    if hasattr(M, "trace") and hasattr(M, "logdet") and not isinstance(M, torch.Tensor):
        trace, own = M.trace(A), M.logdet(A)
    else:
        dense = _applied(M, A)(torch.eye(n, dtype=torch.float64))
        lower, failed = torch.linalg.cholesky_ex((dense + dense.T) / 2)
        if int(failed):
            raise ValueError(
                "kaporin_loss: M must be positive definite, and is not: give it by a factor, M = L Lᵀ with a positive "
                "diagonal."
            )
        own = 2 * torch.log(torch.diagonal(lower)).sum()
        trace = (linear(A.__matmul__, A.T.__matmul__)(dense.T) * torch.eye(n, dtype=torch.float64)).sum()
    return torch.log(trace / n) - (own + logdet) / n


def condition_loss(M: Any, A: Any, *, tol: float = 1e-3, maxiter: int | None = None, seed: int = 0) -> torch.Tensor:
    """log κ(M A), the logarithm of the largest eigenvalue of M A over the smallest, for large n.

    A Lanczos process without gradient finds the extreme eigenvectors y; then they are held fixed, and the gradient is
    that of their Rayleigh quotients (A y)ᵀ M (A y) / yᵀ A y. It is right where both extreme eigenvalues are simple: up
    to the error of y, which is why the process stops by the residuals of Ritz pairs and not after so many steps.

    Parameters
    ----------
    M : torch.nn.Module or tensor (n, n)
        Symmetric positive definite; a module maps (A, r (n, k)) to M r, differentiably.
    A : scipy.sparse array or matrix (n, n)
        Symmetric positive definite.
    tol : float
        Of the residuals of both Ritz pairs, relative to their values, in the norm of A.
    maxiter : int, optional
        Lanczos steps allowed; n by default. Two vectors are kept for each.
    seed : int
        Of the first vector.

    Returns
    -------
    tensor ()

    Raises
    ------
    ValueError
        If A or M is not of this kind, or `maxiter` was not enough.

    References
    ----------
    Parlett 1998, The Symmetric Eigenvalue Problem, chapter 13.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, torch
    >>> from backsolve import learn
    >>> A = sp.diags_array([1.0, 2.0, 4.0]).tocsr()
    >>> round(float(learn.condition_loss(torch.eye(3, dtype=torch.float64), A).exp()), 6)
    4.0
    """
    A = _matrix("condition_loss", A)
    if not isinstance(tol, int | float) or not 0 < tol < 1:
        raise ValueError(f"condition_loss: tol must be a float between 0 and 1; got {describe(tol)}.")
    apply = _applied(M, A)

    def plain(v: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return apply(torch.from_numpy(np.ascontiguousarray(v[:, None]))).numpy()[:, 0]

    Y = _extreme_vectors(plain, A, tol, A.shape[0] if maxiter is None else maxiter, seed)
    AY = A @ Y
    below = torch.from_numpy(np.sum(Y * AY, axis=0))
    w = torch.from_numpy(AY)
    low, high = (w * apply(w)).sum(dim=0) / below
    return torch.log(high) - torch.log(low)


def _extreme_vectors(M: Callable, A: Any, tol: float, maxiter: int, seed: int) -> np.ndarray:
    """Eigenvectors of M A for the smallest and the largest eigenvalue: (n, 2). Lanczos in the inner product of A."""
    n = A.shape[0]
    v = np.random.default_rng(seed).standard_normal(n)
    V, AV = np.zeros((n, 0)), np.zeros((n, 0))
    alphas, betas = [], []
    Av = A @ v
    size = np.sqrt(v @ Av)
    for step in range(1, min(maxiter, n) + 1):
        v, Av = v / size, Av / size
        V, AV = np.column_stack([V, v]), np.column_stack([AV, Av])
        w = M(Av)
        alphas.append(float(w @ Av))
        for _ in range(2):  # all of them, twice: rounding would bring copies of eigenvalues
            w = w - V @ (AV.T @ w)
        Aw = A @ w
        square = float(w @ Aw)
        if not np.isfinite(square) or not np.isfinite(alphas[-1]):
            raise ValueError("condition_loss: M and A must be finite; a product with them is not.")
        if alphas[-1] <= 0:
            raise ValueError("condition_loss: M must be positive definite; a direction with vᵀMv <= 0 was met.")
        size = np.sqrt(max(square, 0.0))
        exhausted = step == n or size <= 1e-14 * max(alphas)
        if exhausted or step % 10 == 0 or step == maxiter:
            values, vectors = scipy.linalg.eigh_tridiagonal(np.array(alphas), np.array(betas))
            gaps = size * np.abs(vectors[-1, [0, -1]])
            if exhausted or (gaps <= tol * values[[0, -1]]).all():
                return V @ vectors[:, [0, -1]]
        betas.append(size)
        v, Av = w, Aw
    raise ValueError(
        f"condition_loss: the extreme eigenvalues of M A were not found to {tol:g} in {maxiter} Lanczos steps: "
        "raise maxiter or tol."
    )


def log_determinant(A: sp.csr_array) -> float:
    """log det A of a definite A."""
    sign, value = slogdet(A)
    if not sign > 0 or not np.isfinite(value):
        raise ValueError("kaporin_loss: A must be positive definite; its determinant is not positive.")
    return float(value)


def _matrix(owner: str, A: Any) -> sp.csr_array:
    if not sp.issparse(A) or A.shape[0] != A.shape[1] or A.dtype.kind != "f":
        raise ValueError(
            f"{owner}: A must be a square scipy.sparse array of real numbers; got {describe(A)}: use "
            "scipy.sparse.csr_array(A)."
        )
    return sp.csr_array(A, dtype=float)


def _applied(M: Any, A: sp.csr_array) -> Callable[[torch.Tensor], torch.Tensor]:
    """r (n, k) -> M r, for a matrix or a module."""
    if isinstance(M, torch.Tensor):
        if M.shape != A.shape or M.dtype != torch.float64:
            raise ValueError(f"M must be a tensor of shape {A.shape} and torch.float64; got {describe(M)}.")
        return lambda r: M @ r
    if not isinstance(M, torch.nn.Module):
        raise TypeError(f"M must be a torch.nn.Module (A, r) -> M r, or a tensor (n, n); got {describe(M)}.")
    return lambda r: M(A, r)
