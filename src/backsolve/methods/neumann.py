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
        plain, x, A = outcome.make_stats, outcome.x, state.A

        @np.errstate(all="ignore")
        def with_bound() -> Any:
            r, _ = A.structure.residual(A.data, x, b, adjoint)
            bound = A.structure.to_numpy(self.bound(A, x, b, r, adjoint))
            return plain()._replace(error_bound=bound.max(axis=(1, 2), initial=0.0))

        outcome.make_stats = with_bound
        return outcome

    def bound(self, A: Any, x: Any, b: Any, r: Any, adjoint: bool) -> Any:
        """norm(x - A⁻¹ b, inf) <= max_i (|r| + rounding)_i / |d_i| / (1 - q).

        Rounding of r is at most γ (|b| + |A| |x|), with γ for rows of up to n entries (Higham 2002, section 3.5).
        """
        structure, xp, n = A.structure, A.structure.xp, A.shape[0]
        eps = float(xp.finfo(b.dtype).eps)
        gamma = (n + 4) * eps / (1 - (n + 4) * eps)
        sizes = xp.abs(A.data)
        if structure.kind == "dense":
            d = xp.abs(xp.linalg.diagonal(A.data))[..., None]
        else:
            d = xp.where(structure.diagonal >= 0, sizes[:, structure.diagonal], 0)[..., None]
        q = (structure.matvec(sizes, xp.ones_like(d), adjoint) - d) / d
        weight = xp.abs(b) + structure.matvec(sizes, xp.abs(x), adjoint)
        worst = (xp.abs(r) + gamma * weight) / d
        q, worst = (largest(xp, v) * (1 + gamma) for v in (q, worst))
        return xp.where(q + gamma < 1, worst / (1 - q - gamma), xp.full_like(worst, float("inf")))


def largest(xp: Any, v: Any) -> Any:
    """Of each column, (batch, 1, k); 0 where there are no rows."""
    return xp.max(v, axis=1, keepdims=True) if v.shape[1] else xp.zeros_like(xp.sum(v, axis=1, keepdims=True))
