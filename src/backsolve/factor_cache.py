"""Factors for compiled programs, where nothing but tensors travels from a forward to its backward.

A factorization is found again by a digest of all values, its structure, and its method. The cache is bounded in
bytes, drops what was used least recently, and counts; eager programs do not use it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from .plan import Factored

__all__ = ["CACHE", "FactorCache", "Info", "digest"]


class Info(NamedTuple):
    """What a `FactorCache` did, and holds."""

    hits: int
    misses: int
    entries: int
    nbytes: int
    capacity: int


class FactorCache:
    """Least recently used factorizations, at most `capacity` bytes of factors; safe to use from several threads.

    Parameters
    ----------
    capacity : int
        Bytes. A factorization larger than that is not kept, so its backward factors again.
    """

    def __init__(self, capacity: int):
        self._capacity, self._lock = capacity, threading.Lock()
        self._entries: OrderedDict[tuple, Factored] = OrderedDict()
        self._hits = self._misses = 0

    def find(self, structure: Any, method: Any, assumed: str, values: np.ndarray) -> Factored:
        """The state for these values, made or to be made at first use; call `settle` after it was used."""
        key = (structure, str(values.dtype), values.shape, repr(method), assumed, digest(values))
        with self._lock:
            if key in self._entries:
                self._hits += 1
                self._entries.move_to_end(key)
            else:
                self._misses += 1
                self._entries[key] = Factored()
            return self._entries[key]

    def settle(self) -> None:
        """Drop what was used least recently until the factors fit."""
        with self._lock:
            while self._entries and self._nbytes() > self._capacity:
                self._entries.popitem(last=False)

    def info(self) -> Info:
        """Hits and misses since the start, and what is held now."""
        with self._lock:
            return Info(self._hits, self._misses, len(self._entries), self._nbytes(), self._capacity)

    def clear(self) -> None:
        """Forget all factors and counts."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = 0

    def resize(self, capacity: int) -> None:
        """Set the capacity in bytes; 0 keeps nothing."""
        self._capacity = capacity
        self.settle()

    def _nbytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())


def digest(values: np.ndarray) -> bytes:
    """Hash of all values (BLAKE2b, 16 bytes)."""
    return hashlib.blake2b(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, digest_size=16).digest()


CACHE = FactorCache(2**30)
"""The one that compiled programs use: 1 GiB of factors."""
