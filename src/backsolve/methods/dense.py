"""Dense LU and Cholesky, by the linear algebra of the framework that holds the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..status import Status
from .direct import DirectMethod, Factors

__all__ = ["LU", "Cholesky"]


@dataclass(frozen=True)
class LU(DirectMethod):
    """LU with partial pivoting, for any square dense matrix: LAPACK getrf through SciPy, or ``torch.linalg``.

    2n³/3 operations once, 2n² per right-hand side, batches in one call. Of NumPy's arrays pivots are the largest of a
    row, since Aᵀ is what LAPACK sees of them, so that the scale of rows does not matter; torch's are those of a column.

    Parameters
    ----------
    rtol, atol : float, optional
        See `DirectMethod`; without them the backward error judges.

    Notes
    -----
    *Fails with* SINGULAR (zero pivot, or x dominated by a null vector), INACCURATE, NONFINITE.
    *Differentiation*: the adjoint solve reuses the factors.

    References
    ----------
    Golub and Van Loan, Matrix Computations, 4th edition, section 3.4.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([2.0, 3.0]), method="lu")
    array([3., 1.])
    """

    name: ClassVar[str] = "lu"

    def refuse(self, A: Any) -> str | None:
        """LU takes dense matrices."""
        return (
            None if A.structure.kind == "dense" else "takes dense matrices only: use method='superlu' for a sparse one"
        )

    def explain(self, A: Any) -> str:
        """LU, and by what."""
        return f"LU with partial pivoting by {A.structure.linalg.name}: the matrix is dense"

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor the whole batch."""
        linalg = A.structure.linalg
        lu, pivots, info = linalg.lu_factor(A.data)
        sentence = f"A has a pivot that is exactly zero, in {linalg.pivots_in} {{}}"
        failed, details = _failures(info, Status.SINGULAR, sentence)
        return _DenseFactors(failed, details, lambda b, adjoint: linalg.lu_solve(lu, pivots, b, adjoint), lu, linalg)


@dataclass(frozen=True)
class Cholesky(DirectMethod):
    """Cholesky factorization A = L Lᴴ of a dense Hermitian positive definite matrix.

    n³/3 operations once, 2n² per right-hand side. Reads the lower triangle; the residual is that of the whole
    matrix, so a matrix that is not Hermitian shows as INACCURATE.

    Parameters
    ----------
    rtol, atol : float, optional
        See `DirectMethod`; without them the backward error judges.

    Notes
    -----
    *Fails with* INDEFINITE (a leading minor is not positive), INACCURATE, NONFINITE. *Differentiation*: the
    adjoint solve reuses the factor; the gradient is that of all n² entries, not symmetrised.

    References
    ----------
    Golub and Van Loan, Matrix Computations, 4th edition, section 4.2.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[4.0, 2.0], [2.0, 3.0]]), np.array([8.0, 7.0]), assume="spd")
    array([1.25, 1.5 ])
    """

    name: ClassVar[str] = "cholesky"
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})

    def refuse(self, A: Any) -> str | None:
        """Cholesky takes dense matrices."""
        return (
            None if A.structure.kind == "dense" else "takes dense matrices only: use method='superlu' for a sparse one"
        )

    def explain(self, A: Any) -> str:
        """Cholesky, and by what."""
        return f"Cholesky by {A.structure.linalg.name}: the matrix is dense and declared positive definite"

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor the whole batch."""
        linalg = A.structure.linalg
        lower, info = linalg.cholesky(A.data)
        failed, details = _failures(info, Status.INDEFINITE, "the leading minor of A of order {} is not positive")
        # Cholesky factors are those of a Hermitian matrix: the adjoint solve is the same.
        return _DenseFactors(failed, details, lambda b, adjoint: linalg.cholesky_solve(lower, b), lower, linalg)


class _DenseFactors(Factors):
    def __init__(self, failed: np.ndarray, details: dict[int, str], solve: Any, factors: Any, linalg: Any):
        super().__init__(failed, details)
        self._solve, self._nbytes, self._linalg = solve, factors.nbytes, linalg

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def solve(self, b: Any, adjoint: bool) -> Any:
        if b.shape[1] == 0 or b.shape[2] == 0:
            return b
        x = self._solve(b, adjoint)
        if self.failed.any():
            lost = self._linalg.like(b, (self.failed != 0)[:, None, None])
            x = self._linalg.xp.where(lost, self._linalg.xp.full_like(x, float("nan")), x)
        return x


def _failures(info: np.ndarray, status: Status, sentence: str) -> tuple[np.ndarray, dict[int, str]]:
    failed = np.where(info > 0, int(status), 0).astype(np.int32)
    first = info[info > 0]
    return failed, {int(status): sentence.format(int(first[0]) - (status == Status.SINGULAR))} if first.size else {}
