"""The static structure of a sparse matrix, checked once."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from . import _kernels
from .indices import check_shape, defect_sentence, integers, narrow

__all__ = ["NORMS", "Pattern", "canonical_pattern"]

NORMS = (
    "a_max",
    "r_max",
    "x_max",
    "b_max",
    "omega",
    "r_scaled",
    "b_scaled",
    "r_square",
    "b_square",
    "x_square",
    "curvature",
)
"""Fields that `residual` measures for each column."""

_AS_STORED = 8
"""Products with Aᴴ that are made without bringing its values in order."""


class Pattern:
    """Where a CSR matrix stores its entries; never traced, never differentiated, immutable.

    Rows are sorted and hold no column twice. Indices are int32 where they fit, else int64. Whatever
    depends on the structure alone (transpose, digest, orderings) is made once and kept here, so solving
    for many values on one Pattern pays for it once.

    Parameters
    ----------
    indptr : (n_rows + 1,) integers
    indices : (nnz,) integers
    shape : (n_rows, n_cols)
    index_dtype : {"int32", "int64"}, optional
        Asks for wider indices than needed, to share them with what needs int64.

    Raises
    ------
    ValueError
        If the arrays are not canonical CSR. `backsolve.CSR` and `backsolve.coo` accept more and sort it out.
    """

    kind = "csr"
    xp = np
    """Array namespace of values and vectors."""

    def __init__(self, indptr, indices, shape: tuple[int, int], index_dtype: str | None = None):
        self.shape = check_shape("Pattern: shape", shape)
        indptr, indices = narrow(integers("indptr", indptr), integers("indices", indices), self.shape, index_dtype)
        code, position, value = _kernels.diagnose(indptr, indices, *self.shape)
        if code:
            raise ValueError(defect_sentence(code, position, value, self.shape, len(indices), len(indptr)))
        make = _kernels.Pattern32 if indptr.dtype == np.int32 else _kernels.Pattern64
        self._core: Any = make(indptr, indices, *self.shape)
        self.nnz = len(indices)
        self.indptr: np.ndarray = self._core.indptr
        self.indices: np.ndarray = self._core.indices
        self.memo: dict = {}
        """Results that depend on the structure alone, kept by their makers: orderings, symbolic factorizations."""

    # -- products on plain buffers: data (batch, nnz), vectors (batch, n, k) ------------------------------

    def matvec(self, data: np.ndarray, x: np.ndarray, adjoint: bool = False) -> np.ndarray:
        """A x, or Aᴴ x."""
        return self._multiply(data, x, adjoint)

    def _multiply(self, data: np.ndarray, x: np.ndarray, adjoint: bool, turned: bool = False) -> np.ndarray:
        y = np.empty((data.shape[0], self.shape[1 if adjoint else 0], x.shape[2]), data.dtype)
        self._core.matmat(data, np.ascontiguousarray(x), y, adjoint, turned)
        return y

    def product(self, data: np.ndarray, adjoint: bool):
        """x -> A x or Aᴴ x, for many x.

        Values of Aᴴ are found through an index, which costs a product half as much again: where there are more than a
        few products they are brought in order, once, for the same bits.
        """
        if not adjoint:
            return lambda x: self.matvec(data, x)
        made = 0
        turned: np.ndarray | None = None

        def apply(x: np.ndarray) -> np.ndarray:
            nonlocal made, turned
            made += 1
            if made > _AS_STORED and turned is None:
                turned = np.empty_like(data)
                self._core.turn(data, turned)
            return self._multiply(data, x, True) if turned is None else self._multiply(turned, x, True, True)

        return apply

    def outer(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The entries Σ_k y_ik conj(x_jk) of the stored places (i, j): (batch, nnz)."""
        s = np.empty((y.shape[0], self.nnz), y.dtype)
        self._core.outer(y, x, s)
        return s

    def residual(self, data, x, b, adjoint: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """b - A x (or Aᴴ x), and the norms NORMS of each column: (batch, k, 11) float64."""
        r = np.empty_like(b)
        norms = np.empty((b.shape[0], b.shape[2], len(NORMS)))
        self._core.residual(data, x, b, r, norms, adjoint)
        return r, norms

    def solve_triangular(self, data: np.ndarray, b: np.ndarray, lower: bool, adjoint: bool = False) -> np.ndarray:
        """A⁻¹ b, or A⁻ᴴ b, from one triangle of A; NaN for items whose diagonal has a zero or is not all stored."""
        b = np.ascontiguousarray(b)
        x = np.empty_like(b)
        self._core.solve_triangular(data, b, x, lower, adjoint)
        return x

    def eliminate_incompletely(
        self, data: np.ndarray, shifts: tuple[float, ...], relaxation: float, definite: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """L, D and U of each item for the first of the shifts that does, and where they are lost: see incomplete.hpp.

        The latter are rows whose pivot fails whatever the shift, or -1: (batch,).
        """
        values, failed = np.empty_like(data), np.empty(len(data), np.int64)
        _kernels.eliminate_incompletely(self._core, data, values, np.array(shifts), failed, relaxation, definite)
        if (failed == -2).any():
            raise MemoryError("incomplete factors: there is no memory for a row of work arrays of A.")
        return values, failed

    def extended_residual(self, data, x, b, adjoint: bool = False) -> np.ndarray:
        """b - A x for double precision, accumulated in double-double; in single precision, as `residual` does."""
        if data.dtype.itemsize // (1 + (data.dtype.kind == "c")) < 8:
            return self.residual(data, x, b, adjoint)[0]
        r = np.empty_like(b)
        _kernels.residual_extended(self._core, data, x, b, r, adjoint)
        return r

    def finite_items(self, data) -> np.ndarray:
        """Whether all values of each item are finite, and so are sums of a row of them: (batch,) booleans."""
        return finite_items(data, largest_summable(data.dtype, max(self.shape)))

    def not_definite(self, data) -> tuple[int, int] | None:
        """A place (i, j) that disproves Hermitian positive definiteness of (nnz,) values, if O(nnz) finds one.

        (i, i): the diagonal entry is not real and positive; (i, j): nor is the 2x2 minor of rows i and j.
        """
        i, j = self._core.not_definite(data)
        return None if i < 0 else (i, j)

    # -- small things that methods need of plain arrays -------------------------------------------------

    @staticmethod
    def to_numpy(array: np.ndarray) -> np.ndarray:
        """Return the array itself: values on a Pattern are NumPy arrays."""
        return array

    @staticmethod
    def eps(data: np.ndarray) -> float:
        """Spacing of 1.0 in the precision of `data`."""
        return _eps(data.dtype)

    @staticmethod
    def size(d: np.ndarray) -> np.ndarray:
        """Largest modulus in each item: (batch,)."""
        return np.abs(d).max(axis=(1, 2), initial=0.0)

    @staticmethod
    def sizes(d: np.ndarray) -> np.ndarray:
        """Largest modulus in each column: (batch, k)."""
        return np.abs(d).max(axis=1, initial=0.0)

    @staticmethod
    def choose(mask: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
        """Columns of `yes` where the (batch, k) mask holds, else of `no`."""
        return np.where(mask[:, None, :], yes, no)

    @staticmethod
    def like(b: np.ndarray, array: np.ndarray) -> np.ndarray:
        """A real array in the precision of b."""
        return array.astype(np.finfo(b.dtype).dtype)

    @staticmethod
    def first_nonfinite(array: np.ndarray) -> tuple[Any, tuple[int, ...]]:
        """The first NaN or infinity, and its index; (None, ()) if there is none."""
        places = np.argwhere(~np.isfinite(array))
        return (array[tuple(places[0])], tuple(places[0].tolist())) if len(places) else (None, ())

    # -- facts ------------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> bytes:
        """Content hash of shape and indices (BLAKE2b, 16 bytes)."""
        h = hashlib.blake2b(repr((self.shape, str(self.indices.dtype))).encode(), digest_size=16)
        h.update(self.indptr.data)
        h.update(self.indices.data)
        return h.digest()

    def __hash__(self) -> int:
        return int.from_bytes(self.digest[:8], "little")

    def __eq__(self, other) -> bool:
        if self is other:
            return True
        return isinstance(other, Pattern) and self.shape == other.shape and self.digest == other.digest

    @property
    def rows(self) -> np.ndarray:
        """Row of every entry: (nnz,), made on each call."""
        return np.repeat(np.arange(self.shape[0], dtype=self.indices.dtype), np.diff(self.indptr))

    @cached_property
    def t_indptr(self) -> np.ndarray:
        """`indptr` of the transpose: with `t_indices`, the CSC form."""
        return self._core.t_indptr

    @cached_property
    def t_indices(self) -> np.ndarray:
        """Row indices, column by column."""
        return self._core.t_indices

    @cached_property
    def t_slot(self) -> np.ndarray:
        """Places in the values of the entries of the transpose: ``data[..., t_slot]`` are the CSC values."""
        return self._core.t_slot

    @cached_property
    def diagonal(self) -> np.ndarray:
        """Place of each diagonal entry among the values, -1 where none is stored: (min(shape),)."""
        return self._core.diagonal()

    @cached_property
    def has_full_diagonal(self) -> bool:
        """Whether every diagonal entry is stored."""
        return bool((self.diagonal >= 0).all())

    @cached_property
    def symmetry(self) -> float:
        """Share of the off-diagonal entries whose mirror image is stored too; 1.0 for a diagonal matrix."""
        off, both = self._core.mirrored()
        return both / off if off else 1.0

    def entry(self, slot: int) -> tuple[int, int]:
        """Row and column of the value at place `slot`."""
        return int(np.searchsorted(self.indptr, slot, "right")) - 1, int(self.indices[slot])

    @cached_property
    def empty_row(self) -> int:
        """The first row without an entry, or -1."""
        lengths = np.diff(self.indptr)
        return int(np.argmin(lengths)) if lengths.size and lengths.min() == 0 else -1

    def __deepcopy__(self, memo: dict) -> Pattern:
        return self  # it never changes, and copies of a model share what was worked out from it

    def __reduce__(self):
        return Pattern, (np.array(self.indptr), np.array(self.indices), self.shape, str(self.indices.dtype))

    def __repr__(self) -> str:
        return f"Pattern({self.shape[0]}x{self.shape[1]}, nnz={self.nnz}, {self.indices.dtype})"


def canonical_pattern(rows, cols, shape) -> tuple[Pattern, np.ndarray | None]:
    """Sort triplets and merge repeats.

    Returns the Pattern and `slots`, the place of each triplet among the canonical values, or None where the
    triplets were canonical already.
    """
    shape = check_shape("shape", shape)
    rows, cols = integers("rows", rows), integers("cols", cols)
    if rows.shape != cols.shape:
        raise ValueError(
            f"rows and cols must have the same length, one pair per value; got {rows.size} and {cols.size}."
        )
    for name, index, size in (("rows", rows, shape[0]), ("cols", cols, shape[1])):
        if index.size and (index.min() < 0 or index.max() >= size):
            at = int(np.flatnonzero((index < 0) | (index >= size))[0])
            raise ValueError(
                f"{name} must lie in [0, {size}) for shape {shape}; {name}[{at}] is {index[at]}: "
                "negative indices are not wrapped, and indices count from 0."
            )
    rows, cols = narrow(rows, cols, shape)
    indptr, indices, slots = _kernels.canonicalise(rows, cols, *shape)
    identity = len(indices) == len(slots) and bool((slots == np.arange(len(slots), dtype=slots.dtype)).all())
    return Pattern(indptr, indices, shape), None if identity else slots


def finite_items(data: np.ndarray, limit: float) -> np.ndarray:
    """Whether no value of each item is NaN or larger than the limit: data (batch, count), the answers (batch,)."""
    if _kernels.first_beyond(data.reshape(-1), limit) < 0:
        return np.array([True] * len(data), bool)
    return np.array([_kernels.first_beyond(item, limit) < 0 for item in data])


@lru_cache
def _eps(dtype) -> float:
    return float(np.finfo(dtype).eps)


@lru_cache
def largest_summable(dtype, n: int) -> float:
    """Size of numbers of which n + 1 can be summed in double precision without overflow."""
    return min(float(np.finfo(dtype).max), float(np.finfo(np.float64).max) / (n + 1))
