"""Matrices on a stored structure whose values a function makes, for the rows and columns that are touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from ..errors import describe
from .fetching import Fetcher
from .implicit import ImplicitSystem
from .places import Places

__all__ = ["Structure"]

Evaluate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Structure:
    """Where a square matrix has entries: rows, and columns whose entry k is the stored entry t_slot[k]."""

    n: int
    indptr: np.ndarray
    indices: np.ndarray
    t_indptr: np.ndarray
    t_indices: np.ndarray
    t_slot: np.ndarray

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return len(self.indices)

    def system(self, evaluate: Evaluate, promise: str, least: float) -> ImplicitSystem:
        """What queries work with; nothing is evaluated before they ask."""
        by_rows, by_columns = promise in ("rows", "both"), promise in ("columns", "both")

        def rows(ids: np.ndarray) -> tuple:
            count, places = _within(self.indptr, ids, self.nnz)
            return count, _indices(self.indices[places]), self.values(evaluate, places), places

        def columns(ids: np.ndarray) -> tuple:
            count, at = _within(self.t_indptr, ids, self.nnz)
            places = _indices(self.t_slot[at])
            return count, _indices(self.t_indices[at]), self.values(evaluate, places), places

        return ImplicitSystem(
            Fetcher(self.n, rows, columns, False, by_rows, by_columns, least), by_rows, by_columns, least
        )

    def values(self, evaluate: Evaluate, places: np.ndarray) -> np.ndarray:
        """Values at some places, as float64, if there is one for each; whether they are finite, kernels look."""
        if len(places) and (places.min() < 0 or places.max() >= self.nnz):
            raise ValueError(f"places of values must lie in [0, {self.nnz}): the index arrays are damaged.")
        values = evaluate(places)
        if values.shape != places.shape or (values.size and values.dtype.kind != "f"):
            raise ValueError(
                f"edge_weight must return one float for each of the {len(places)} entries that it was given; got "
                f"{describe(values)}."
            )
        return values.astype(np.float64)

    def places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Where the entries (i, j) stand among the values."""
        return Places(SimpleNamespace(indptr=self.indptr, indices=self.indices, n=self.n)).find(rows, columns)  # type: ignore[arg-type]


def _indices(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.int64)


def _within(pointers: np.ndarray, ids: np.ndarray, nnz: int) -> tuple[np.ndarray, np.ndarray]:
    """(counts, positions) of what some lists hold."""
    start, end = _indices(pointers[ids]), _indices(pointers[ids + 1])
    if np.any(start < 0) or np.any(end < start) or np.any(end > nnz):
        raise ValueError(f"the positions of a list fall, or leave [0, {nnz}]: the index arrays are damaged.")
    count = end - start
    return count, np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
