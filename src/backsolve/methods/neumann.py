"""The Neumann series of a matrix near its diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..preconditioners import Jacobi as Diagonal
from .base import Outcome, Target
from .stationary import Stationary, own_preconditioner

__all__ = ["Neumann"]


@dataclass(frozen=True)
class Neumann(Stationary):
    """The Neumann series x = Σ_j (I - D⁻¹ A)ʲ D⁻¹ b, with a bound of what its truncation leaves out.

    ``maxiter`` terms at most, each a product with A. Where q = norm(I - D⁻¹ A, inf) < 1, as it is for matrices that are
    strictly diagonally dominant by rows, norm(x - A⁻¹ b, inf) <= norm(D⁻¹ r, inf) / (1 - q): that bound, rounding
    included, is in ``Solution.stats.error_bound``; it is infinite where q >= 1.

    Parameters
    ----------
    rtol, atol, maxiter
        See `IterativeMethod`.

    Notes
    -----
    *Requires* entries. *Fails with* MAXITER, BREAKDOWN (it diverges, or a diagonal entry is zero), STAGNATION,
    NONFINITE. *Differentiation*: the adjoint solve is the series of Aᴴ.

    References
    ----------
    Saad, Iterative Methods for Sparse Linear Systems, 2nd edition, section 12.3.1; the bound is the geometric series.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A, b = np.array([[4.0, 1.0], [-1.0, 5.0]]), np.array([5.0, 4.0])
    >>> sol = bs.solve_with_info(A, b, method=bs.Neumann(maxiter=5), on_failure="return")
    >>> bool(abs(sol.x - 1).max() <= sol.stats.error_bound < 1e-2)
    True
    """

    name: ClassVar[str] = "neumann"
    summary: ClassVar[str] = "the Neumann series: one product with A for each term"
    requires: ClassVar[frozenset[str]] = frozenset({"diagonally_dominant"})
    weight: ClassVar[float] = 1.0  # type: ignore[misc]

    def __post_init__(self):
        super().__post_init__()
        own_preconditioner(self, Diagonal(), "the inverse diagonal of A")

    def apply(self, state: Any, b: Any, target: Target, *, adjoint: bool = False, **more: Any) -> Outcome:
        """Sum the series, and bound what is left out when somebody asks."""
        outcome = super().apply(state, b, target, adjoint=adjoint, **more)
        plain, x = outcome.make_stats, outcome.x
        outcome.make_stats = lambda: plain()._replace(error_bound=error_bound(state.A, x, b, adjoint))
        return outcome


@np.errstate(all="ignore")
def error_bound(A: Any, x: Any, b: Any, adjoint: bool) -> np.ndarray:
    """norm(x - A⁻¹ b, inf) <= max_i (|r| + rounding)_i / |d_i| / (1 - q), of each item the worst column: (batch,).

    Rounding of r is at most γ (|b| + |A| |x|), with γ for rows of up to n entries (Higham 2002, section 3.5).
    """
    structure, xp, n = A.structure, A.structure.xp, A.shape[0]
    eps = structure.eps(b)
    gamma = (n + 4) * eps / (1 - (n + 4) * eps)
    sizes = xp.abs(A.data)
    if structure.kind == "dense":
        d = xp.abs(xp.linalg.diagonal(A.data))[..., None]
    else:
        d = np.where(structure.diagonal >= 0, sizes[:, structure.diagonal], 0)[..., None]
    ones = xp.ones_like(d)
    rows = structure.matvec(sizes, ones, adjoint)
    q = (rows - d) / d
    r, _ = structure.residual(A.data, x, b, adjoint)
    weight = xp.abs(b) + structure.matvec(sizes, xp.abs(x), adjoint)
    worst = (xp.abs(r) + gamma * weight) / d
    q = structure.to_numpy(xp.max(q, axis=1))[:, 0] * (1 + gamma) + gamma
    largest = structure.to_numpy(xp.max(xp.max(worst, axis=1), axis=1)) if b.shape[2] else np.zeros(len(q))
    bound = largest / (1 - q) * (1 + gamma)
    return np.where(q < 1, bound, np.inf)
