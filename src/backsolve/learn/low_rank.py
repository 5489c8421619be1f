"""A diagonal and a few columns, scaled by the diagonal of A: what learned ones are exported to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from ..preconditioners.base import diagonal_of

__all__ = ["OUTLIERS", "ScaledLowRank"]

OUTLIERS = ("small", "large")


@dataclass(frozen=True, eq=False)
class ScaledLowRank(AbstractPreconditioner):
    """M = S (diag(c) + U Uᵀ)^±1 S with S = diag(A)^(-1/2), for a few eigenvalues of S A S that lie apart.

    The plus sign for small outliers, which U Uᵀ lifts; the minus sign for large ones, applied by Woodbury's formula. S
    makes it the preconditioner of a family: A times a number, or with scaled unknowns, needs no other weights. Positive
    definite for all c > 0 and all U. n (m + 1) numbers, two products with U for each application.

    Parameters
    ----------
    c : array (n,)
        Positive.
    U : array (n, m)
    outliers : {"small", "large"}

    Notes
    -----
    *Requires* a positive diagonal. Refused where the eigenvalues of the middle factor span more than the precision of A
    resolves. Two objects are equal only if they are the same.

    References
    ----------
    Woodbury 1950; Golub and Van Loan, Matrix Computations, 4th edition, section 2.1.4.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import learn
    >>> u = np.array([[3.0], [4.0]])
    >>> A = 4 * (np.eye(2) + u @ u.T / np.sqrt(np.outer([10, 17], [10, 17])))
    >>> s = 1 / np.sqrt(np.diag(A))
    >>> M = learn.ScaledLowRank(4 * s**2, 2 * s[:, None] * u / np.sqrt([[10], [17]]), outliers="large")
    >>> int(bs.solve_with_info(A, np.array([1.0, 2.0]), method="cg", M=M).stats.iterations)
    1
    """

    c: Any
    U: Any
    outliers: str = "small"

    name: ClassVar[str] = "scaled_low_rank"
    traceable: ClassVar[bool] = True
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        try:
            c, U = np.array(self.c, float), np.array(self.U, float)
        except (TypeError, ValueError):
            c, U = np.zeros(0), np.zeros(0)
        if c.ndim != 1 or U.ndim != 2 or len(U) != len(c):
            raise ValueError(
                f"ScaledLowRank: c must have shape (n,) and U (n, m); got {describe(self.c)} and {describe(self.U)}."
            )
        if not (np.isfinite(c).all() and (c > 0).all()):
            raise ValueError("ScaledLowRank: c must be positive and finite: otherwise M is not definite.")
        if not np.isfinite(U).all():
            raise ValueError("ScaledLowRank: U must be finite; got a NaN or an infinity.")
        if self.outliers not in OUTLIERS:
            raise ValueError(f"ScaledLowRank: outliers must be 'small' or 'large'; got {describe(self.outliers)}.")
        object.__setattr__(self, "c", c)
        object.__setattr__(self, "U", U)

    @property
    def span(self) -> float:
        """A bound of the largest eigenvalue of diag(c) + U Uᵀ over the smallest."""
        top = np.linalg.norm(self.U, 2) ** 2 if self.U.size else 0.0
        return float((self.c.max(initial=0.0) + top) / self.c.min(initial=np.inf))

    def refuse(self, A: Any) -> str | None:
        """It needs the diagonal of a real A of its size, in a precision that resolves it."""
        n, dtype = len(self.c), str(getattr(A.data, "dtype", ""))
        if A.structure.kind == "free":
            return "needs the diagonal of A: use preconditioners.LowRank"
        if n != A.shape[0]:
            return f"is for {n} unknowns, but A has {A.shape[0]}"
        if "complex" in dtype:
            return "is for real A: use preconditioners.LowRank"
        eps = 2.0**-23 if "32" in dtype else 2.0**-52
        if not self.span * eps < 0.01:
            return f"has eigenvalues that span {self.span:.0e}, more than {dtype} resolves: use float64, or train again"
        return None

    def explain(self, A: Any) -> str:
        """How many columns."""
        return f"a diagonal and {self.U.shape[1]} columns for {self.outliers} eigenvalues, scaled by the diagonal of A"

    def prepare(self, A: Any) -> Prepared:
        """Scale by A, and factor the small matrix of Woodbury's formula, in double precision."""
        structure, xp = A.structure, A.structure.xp
        d, broken = diagonal_of(A)
        scale = 1 / xp.sqrt(xp.abs(d))
        if self.outliers == "small":
            c, W, sign = self.c, self.U, 1.0
        else:
            c, W, sign = 1 / self.c, woodbury_columns(self.c, self.U), -1.0

        def apply(v: Any, adjoint: bool) -> Any:
            v = scale * v
            columns = xp.astype(structure.like(v, W), v.dtype)
            inner = structure.like(v, c)[None, :, None] * v + sign * xp.matmul(columns, xp.matmul(columns.T, v))
            return xp.astype(scale * inner, v.dtype)

        return Prepared(apply, broken, W.nbytes + c.nbytes)


def woodbury_columns(c: np.ndarray, U: np.ndarray) -> np.ndarray:
    """W with (diag(c) + U Uᵀ)⁻¹ = diag(1/c) - W Wᵀ: W = diag(1/c) U R⁻¹, Rᵀ R = I + Uᵀ diag(1/c) U."""
    scaled = U / c[:, None]
    R = np.linalg.cholesky(np.eye(U.shape[1]) + U.T @ scaled)
    return np.linalg.solve(R, scaled.T).T
