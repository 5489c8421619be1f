"""Sparse vectors, from what users have."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse

from ..errors import describe
from .system import Vector

__all__ = ["DENSE", "column", "sparse_vector", "unit"]

DENSE = 0.2
"""Share of nonzeros from which a vector is taken for dense."""


def unit(name: str, i: Any, n: int) -> Vector:
    """The i-th unit vector."""
    if not isinstance(i, (Integral, np.integer)) or isinstance(i, bool):
        raise TypeError(f"{name} must be an integer; got {describe(i)}.")
    if not 0 <= int(i) < n:
        raise ValueError(
            f"{name} must lie in [0, {n}); got {i}: unknowns count from 0, and negative ones are not wrapped."
        )
    return np.array([int(i)], np.int64), np.ones(1)


def sparse_vector(name: str, vector: Any, n: int) -> Vector:
    """(indices, values) of a dense (n,) array, an (n, 1) scipy.sparse matrix, or a pair (indices, values).

    Raises
    ------
    ValueError
        If the shape is another one, an index is out of range, or a value is NaN or infinite.
    """
    if scipy.sparse.issparse(vector):
        if vector.shape not in ((n, 1), (n,)):
            raise ValueError(f"{name} must have shape ({n}, 1), as A has {n} rows; got {vector.shape}.")
        entries = vector.tocoo()
        index, value = entries.coords[0], entries.data
    elif isinstance(vector, tuple) and len(vector) == 2:
        index, value = (np.asarray(part) for part in vector)
    else:
        value = np.asarray(vector)
        if value.shape != (n,):
            raise ValueError(
                f"{name} must be a 1-D array of {n} numbers, an ({n}, 1) scipy.sparse matrix or a pair "
                f"(indices, values); got {describe(vector)}."
            )
        index = np.flatnonzero(value)
        value = value[index]
    index, value = _checked(name, index, value, n)
    if len(index) > 1 and not np.all(np.diff(index) > 0):
        every, place = np.unique(index, return_inverse=True)
        total = np.zeros(len(every))
        np.add.at(total, place, value)
        index, value = every, total
    return index, value


def _checked(name: str, index: np.ndarray, value: np.ndarray, n: int) -> Vector:
    if index.ndim != 1 or index.shape != value.shape:
        raise ValueError(f"{name} must have one index for each value; got shapes {index.shape} and {value.shape}.")
    if index.size and index.dtype.kind not in "iu":
        raise TypeError(f"{name} must have integer indices; got dtype {index.dtype}.")
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real; got dtype {value.dtype}.")
    if index.size and (index.min() < 0 or index.max() >= n):
        at = int(np.flatnonzero((index < 0) | (index >= n))[0])
        raise ValueError(f"{name} must have indices in [0, {n}); index {at} is {index[at]}.")
    value = np.ascontiguousarray(value, np.float64)
    if not np.all(np.isfinite(value)):
        at = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ValueError(f"{name} must be finite; the entry at {index[at]} is {value[at]}.")
    return np.ascontiguousarray(index, np.int64), value


def column(vector: Any, n: int) -> Any:
    """A pair (indices, values) as an (n, 1) scipy.sparse array; anything else as it is."""
    if not isinstance(vector, tuple):
        return vector
    index, value = vector
    return scipy.sparse.coo_array((value, (index, np.zeros(len(index), np.int64))), shape=(n, 1))
