"""How much a query may read, and for how long."""

from __future__ import annotations

import time
from numbers import Real

from ..errors import describe

__all__ = ["Budget"]

_ENDLESS = 1 << 62


class Budget:
    """Entries and seconds, counted down.

    Parameters
    ----------
    entries : int, optional
        Entries of the matrix that may be read by pushes.
    seconds : float, optional
    """

    def __init__(self, entries: int | None = None, seconds: float | None = None):
        for name, value in (("max_touched", entries), ("max_seconds", seconds)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not value >= 0):
                raise ValueError(f"{name} must be a number that is not negative; got {describe(value)}.")
        self.left = int(min(entries, _ENDLESS)) if entries is not None else _ENDLESS
        self._end = time.monotonic() + seconds if seconds is not None else None
        self.spent = 0

    def spend(self, entries: int) -> None:
        """Count entries that were read."""
        self.left = max(self.left - entries, 0)
        self.spent += entries

    @property
    def empty(self) -> bool:
        """Whether nothing may be read any more."""
        return self.left <= 0 or (self._end is not None and time.monotonic() > self._end)
