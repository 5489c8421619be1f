"""A whole folder read in pieces: what is wrong with it, and its margins anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .. import _kernels
from ..indices import defect_sentence
from .access import Access
from .chunks import entries_for
from .margins import margins
from .meta import Meta
from .npy import crc32, mapped, pieces
from .sums import gap, ranges, row_sums, symmetric_defect

if TYPE_CHECKING:
    from .folder import Folder

__all__ = ["refresh", "verify"]

_STRUCTURE = ("indptr", "indices", "t_indptr", "t_indices", "t_slot")


def verify(folder: Folder, memory: int) -> None:
    """Raise a ValueError that names the first defect."""
    entries = entries_for(memory)
    defect = (
        _pointers(folder, entries)
        or _rows(folder, entries)
        or (_mirror(folder, entries) if folder.symmetric else _columns(folder, entries))
        or _checksums(folder, entries)
        or (_values(folder, entries) if folder.data is not None else None)
    )
    if defect:
        raise ValueError(f"{folder.path} does not verify: {defect}.")


def refresh(folder: Folder, memory: int) -> Meta:
    """Write margins or strengths anew into the maps of a folder; return what it now says about itself."""
    if folder.data is None:
        return folder.meta
    A, worst = folder.access, [1.0, 1.0]
    for first, last in ranges(folder.path, entries_for(memory)):
        for side, kept in enumerate(_kept(folder)):
            kept[first:last] = found = _sums(folder, A, side, first, last)
            if folder.kind == "matrix":
                worst[side] = min(worst[side], gap(A, found, first))
    if folder.kind == "graph":
        return folder.meta
    return replace(folder.meta, row_gap=worst[0], column_gap=worst[0 if folder.symmetric else 1])


def _kept(folder: Folder) -> tuple:
    if folder.kind == "graph":
        return (folder.strengths,)
    return (folder.row_margins,) if folder.symmetric else (folder.row_margins, folder.column_margins)


def _sums(folder: Folder, A: Access, side: int, first: int, last: int) -> np.ndarray:
    if folder.kind == "graph":
        return row_sums(A, first, last)
    return margins(A, columns=bool(side), first=first, last=last)


def _pointers(folder: Folder, entries: int) -> str | None:
    for name in ("indptr",) if folder.symmetric else ("indptr", "t_indptr"):
        before, at = 0, 0
        for piece in pieces(folder.path / f"{name}.npy", entries):
            falls = np.flatnonzero(np.diff(piece, prepend=before) < 0)
            if len(falls):
                return f"{name} must not decrease, and does at {at + int(falls[0])}"
            before, at = int(piece[-1]), at + len(piece)
    return None


def _rows(folder: Folder, entries: int) -> str | None:
    for first, last in ranges(folder.path, entries):
        indptr = mapped(folder.path / "indptr.npy")[first : last + 1]
        indices = mapped(folder.path / "indices.npy")[indptr[0] : indptr[-1]]
        code, position, value = _kernels.diagnose(
            indptr - indptr[0], indices.astype(np.int64, copy=False), last - first, folder.n
        )
        if code:
            row = first + int(np.searchsorted(indptr - indptr[0], position, "right")) - 1
            said = defect_sentence(code, position, value, folder.shape, len(indices), len(indptr))
            return f"in row {row}, {said.partition(':')[0].rstrip('.')}"
    return None


def _columns(folder: Folder, entries: int) -> str | None:
    for first, last in ranges(folder.path, entries):
        indptr, indices, t_indptr, t_indices, t_slot = (mapped(folder.path / f"{name}.npy") for name in _STRUCTURE)
        column = _kernels.local_foreign_column(indptr, indices, t_indptr, t_indices, t_slot, first, last)
        if column >= 0:
            return f"column {column} has entries in t_indices and t_slot that are not those of the rows"
    return None


def _mirror(folder: Folder, entries: int) -> str | None:
    defect = symmetric_defect(folder.path, folder.data is not None, entries)
    return defect and f"it must be symmetric, and {defect}"


def _checksums(folder: Folder, entries: int) -> str | None:
    for name, stored in folder.meta.files.items():
        if stored.crc32 is not None and crc32(folder.path / f"{name}.npy", entries) != stored.crc32:
            return f"{name}.npy holds other numbers than were saved (its checksum differs)"
    return None


def _values(folder: Folder, entries: int) -> str | None:
    A = folder.access
    for first, last in ranges(folder.path, entries):
        begin, end = int(A.indptr[first]), int(A.indptr[last])
        wrong = ~np.isfinite(A.data[begin:end])
        if wrong.any():
            at = begin + int(np.argmax(wrong))
            row = int(np.searchsorted(A.indptr, at, "right")) - 1
            return f"values must be finite, and the one at ({row}, {A.indices[at]}) is {A.data[at]}"
        for side, kept in enumerate(_kept(folder)):
            stale = _stale(folder, kept[first:last], _sums(folder, A, side, first, last))
            if len(stale):
                what = "strength of row" if folder.kind == "graph" else f"margin of {('row', 'column')[side]}"
                return f"the {what} {first + int(stale[0])} is not that of the values: call refresh_margins()"
    return None


def _stale(folder: Folder, kept: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Where what is kept cannot be relied on: strengths that differ, margins above the true ones."""
    if folder.kind == "graph":
        return np.flatnonzero(kept != found)
    return np.flatnonzero(~(kept <= found) & ~(np.isnan(kept) & np.isnan(found)))
