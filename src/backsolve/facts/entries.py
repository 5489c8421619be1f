"""The entries of one square matrix, as all facts are read from them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import maximum_bipartite_matching

from ..pattern import Pattern, canonical_pattern

__all__ = ["TINY", "UNIT", "Entries", "gamma"]

UNIT = float(np.finfo(np.float64).eps) / 2
"""Unit roundoff of double precision, in which all facts are computed."""

TINY = 1e-290
"""Above what underflow can do to a sum."""


class Entries:
    """A Pattern and its (nnz,) values; what is derived from them is made once.

    Parameters
    ----------
    pattern : Pattern
        Square.
    data : (nnz,) finite values
    """

    def __init__(self, pattern: Pattern, data: np.ndarray):
        self.pattern, self.data, self.n = pattern, np.ascontiguousarray(data), pattern.shape[0]

    @classmethod
    def of_dense(cls, array: np.ndarray) -> Entries:
        """The entries other than zero."""
        rows, columns = np.nonzero(array)
        return cls(canonical_pattern(rows, columns, array.shape)[0], array[rows, columns])

    @cached_property
    def rows(self) -> np.ndarray:
        """Row of every entry."""
        return self.pattern.rows

    @property
    def columns(self) -> np.ndarray:
        """Column of every entry."""
        return self.pattern.indices

    @cached_property
    def wide(self) -> Any:
        """Values in double precision, exactly."""
        return self.data.astype(np.complex128 if self.is_complex else np.float64)

    @property
    def is_complex(self) -> bool:
        """Whether values are of a complex dtype."""
        return self.data.dtype.kind == "c"

    @cached_property
    def size(self) -> np.ndarray:
        """Modulus of every entry, in double precision."""
        return np.abs(self.wide)

    @cached_property
    def diagonal(self) -> Any:
        """The diagonal in double precision, zero where nothing is stored."""
        places = self.pattern.diagonal
        found = np.zeros(self.n, self.wide.dtype)
        found[places >= 0] = self.wide[places[places >= 0]]
        return found

    @cached_property
    def beside(self) -> np.ndarray:
        """Which entries lie off the diagonal."""
        return self.rows != self.columns

    @cached_property
    def nonzero(self) -> Entries:
        """The same matrix without the zeros that are stored."""
        held = self.size > 0
        if held.all():
            return self
        pattern = canonical_pattern(self.rows[held], self.columns[held], self.pattern.shape)[0]
        return Entries(pattern, self.data[held])

    @cached_property
    def matrix(self) -> Any:
        """The matrix of SciPy."""
        return sp.csr_array((self.wide, self.pattern.indices, self.pattern.indptr), shape=self.pattern.shape)

    @cached_property
    def graph(self) -> Any:
        """The pattern as a matrix of ones."""
        ones = np.ones(self.pattern.nnz)
        return sp.csr_matrix((ones, self.pattern.indices, self.pattern.indptr), shape=self.pattern.shape)

    @cached_property
    def match(self) -> np.ndarray:
        """A column for each row, none twice and as many as can be, -1 for rows left out: the diagonal if it is stored.

        O(nnz √n) at worst.
        """
        if self.pattern.has_full_diagonal:
            return np.arange(self.n)
        return maximum_bipartite_matching(self.graph, perm_type="column").astype(np.int64)

    @cached_property
    def degree(self) -> int:
        """Entries of the longest row."""
        return int(np.diff(self.pattern.indptr).max(initial=0))


def gamma(count: float) -> float:
    """Bound of the relative error of `count` roundings one after the other."""
    return count * UNIT / (1 - count * UNIT) if count * UNIT < 1 else float("inf")
