"""Incomplete LU with a threshold, by SciPy's SuperLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spilu

from ..errors import describe
from .base import AbstractPreconditioner, Prepared

__all__ = ["ILUT"]


@dataclass(frozen=True)
class ILUT(AbstractPreconditioner):
    """Incomplete LU factorization with a drop tolerance and partial pivoting, for sparse A, by SuperLU.

    Parameters
    ----------
    drop_tol : float
        Entries smaller than this, relative to their column, are dropped; between 0 and 1.
    fill_factor : float
        Entries of the factors allowed, as a multiple of those of A.

    Notes
    -----
    *Fails with* BREAKDOWN (a factor is exactly singular). Not Hermitian: not for CG or MINRES. *Differs from* Saad's
    ILUT: SuperLU pivots and drops by column.

    References
    ----------
    Li and Shao 2011, doi:10.1145/1916461.1916467; Saad 2003, section 10.4.
    """

    drop_tol: float = 1e-4
    fill_factor: float = 10.0

    name: ClassVar[str] = "ilut"

    def __post_init__(self):
        if not isinstance(self.drop_tol, int | float) or not 0 <= self.drop_tol <= 1:
            raise ValueError(f"ILUT: drop_tol must be a float in [0, 1]; got {describe(self.drop_tol)}.")
        if not isinstance(self.fill_factor, int | float) or not 1 <= self.fill_factor < np.inf:
            raise ValueError(f"ILUT: fill_factor must be a float of at least 1; got {describe(self.fill_factor)}.")

    def refuse(self, A: Any) -> str | None:
        """It needs a sparse A that SciPy can index."""
        kind = A.structure.kind
        if kind == "free":
            return "needs the entries of A: use 'chebyshev', or a function"
        if kind == "dense":
            return "is for sparse A: use method 'lu'"
        if A.structure.indices.dtype != np.int32:
            return "takes matrices whose indices fit 32 bits only: use 'ilu0'"
        return None

    def explain(self, A: Any) -> str:
        """ILUT, and its options."""
        return f"incomplete LU factors with drop tolerance {self.drop_tol:g} by SuperLU"

    def prepare(self, A: Any) -> Prepared:
        """Factor each item."""
        pattern, factors, broken = A.structure, [], {}
        for item, values in enumerate(A.data):
            wide = values.astype(np.result_type(values.dtype, np.float64))
            columns = sp.csc_array((wide[pattern.t_slot], pattern.t_indices, pattern.t_indptr), pattern.shape)
            try:
                factors.append(spilu(columns, drop_tol=self.drop_tol, fill_factor=self.fill_factor))
            except RuntimeError as reason:
                factors.append(None)
                broken[item] = f"ILUT: {reason}: use a smaller drop_tol, or another preconditioner"

        def apply(v: np.ndarray, adjoint: bool) -> np.ndarray:
            z = np.empty_like(v)
            for item, factor in enumerate(factors):
                z[item] = v[item] if factor is None else factor.solve(v[item], "H" if adjoint else "N")
            return z

        nbytes = sum(12 * (f.L.nnz + f.U.nnz) for f in factors if f is not None)
        return Prepared(apply, broken, nbytes)
