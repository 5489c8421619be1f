"""Factors for compiled programs, where nothing but tensors travels from a forward to its backward.

A factorization is found again by a digest of all values, its structure, and its method. The cache is bounded in
bytes, and drops what was used least recently, but finds it again while a `Factorization` of JAX, or a
`gradients.HessianOperator`, holds it; eager programs of torch do not use it. Of the factors that a backward has used,
only the latest stay: in training nobody asks for them again, and the next ones find their memory warm.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

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


class _Entry(Factored):
    """Factors of the cache, with the bytes that it counts for them."""

    def __init__(self, key: tuple):
        super().__init__()
        self.key, self.counted = key, 0


class FactorCache:
    """Least recently used factorizations, at most `capacity` bytes of factors; safe to use from several threads.

    Parameters
    ----------
    capacity : int
        Bytes. A factorization larger than that is not kept, so its backward factors again.
    """

    def __init__(self, capacity: int):
        self._capacity, self._lock = capacity, threading.Lock()
        self._entries: OrderedDict[tuple, _Entry] = OrderedDict()
        self._held: WeakValueDictionary[tuple, _Entry] = WeakValueDictionary()
        self._keepers: list[list] = []
        self._hits = self._misses = self._nbytes = 0
        self._spent: _Entry | None = None

    @contextmanager
    def factors(
        self, structure: Any, method: Any, assumed: str, values: np.ndarray, spend: bool = False
    ) -> Iterator[Factored]:
        """The state for these values, made or to be made at first use; afterwards what it takes is counted.

        With `spend` it goes as soon as another one is spent, unless it has been asked for again.
        """
        key = (structure, values.dtype.char, values.shape, method, assumed, digest(values))
        with self._lock:
            entry = self._entries.get(key) or self._held.get(key)
            if entry is not None:
                self._hits += 1
                self._entries[key] = entry
                self._entries.move_to_end(key)
                if entry is self._spent:
                    self._spent = None
            else:
                self._misses += 1
                entry = self._entries[key] = _Entry(key)
            for keeper in self._keepers:
                self._held[key] = entry
                if entry not in keeper:
                    keeper.append(entry)
        try:
            yield entry
        finally:
            with self._lock:
                self._settle(entry, spend)

    def hold(self, entry: Factored, holder: Factored) -> None:
        """Find an entry again as long as its holder lives, dropped or not."""
        holder.shares = entry
        with self._lock:
            self._held[entry.key] = entry  # type: ignore[attr-defined]

    @contextmanager
    def keeping(self, keeper: list) -> Iterator[None]:
        """Find all entries that are asked for meanwhile, by any thread, again as long as the list lives."""
        with self._lock:
            self._keepers.append(keeper)
        try:
            yield
        finally:
            with self._lock:
                self._keepers = [other for other in self._keepers if other is not keeper]

    def info(self) -> Info:
        """Hits and misses since the start, and what is held now."""
        with self._lock:
            return Info(self._hits, self._misses, len(self._entries), self._nbytes, self._capacity)

    def clear(self) -> None:
        """Forget all factors but those that a `Factorization` holds, and all counts."""
        with self._lock:
            while self._entries:
                self._drop(next(iter(self._entries)))
            self._hits = self._misses = self._nbytes = 0
            self._spent = None

    def resize(self, capacity: int) -> None:
        """Set the capacity in bytes; 0 keeps nothing."""
        with self._lock:
            self._capacity = capacity
            self._shrink()

    def _settle(self, entry: _Entry, spend: bool) -> None:
        if self._entries.get(entry.key) is not entry:
            return  # dropped meanwhile
        now = entry.nbytes
        self._nbytes += now - entry.counted
        entry.counted = now
        if spend:
            if self._spent not in (None, entry):
                self._drop(self._spent.key)
            self._spent = entry
        self._shrink()

    def _shrink(self) -> None:
        while self._entries and self._nbytes > self._capacity:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple) -> None:
        entry = self._entries.pop(key)
        self._nbytes -= entry.counted
        entry.counted = 0
        if entry is self._spent:
            self._spent = None


def digest(values: np.ndarray) -> bytes:
    """Hash of all values: SHA-256, since processors have instructions for it."""
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest()


CACHE = FactorCache(2**30)
"""The one that compiled programs use: 1 GiB of factors."""
