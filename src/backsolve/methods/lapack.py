"""Dense linear algebra for NumPy arrays: SciPy's LAPACK, one item of the batch after the other."""

from __future__ import annotations

import numpy as np
from scipy.linalg import get_lapack_funcs

__all__ = [
    "cholesky",
    "cholesky_solve",
    "like",
    "lu_factor",
    "lu_solve",
    "matmul",
    "name",
    "solve_triangular",
    "to_numpy",
    "widen",
    "xp",
]

import array_api_compat.numpy as xp

name = "LAPACK"


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
    """Factors, pivots and LAPACK's info of each (n, n) item."""
    n = a.shape[-1]
    lu, pivots, info = np.empty_like(a), np.zeros((len(a), n), np.int32), np.zeros(len(a), np.int64)
    if n:
        (getrf,) = get_lapack_funcs(("getrf",), (a,))
        for i in range(len(a)):
            lu[i], pivots[i], info[i] = getrf(a[i])
    return lu, pivots, info


def lu_solve(lu: np.ndarray, pivots: np.ndarray, b: np.ndarray, adjoint: bool) -> np.ndarray:
    """Solve with the factors of `lu_factor`."""
    (getrs,) = get_lapack_funcs(("getrs",), (lu, b))
    x = np.empty_like(b)
    for i in range(len(b)):
        x[i] = getrs(lu[i], pivots[i], b[i], trans=2 if adjoint else 0)[0]
    return x


def cholesky(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower factor and LAPACK's info of each item; reads the lower triangle."""
    lower, info = np.empty_like(a), np.zeros(len(a), np.int64)
    if a.shape[-1]:
        (potrf,) = get_lapack_funcs(("potrf",), (a,))
        for i in range(len(a)):
            lower[i], info[i] = potrf(a[i], lower=1)
    return lower, info


def cholesky_solve(lower: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve with the factor of `cholesky`."""
    (potrs,) = get_lapack_funcs(("potrs",), (lower, b))
    x = np.empty_like(b)
    for i in range(len(b)):
        x[i] = potrs(lower[i], b[i], lower=1)[0]
    return x


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
