"""Matrices on a stored structure whose values a function makes, for the rows and columns that are touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import describe
from .fetching import Fetcher
from .implicit import ImplicitSystem

__all__ = ["Evaluated", "Structure"]

Evaluate = Callable[[np.ndarray], np.ndarray]


class Evaluated:
    """Values that a function makes of places, each made once.

    An entry is met in its row and in its column, in batches of two sizes, and rounding may depend on the size of a
    batch: made twice, rows and columns would be of two matrices.
    """

    def __init__(self, evaluate: Evaluate, nnz: int):
        self._evaluate, self.nnz = evaluate, nnz
        self.places, self.values = np.zeros(0, np.int64), np.zeros(0)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Values at some places, float64; whether they are finite, kernels look."""
        if len(places) and (places.min() < 0 or places.max() >= self.nnz):
            raise ValueError(f"places of values must lie in [0, {self.nnz}): the index arrays are damaged.")
        asked = np.unique(places)
        at = np.searchsorted(self.places, asked)
        new = np.append(self.places, -1)[at] != asked
        if np.any(new):
            fresh, at = asked[new], at[new]
            made = checked_values(fresh, self._evaluate(fresh))
            self.places, self.values = np.insert(self.places, at, fresh), np.insert(self.values, at, made)
        return self.values[np.searchsorted(self.places, places)]

    def check(self, places: np.ndarray, again: np.ndarray) -> None:
        """Raise if values that were made once more, for a gradient, differ by more than another order of sums explains.

        Raises
        ------
        ValueError
            If they do.
        """
        known = self.at(places)
        allowed = float(np.sqrt(np.finfo(again.dtype).eps) * np.max(np.abs(known), initial=0.0))
        if not np.all(np.abs(again - known) <= allowed):
            raise ValueError(
                "edge_weight gave other values when it was called again for the gradient: it must be deterministic "
                "(no dropout; model.eval())."
            )


def checked_values(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values as float64, if there is one for each place."""
    if values.shape != places.shape or (values.size and values.dtype.kind != "f"):
        raise ValueError(
            f"edge_weight must return one float for each of the {len(places)} entries that it was given; got "
            f"{describe(values)}."
        )
    return values.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Structure:
    """Where a square matrix has entries: rows, and columns whose entry k is the stored entry t_slot[k]."""

    n: int
    indptr: np.ndarray
    indices: np.ndarray
    t_indptr: np.ndarray
    t_indices: np.ndarray
    t_slot: np.ndarray

    symmetric = False
    """Rows are not read as columns."""

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return len(self.indices)

    def evaluated(self, evaluate: Evaluate) -> Evaluated:
        """The values that a function makes, none of them made yet."""
        return Evaluated(evaluate, self.nnz)

    def system(self, values: Evaluated, promise: str, least: float) -> ImplicitSystem:
        """What queries work with; nothing is evaluated before they ask."""
        by_rows, by_columns = promise in ("rows", "both"), promise in ("columns", "both")

        def rows(ids: np.ndarray) -> tuple:
            count, places = _within(self.indptr, ids, self.nnz)
            return count, _indices(self.indices[places]), values.at(places), places

        def columns(ids: np.ndarray) -> tuple:
            count, at = _within(self.t_indptr, ids, self.nnz)
            places = _indices(self.t_slot[at])
            return count, _indices(self.t_indices[at]), values.at(places), places

        fetcher = Fetcher(self.n, rows, columns, False, by_rows, by_columns, least)
        return ImplicitSystem(fetcher, by_rows, by_columns, least, self)


def _indices(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.int64)


def _within(pointers: np.ndarray, ids: np.ndarray, nnz: int) -> tuple[np.ndarray, np.ndarray]:
    """(counts, positions) of what some lists hold."""
    start, end = _indices(pointers[ids]), _indices(pointers[ids + 1])
    if np.any(start < 0) or np.any(end < start) or np.any(end > nnz):
        raise ValueError(f"the positions of a list fall, or leave [0, {nnz}]: the index arrays are damaged.")
    count = end - start
    return count, np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
