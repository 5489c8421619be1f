"""Entries of a matrix by their places among its values, as users name them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from ..errors import describe
from .access import Access

__all__ = ["Places", "Triples"]

Change = tuple[np.ndarray, np.ndarray]
"""(places among the values as users have them, what is added there)."""


class Places:
    """Where the values that a user gave stand among those that are stored.

    `slots[k]` is the stored place of the given value k, where they were given unsorted or repeated; None where they
    are the stored ones.
    """

    def __init__(self, access: Access, slots: np.ndarray | None = None):
        self.access, self.slots = access, slots

    @property
    def count(self) -> int:
        """Values that were given."""
        return self.access.nnz if self.slots is None else len(self.slots)

    @cached_property
    def _by_slot(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.slots is not None
        order = np.argsort(self.slots, kind="stable")
        return order, self.slots[order]

    def given(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(given places, ascending; for each the position in `stored`, which is ascending and without repeats)."""
        if self.slots is None:
            return stored, np.arange(len(stored))
        order, slots = self._by_slot
        first, last = np.searchsorted(slots, stored, "left"), np.searchsorted(slots, stored, "right")
        count = last - first
        position = np.repeat(np.arange(len(stored)), count)
        within = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        places = order[first[position] + within]
        sort = np.argsort(places)
        return places[sort].astype(np.int64), position[sort]

    def entries(self, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of values that were given; O(log n) each."""
        stored = given if self.slots is None else self.slots[given]
        rows = np.searchsorted(self.access.indptr, stored.astype(self.access.indptr.dtype), "right") - 1
        return rows.astype(np.int64), np.asarray(self.access.indices[stored], np.int64)

    def change(self, name: str, dA: Any) -> Change:
        """What a user adds to A: a scipy.sparse matrix on its pattern, a pair (places, increments), or all increments.

        Raises
        ------
        ValueError, TypeError
            If a place is none, or an increment is not finite.
        """
        if scipy.sparse.issparse(dA):
            return self._of_matrix(name, dA)
        if isinstance(dA, tuple) and len(dA) == 2:
            places, value = (np.asarray(part) for part in dA)
        else:
            value = np.asarray(dA)
            if value.shape != (self.count,):
                raise ValueError(
                    f"{name} must be a scipy.sparse matrix on the pattern of A, a pair (places, increments) or "
                    f"{self.count} increments, one for each value of A; got {describe(dA)}."
                )
            places = np.flatnonzero(value)
            value = value[places]
        if places.ndim != 1 or places.shape != value.shape:
            raise ValueError(f"{name} must have one place for each increment; got {places.shape} and {value.shape}.")
        if len(places) and places.dtype.kind not in "iu":
            raise TypeError(f"{name} must have integer places among the values of A; got dtype {places.dtype}.")
        if len(places) and (places.min() < 0 or places.max() >= self.count):
            raise ValueError(f"{name} must have places in [0, {self.count}); got {places.min()} to {places.max()}.")
        return places.astype(np.int64), _finite(name, value)

    def _of_matrix(self, name: str, dA: Any) -> Change:
        n = self.access.n
        if dA.shape != (n, n):
            raise ValueError(f"{name} must have the shape of A, {(n, n)}; got {dA.shape}.")
        entries = dA.tocoo()
        rows, columns = (np.asarray(part, np.int64) for part in entries.coords)
        places = self.find(rows, columns)
        if np.any(places < 0):
            at = int(np.argmin(places))
            raise ValueError(
                f"{name} must have entries where A has stored ones; A has none at ({rows[at]}, {columns[at]}): "
                "make A with a zero there."
            )
        value = _finite(name, entries.data)
        if self.slots is None:
            return places, value
        order, slots = self._by_slot
        return order[np.searchsorted(slots, places)].astype(np.int64), value

    def find(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The stored place of each entry (i, j), -1 where there is none: a search in each sorted row."""
        A = self.access
        low, high = (np.asarray(A.indptr[rows + end], np.int64) for end in (0, 1))
        last = high.copy()
        while np.any(low < high):
            middle = (low + high) // 2
            open_ = low < high
            below = open_ & (A.indices[np.where(open_, middle, 0)] < columns)
            low, high = np.where(below, middle + 1, low), np.where(open_ & ~below, middle, high)
        found = low < last
        found[found] = A.indices[low[found]] == columns[found]
        return np.where(found, low, -1)


class Triples:
    """Entries of a matrix that is stored nowhere: by row and column. What `Places` is for stored ones.

    A "place" is a column of a (2, k) array of rows and columns.
    """

    slots = None

    def __init__(self, n: int):
        self.n = n
        self.access = self

    def given(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Entries that were met have no place: they are counted."""
        return np.arange(len(stored)), np.arange(len(stored))

    def entries(self, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns)."""
        return given[0], given[1]

    def change(self, name: str, dA: Any) -> Change:
        """What a user adds to A: (rows, columns, increments). Nobody can tell whether A has entries there."""
        if not isinstance(dA, tuple) or len(dA) != 3:
            raise TypeError(
                f"{name} must be (rows, columns, increments), as A is given by functions; got {describe(dA)}."
            )
        rows, columns, value = (np.atleast_1d(np.asarray(part)) for part in dA)
        if rows.ndim != 1 or not rows.shape == columns.shape == value.shape:
            raise ValueError(
                f"{name} must have a row and a column for each increment; got {rows.shape}, {columns.shape} and "
                f"{value.shape}."
            )
        for part in (rows, columns):
            if len(part) and (part.dtype.kind not in "iu" or part.min() < 0 or part.max() >= self.n):
                raise ValueError(f"{name} must have integer rows and columns in [0, {self.n}); got {describe(part)}.")
        return np.stack([rows, columns]).astype(np.int64), _finite(name, value)


def _finite(name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real; got dtype {value.dtype}.")
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} must be finite; got a NaN or an infinity.")
    return np.asarray(value, np.float64)
