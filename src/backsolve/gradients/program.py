"""A fixed number of iterations as a differentiable program: options and their checks, for every framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from ..dispatch import inputs
from ..errors import describe
from ..operators import AbstractLinearOperator
from ..preconditioners.spectrum import check_bounds
from .recurrences import RECURRENCES

__all__ = ["FAILED", "Program", "check_count", "diagonal_inverse", "interval", "unroll"]

FAILED = {
    "indefinite": (
        "unroll: a direction has curvature pᴴ A p <= 0, so A or M is not positive definite and 'cg' is no method for "
        "it: use method='jacobi' or 'richardson', or backsolve.solve, which takes any matrix."
    ),
    "nonfinite": (
        "unroll: the iterates overflow, so the iteration diverges: use fewer iterations, a smaller omega, "
        "method='cg', or backsolve.solve."
    ),
}
"""What is said of a program that has no result."""


@dataclass(frozen=True)
class Program:
    """Options of `unroll`, checked; `run` is the program."""

    method: str = "cg"
    iterations: int = 100
    M: Any = None
    truncate: int | None = None
    checkpoint: int | None = None
    omega: float = 1.0
    bounds: tuple[float, float] | None = None

    def __post_init__(self):
        if self.method not in RECURRENCES:
            known = ", ".join(map(repr, RECURRENCES))
            raise ValueError(
                f"unroll: method must be one of {known}; got {describe(self.method)}: "
                "others are differentiated implicitly, by backsolve.solve."
            )
        check_count("unroll", "iterations", self.iterations, 0)
        for name in ("truncate", "checkpoint"):
            if getattr(self, name) is not None:
                check_count("unroll", name, getattr(self, name), 1)
        if not (self.M is None or self.M == "jacobi" or callable(self.M)) or isinstance(self.M, type):
            raise ValueError(
                f"unroll: M must be None, 'jacobi', or a function v -> M v of the framework; got {describe(self.M)}: "
                "other preconditioners are not made of differentiable operations."
            )
        if self.method == "jacobi" and self.M not in (None, "jacobi"):
            raise ValueError(
                f"unroll: M of 'jacobi' is the inverse diagonal; got {describe(self.M)}: use 'richardson'."
            )
        if not isinstance(self.omega, int | float) or isinstance(self.omega, bool) or not 0 < self.omega < np.inf:
            raise ValueError(f"unroll: omega must be a positive float; got {describe(self.omega)}.")
        check_bounds("unroll", self.bounds)

    @property
    def scaled(self) -> bool:
        """Whether M is the inverse diagonal."""
        return self.method == "jacobi" or (isinstance(self.M, str) and self.M == "jacobi")

    @property
    def recorded(self) -> int:
        """Iterations that the backward goes through."""
        return self.iterations if self.truncate is None else min(self.truncate, self.iterations)

    def run(self, A: Any, b: Any, tally: Any = None) -> Any:
        """x after the iterations; `tally` counts products, forward and backward, where the framework can."""
        frontend, A, b = inputs(A, b, None)
        if frontend.name not in ("torch", "jax"):
            raise TypeError(
                f"unroll is for arrays of torch and JAX, which record iterations; got those of {frontend.name}: "
                "use backsolve.solve."
            )
        if self.scaled and A.structure.kind == "free":
            raise ValueError(
                "unroll: 'jacobi' needs the diagonal of A, which a MatrixFree operator does not store: "
                "give method='richardson' and M, a function v -> M v."
            )
        return import_module(f".{frontend.name}_unroll", __package__).run(self, A, b, tally)


def unroll(
    A: Any,
    b: Any,
    *,
    method: str = "cg",
    iterations: int,
    M: Any = None,
    truncate: int | None = None,
    checkpoint: int | None = None,
    omega: float = 1.0,
    bounds: tuple[float, float] | None = None,
) -> Any:
    """Run a fixed number of iterations for A x = b, each recorded by autograd.

    The gradient is that of the program, not of A⁻¹ b: both agree once the iterates *and their derivatives* have
    converged, which takes longer, and for CG may be far apart before ("the curse of unrolling"). Each recorded
    iteration keeps 3 to 6 vectors until the backward. `backsolve.solve` has neither trouble; unroll is for truncated
    solvers that are part of a model, for learned preconditioners, and for comparison (`compare`).

    Parameters
    ----------
    A : array (n, n), sparse array or tensor, or linear operator
        See `backsolve.solve`; of torch or JAX, also a `MatrixFree`. Batches broadcast.
    b : array (n,) or (..., n, k)
        Columns are independent runs.
    method : {"cg", "chebyshev", "jacobi", "richardson"}, optional
        Conjugate gradients and Chebyshev's semi-iteration, for Hermitian positive definite A; x += ω M (b - A x), with
        M the inverse diagonal for "jacobi".
    iterations : int
        K, however small the residual is.
    M : "jacobi" or callable, optional
        M ≈ A⁻¹, Hermitian positive definite for "cg" and "chebyshev". What a function v ↦ M v computes is recorded.
    truncate : int, optional
        Record the last so many iterations only: those before make a constant x̃ (and direction), and the residual
        b - A x̃ is recorded. With 1, "jacobi" and "richardson" are one-step (Jacobian-free) differentiation.
    checkpoint : int, optional
        Keep states every so many iterations, and compute what is between them again in the backward: memory of
        iterations / checkpoint states and `checkpoint` iterations, for one more forward. About √iterations is best.
    omega : float, optional
        ω of "jacobi" and "richardson".
    bounds : (float, float), optional
        The interval of eigenvalues of M A for "chebyshev". Without it 20 steps of CG look for one; it counts as
        constant in derivatives either way.

    Returns
    -------
    array
        x, of the shape of `backsolve.solve`. How well it solves is not judged: that is for the caller.

    Raises
    ------
    SolveError
        If CG meets a direction without positive curvature, or the iterates overflow. Under ``torch.func`` transforms
        and in JAX x is NaN instead.
    TypeError, ValueError
        If arguments do not fit.

    Notes
    -----
    *Scale safe*: b is divided by max|b|, which is exact as x is homogeneous in b, and divisions are guarded relative to
    where a column began. CG ends, for a column, where its residual has fallen by the unit roundoff, which may be long
    before its derivatives have converged: at once for b = 0, after one step for an eigenvector. The iterations that
    are left go to Chebyshev's iteration for the correction A d = r, which changes x by rounding only and lets the
    derivatives converge (in eager torch; under ``torch.func`` transforms and in JAX they stay as they are).

    References
    ----------
    Scieur, Bertrand, Gidel and Pedregosa 2022, arXiv:2209.13271; Griewank and Walther 2008, chapter 12 (checkpoints);
    Shaban et al. 2019, arXiv:1810.10667 (truncation); Saad 2003, algorithms 9.1 and 12.1.

    Examples
    --------
    >>> import torch, backsolve as bs
    >>> from backsolve import gradients
    >>> w = torch.tensor([4.0, 2.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    >>> A, b = bs.coo(w, ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2)), torch.tensor([8.0, 7.0], dtype=torch.float64)
    >>> x = gradients.unroll(A, b, iterations=2)
    >>> torch.allclose(x, bs.solve(A, b))
    True
    >>> torch.autograd.grad(x.sum(), w)[0].shape
    torch.Size([4])
    """
    return Program(method, iterations, M, truncate, checkpoint, omega, bounds).run(A, b)


def check_count(owner: str, name: str, value: Any, least: int) -> int:
    """Return an integer of at least `least`, or raise the sentence that says what is wrong."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{owner}: {name} must be an integer of at least {least}; got {describe(value)}.")
    return int(value)


