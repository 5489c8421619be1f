"""KLU, called through ctypes in the extension module that PyKLU ships: order a pattern, find pivots for its values.

PyKLU's own class keeps neither the ordering nor the pivots for other values and solves with A alone, and its build
of KLU is without ``klu_refactor`` and ``klu_tsolve``. So KLU does here what it alone can, and the pivots and the
places of L and U that it found are read into an `Elimination`, which goes on from there.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from ctypes import POINTER, byref, c_double, c_int, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import _kernels
from ..status import Status
from .engine import EngineError

__all__ = ["Ordering", "load"]

_OK, _SINGULAR, _OUT_OF_MEMORY, _TOO_LARGE = 0, 1, -2, -4


class _Common(ctypes.Structure):
    """``klu_common`` of SuiteSparse 7: options, then what was found."""

    _fields_ = (
        *((name, c_double) for name in ("tol", "memgrow", "initmem_amd", "initmem", "maxwork")),
        *((name, c_int) for name in ("btf", "ordering", "scale")),
        *((name, c_void_p) for name in ("user_order", "user_data")),
        *((name, c_int) for name in ("halt_if_singular", "status", "nrealloc", "structural_rank")),
        *((name, c_int) for name in ("numerical_rank", "singular_col", "noffdiag")),
        *((name, c_double) for name in ("flops", "rcond", "condest", "rgrowth", "work")),
        *((name, c_size_t) for name in ("memusage", "mempeak")),
    )


class _Symbolic(ctypes.Structure):
    """``klu_symbolic``: ordering and diagonal blocks."""

    _fields_ = (
        *((name, c_double) for name in ("symmetry", "est_flops", "lnz", "unz")),
        ("block_lnz", POINTER(c_double)),
        *((name, c_int) for name in ("n", "nz")),
        *((name, POINTER(c_int)) for name in ("P", "Q", "R")),
        *((name, c_int) for name in ("nzoff", "nblocks", "maxblock", "ordering", "do_btf", "structural_rank")),
    )


class _Numeric(ctypes.Structure):
    """``klu_numeric``, as far as it is read: pivots and the places of L and U."""

    _fields_ = (
        *((name, c_int) for name in ("n", "nblocks", "lnz", "unz", "max_lnz_block", "max_unz_block")),
        *((name, POINTER(c_int)) for name in ("Pnum", "Pinv", "Lip", "Uip", "Llen", "Ulen")),
        ("LUbx", POINTER(c_void_p)),
        ("LUsize", POINTER(c_size_t)),
    )


_DEFAULTS = {
    "tol": 1e-3, "memgrow": 1.2, "initmem_amd": 1.2, "initmem": 10.0, "maxwork": 0.0, "btf": 1, "ordering": 0,
    "scale": 2, "user_order": None, "user_data": None, "halt_if_singular": 1, "status": _OK,
}  # fmt: skip


@lru_cache
def load() -> Any:
    """The library; ImportError if PyKLU is not there, or not of the kind that this module can call."""
    found = importlib.util.find_spec("PyKLU")
    folders = [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []
    files = [file for folder in folders for file in sorted(folder.glob("_klu*")) if file.suffix in (".so", ".pyd")]
    if not files:
        raise ImportError("PyKLU is not installed")
    try:
        library = ctypes.CDLL(str(files[0]))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise ImportError(f"PyKLU's extension module does not offer KLU's functions ({error})") from error
    common = _Common()
    library.klu_defaults(byref(common))
    changed = [name for name, value in _DEFAULTS.items() if getattr(common, name) != value]
    if changed:
        raise ImportError(f"PyKLU brings a KLU whose options lie elsewhere than in SuiteSparse 7: {changed[0]} differs")
    return library


def _declare(library: Any) -> None:
    common = POINTER(_Common)
    for name, restype, *argtypes in (
        ("klu_defaults", c_int, common),
        ("klu_analyze", POINTER(_Symbolic), c_int, c_void_p, c_void_p, common),
        ("klu_factor", POINTER(_Numeric), c_void_p, c_void_p, c_void_p, POINTER(_Symbolic), common),
        ("klu_z_factor", POINTER(_Numeric), c_void_p, c_void_p, c_void_p, POINTER(_Symbolic), common),
        ("klu_free_symbolic", c_int, POINTER(POINTER(_Symbolic)), common),
        ("klu_free_numeric", c_int, POINTER(POINTER(_Numeric)), common),
        ("klu_z_free_numeric", c_int, POINTER(POINTER(_Numeric)), common),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = restype, argtypes


class Ordering:
    """KLU's block triangular form and fill-reducing ordering of a pattern. The CSR form of A is the CSC form of Aᵀ."""

    def __init__(self, pattern: Any, ordering: str):
        self._library, self._core = load(), pattern._core
        self._indptr, self._indices = pattern.indptr, pattern.indices
        self._options = {"ordering": {"amd": 0, "colamd": 1}[ordering]}
        common = self._common()
        n = pattern.shape[0]
        symbolic = self._library.klu_analyze(n, self._indptr.ctypes.data, self._indices.ctypes.data, byref(common))
        if not symbolic:
            raise _error(common)
        self._symbolic = symbolic
        weakref.finalize(self, _free, self._library, "klu_free_symbolic", symbolic).atexit = False

    def pivot(self, values: np.ndarray, threshold: float) -> Any:
        """The `Elimination` along the pivots that KLU finds for (nnz,) values. Raises `EngineError` for singular ones.

        A diagonal entry is taken that is at least `threshold` times the largest in its column.
        """
        kind = "klu_z_" if np.iscomplexobj(values) else "klu_"
        values = np.ascontiguousarray(values, np.result_type(values, np.float64))
        common = self._common(tol=threshold)
        addresses = (array.ctypes.data for array in (self._indptr, self._indices, values))
        numeric = getattr(self._library, f"{kind}factor")(*addresses, self._symbolic, byref(common))
        if not numeric:
            raise _error(common)
        try:
            return self._read(numeric.contents, values.itemsize)
        finally:
            _free(self._library, f"{kind}free_numeric", numeric)

    @property
    def flops_per_entry(self) -> float:
        """Estimated multiply-adds for each entry of L and U; exact for diagonal pivots on a symmetric pattern."""
        symbolic = self._symbolic.contents
        return symbolic.est_flops / max(symbolic.lnz + symbolic.unz, 1.0)

    def _common(self, **options: Any) -> _Common:
        common = _Common()
        self._library.klu_defaults(byref(common))
        for name, value in (self._options | options).items():
            setattr(common, name, value)
        return common

    def _read(self, numeric: _Numeric, itemsize: int) -> Any:
        symbolic = self._symbolic.contents
        n, count = symbolic.n, symbolic.nblocks
        bounds = _array(symbolic.R, count + 1)
        wide = np.flatnonzero(np.diff(bounds) > 1)
        blocks = []
        for block in wide.tolist():
            words = numeric.LUsize[block] * (itemsize // 4)
            blocks.append((bounds[block], bounds[block + 1], _array(numeric.LUbx[block], words)))
        lists = []
        for starts, counts in ((numeric.Lip, numeric.Llen), (numeric.Uip, numeric.Ulen)):
            lists += _lists(_array(starts, n), _array(counts, n), blocks, itemsize // 4)
        return _kernels.Elimination(self._core, _array(numeric.Pnum, n), _array(symbolic.Q, n), bounds, *lists)


def _array(pointer: Any, size: int) -> np.ndarray:
    """A view of C integers."""
    return np.ctypeslib.as_array(ctypes.cast(pointer, POINTER(c_int)), (size,))


def _lists(starts: np.ndarray, counts: np.ndarray, blocks: list, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and indices of the columns of L or U.

    KLU keeps both factors of a block in one array of units as large as a number. A column starts at a unit, with its
    indices, which count from the first of the block.
    """
    lengths, parts = np.zeros_like(counts), [np.empty(0, np.int32)]
    for begin, end, words in blocks:
        length = lengths[begin:end] = counts[begin:end]
        shift = starts[begin:end].astype(np.int64) * unit - (np.cumsum(length) - length)
        parts.append(words[np.repeat(shift, length) + np.arange(length.sum())] + np.int32(begin))
    return lengths, np.concatenate(parts)


def _error(common: _Common) -> Exception:
    if common.status == _SINGULAR:
        return EngineError(Status.SINGULAR, f"KLU met a zero pivot in row {common.singular_col}")
    if common.status in (_OUT_OF_MEMORY, _TOO_LARGE):
        return MemoryError(f"KLU: the factors do not fit into memory (status {common.status}).")
    return RuntimeError(f"KLU refused a matrix in canonical form (status {common.status}).")


def _free(library: Any, name: str, pointer: Any) -> None:
    getattr(library, name)(byref(pointer), byref(_Common()))
