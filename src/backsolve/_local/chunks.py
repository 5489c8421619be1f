"""Rows in pieces: how streams go over matrices that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import describe

__all__ = ["LEAST_MEMORY", "MEMORY", "check_memory", "entries_for", "row_chunks"]

MEMORY = 1 << 28
"""Bytes that streams work in, unless told otherwise."""

LEAST_MEMORY = 1 << 14
"""Bytes below which pieces would be all overhead."""

_BYTES_OF_AN_ENTRY = 64  # index, value, place, and what is made of them on the way


def check_memory(memory: object) -> int:
    """Return a number of bytes."""
    if not isinstance(memory, int | np.integer) or isinstance(memory, bool) or memory < LEAST_MEMORY:
        raise ValueError(
            f"memory must be a number of bytes of at least {LEAST_MEMORY}; got {describe(memory)}: leave it out for "
            f"{MEMORY >> 20} MiB."
        )
    return int(memory)


def entries_for(memory: int) -> int:
    """Entries of a piece."""
    return memory // _BYTES_OF_AN_ENTRY


def row_chunks(indptr: np.ndarray, entries: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about so many entries, and no more rows; a longer row makes a piece alone."""
    first, n = 0, len(indptr) - 1
    while first < n:
        limit = min(int(indptr[first]) + entries, int(indptr[n]))
        last = int(np.searchsorted(indptr[first : first + entries + 1], indptr.dtype.type(limit), "right")) + first - 1
        last = min(max(last, first + 1), first + entries, n)
        yield first, last
        first = last
