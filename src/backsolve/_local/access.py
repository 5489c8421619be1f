"""The arrays of a square matrix that local solves read rows and columns from, in memory or mapped from files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import describe
from ..pattern import Pattern

__all__ = ["INDEX_DTYPES", "VALUE_DTYPES", "Access"]

INDEX_DTYPES = (("int32", "int32"), ("int64", "int32"), ("int64", "int64"))
"""Dtypes of (indptr, indices) that the kernels take; t_indptr and t_slot have that of indptr."""

VALUE_DTYPES = ("float32", "float64")
"""Dtypes of values."""


@dataclass(frozen=True, eq=False)
class Access:
    """The rows of a square matrix as CSR arrays, and its columns as a permutation of the same values.

    Nothing is copied, and nothing but lengths, dtypes and the ends of the pointers is read: making one takes O(1),
    also where the arrays are maps of files larger than memory. Kernels check each position that they read.

    Parameters
    ----------
    n : int
        Rows, and columns.
    indptr : (n + 1,) int32 or int64
    indices : (nnz,) int32 or int64
        With `indptr` of one of INDEX_DTYPES.
    data : (nnz,) float32 or float64
        May be changed in place: columns see the change, as they have no values of their own.
    t_indptr, t_indices, t_slot : like indptr, indices, indptr, or all None
        Column j has the entries ``k in range(t_indptr[j], t_indptr[j + 1])``: row ``t_indices[k]``, value
        ``data[t_slot[k]]``. None says that the matrix is symmetric, values too: its rows are read as columns.

    Raises
    ------
    ValueError
        If lengths, dtypes or the ends of the pointers do not fit together.
    """

    n: int
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    t_indptr: np.ndarray | None = None
    t_indices: np.ndarray | None = None
    t_slot: np.ndarray | None = None

    def __post_init__(self):
        dtypes = str(self.indptr.dtype), str(self.indices.dtype)
        if dtypes not in INDEX_DTYPES:
            raise ValueError(
                f"indptr and indices must both be int32 or both int64, or int64 and int32; got {' and '.join(dtypes)}: "
                "convert them with astype."
            )
        if str(self.data.dtype) not in VALUE_DTYPES:
            raise ValueError(f"data must be float32 or float64; got {self.data.dtype}: local solves are real.")
        given = [part is not None for part in (self.t_indptr, self.t_indices, self.t_slot)]
        if any(given) != all(given):
            raise ValueError(
                "t_indptr, t_indices and t_slot must be given together, or left out of a symmetric matrix."
            )
        for name, dtype, length in self._expected():
            _check(name, getattr(self, name), dtype, length)
        _check_ends("indptr", self.indptr, self.nnz)
        if self.t_indptr is not None:
            _check_ends("t_indptr", self.t_indptr, self.nnz)

    def _expected(self):
        position, index = self.indptr.dtype, self.indices.dtype
        yield "indptr", position, self.n + 1
        yield "indices", index, self.nnz
        yield "data", self.data.dtype, self.nnz
        if self.t_indptr is not None:
            yield "t_indptr", position, self.n + 1
            yield "t_indices", index, self.nnz
            yield "t_slot", position, self.nnz

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.indices)

    @property
    def symmetric(self) -> bool:
        """Whether rows are read as columns."""
        return self.t_indptr is None

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray, None, np.ndarray]:
        """What kernels take for rows: (indptr, indices, None, data)."""
        return self.indptr, self.indices, None, self.data

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """What kernels take for columns: (t_indptr, t_indices, t_slot, data)."""
        if self.t_indptr is None or self.t_indices is None:
            return self.rows
        return self.t_indptr, self.t_indices, self.t_slot, self.data

    def with_data(self, data: np.ndarray) -> Access:
        """The same structure with other values."""
        return replace(self, data=data)

    @classmethod
    def of_pattern(cls, pattern: Pattern, data: np.ndarray, symmetric: bool = False) -> Access:
        """Of values on a Pattern, whose transpose is made at its first use; of a symmetric matrix it is not needed."""
        if pattern.shape[0] != pattern.shape[1]:
            raise ValueError(f"A must be square; got shape {pattern.shape}.")
        transpose = () if symmetric else (pattern.t_indptr, pattern.t_indices, pattern.t_slot)
        return cls(pattern.shape[0], pattern.indptr, pattern.indices, data, *transpose)


def _check(name: str, array: np.ndarray, dtype: np.dtype, length: int) -> None:
    if array.dtype != dtype or array.shape != (length,) or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} must be a contiguous array of dtype {dtype} and shape ({length},), as the other arrays; "
            f"got {describe(array)}."
        )


def _check_ends(name: str, pointers: np.ndarray, nnz: int) -> None:
    first, last = int(pointers[0]), int(pointers[-1])
    if first != 0 or last != nnz:
        raise ValueError(f"{name} must run from 0 to the number of entries, {nnz}; got {first} to {last}.")
