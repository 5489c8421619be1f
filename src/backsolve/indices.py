"""Index arrays and shapes, checked: what is wrong with them is said in one sentence."""

from __future__ import annotations

from operator import index as as_int

import numpy as np

from .errors import describe

__all__ = ["check_shape", "defect_sentence", "integers", "narrow"]

_INT32_MAX = np.iinfo(np.int32).max
_INT64_MAX = np.iinfo(np.int64).max


def check_shape(owner: str, shape) -> tuple[int, int]:
    """Return a matrix shape as two Python ints."""
    try:
        rows, cols = (as_int(s) for s in shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner} must be a pair (rows, columns) of integers; got {describe(shape)}: for one square matrix (n, n)."
        ) from None
    if not (0 <= rows < _INT64_MAX and 0 <= cols < _INT64_MAX):
        raise ValueError(f"{owner} must lie in [0, 2⁶³ - 1); got ({rows}, {cols}): count rows and columns.")
    return rows, cols


def integers(name: str, index) -> np.ndarray:
    """Return an index array as a 1-D NumPy integer array, unchanged in value."""
    array = np.asarray(index)
    if array.size == 0 and array.ndim == 1:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a 1-D array of integers; got {describe(array)}"
            + (
                ": are values and index arrays swapped?"
                if array.dtype.kind in "fc"
                else ": convert it with astype('int64')."
            )
        )
    if array.dtype == np.uint64:
        if array.max() > np.iinfo(np.int64).max:
            raise ValueError(
                f"{name} must fit into int64; its largest value is {array.max()}: did a negative index become unsigned?"
            )
        array = array.astype(np.int64)
    return array


def narrow(first, second, shape: tuple[int, int], wanted: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Give both index arrays one dtype: int32 where sizes, counts and values fit it, else or if wanted int64."""
    fits = max(*shape, first.size, second.size) < _INT32_MAX and all(
        a.size == 0 or a.dtype.itemsize < 4 or (-_INT32_MAX <= a.min() and a.max() <= _INT32_MAX)
        for a in (first, second)
    )
    if wanted not in (None, "int32", "int64") or (wanted == "int32" and not fits):
        raise ValueError(
            f"Pattern: index_dtype must be 'int64', or 'int32' where sizes and indices are below {_INT32_MAX}; "
            f"got {describe(wanted)} for shape {shape}: leave it out."
        )
    dtype = np.int32 if fits and wanted != "int64" else np.int64
    return np.ascontiguousarray(first, dtype), np.ascontiguousarray(second, dtype)


def defect_sentence(code: int, position: int, value: int, shape, nnz: int, indptr_size: int) -> str:
    """Say what is wrong with CSR index arrays."""
    n_rows, n_cols = shape
    return {
        1: f"indices must be sorted without repeats within each row; entry {position} ({value}) is not: "
        "use backsolve.CSR or backsolve.coo, which sort.",
        -1: f"indptr must have length rows + 1 = {n_rows + 1} for shape {tuple(shape)}; got {indptr_size}.",
        -2: f"indptr must start with 0; got indptr[0] = {value}.",
        -3: f"indptr must not decrease; indptr[{position}] = {value} is less than the entry before it.",
        -4: f"indptr must end with the number of indices, {nnz}; got indptr[{n_rows}] = {value}.",
        -5: f"indices must lie in [0, {n_cols}) for shape {tuple(shape)}; indices[{position}] is {value}: "
        "indices count from 0.",
    }[code]
