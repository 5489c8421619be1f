"""Sparse LU by SuperLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.sparse.csgraph import connected_components

from ..errors import describe
from ..status import Status
from .direct import DirectMethod, Factors
from .screening import screened, storage_refusal
from .superlu_memory import AtHome, at_home

__all__ = ["SuperLU", "parity"]

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
    together: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.ordering, str) or self.ordering not in ("auto", *_ORDERINGS):
            choices = ", ".join(map(repr, ("auto", *_ORDERINGS)))
            raise ValueError(f"SuperLU: ordering must be one of {choices}; got {describe(self.ordering)}.")
        threshold = self.pivot_threshold
        number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if threshold is not None and not (number and 0 <= threshold <= 1):
            raise ValueError(f"SuperLU: pivot_threshold must be a float in [0, 1]; got {describe(threshold)}.")

    def refuse(self, A: Any) -> str | None:
        """SuperLU takes sparse matrices with int32 indices."""
        return storage_refusal(A)

    def plan(self, A: Any) -> tuple[str, float, str]:
        """Ordering, pivot threshold, and the reason for them. Worked out once for each pattern."""
        key = ("superlu", self.ordering, self.pivot_threshold, A.assumed)
        known = A.structure.memo.get(key)
        return A.structure.memo.setdefault(key, self._plan(A)) if known is None else known

    def _plan(self, A: Any) -> tuple[str, float, str]:
        pattern, threshold = A.structure, self.pivot_threshold
        if self.ordering != "auto":
            ordering, reason = self.ordering, "as asked for"
        elif A.assumed in ("lower", "upper"):
            ordering, reason = "natural", "declared triangular: no fill in the natural order"
        elif A.assumed == "spd":
            ordering, reason = "mmd_at_plus_a", "declared positive definite: diagonal pivots, ordering of A + A.T"
        elif pattern.symmetry >= _SYMMETRIC_ENOUGH and pattern.has_full_diagonal:
            ordering = "mmd_at_plus_a"
            reason = f"{pattern.symmetry:.0%} symmetric pattern with a full diagonal: ordering of A + A.T"
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
        """Factor each item; loosely pivoted factors that fail, now or when solving, are made again with COLAMD."""
        ordering, threshold, _ = self.plan(A)
        strict = (
            (lambda item: self._splu(A, item, "colamd", 1.0)) if self.ordering == "auto" and threshold < 1 else None
        )
        factors = _Factors(A.shape[0], len(usable), strict, A.data.itemsize)
        # SuperLU itself reads outside its arrays when it comes to a column without a row left for its pivot.
        for item in screened(A, usable, factors):
            try:
                factors.items[item] = self._splu(A, item, ordering, threshold)
            except RuntimeError as error:
                if not factors.strengthen(item):
                    factors.fail(item, Status.SINGULAR, f"SuperLU met a zero pivot ({error})")
        return factors

    def _splu(self, A: Any, item: int, ordering: str, threshold: float):
        pattern = A.structure
        matrix = _columns(pattern, A.data[item])
        return at_home(
            lambda: sla.splu(
                matrix,
                permc_spec=_ORDERINGS[ordering],
                diag_pivot_thresh=threshold,
                **blocking(pattern.nnz),
                options={"SymmetricMode": ordering == "mmd_at_plus_a"},
            )
        )


def _columns(pattern: Any, values: np.ndarray) -> sp.csc_matrix:
    """The matrix in SciPy's CSC form; SciPy checks the index arrays of a Pattern once."""
    if "csc" not in pattern.memo:
        zeros = np.broadcast_to(np.zeros(1, np.int8), pattern.nnz)
        template = sp.csc_matrix((zeros, pattern.t_indices, pattern.t_indptr), shape=pattern.shape, copy=False)
        template.sum_duplicates()  # finds none, and remembers it
        template.data = np.empty(0)
        pattern.memo["csc"] = template
    matrix = sp.csc_matrix.__new__(sp.csc_matrix)  # what copy.copy makes, in a sixth of the time
    vars(matrix).update(vars(pattern.memo["csc"]), data=values.take(pattern.t_slot))
    return matrix


def blocking(nnz: int) -> dict[str, int]:
    """Columns that SuperLU updates at once, and the largest subtree that it stores as one dense block.

    SciPy leaves both to SuperLU's defaults of 1999 (panels of 20 columns). On sparse factors these are a quarter to a
    third faster, and slower on no matrix of benchmarks/results/superlu_blocking.json by more than its noise.
    """
    return {"panel_size": 1, "relax": 1} if nnz < 30_000 else {"panel_size": 4, "relax": 4}


class _Factors(Factors):
    """SuperLU objects, `AtHome`; `strict(item)` makes one with full pivoting, or is None where that has been done."""

    def __init__(self, n: int, batch: int, strict: Any, itemsize: int):
        super().__init__(np.zeros(batch, np.int32))
        self.n, self._strict, self._itemsize = n, strict, itemsize
        self.items: list[AtHome | None] = [None] * batch
        self._strengthened: set[int] = set()

    @property
    def nbytes(self) -> int:
        """An entry and its row index for each entry of L and U."""
        return sum(lu.held.nnz * (self._itemsize + 4) for lu in self.items if lu is not None)

    def strengthen(self, item: int) -> bool:
        """Factor an item again with full pivoting; False if that has been done or fails too."""
        if self._strict is None or item in self._strengthened:
            return False
        self._strengthened.add(item)
        self.count = 2
        try:
            self.items[item] = self._strict(item)
        except RuntimeError:
            return False
        return True

    def solve(self, b: np.ndarray, adjoint: bool) -> np.ndarray:
        """Solve with each item's factors."""
        trans = "H" if adjoint else "N"
        if len(self.items) == 1 and self.items[0] is not None:
            return self._one(self.items[0].held, b[0], trans)[None]
        x = np.full_like(b, np.nan)
        for item, lu in enumerate(self.items):
            if lu is not None:
                x[item] = self._one(lu.held, b[item], trans)
        return x

    def _one(self, lu: Any, b: np.ndarray, trans: str) -> np.ndarray:
        if self.n == 0 or b.shape[1] == 0:
            return b
        if b.shape[1] == 1:
            return lu.solve(b[:, 0], trans)[:, None]
        return np.ascontiguousarray(lu.solve(b, trans))

    def slogdet(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """From the diagonal of U and the parities of the permutations; copies L and U in passing."""
        sign = np.full(len(self.items), np.nan, dtype)
        size = np.full(len(self.items), np.nan, np.finfo(dtype).dtype)
        for item, lu in enumerate(self.items):
            if lu is not None:
                pivots = lu.held.U.diagonal()
                modulus = np.abs(pivots)
                sign[item] = np.prod(pivots / modulus) * (parity(lu.held.perm_r) * parity(lu.held.perm_c))
                size[item] = np.log(modulus).sum(dtype=np.float64)
            elif self.failed[item] == Status.SINGULAR:
                sign[item], size[item] = 0, -np.inf
        return sign, size


def parity(permutation: np.ndarray) -> int:
    """1 for an even permutation, -1 for an odd one: n minus the number of cycles decides."""
    n = len(permutation)
    steps = sp.csr_matrix((np.ones(n, np.int8), permutation, np.arange(n + 1)), shape=(n, n))
    return 1 - 2 * ((n - connected_components(steps)[0]) % 2)