def diagonal_inverse(A: AbstractLinearOperator, vector: bool, known: Callable) -> Any:
    """1 / diag(A), recorded, to multiply vectors or columns by; `known` gives numbers, None where they are traced."""
    d = A.diagonal()
    numbers = known(d)
    if numbers is not None and not numbers.all():
        row = int(np.argmin(numbers.all(tuple(range(numbers.ndim - 1))) * 1))
        raise ValueError(
            f"unroll: the diagonal entry of row {row} is zero or "
            "not stored, so 'jacobi' has no inverse diagonal: use method='richardson' and M."
        )
    return 1 / (d if vector else d[..., None])


def interval(alphas: list[float], betas: list[float]) -> tuple[float, float]:
    """An interval around the spectrum of M A, from the coefficients of CG, of which the first alpha is positive.

    They are the entries of the Lanczos matrix, whose eigenvalues lie inside the spectrum: T_jj = 1/α_j + β_j/α_{j-1},
    T_{j,j+1} = √β_{j+1} / α_j (Saad 2003, section 6.7.3). The largest is raised by a tenth, the smallest halved.
    """
    count = next((j for j, alpha in enumerate(alphas) if not alpha > 0), len(alphas))
    a, beta = np.array(alphas[:count]), np.array(betas[:count])
    diagonal = 1 / a
    diagonal[1:] += beta[1:] / a[:-1]
    off = np.sqrt(beta[1:]) / a[:-1]
    values = eigvalsh_tridiagonal(diagonal, off)
    high = 1.1 * float(values[-1])
    return max(0.5 * float(values[0]), float(np.finfo(float).eps) * high), high
