"""The inverse of a diagonal matrix and a few columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from .base import AbstractPreconditioner, Prepared

__all__ = ["LowRank"]


@dataclass(frozen=True, eq=False)
class LowRank(AbstractPreconditioner):
    """M = (diag(d) + U Uᴴ)⁻¹ by the formula of Woodbury, for A near to such a matrix, or for outliers of its spectrum.

    n m numbers, and two products with U for each application.

    Parameters
    ----------
    d : array (n,)
        Positive.
    U : array (n, m)

    Notes
    -----
    Hermitian positive definite. Two `LowRank` objects are equal only if they are the same.

    References
    ----------
    Woodbury 1950; Golub and Van Loan, Matrix Computations, 4th edition, section 2.1.4.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> u, d = np.array([[3.0], [4.0]]), np.ones(2)
    >>> A = np.diag(d) + u @ u.T
    >>> M = bs.preconditioners.LowRank(d, u)
    >>> int(bs.solve_with_info(A, np.array([1.0, 2.0]), method="cg", M=M).stats.iterations)
    1
    """

    d: Any
    U: Any

    name: ClassVar[str] = "low_rank"
    traceable: ClassVar[bool] = True
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        d, U = _host(self.d), _host(self.U)
        if d.ndim != 1 or U.ndim != 2 or len(U) != len(d):
            raise ValueError(
                f"LowRank: d must have shape (n,) and U (n, m); got {describe(self.d)} and {describe(self.U)}."
            )
        if not (np.isreal(d).all() and np.isfinite(d).all() and (np.real(d) > 0).all()):
            raise ValueError("LowRank: d must be real, positive and finite: otherwise M is not definite.")
        if not np.isfinite(U).all():
            raise ValueError("LowRank: U must be finite; got a NaN or an infinity.")

    def refuse(self, A: Any) -> str | None:
        """The sizes must agree."""
        n = len(self.d)
        return None if n == A.shape[0] else f"is for {n} unknowns, but A has {A.shape[0]}"

    def explain(self, A: Any) -> str:
        """How many columns."""
        return f"the inverse of a diagonal and {self.U.shape[1]} columns"

    def prepare(self, A: Any) -> Prepared:
        """Factor the small matrix I + Uᴴ diag(d)⁻¹ U, in double precision."""
        structure, d, U = A.structure, np.real(_host(self.d)).astype(float), _host(self.U)
        scaled = U / d[:, None]
        small = np.eye(U.shape[1]) + U.conj().T @ scaled
        # M = diag(1/d) - W Wᴴ with W = diag(1/d) U R⁻¹, small = Rᴴ R
        W = np.linalg.solve(np.linalg.cholesky(small), scaled.conj().T).conj().T
        if np.iscomplexobj(W) and not A.structure.xp.isdtype(_leaf(A).dtype, "complex floating"):
            W_imag = np.abs(W.imag).max(initial=0.0)
            if W_imag > 0:
                raise TypeError("LowRank: U must be real where A is; it is complex: give its real form.")
            W = W.real
        xp = structure.xp

        def apply(v: Any, adjoint: bool) -> Any:
            inverse = structure.like(v, 1 / d)[None, :, None]
            like = structure.like
            if np.iscomplexobj(W):
                factor = xp.astype(like(v, W.real), v.dtype) + 1j * xp.astype(like(v, W.imag), v.dtype)
                adjointed = xp.conj(factor.T)
            else:
                factor = xp.astype(like(v, W), v.dtype)
                adjointed = factor.T
            return inverse * v - xp.matmul(factor, xp.matmul(adjointed, v))

        return Prepared(apply, nbytes=W.nbytes)


def _host(array: Any) -> np.ndarray:
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def _leaf(A: Any) -> Any:
    return A.data[0] if isinstance(A.data, tuple) else A.data
