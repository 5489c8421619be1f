"""A matrix prepared for many local solves: its lists, in which senses it is dominant, and room to work in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _kernels
from .access import Access
from .margins import margins, margins_at

__all__ = ["System", "Vector"]

Vector = tuple[np.ndarray, np.ndarray]
"""A sparse vector: (index int64, value float64), no index twice."""


class System:
    """M with what certificates need to know of it everywhere.

    M is dominant by rows if (⟨M⟩w)_k > 0 in every row, by columns if (⟨M⟩ᵀv)_k > 0 in every column; w = v = 1 is
    diagonal dominance, other weights are barriers. Which of them hold for all of M is found out once, in O(nnz), or
    promised; margins of what a query touches are the kept ones while the values are known not to have changed, and
    are made anew in each query else.

    Parameters
    ----------
    access : Access
    promise : {"rows", "columns", "both"}, optional
        Senses of dominance to take for granted where nothing is touched.
    w, v : (n,) float64, optional
        Barriers by rows and by columns.
    kept : (row margins, column margins), optional
        Lower bounds for the values as they are.
    gaps : (float, float), optional
        Smallest margin over the diagonal by rows and by columns, known with `kept`, which is then not read.
    least : (float, float), optional
        Lower bounds of all margins by rows and by columns, where they are promised and not kept.
    stamp : () -> object, optional
        A value that changes when the values may have; without it they may change unseen unless they are read only.
    """

    stored = True
    placed = True
    """Entries have places among the values."""

    def __init__(
        self,
        access: Access,
        *,
        promise: str | None = None,
        w: np.ndarray | None = None,
        v: np.ndarray | None = None,
        kept: tuple[np.ndarray, np.ndarray] | None = None,
        gaps: tuple[float | None, float | None] | None = None,
        least: tuple[float, float] | None = None,
        stamp: Callable[[], Any] | None = None,
    ):
        self.access, self.n, self.nnz = access, access.n, access.nnz
        self.w, self.v, self.promise = w, v, promise
        self._stamp = stamp if stamp is not None else None if access.data.flags.writeable else lambda: 0
        self.matrix: Any = _kernels.LocalMatrix(
            access.indptr, access.indices, access.data, access.t_indptr, access.t_indices, access.t_slot
        )
        self.gap: float | None = None
        self._promised = least
        self._least: tuple[float, float] | None = None
        self._pool: list[Any] = []
        self._guard = threading.Lock()
        if kept is not None:
            self._know(*kept, gaps)
        elif promise is None:
            self.refresh()
        else:
            self.kept = None
            self.rows, self.columns = promise in ("rows", "both"), promise in ("columns", "both")
            self._current = None

    # -- what is known everywhere -----------------------------------------------------------------------

    def refresh(self) -> None:
        """Make all margins anew: O(nnz)."""
        by_rows = margins(self.access, weights=self.w)
        same = self.access.symmetric and self.w is self.v
        self._know(by_rows, by_rows if same else margins(self.access, columns=True, weights=self.v))

    def _know(self, by_rows: np.ndarray, by_columns: np.ndarray, gaps: Any = None) -> None:
        self.kept, self._least = (by_rows, by_columns), None
        self._current = self._stamp() if self._stamp else None
        if self.promise is not None:
            self.rows, self.columns = self.promise in ("rows", "both"), self.promise in ("columns", "both")
        elif gaps is not None:
            self.rows, self.columns = (gap is not None and gap > 0 for gap in gaps)
        else:
            self.rows, self.columns = (bool(np.all(m > 0)) for m in self.kept)
        if gaps is not None:
            self.gap = max((gap for gap in gaps if gap is not None), default=None)
        elif self.rows or self.columns:
            self.gap = self._measure_gap(self.kept[0 if self.rows else 1])

    def least(self, columns: bool, anew: bool = False) -> float:
        """The smallest margin by rows or by columns; 0 where it is not known, or made `anew` in O(nnz)."""
        kept, found = self.current(), 0.0
        if kept is not None:
            if self._least is None:
                self._least = float(np.min(kept[0], initial=np.inf)), float(np.min(kept[1], initial=np.inf))
            found = self._least[columns]
        elif self._promised is not None:
            found = self._promised[columns]
        elif anew and self.promise is None:
            found = np.min(self.margins_anew(columns), initial=np.inf)
        return float(found) if found > 0 else 0.0

    def changed(self, rows: np.ndarray, columns: np.ndarray, current: bool) -> None:
        """Take values that were changed in these rows and columns, and nowhere else; only they are looked at.

        `current` says whether `current()` gave margins before. ValueError if A is then dominant in no sense.
        """
        made = (
            margins_at(self.access, rows, False, self.w),
            margins_at(self.access, columns, True, self.v),
        )
        by_rows, by_columns = (bool(np.all(m > 0)) for m in made)
        if not ((self.rows and by_rows) or (self.columns and by_columns)):
            at = int(np.argmin(np.where(np.isnan(made[0]), -np.inf, made[0])))
            raise ValueError(
                f"dA must leave A dominant; row {rows[at]} would have the margin {made[0][at]:.3g}: nothing was "
                "changed."
            )
        self.rows, self.columns = self.rows and by_rows, self.columns and by_columns
        if self.kept is not None and current and not isinstance(self.kept[0], np.memmap):
            for margin, nodes, new in zip(self.kept, (rows, columns), made, strict=True):
                margin[nodes] = new
            self._current, self._least = self._stamp() if self._stamp else None, None
        else:
            self.kept = None
            if self._promised is not None:
                least = [float(np.min(m, initial=old)) for m, old in zip(made, self._promised, strict=True)]
                self._promised = (least[0], least[1])

    def weigh(self, w: np.ndarray | None, v: np.ndarray | None) -> None:
        """Take barriers where the matrix is not dominant without them, and make margins anew."""
        self.w, self.v = (None if self.rows else w), (None if self.columns else v)
        self.refresh()

    def _measure_gap(self, known: np.ndarray) -> float:
        weights = self.w if self.rows else self.v
        rows = np.repeat(np.arange(self.n, dtype=self.access.indices.dtype), np.diff(self.access.indptr))
        on = self.access.indices == rows
        diagonal = np.zeros(self.n)
        np.add.at(diagonal, rows[on], np.asarray(self.access.data[on], np.float64))
        scale = np.abs(diagonal) * (1 if weights is None else weights)
        return float(np.min(known / np.where(scale > 0, scale, 1), initial=1.0))

    def current(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The kept margins if they are known to be those of the values as they are; renewed if that is allowed."""
        if self._stamp is None or self.kept is None:
            return None
        if self._stamp() != self._current:
            if self.promise is not None:
                return None
            self.refresh()
        return self.kept

    @property
    def version(self) -> Any:
        """Equal to an earlier one if the values are known not to have changed since; None where nobody can know."""
        return None if self._stamp is None else (self._stamp(),)

    @property
    def dominant(self) -> bool:
        """Whether any certificate can be given, for the values as they are."""
        self.current()
        return self.rows or self.columns

    def weakest(self, columns: bool = False) -> tuple[int, float]:
        """The row, or column, with the smallest margin, and that margin."""
        known = (
            self.kept[columns]
            if self.kept is not None
            else margins(self.access, columns, self.v if columns else self.w)
        )
        at = int(np.argmin(np.where(np.isnan(known), -np.inf, known)))
        return at, float(known[at])

    def margins_anew(self, columns: bool = False) -> np.ndarray:
        """Margins of all rows, or columns, as the values are: O(nnz). ValueError if one is not finite."""
        found = margins(self.access, columns, self.v if columns else self.w)
        if np.isnan(found).any():
            at = f"{'column' if columns else 'row'} {int(np.argmax(np.isnan(found)))}"
            raise ValueError(f"{at} has a value that is NaN or infinite now: look for the first step that wrote it.")
        return found

    def check_mirror(self, side: Any) -> None:
        """ValueError if rows that are read as columns, and may be written to, differ from them at touched unknowns."""
        A = self.access
        if not (A.symmetric and A.data.flags.writeable):
            return
        indptr = A.indptr.astype(np.int64, copy=False)
        i, j = _kernels.local_without_mirror_at(indptr, A.indices, A.data, side.support(touched=True)[0])
        if i >= 0:
            raise ValueError(
                f"the entry ({i}, {j}) is not that of ({j}, {i}) any more, and A was saved with symmetric=True, "
                "so that its rows are read as columns: write both, or save it with symmetric=False."
            )

    # -- what kernels take ------------------------------------------------------------------------------

    def pushes(self, dual: bool) -> bool:
        """Whether the side of M, or of Mᵀ, can be pushed."""
        return True

    def setting(self, dual: bool, by_rows: bool) -> Any:
        """How N = M, or Mᵀ if `dual`, is pushed: by its rows' margins or by the counts of its columns."""
        # Margins that were kept prove what is pushed by rows; a promise by columns is checked on the columns met.
        kept = self.current() if by_rows or self.promise is None else None
        rows, columns = (self.columns, self.rows) if dual else (self.rows, self.columns)
        w, v = (self.v, self.w) if dual else (self.w, self.v)
        return _kernels.LocalSetting(self.matrix, dual, by_rows, rows, columns, kept and kept[dual], w, v)

    def margins_at(self, nodes: np.ndarray, columns: bool) -> np.ndarray:
        """Margins of some rows or columns."""
        kept = self.current()
        if kept is not None:
            return np.asarray(kept[columns][nodes], np.float64)
        return margins_at(self.access, nodes, columns, self.v if columns else self.w)

    def take(self) -> Any:
        """An empty side, used before if there is one."""
        with self._guard:
            if self._pool:
                return self._pool.pop()
        return _kernels.LocalSide(self.n)

    def give(self, side: Any) -> None:
        """Keep a side for the next query; clearing it takes time for what it touched."""
        side.clear()
        with self._guard:
            if len(self._pool) < 8:
                self._pool.append(side)
