"""Where the entries of a derived matrix come from: transposes and added diagonals, made once for each Pattern."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np

from ..pattern import Pattern, canonical_pattern

__all__ = ["Transposed", "WithDiagonal", "is_diagonal", "transposed", "with_diagonal"]


class Transposed(NamedTuple):
    """The transposed Pattern, and the place of each of its values among those of the Pattern."""

    pattern: Pattern
    places: np.ndarray


class WithDiagonal(NamedTuple):
    """The Pattern with every diagonal place, and where the values of the Pattern are there; None: all as before."""

    pattern: Pattern
    places: np.ndarray | None


def transposed(pattern: Pattern) -> Transposed:
    """The transpose, kept in `pattern.memo`; its own transpose is `pattern` again."""
    known = pattern.memo.get("transposed")
    if known is None:
        # A weak way back: two Patterns that held each other would stay until a garbage collection.
        origin = pattern.memo.get("transposed_from", lambda: None)()
        if origin is None:
            shape = (pattern.shape[1], pattern.shape[0])
            origin = Pattern(pattern.t_indptr, pattern.t_indices, shape, str(pattern.indices.dtype))
            origin.memo["transposed_from"] = weakref.ref(pattern)
            known = pattern.memo.setdefault("transposed", Transposed(origin, _index(pattern.t_slot)))
        else:
            known = Transposed(origin, _remembered(pattern, "t_places", lambda: _index(pattern.t_slot)))
    return known


def with_diagonal(pattern: Pattern) -> WithDiagonal:
    """The union of a square Pattern with the diagonal, kept in `pattern.memo`."""
    if pattern.has_full_diagonal:
        return WithDiagonal(pattern, None)
    return _remembered(pattern, "with_diagonal", lambda: _with_diagonal(pattern))


def is_diagonal(structure: Any) -> bool:
    """Whether a structure is that of a square diagonal matrix, every diagonal place stored and no other."""
    square = structure.shape[0] == structure.shape[1] == structure.nnz
    return structure.kind == "csr" and square and structure.has_full_diagonal


def _with_diagonal(pattern: Pattern) -> WithDiagonal:
    missing = np.flatnonzero(pattern.diagonal < 0).astype(pattern.indices.dtype)
    rows, columns = (np.concatenate((index, missing)) for index in (pattern.rows, pattern.indices))
    union, slots = canonical_pattern(rows, columns, pattern.shape)
    if union.indices.dtype != pattern.indices.dtype:
        union = Pattern(union.indptr, union.indices, union.shape, str(pattern.indices.dtype))
    return WithDiagonal(union, np.arange(pattern.nnz) if slots is None else _index(slots[: pattern.nnz]))


def _remembered(pattern: Pattern, key: str, make: Any) -> Any:
    known = pattern.memo.get(key)
    return pattern.memo.setdefault(key, make()) if known is None else known


def _index(places: np.ndarray) -> np.ndarray:
    """An index array that every framework takes as it is: int64 and writable."""
    return np.array(places, np.int64)
