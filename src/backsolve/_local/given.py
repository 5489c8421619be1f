"""Weights of edges that belong to a framework, as a graph follows them through changes in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .places import Places

__all__ = ["TAKE", "Given"]


@dataclass(frozen=True, eq=False)
class Given:
    """What a user gave, and how the stored weights are made of it."""

    tensor: Any
    array: np.ndarray
    """Its memory."""
    stamp: Callable[[], int | None]
    """Another number after each change; None where changes cannot be told."""
    source: Any = None
    """The CSR that a matrix was brought to."""
    edges: np.ndarray | None = None
    """Which of those given each stored weight is; None: they are in one order, or have `places`."""
    places: Places | None = None
    """Where each of those given is added, if they were unsorted or repeated."""

    def write(self, data: np.ndarray) -> None:
        """Bring stored weights up to date."""
        if self.edges is not None:
            np.take(self.array, self.edges, out=data)
        elif self.places is not None:
            data[:] = np.bincount(np.asarray(self.places.slots), self.array, minlength=len(data))
        elif not np.may_share_memory(data, self.array):
            data[:] = self.array

    def gradient(self, positions: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(indices among those given, ascending; derivatives by these) out of derivatives by stored weights."""
        if self.edges is not None:
            index, group = np.unique(self.edges[positions], return_inverse=True)
            return index, np.bincount(group, values, minlength=len(index))
        if self.places is not None:
            index, at = self.places.given(positions)
            return index, values[at]
        return positions, values


TAKE: dict[str, Callable[[Any], Given | None]] = {}
"""``TAKE["weights"]`` of weights or a matrix says whether they are to be followed; `backsolve.local` binds it, since it
knows the frameworks."""
