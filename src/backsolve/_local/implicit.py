"""A matrix that is stored nowhere, as queries see it: what `System` is for arrays."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import _kernels
from .fetching import FetchedSide, Fetcher

__all__ = ["ImplicitSystem"]

_KEPT = 8


class ImplicitSystem:
    """Rows and columns out of a Fetcher; dominance is promised, and checked in all that is met.

    Parameters
    ----------
    fetcher : Fetcher
    rows, columns : bool
        The promised senses.
    least : float
        A lower bound of all margins; 0 where none is known.
    structure : Structure, optional
        Where entries are, if arrays say it; then they have places among the values.
    """

    w = v = kept = None
    stored = False
    nnz = float("inf")
    version = (0,)  # functions make the same lists each time

    def __init__(self, fetcher: Fetcher, rows: bool, columns: bool, least: float = 0.0, structure: Any = None):
        self.fetcher, self.n, self.rows, self.columns = fetcher, fetcher.n, rows, columns
        self._least = least
        self.access = structure or SimpleNamespace(symmetric=fetcher.symmetric)
        self.placed = structure is not None
        self.dominant = rows or columns
        self._pool: list[FetchedSide] = []
        self._guard = threading.Lock()

    @property
    def matrix(self) -> Any:
        """The lists that are there, as kernels take them."""
        return self.fetcher.matrix

    def check_mirror(self, side: Any) -> None:
        """Rows and columns that were fetched are compared where both are there."""

    def pushes(self, dual: bool) -> bool:
        """Whether the side of M, or of Mᵀ, can be pushed: it reads columns of M, or rows."""
        return self.fetcher.functions[not dual] is not None

    def current(self) -> None:
        """No margins are kept for all of M."""

    @property
    def gap(self) -> float:
        """The smallest margin over the diagonal of all lists that have been met; 1 before."""
        return self.matrix.gap

    def least(self, columns: bool, anew: bool = False) -> float:
        """A lower bound of the margins of all rows or columns; 0 where none is known."""
        return self._least if (self.columns if columns else self.rows) else 0.0

    def setting(self, dual: bool, by_rows: bool) -> Any:
        """How N = M, or Mᵀ if `dual`, is pushed."""
        return _kernels.LocalFetchedSetting(self.matrix, dual, by_rows)

    def margins_at(self, nodes: np.ndarray, columns: bool) -> np.ndarray:
        """Margins of some rows or columns, which are fetched for it."""
        self.fetcher.fetch(nodes, columns)
        return self.matrix.margins(columns, np.ascontiguousarray(nodes, np.int64))

    def take(self) -> FetchedSide:
        """An empty side."""
        with self._guard:
            if self._pool:
                return self._pool.pop()
        return FetchedSide(self.fetcher)

    def give(self, side: FetchedSide) -> None:
        """Keep a side for the next query."""
        side.clear()
        with self._guard:
            if len(self._pool) < _KEPT:
                self._pool.append(side)
