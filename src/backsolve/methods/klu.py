"""Sparse LU by KLU: for circuits, and for many matrices on one pattern."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import describe
from ..status import Status
from .engine import EngineError, SparseEngine
from .factors import Factors
from .klu_library import Ordering
from .lanes import by_item, in_lanes
from .screening import screened, structural_deficiency
from .superlu import parity

__all__ = ["KLU"]

# Pivots serve again down to this share of what KLU would accept. After one refinement step the backward error is as
# small as with new pivots; at a half, noise of one percent in the values of gre_1107 mostly asks for new ones.
_LEAST_AGAIN = 0.01


@dataclass(frozen=True)
class KLU(SparseEngine):
    """Sparse LU in block triangular form, for circuits and for many matrices on one pattern; SuiteSparse's KLU.

    P_r S⁻¹ Aᵀ P_c is block triangular, its diagonal blocks are L U; S holds the largest modulus of each column of A.
    KLU orders a pattern once and finds pivots for its first values. Other values are factored along the same pivots,
    items of a batch at the same time; where those are too small, KLU looks for new ones. The adjoint solve uses the
    same factors. Two triangular solves per right-hand side, each O(nnz(L + U)); no dense blocks, so it is slow where
    the factors fill in.

    Parameters
    ----------
    rtol, atol, equilibrate, extended
        See `DirectMethod`; without tolerances the backward error judges.
    ordering : {"amd", "colamd"}
        Fill-reducing ordering of the blocks: minimum degree on B + Bᵀ, or column ordering.
    pivot_threshold : float in (0, 1]
        A diagonal entry is accepted as pivot if it is at least this times the largest candidate, in what is left of its
        row of A. Pivots are used again that are at least a hundredth of that. Factors that turn out inaccurate are
        made again with 1.

    Notes
    -----
    *Requires* the package PyKLU (``pip install 'backsolve[klu]'``, LGPL), int32 indices. float32 is factored in double
    precision and rounded at the end. *Fails with* SINGULAR (zero pivot; the structural rank is named where
    it is the reason), INDEFINITE (declared "spd", but a diagonal entry, a 2x2 minor or xᴴb is not positive),
    INACCURATE, NONFINITE. *Differentiation*: the adjoint solve reuses the factors. *Differs from* ``klu_refactor``:
    pivots that would be too small are found in passing, and replaced. As pivots depend on what was factored
    before on the same Pattern, so does the rounding of x.

    References
    ----------
    Davis and Palamadai Natarajan 2010, doi:10.1145/1824801.1824814.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, backsolve as bs
    >>> A = sp.diags_array([[4.0] * 3, [-1.0] * 2], offsets=[0, 1]).tocsr()
    >>> bs.solve(A, np.ones(3), method="klu")  # doctest: +SKIP
    array([0.328125, 0.3125  , 0.25    ])
    """

    ordering: str = "amd"
    pivot_threshold: float = 1e-3

    name: ClassVar[str] = "klu"
    package: ClassVar[str] = "PyKLU"
    together: ClassVar[int] = 32  # eight threads with four items each

    def __post_init__(self):
        super().__post_init__()
        if self.ordering not in ("amd", "colamd"):
            raise ValueError(f"KLU: ordering must be one of 'amd', 'colamd'; got {describe(self.ordering)}.")
        threshold = self.pivot_threshold
        if isinstance(threshold, bool) or not (isinstance(threshold, int | float) and 0 < threshold <= 1):
            raise ValueError(f"KLU: pivot_threshold must be a float in (0, 1]; got {describe(threshold)}.")

    def explain(self, A: Any) -> str:
        """Ordering and pivoting."""
        return f"KLU in block triangular form, ordering {self.ordering}, pivot threshold {self.pivot_threshold:g}"

    def flops_per_entry(self, A: Any) -> float:
        """Multiply-adds for each entry of the factors, estimated: beyond 40 or so, dense blocks would pay."""
        if not A.shape[0] or structural_deficiency(A.structure):
            return 0.0
        return self.analysis(A).ordering().flops_per_entry

    def analysis(self, A: Any) -> Analysis:
        """What is known of the pattern of A, kept with it."""
        key, memo = (self.name, self.ordering, self.pivot_threshold), A.structure.memo
        return memo.get(key) or memo.setdefault(key, Analysis(A.structure, self.ordering, self.pivot_threshold))

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor all items at the same time."""
        factors = _Factors(A, len(usable), self.analysis(A))
        items = screened(A, usable, factors)
        if A.shape[0]:
            factors.factor(np.array(items, np.int64))
        return factors


