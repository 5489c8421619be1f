"""Sparse LU by SuperLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.sparse.csgraph import structural_rank

from ..errors import describe
from ..status import Status
from .direct import DirectMethod, Factors

__all__ = ["SuperLU"]

_ORDERINGS = {"colamd": "COLAMD", "mmd_at_plus_a": "MMD_AT_PLUS_A", "mmd_ata": "MMD_ATA", "natural": "NATURAL"}

# Below this share of entries with a stored mirror image an ordering of A + Aᵀ fills in more than COLAMD
# (orani678 .07, west0989 .02, gre_1107 with zeros on the diagonal; memplus 1.0 gains a factor 40).
_SYMMETRIC_ENOUGH = 0.5


@dataclass(frozen=True)
class SuperLU(DirectMethod):
    """Sparse LU with partial pivoting, for any square sparse matrix; SciPy's SuperLU.

    P_r A P_c = L U once per set of values; the adjoint solve uses the same factors. Two triangular solves per
    right-hand side, each O(nnz(L + U)).

    Parameters
    ----------
    rtol, atol : float, optional
        See `DirectMethod`; without them the backward error judges.
    ordering : {"auto", "colamd", "mmd_at_plus_a", "mmd_ata", "natural"}
        Fill-reducing column ordering. "auto": natural for declared triangular matrices; minimum degree on
        A + Aᵀ with preference for diagonal pivots where the pattern is nearly symmetric with a full diagonal
        (and COLAMD after all if that breaks down or is inaccurate); COLAMD otherwise.
    pivot_threshold : float in [0, 1], optional
        A diagonal entry is accepted as pivot if it is at least this times the largest in its column.
        Default: 0 for matrices declared "spd", .1 with ordering of A + Aᵀ, 1 with COLAMD.

    Notes
    -----
    *Requires* int32 indices (nnz < 2³¹). *Fails with* SINGULAR (zero pivot; the structural rank is named where
    it is the reason), INDEFINITE (declared "spd", but a diagonal entry, a 2x2 minor or xᴴb is not positive),
    INACCURATE, NONFINITE. *Differentiation*: the adjoint solve reuses the factors. *Differs from*
    ``scipy.sparse.linalg.spsolve``: refined, judged, and any order of derivative.

    References
    ----------
    Demmel, Eisenstat, Gilbert, Li and Liu 1999, doi:10.1137/S0895479895291765.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, backsolve as bs
    >>> A = sp.diags_array([[4.0] * 3, [-1.0] * 2], offsets=[0, 1]).tocsr()
    >>> bs.solve(A, np.ones(3), method=bs.SuperLU(ordering="natural"))
    array([0.328125, 0.3125  , 0.25    ])
    """

    ordering: str = "auto"
    pivot_threshold: float | None = None

    name: ClassVar[str] = "superlu"

    def __post_init__(self):
        super().__post_init__()
        if self.ordering != "auto" and self.ordering not in _ORDERINGS:
            choices = ", ".join(map(repr, ("auto", *_ORDERINGS)))
            raise ValueError(f"SuperLU: ordering must be one of {choices}; got {describe(self.ordering)}.")
        threshold = self.pivot_threshold
        if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
            raise ValueError(f"SuperLU: pivot_threshold must be a float in [0, 1]; got {describe(threshold)}.")

    def refuse(self, A: Any) -> str | None:
        """SuperLU takes sparse matrices with int32 indices."""
        if A.structure.kind != "csr":
            return "takes sparse matrices only: use method='lu' for a dense one"
        if A.structure.indices.dtype != np.int32:
            return "uses int32 indices, and this matrix needs int64 (2³¹ or more entries, or built so)"
        return None

    def plan(self, A: Any) -> tuple[str, float, str]:
        """Ordering, pivot threshold, and the reason for them."""
        pattern, threshold = A.structure, self.pivot_threshold
        if self.ordering != "auto":
            ordering, reason = self.ordering, "as asked for"
        elif A.assumed in ("lower", "upper"):
            ordering, reason = "natural", "declared triangular: no fill in the natural order"
        elif A.assumed == "spd":
            ordering, reason = "mmd_at_plus_a", "declared positive definite: diagonal pivots, ordering of A + Aᵀ"
        elif pattern.symmetry >= _SYMMETRIC_ENOUGH and (pattern.diagonal >= 0).all():
            ordering = "mmd_at_plus_a"
            reason = f"{pattern.symmetry:.0%} symmetric pattern with a full diagonal: ordering of A + Aᵀ"
        else:
            missing = int((pattern.diagonal < 0).sum())
            ordering = "colamd"
            reason = f"{pattern.symmetry:.0%} symmetric pattern, {missing} diagonal places empty: column ordering"
        if threshold is None:
            loose = ordering == "mmd_at_plus_a" or A.assumed in ("lower", "upper")
            threshold = 0.0 if A.assumed in ("spd", "lower", "upper") else 0.1 if loose else 1.0
        return ordering, threshold, reason

    def explain(self, A: Any) -> str:
        """Ordering and pivoting, with the reason."""
        ordering, threshold, reason = self.plan(A)
        return f"SuperLU with ordering {ordering} and pivot threshold {threshold:g}: {reason}"

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor each item; an item whose loosely pivoted factors fail is factored again with COLAMD."""
        pattern = A.structure
        factors = _Factors(pattern.shape[0], np.zeros(len(usable), np.int32))
        ordering, threshold, _ = self.plan(A)
        for item in range(len(usable)):
            factors.items.append(None)
            if not usable[item] or self._refuted(A, item, factors):
                continue
            values = A.data[item]
            try:
                factors.items[item] = self._splu(pattern, values, ordering, threshold)
            except RuntimeError as error:
                self._retry(pattern, values, item, factors, ordering, error)
        return factors

    def _splu(self, pattern: Any, values: np.ndarray, ordering: str, threshold: float):
        matrix = sp.csc_matrix(
            (values[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=pattern.shape, copy=False
        )
        symmetric = ordering == "mmd_at_plus_a"
        return sla.splu(
            matrix,
            permc_spec=_ORDERINGS[ordering],
            diag_pivot_thresh=threshold,
            options={"SymmetricMode": symmetric},
        )

    def _retry(self, pattern, values, item, factors, ordering, error) -> None:
        if ordering == "mmd_at_plus_a" and self.ordering == "auto":
            factors.count = 2
            try:
                factors.items[item] = self._splu(pattern, values, "colamd", 1.0)
                return
            except RuntimeError as again:
                error = again
        factors.failed[item] = Status.SINGULAR
        if not factors.detail:
            factors.detail = _why_singular(pattern, str(error))

    def _refuted(self, A: Any, item: int, factors: Factors) -> bool:
        """Check what O(nnz) can tell of a declared definite matrix: the diagonal, and all 2x2 minors."""
        if A.assumed != "spd":
            return False
        pattern, values = A.structure, A.data[item]
        slots = pattern.diagonal
        diagonal = np.where(slots >= 0, values[slots], 0) if pattern.nnz else np.zeros(pattern.shape[0])
        bad = np.flatnonzero(~((np.real(diagonal) > 0) & (np.imag(diagonal) == 0)))
        detail = f"diagonal entry {bad[0]} is {diagonal[bad[0]]}" if bad.size else ""
        if not detail:
            scale = np.sqrt(np.real(diagonal))
            rows, columns = pattern.rows, pattern.indices
            minor = (rows != columns) & (np.abs(values) >= scale[rows] * scale[columns] * (1 + 1e-6))
            if minor.any():
                i, j = int(rows[minor][0]), int(columns[minor][0])
                detail = f"the 2x2 minor of rows {i} and {j} is not positive"
        if detail:
            factors.failed[item] = Status.INDEFINITE
            factors.detail = factors.detail or f"A was declared 'spd', but {detail}"
        return bool(detail)

    def contradicts(self, A: Any, x: Any, b: Any) -> np.ndarray | None:
        """A positive definite matrix has xᴴ b = xᴴ A x > 0 for every b but zero."""
        if A.assumed != "spd":
            return None
        curvature = np.einsum("bnk,bnk->bk", x.conj(), b, dtype=np.result_type(x, np.float64)).real
        scale = np.linalg.norm(x, axis=1) * np.linalg.norm(b, axis=1)
        return (curvature < -1e-6 * scale).any(axis=-1)


class _Factors(Factors):
    def __init__(self, n: int, failed: np.ndarray):
        super().__init__(failed)
        self.items: list[Any] = []
        self.n = n

    def solve(self, b: np.ndarray, adjoint: bool) -> np.ndarray:
        trans = "H" if adjoint else "N"
        if len(self.items) == 1 and self.items[0] is not None:
            return self._one(self.items[0], b[0], trans)[None]
        x = np.full_like(b, np.nan)
        for item, lu in enumerate(self.items):
            if lu is not None:
                x[item] = self._one(lu, b[item], trans)
        return x

    def _one(self, lu: Any, b: np.ndarray, trans: str) -> np.ndarray:
        if self.n == 0 or b.shape[1] == 0:
            return b
        if b.shape[1] == 1:
            return lu.solve(b[:, 0], trans)[:, None]
        return np.ascontiguousarray(lu.solve(b, trans))


def _why_singular(pattern: Any, said: str) -> str:
    if pattern.empty_row >= 0:
        return f"A is structurally singular: row {pattern.empty_row} stores no entry"
    ones = sp.csr_matrix((np.ones(pattern.nnz, np.int8), pattern.indices, pattern.indptr), shape=pattern.shape)
    rank = structural_rank(ones)
    if rank < pattern.shape[0]:
        return f"A is structurally singular: its structural rank is {rank} of {pattern.shape[0]}"
    return f"SuperLU met a zero pivot ({said})"
