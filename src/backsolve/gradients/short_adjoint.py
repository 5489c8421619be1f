"""Solves whose backward stops a series early: one-step (Jacobian-free) and truncated Neumann adjoints."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ..dispatch import inputs
from ..errors import describe
from ..methods import Neumann
from .program import Program, check_count

__all__ = ["adjoint_bound", "bound_of", "neumann_adjoint", "series"]


def neumann_adjoint(
    A: Any, b: Any, *, terms: int = 1, M: Any = "jacobi", omega: float = 1.0, solve: dict[str, Any] | None = None
) -> Any:
    """Solve A x = b in full, and differentiate it by the first terms of a series for the adjoint.

    The adjoint Aᴴ λ = g is replaced by λ_T = Σ_{j<T} (I - ω Mᴴ Aᴴ)ʲ ω Mᴴ g, of T `terms`: T - 1 products instead of a
    solve. With T = 1 this is one-step, or Jacobian-free, differentiation. λ_T leaves out (I - ω Mᴴ Aᴴ)ᵀ λ, which is
    most of λ unless M is close to A⁻¹: know the error (`adjoint_bound`, `compare`) before you train with it.

    Parameters
    ----------
    A, b
        As for `backsolve.solve`, of torch or JAX.
    terms : int
        T, at least 1.
    M : "jacobi", callable or None, optional
        The inverse diagonal, a Hermitian function v ↦ M v, or the identity.
    omega : float, optional
        ω > 0.
    solve : dict, optional
        Options of `backsolve.solve`, for the solve: method, M, assume, rtol, atol, on_failure.

    Returns
    -------
    array
        x of `backsolve.solve`. Differentiable once: the derivative of an approximate gradient is no Hessian.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `backsolve.solve`, and if the series overflows.

    References
    ----------
    Fung et al. 2022 (JFB), arXiv:2103.12803; Bolte, Pauwels and Vaiter 2023 (one-step), arXiv:2305.13768; Lorraine,
    Vicol and Duvenaud 2020 (Neumann), arXiv:1911.02590.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 4.0]], dtype=torch.float64)
    >>> b = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> x = gradients.neumann_adjoint(A, b, terms=2)
    >>> torch.autograd.grad(x.sum(), b)[0].tolist()  # 0.2 in the limit
    [0.1875, 0.1875]
    """
    return solved(A, b, series(terms, M, omega), solve or {})


def series(terms: int, M: Any = "jacobi", omega: float = 1.0) -> Program:
    """The sum of so many terms: as many steps of Richardson's iteration from zero."""
    return Program("richardson", check_count("neumann_adjoint", "terms", terms, 1), M, omega=omega)


def solved(A: Any, b: Any, program: Program, options: dict, tally: Any = None) -> Any:
    """x with the backward of `program`."""
    frontend, A, b = inputs(A, b, options.get("assume"))
    if frontend.name not in ("torch", "jax"):
        raise TypeError(
            f"neumann_adjoint is for arrays of torch and JAX; got those of {frontend.name}: use backsolve.vjp."
        )
    if A.batch_shape:
        raise ValueError(f"neumann_adjoint: A must be one matrix; got {A!r}: call it for each matrix of the batch.")
    return import_module(f".{frontend.name}_adjoint", __package__).solved(A, b, program, options, tally)


def adjoint_bound(A: Any, g: Any, *, terms: int) -> float:
    """Bound the error of a truncated Neumann adjoint: norm(λ_T - A⁻ᴴ g, inf) <= the number returned.

    With q = norm(I - D⁻ᴴ Aᴴ, inf) < 1, as it is for matrices that are strictly diagonally dominant by columns, the
    error is at most norm(D⁻ᴴ (g - Aᴴ λ_T), inf) / (1 - q), rounding included, and falls like qᵀ. The gradient with
    respect to entry (i, j) of A, -λ_i conj(x_j), is then off by no more than this times |x_j|, that by b by
    no more than this.

    Parameters
    ----------
    A : array (n, n), sparse array or tensor, or operator with entries
    g : array (n,) or (n, k)
        The cotangent of x.
    terms : int
        T of `neumann_adjoint`, with M="jacobi" and omega=1.

    Returns
    -------
    float
        Infinite where q >= 1; the largest of all columns.

    Raises
    ------
    TypeError, ValueError
        If A is matrix-free or a batch, or shapes do not fit.

    References
    ----------
    Saad 2003, section 12.3.1: the bound is the geometric series. See `backsolve.Neumann`.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve import gradients
    >>> A = np.array([[4.0, 1.0], [1.0, 4.0]])
    >>> [round(gradients.adjoint_bound(A, np.ones(2), terms=T), 4) for T in (1, 2, 3)]
    [0.0833, 0.0208, 0.0052]
    """
    frontend, A, g = inputs(A, g, None)
    check_count("adjoint_bound", "terms", terms, 1)
    if A.structure.kind == "free" or A.batch_shape or len(g.shape) > 2:
        raise ValueError(
            f"adjoint_bound: A must be one matrix with entries, and g of shape (n,) or (n, k); got {A!r} and "
            f"{describe(g)}: take matrices one by one."
        )
    host = getattr(frontend, "to_host", np.asarray)
    data, g = host(A.data), host(g)
    return bound_of(A.with_data(data) if A.structure.kind == "csr" else data, g, terms)


def bound_of(A: Any, g: np.ndarray, terms: int) -> float:
    """`adjoint_bound` on plain arrays; the series is summed here, as its rounding is part of the bound."""
    frontend, A, _ = inputs(A, g, None)
    values = frontend.canonical(A, A.data, np.result_type(A.data, g))
    plain = A.on(values[None])
    g = np.asarray(g, values.dtype).reshape(1, A.shape[0], -1)
    structure = plain.structure
    d = np.diagonal(values)[:, None] if structure.kind == "dense" else _diagonal(structure, values)
    if not d.all():
        return np.inf
    lam, r = np.zeros_like(g), g
    for _ in range(terms):
        lam = lam + r / d.conj()
        r = structure.residual(plain.data, lam, g, True)[0]
    return float(np.max(Neumann().bound(plain, lam, g, r, True), initial=0.0))


def _diagonal(structure: Any, values: np.ndarray) -> np.ndarray:
    places = structure.diagonal
    return np.where(places >= 0, values[places], 0)[:, None]
