"""The columns of a matrix in files, by counting, within a given memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import _kernels
from .chunks import entries_for, row_chunks
from .npy import Stored, Writer, mapped

__all__ = ["write_transpose"]


def write_transpose(folder: Path, memory: int) -> dict[str, Stored]:
    """Write t_indptr, t_indices and t_slot of the rows in a folder.

    Entries are read once to count, for as many columns as `memory` has room for, and once to be put in place. A piece
    of rows is read for those columns only that lie within its own: where neighbours have close numbers each entry is
    read about twice, at worst once for each block of memory / 48 entries.
    """
    source = _Rows(folder, memory)
    n = len(mapped(folder / "indptr.npy")) - 1
    with Writer(folder / "t_indptr.npy", "int64") as pointers:
        for counts in source.counts(n, max(1, memory // 32)):
            if not pointers.length:
                pointers.append(np.zeros(1))
            pointers.append(source.total + np.cumsum(counts))
            source.total += int(counts.sum())
        if not n:
            pointers.append(np.zeros(1))
        stored = {"t_indptr": pointers.close()}
    index = mapped(folder / "indices.npy").dtype
    with Writer(folder / "t_indices.npy", index.name) as indices, Writer(folder / "t_slot.npy", "int64") as slots:
        for block in _blocks(folder / "t_indptr.npy", memory // (4 * (8 + index.itemsize)), max(1, memory // 64)):
            for t_indices, t_slot in source.columns(*block):
                indices.append(t_indices)
                slots.append(t_slot)
        return stored | {"t_indices": indices.close(), "t_slot": slots.close()}


class _Rows:
    """Pieces of rows, and which columns each of them reaches."""

    def __init__(self, folder: Path, memory: int):
        self.indptr, self.indices = folder / "indptr.npy", folder / "indices.npy"
        self.ranges = list(row_chunks(mapped(self.indptr), entries_for(memory)))
        self.spans = [self._span(*rows) for rows in self.ranges]
        self.total = 0

    def counts(self, n: int, width: int) -> Iterator[np.ndarray]:
        for low in range(0, n, width):
            counts = np.zeros(min(width, n - low), np.int64)
            for _, _, indices in self._reaching(low, low + len(counts)):
                _kernels.local_count_columns(indices, n, low, counts)
            yield counts

    def columns(self, low: int, high: int, pointers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row indices and places of the values of the columns low <= j < high, in order."""
        if high == low + 1:  # as long as it may be, its entries are met in their order
            for first, indptr, indices in self._reaching(low, high):
                places = np.flatnonzero(indices == low) + indptr[0]
                rows = np.searchsorted(indptr, places, "right") - 1 + first
                yield rows, places
            return
        count = int(pointers[-1] - pointers[0])
        t_indices, t_slot = np.empty(count, mapped(self.indices).dtype), np.empty(count, np.int64)
        following = pointers[:-1] - pointers[0]
        for first, indptr, indices in self._reaching(low, high):
            _kernels.local_scatter_columns(indptr, indices, first, low, following, t_indices, t_slot)
        yield t_indices, t_slot

    def _reaching(self, low: int, high: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for (first, last), (least, greatest) in zip(self.ranges, self.spans, strict=True):
            if least < high and greatest >= low:
                yield first, *self._piece(first, last)

    def _span(self, first: int, last: int) -> tuple[int, int]:
        _, indices = self._piece(first, last)
        return (int(indices.min()), int(indices.max())) if indices.size else (0, -1)

    def _piece(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        indptr = mapped(self.indptr)[first : last + 1]
        return indptr, mapped(self.indices)[indptr[0] : indptr[-1]]


def _blocks(path: Path, entries: int, columns: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(first column, last, its pointers) of blocks with so many entries and columns, or of one column."""
    low, n = 0, len(mapped(path)) - 1
    while low < n:
        pointers = mapped(path)[low : low + columns + 1]
        width = int(np.searchsorted(pointers, pointers[0] + entries, "right")) - 1
        width = min(max(width, 1), len(pointers) - 1)
        yield low, low + width, np.array(pointers[: width + 1])
        low += width
