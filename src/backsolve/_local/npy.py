"""Arrays as .npy files: written piece by piece, and mapped after a look at their size and header."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["HEADER", "Stored", "Writer", "crc32", "mapped", "pieces"]

HEADER = 128
"""Bytes before the numbers: the smallest header that NumPy writes, always enough for one axis."""

_MAGIC = b"\x93NUMPY\x01\x00"


class Stored(NamedTuple):
    """What a file holds, as it was written."""

    dtype: str
    length: int
    crc32: int | None
    """Checksum of the numbers; None where they may be changed in place."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return HEADER + self.length * np.dtype(self.dtype).itemsize


class Writer:
    """A .npy file of one axis whose length is known when it is closed."""

    def __init__(self, path: Path, dtype: str, changes: bool = False):
        self.dtype = np.dtype(dtype)
        self.length, self.changes, self._crc = 0, changes, 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def append(self, piece: np.ndarray) -> None:
        """Write numbers behind those that are there."""
        piece = np.ascontiguousarray(piece, self.dtype)
        if not piece.size:
            return
        self._file.write(piece.data)
        self.length += len(piece)
        if not self.changes:
            self._crc = zlib.crc32(piece.data, self._crc)

    def close(self) -> Stored:
        """Write the header, and tell what is there."""
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()
        return Stored(self.dtype.name, self.length, None if self.changes else self._crc)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _header(self) -> bytes:
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({self.length},), }}"
        room = HEADER - len(_MAGIC) - 2
        return _MAGIC + (room).to_bytes(2, "little") + text.ljust(room - 1).encode() + b"\n"


def mapped(path: Path, mode: str = "r") -> np.ndarray:
    """Map a file that is known to be whole."""
    return np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]


def pieces(path: Path, length: int) -> Iterator[np.ndarray]:
    """Map a file anew for each piece, so that what has been read does not stay resident."""
    total = len(mapped(path))
    for first in range(0, total, length):
        yield mapped(path)[first : first + length]


def crc32(path: Path, length: int) -> int:
    """Checksum of the numbers of a file, read in pieces."""
    crc = 0
    for piece in pieces(path, length):
        crc = zlib.crc32(piece.data, crc)
    return crc
