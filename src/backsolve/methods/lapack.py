"""Dense linear algebra for NumPy arrays: SciPy's LAPACK, items of a batch in threads (csrc/dense.hpp)."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import scipy.linalg.cython_lapack as cython_lapack  # type: ignore[import-not-found]
from scipy.linalg import get_lapack_funcs

from .. import _kernels

__all__ = [
    "cholesky",
    "cholesky_solve",
    "like",
    "lu_factor",
    "lu_solve",
    "matmul",
    "name",
    "on_host",
    "pivots_in",
    "solve_triangular",
    "to_numpy",
    "widen",
    "xp",
]

import array_api_compat.numpy as xp

name = "LAPACK"
pivots_in = "row"
"""What the number of a zero pivot counts: Aᵀ is factored."""


def to_numpy(array: np.ndarray) -> np.ndarray:
    """Return the array itself."""
    return array


def like(b: np.ndarray, array: np.ndarray) -> np.ndarray:
    """A host array where b lives."""
    return array


def widen(array: np.ndarray) -> np.ndarray:
    """Double precision, real or complex."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b."""
    return a @ b


def lu_factor(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors as LAPACK leaves them, pivots and LAPACK's info of each (n, n) item."""
    lu, pivots, info = np.empty(a.shape, a.dtype), np.zeros(a.shape[:-1], np.int32), np.zeros(len(a), np.int64)
    if a.size:
        _kernels.lu_factor(_address("getrf", a.dtype.char), np.ascontiguousarray(a), lu, pivots, info)
    return lu, pivots, info


def lu_solve(lu: np.ndarray, pivots: np.ndarray, b: np.ndarray, adjoint: bool) -> np.ndarray:
    """Solve with the factors of `lu_factor`."""
    x = np.empty(b.shape, b.dtype)
    _kernels.lu_solve(_address("getrs", b.dtype.char), lu, pivots, np.ascontiguousarray(b), x, adjoint)
    return x


def cholesky(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor as LAPACK leaves it and LAPACK's info of each item; reads the lower triangle."""
    factor, info = np.empty(a.shape, a.dtype), np.zeros(len(a), np.int64)
    if a.size:
        _kernels.dense_cholesky(_address("potrf", a.dtype.char), np.ascontiguousarray(a), factor, info)
    return factor, info


def cholesky_solve(factor: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve with the factor of `cholesky`."""
    x = np.empty(b.shape, b.dtype)
    _kernels.cholesky_solve(_address("potrs", b.dtype.char), factor, np.ascontiguousarray(b), x)
    return x


def on_host(array: np.ndarray) -> np.ndarray:
    """The numbers of an array on the host, in C order and without a copy where they are so; None elsewhere."""
    return np.ascontiguousarray(array)


@cache
def _address(name: str, char: str) -> int:
    """Where a function of the LAPACK that SciPy brings is: for compiled loops, which need no Python for each item."""
    capsule = cython_lapack.__pyx_capi__[{"f": "s", "d": "d", "F": "c", "D": "z"}[char] + name]
    python = ctypes.pythonapi
    python.PyCapsule_GetName.restype, python.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature = python.PyCapsule_GetName(capsule)
    if not signature.endswith(b" int *)"):
        raise ImportError(f"SciPy's LAPACK must count in C's int; got {signature.decode()}: install a wheel of SciPy.")
    return python.PyCapsule_GetPointer(capsule, signature)


def solve_triangular(a: np.ndarray, b: np.ndarray, lower: bool, adjoint: bool) -> np.ndarray:
    """Solve with one triangle of each (n, n) item, or with its conjugate transpose.

    LAPACK counts columns first, so to it an item is Aᵀ: it is asked for Aᵀ's transpose, and for the adjoint
    Aᵀ conj(x) = conj(b) is solved. Nothing of size n² is copied.
    """
    (trtrs,) = get_lapack_funcs(("trtrs",), (a, b))
    if adjoint:
        b = b.conj()
    x = np.empty_like(b)
    for i in range(len(b)):
        x[i] = trtrs(a[i].T, b[i], lower=not lower, trans=0 if adjoint else 1)[0]
    return x.conj() if adjoint else x
