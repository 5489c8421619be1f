"""Rows and columns out of functions of the user, asked for in batches and checked when they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _kernels
from ..errors import describe

__all__ = ["FetchedSide", "Fetcher", "checked_lists"]

Function = Callable[[np.ndarray], Any]


class Fetcher:
    """The lists of an n x n matrix that have been met, and the functions that make the others.

    Parameters
    ----------
    n : int
    rows, columns : function of ids (k,) int64, or None
        Returns (counts, indices, values) of these lists, and optionally the place of each entry among the values. Ids
        are ascending, none twice, none that was asked for before. `columns` is not called for a symmetric matrix.
    symmetric : bool
    by_rows, by_columns : bool
        Dominance that is checked in every list that comes.
    least : float
        Margin that all of these must have.
    """

    def __init__(
        self,
        n: int,
        rows: Function | None,
        columns: Function | None,
        symmetric: bool,
        by_rows: bool,
        by_columns: bool,
        least: float,
    ):
        self.n, self.symmetric = n, symmetric
        self.functions = (rows, rows if symmetric else columns)
        both = rows is not None and columns is not None
        self.matrix = _kernels.LocalFetched(n, symmetric, both, by_rows, by_columns, least)
        self.calls = 0

    def fetch(self, ids: np.ndarray, columns: bool) -> None:
        """Have these lists there; one call of the function for all that are not."""
        missing = self.matrix.unknown(columns, np.ascontiguousarray(ids, np.int64))
        if not len(missing):
            return
        function = self.functions[columns]
        assert function is not None, "a side was pushed whose lists nobody can make"
        self.calls += 1
        counts, index, value, *slot = function(missing)
        self.matrix.append(columns, missing, counts, index, value, slot[0] if slot else None)


def checked_lists(name: str, found: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(counts, indices, values) as arrays, out of what a function of the user returned."""
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise TypeError(f"Rows: {name} must return (counts, columns, values); got {describe(found)}.")
    counts, index, value = (np.asarray(part) for part in found)
    for part, array, kinds in (("counts", counts, "iu"), ("indices", index, "iu"), ("values", value, "fiu")):
        if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
            raise TypeError(
                f"Rows: {name} must return 1-D arrays, integers for counts and indices and real values; its {part} are "
                f"{describe(array)}."
            )
    counts, index = counts.astype(np.int64, copy=False), index.astype(np.int64, copy=False)
    if len(counts) == len(ids) + 1 and counts[0] == 0:
        counts = np.diff(counts)  # pointers
    if len(counts) != len(ids):
        raise ValueError(
            f"Rows: {name} must return one count for each of the {len(ids)} ids that it was given, or pointers that "
            f"begin with 0, one more; got {len(counts)}."
        )
    total = int(counts.sum())
    if (counts.size and counts.min() < 0) or len(index) != total or len(value) != total:
        raise ValueError(
            f"Rows: {name} must return as many indices and values as its counts add up to, none of them negative; got "
            f"{total} by the counts, {len(index)} indices and {len(value)} values."
        )
    return np.ascontiguousarray(counts), np.ascontiguousarray(index), np.ascontiguousarray(value, np.float64)


class FetchedSide(_kernels.LocalFetchedSide):
    """A side whose kernels stop where a list is missing; here it is fetched, with all others that they asked for."""

    def __init__(self, fetcher: Fetcher):
        super().__init__(fetcher.n)
        self.fetcher = fetcher

    def supply(self, setting: Any) -> bool:
        """Fetch what the last kernel wanted; whether there was anything."""
        columns, rows = self.wanted()
        self.fetcher.fetch(columns, columns=not setting.dual)
        self.fetcher.fetch(rows, columns=setting.dual)
        return bool(len(columns) or len(rows))

    def load(self, setting: Any, index: np.ndarray, value: np.ndarray) -> None:
        """b += the sparse vector."""
        if setting.by_rows:
            self.fetcher.fetch(index, columns=setting.dual)
        super().load(setting, index, value)

    def push(self, setting: Any, eps: float, omega: float, budget: int) -> bool:
        """Push as far as lists are there, and fetch those that stopped it; whether it is done."""
        done = super().push(setting, eps, omega, budget)
        return not self.supply(setting) and done

    def add(self, setting: Any, index: np.ndarray, step: np.ndarray) -> None:
        """x += the sparse vector."""
        while not self.ready(setting, index):
            self.supply(setting)
        super().add(setting, index, step)