class Analysis:
    """The ordering of a pattern, and the pivots that served last.

    Attributes
    ----------
    analyses, pivotings, factorizations : int
        Orderings, searches for pivots, and matrices factored along known pivots, so far.
    """

    def __init__(self, pattern: Any, ordering: str, threshold: float):
        self.threshold, self.latest = threshold, None
        self.analyses = self.pivotings = self.factorizations = 0
        self._pattern, self._name, self._lock = pattern, ordering, threading.Lock()
        self._known: Ordering | None = None

    def ordering(self) -> Ordering:
        """KLU's ordering, made at first use."""
        with self._lock:
            if self._known is None:
                self._known = Ordering(self._pattern, self._name)
                self.analyses += 1
            return self._known

    def pivot(self, values: np.ndarray, threshold: float) -> Any:
        """An `Elimination` along the best pivots for these values."""
        along = self.ordering().pivot(values, threshold)
        with self._lock:
            self.pivotings += 1
        return along

    def count(self, items: int) -> None:
        """Note that so many matrices have been factored."""
        with self._lock:
            self.factorizations += items


class _Group(NamedTuple):
    """Items factored along the same pivots."""

    along: Any
    items: np.ndarray
    numbers: tuple[np.ndarray, ...]
    """lower, upper, pivots, scale: (items, count) arrays, in the order of csrc/lanes.hpp."""


class _Factors(Factors):
    """Of an item that is in several groups the last one counts."""

    def __init__(self, A: Any, batch: int, analysis: Analysis):
        super().__init__(np.zeros(batch, np.int32))
        self._A, self._analysis = A, analysis
        self._groups: list[_Group] = []
        self._strengthened: set[int] = set()

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for group in self._groups for array in group.numbers)

    def factor(self, items: np.ndarray) -> None:
        """Factor items along the pivots that served last, or along those of the first for which these will not do."""
        analysis, guard = self._analysis, _LEAST_AGAIN * self._analysis.threshold
        if analysis.latest is not None:
            items = self._along(analysis.latest, items, guard)
        while items.size:
            item = int(items[0])
            try:
                along = analysis.pivot(self._A.data[item], analysis.threshold)
            except EngineError as failure:
                if not self.strengthen(item):
                    self.fail(item, failure.status, failure.detail)
                items = items[1:]
                continue
            left = self._along(along, items, guard)
            if item in left and self._along(along, left[:1], 0.0).size and not self.strengthen(item):
                # Sums in another order than KLU's: its smallest pivot has become zero, or is no number.
                self.fail(item, Status.SINGULAR, "KLU met a pivot at rounding level")
            analysis.latest, items = along, left[left != item]

    def _along(self, along: Any, items: np.ndarray, guard: float) -> np.ndarray:
        """Factor items along known pivots; returns those for which they will not do."""
        data, n = self._A.data, self._A.shape[0]
        data = np.ascontiguousarray(data if items.size == len(data) else data[items])
        wide = np.result_type(data, np.float64)
        shapes = (along.lower_nnz, wide), (along.upper_nnz, wide), (n, wide), (n, np.float64)
        numbers = tuple(np.empty((items.size, size), dtype) for size, dtype in shapes)
        failed = np.empty(items.size, np.int64)
        along.factor(data, *numbers, failed, guard)
        good = failed < 0
        if not good.all():
            numbers = tuple(in_lanes(by_item(array)[good]) for array in numbers)
        if good.any():
            self._groups.append(_Group(along, items[good], numbers))
        self._analysis.count(int(good.sum()))
        return items[~good]

    def strengthen(self, item: int) -> bool:
        """Factor an item again with partial pivoting; False if that has been done or fails."""
        if item in self._strengthened or self._analysis.threshold == 1:
            return False
        self._strengthened.add(item)
        self.count = 2
        try:
            along = self._analysis.pivot(self._A.data[item], 1.0)
        except EngineError:
            return False
        return not self._along(along, np.array([item]), 0.0).size

    def solve(self, b: np.ndarray, adjoint: bool) -> np.ndarray:
        """Solve with each group's factors."""
        if b.shape[1] == 0 or b.shape[2] == 0:
            return b
        if len(self._groups) == 1 and self._groups[0].items.size == len(b):
            x = np.empty(b.shape, b.dtype)
            self._groups[0].along.solve(*self._groups[0].numbers, np.ascontiguousarray(b), x, adjoint)
            return x
        x = np.full(b.shape, np.nan, b.dtype)
        for along, items, numbers in self._groups:
            part = b[items]
            y = np.empty(part.shape, part.dtype)
            along.solve(*numbers, np.ascontiguousarray(part), y, adjoint)
            x[items] = y
        return x

    def slogdet(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """From pivots, scales and the parities of the permutations."""
        singular = self.failed == Status.SINGULAR
        sign = np.where(singular, 0, np.nan).astype(dtype)
        size = np.where(singular, -np.inf, np.nan).astype(np.finfo(dtype).dtype)
        for along, items, (_, _, *diagonals) in self._groups:
            pivots, scale = map(by_item, diagonals)
            modulus = np.abs(pivots)
            sign[items] = np.prod(pivots / modulus, axis=1) * (parity(along.rows) * parity(along.columns))
            size[items] = np.log(modulus).sum(axis=1) + np.log(scale).sum(axis=1)
        if not self._A.shape[0]:
            sign[:], size[:] = 1, 0
        return sign, size
