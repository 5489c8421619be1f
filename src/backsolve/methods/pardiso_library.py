"""MKL's Pardiso, called through ctypes: analyse a pattern, factor several matrices on it, solve with each.

pypardiso's own class cannot solve with the transpose, takes double precision alone, and keeps one factorization, so of
that package only the library that comes with it is used. What the library does not say of itself, and is heeded here:

- Factoring with fewer threads than there were in the analysis crashes. A `Handle` keeps its number of threads.
- A forked child hangs where GNU's OpenMP runs more than one thread, and where MKL's memory pool was locked by a thread
  of the parent that was about to end. A child uses one thread, and the pool is switched off.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from ctypes import byref, c_int32, c_void_p
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from .. import _kernels

__all__ = ["Handle", "forks", "library"]

_PHASES = {"analyse": 11, "factor": 22, "solve": 33, "release": 0, "close": -1}
_COLUMNS = 64  # right-hand sides solved at once

# Errors that say nothing of the matrix: the others are returned.
_FAILURES = {
    -1: "found its input inconsistent",
    -3: "failed to order the pattern",
    -5: "failed for a reason that it does not name",
    -8: "needs more than 2³¹ numbers somewhere, and counts in 32 bits",
}


class _Forks:
    """How often this process, or what it was forked from, has been forked since."""

    def __init__(self):
        self.count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._one_more)

    def _one_more(self) -> None:
        self.count += 1


forks = _Forks()


@cache
def library() -> Any:
    """The shared library, loaded once.

    Raises
    ------
    ImportError, OSError
        If it is not to be found or does not load.
    """
    lib = ctypes.CDLL(_path())
    lib.pardiso.restype = None
    lib.MKL_Disable_Fast_MM()
    return lib


def _path() -> str:
    named = os.environ.get("PYPARDISO_MKL_RT")
    if named:
        return named
    try:
        files = metadata.files("mkl") or ()
    except metadata.PackageNotFoundError:
        files = ()
    found = [str(f.locate()) for f in files if "mkl_rt." in f.name and not f.name.endswith(".lib")]
    if found:
        return min(found, key=len)
    # It searches the whole environment, which takes a second.
    from pypardiso import ps  # type: ignore[import-not-found]

    return ps.libmkl._name  # type: ignore[union-attr]


def threads() -> int:
    """Threads of a new handle: BACKSOLVE_NUM_THREADS, else what MKL takes by itself; one in a forked child."""
    if forks.count:
        return 1
    return _kernels.thread_count() if "BACKSOLVE_NUM_THREADS" in os.environ else library().MKL_Get_Max_Threads()


class Handle:
    """An analysed pattern, with places for the factors of several matrices on it. Used by one thread at a time.

    Parameters
    ----------
    kind : int
        Pardiso's ``mtype``.
    indptr, indices : int32 arrays
        CSR, its upper triangle with the whole diagonal for symmetric kinds; not copied.
    places : int
        Matrices that can be held at the same time.
    matching : bool
        Whether rows are permuted and scaled such that the diagonal is large, by the values that `analyse` is given.
    """

    def __init__(self, kind: int, indptr: np.ndarray, indices: np.ndarray, dtype: Any, places: int, matching: bool):
        self.kind, self.dtype, self.places = kind, np.dtype(dtype), places
        self.threads, self.forks = threads(), forks.count
        self.filled: set[int] = set()
        self._indptr, self._indices = indptr, indices
        self._pt, self._iparm = np.zeros(64, np.int64), np.zeros(64, np.int32)
        settings = {
            1: 1,  # no defaults
            2: 2,  # nested dissection
            11: int(matching),
            13: int(matching),
            18: -1,  # count the entries of the factors
            21: 1,  # pivots of order one and two
            28: int(self.dtype.itemsize == (4 if self.dtype.kind == "f" else 8)),  # single precision
            35: 1,  # indices from zero
        }
        for place, value in settings.items():
            self._iparm[place - 1] = value
        arguments = self._pt, self._arguments(), self._iparm, self.threads, self.forks
        weakref.finalize(self, _close, *arguments).atexit = False

    @property
    def perturbed(self) -> int:
        """Pivots of the latest factorization that were too small and were replaced."""
        return int(self._iparm[13])

    @property
    def failed_at(self) -> int:
        """Equation at which the latest factorization of a positive definite kind broke down."""
        return int(self._iparm[29]) - 1

    @property
    def entries(self) -> int:
        """Numbers in the factors of one matrix."""
        return int(self._iparm[17])

    def analyse(self, values: np.ndarray) -> int:
        """Order the pattern; returns Pardiso's error, 0 if there was none."""
        return self._call("analyse", 0, values)

    def factor(self, place: int, values: np.ndarray, smallest: int) -> int:
        """Factor values into a place; pivots below 10^-smallest, relative to A, are replaced. Returns the error."""
        self._iparm[9] = smallest
        self.filled.add(place)
        return self._call("factor", place, values)

    def solve(self, place: int, values: np.ndarray, b: np.ndarray, adjoint: bool) -> np.ndarray:
        """Solve for (n, k) with the factors in a place, and the values of which they are: some kinds read them."""
        self._iparm[11] = int(adjoint)
        b = np.asfortranarray(b, self.dtype)
        x = np.empty_like(b)
        for first in range(0, b.shape[1], _COLUMNS):
            columns = slice(first, first + _COLUMNS)
            self._call("solve", place, values, b[:, columns], x[:, columns])
        return np.ascontiguousarray(x)

    def release(self, place: int) -> None:
        """Give the memory of the factors in a place back."""
        self._call("release", place)
        self.filled.discard(place)

    def _arguments(self) -> tuple:
        """What no call changes: places, kind, and the pattern."""
        return c_int32(self.places), c_int32(self.kind), self._indptr, self._indices

    def _call(self, phase: str, place: int, values: np.ndarray | None = None, b: Any = None, x: Any = None) -> int:
        n_threads = self.threads if self.forks == forks.count else 1
        error = _run(phase, place, self._pt, self._arguments(), self._iparm, values, b, x, n_threads)
        if error == -2:
            forecast = int(max(self._iparm[14], self._iparm[15] + self._iparm[16]))
            raise MemoryError(
                f"Pardiso: out of memory for a matrix of order {len(self._indptr) - 1}; it asked for {forecast} KiB: "
                "use an iterative method such as 'cg' or 'bicgstab', or keep fewer factorizations alive."
            )
        if error in _FAILURES or (error and phase == "solve"):
            raise RuntimeError(f"Pardiso {_FAILURES.get(error, 'failed')} (error {error}, to {phase}): use 'superlu'.")
        return error


def _run(phase, place, pt, arguments, iparm, values, b, x, n_threads) -> int:
    places, kind, indptr, indices = arguments
    lib, error = library(), c_int32(0)
    columns = c_int32(1 if b is None else b.shape[1])
    before = lib.MKL_Set_Num_Threads_Local(n_threads)
    try:
        lib.pardiso(
            _address(pt), byref(places), byref(c_int32(place + 1)), byref(kind), byref(c_int32(_PHASES[phase])),
            byref(c_int32(len(indptr) - 1)), _address(values), _address(indptr), _address(indices), None,
            byref(columns), _address(iparm), byref(c_int32(0)), _address(b), _address(x), byref(error),
        )  # fmt: skip
    finally:
        lib.MKL_Set_Num_Threads_Local(before)
    return error.value


def _address(array: np.ndarray | None) -> c_void_p | None:
    return None if array is None else c_void_p(array.ctypes.data)


def _close(pt: np.ndarray, arguments: tuple, iparm: np.ndarray, n_threads: int, made_at: int) -> None:
    if made_at == forks.count and pt.any():
        _run("close", 0, pt, arguments, iparm, None, None, None, n_threads)
