"""What MKL Pardiso knows of a pattern, and the places for factors of matrices on it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from ..status import Status
from .engine import EngineError
from .pardiso_library import Handle, forks

__all__ = ["DEFINITE", "GENERAL", "Analysis", "Place"]

GENERAL, DEFINITE = (11, 13), (2, 4)
"""Matrix types."""

_PLACES = 8  # matrices on one pattern that share an analysis; each costs 8 bytes per row while unused
_IDLE = 2  # factors that nobody needs whose memory is kept for the next ones


class Place(NamedTuple):
    """Where the factors of one matrix are."""

    handle: Handle
    number: int


class Analysis:
    """The analysed pattern of matrices of one type and dtype, and the places for their factors.

    Attributes
    ----------
    analyses, factorizations : int
        Symbolic and numeric factorizations made so far.
    """

    def __init__(self, pattern: Any, kind: int, dtype: np.dtype):
        self.kind, self.dtype = kind, dtype
        self.analyses = self.factorizations = 0
        self.indptr, self.indices, self._slots, self._empty = _arrays(pattern, kind)
        self._current: Handle | None = None
        self._free: list[Place] = []
        self._returned: deque[Place] = deque()
        self._lock, self._forks, self._broken = threading.Lock(), forks.count, False

    @property
    def lock(self) -> threading.Lock:
        """Held while the engine is at work; a forked child gets a new one, and uses no place for other values."""
        if self._forks != forks.count:
            self._broken = self._lock.locked()
            self._lock, self._forks = threading.Lock(), forks.count
            self._current = None
            self._free.clear()
            self._returned.clear()
        return self._lock

    def values(self, values: np.ndarray) -> np.ndarray:
        """(nnz,) values as the engine takes them."""
        if self._slots is None:
            return np.ascontiguousarray(values)
        taken = values.take(self._slots)
        taken[self._empty] = 0
        return taken

    def factor(self, values: np.ndarray, smallest: int, wanted: int, fresh: bool) -> tuple[Place, bool]:
        """Factor values in a free place; with `fresh`, or where none is free, after an analysis for them.

        Returns the place, and whether the analysis was made for these values. Raises `EngineError`.
        """
        matching = self.kind in GENERAL
        with self.lock:
            self._sweep()
            new = fresh or not self._free
            if new:
                places = max(_PLACES, 2 * wanted)
                handle = Handle(self.kind, self.indptr, self.indices, self.dtype, places, matching)
                self.analyses += 1
                self._check(handle, handle.analyse(values))
                self._current, self._free = handle, [Place(handle, number) for number in reversed(range(places))]
            place = self._free.pop()
            self.factorizations += 1
            try:
                self._check(place.handle, place.handle.factor(place.number, values, smallest))
            except BaseException:
                self._returned.append(place)
                raise
            return place, new or not matching

    def again(self, place: Place, values: np.ndarray, smallest: int) -> None:
        """Factor values into a place once more."""
        with self.lock:
            self.factorizations += 1
            self._check(place.handle, place.handle.factor(place.number, values, smallest))

    def solve(self, place: Place, values: np.ndarray, b: np.ndarray, adjoint: bool) -> np.ndarray:
        """Solve for (n, k)."""
        if self.kind == 6 and adjoint:  # Aᴴ = conj(A)
            return self.solve(place, values, b.conj(), False).conj()
        with self.lock:
            if self._broken and place.handle.forks != forks.count:
                raise RuntimeError(
                    "Pardiso was at work on this matrix in another thread when the process was forked: factor it "
                    "again in the child."
                )
            return place.handle.solve(place.number, values, b, adjoint and self.kind in GENERAL)

    def give_back(self, place: Place) -> None:
        """Let a place be used for other values. Never waits: it is called when garbage is collected."""
        lock = self.lock
        if place.handle.forks != forks.count:
            return
        self._returned.append(place)
        if lock.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                lock.release()

    def _sweep(self) -> None:
        """Take places back, those of the present handle only, and release memory beyond what is kept idle."""
        while self._returned:
            place = self._returned.popleft()
            if place.handle is self._current:
                self._free.append(place)
        idle = [place for place in self._free if place.number in place.handle.filled]
        for place in idle[:-_IDLE]:
            place.handle.release(place.number)
            self._free.remove(place)
            self._free.insert(0, place)

    def _check(self, handle: Handle, error: int) -> None:
        if error == 0:
            return
        if self.kind in DEFINITE:
            row = handle.failed_at
            raise EngineError(Status.INDEFINITE, f"A was declared 'spd', but the pivot of row {row} is not positive")
        raise EngineError(Status.SINGULAR, f"Pardiso met a zero pivot (error {error})")


def _arrays(pattern: Any, kind: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """CSR arrays that Pardiso takes, the place of each of its entries among the values, and the entries without one.

    Symmetric types want the upper triangle with the whole diagonal.
    """
    if kind in GENERAL:
        return pattern.indptr, pattern.indices, None, None
    if "upper triangle" not in pattern.memo:
        n, rows = pattern.shape[0], pattern.rows
        upper = np.flatnonzero(pattern.indices >= rows)
        missing = np.flatnonzero(pattern.diagonal < 0)
        rows = np.concatenate([rows[upper], missing])
        columns = np.concatenate([pattern.indices[upper], missing])
        slots = np.concatenate([upper, np.zeros(missing.size, upper.dtype)])
        order = np.lexsort((columns, rows))
        indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n)))).astype(np.int32)
        empty = np.flatnonzero(order >= upper.size)
        pattern.memo["upper triangle"] = indptr, columns[order].astype(np.int32), slots[order], empty
    return pattern.memo["upper triangle"]
