"""Options of learned walks, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import describe
from ..indices import integers
from .budget import Budget
from .learned import Goal
from .seeds import Seeds, seeds_of

__all__ = ["Request", "request"]


@dataclass(frozen=True)
class Request:
    """Where walks start, where they are looked at, and when they stop."""

    seeds: Seeds
    at: np.ndarray | None
    """(queries, k) nodes."""
    goal: Goal
    max_touched: int | None
    max_seconds: float | None

    def budget(self) -> Budget:
        """A new countdown."""
        return Budget(self.max_touched, self.max_seconds)


def request(
    n: int, seeds: Any, at: Any, atol: Any, eps: Any, max_touched: int | None, max_seconds: float | None
) -> Request:
    """Check what was asked for."""
    if (atol is None) == (eps is None):
        raise ValueError(f"walk: give either atol or eps; got atol={describe(atol)} and eps={describe(eps)}.")
    for name, value in (("atol", atol), ("eps", eps)):
        if value is not None and (not isinstance(value, int | float | np.number) or not 0 < value < np.inf):
            raise ValueError(f"walk: {name} must be a positive number; got {describe(value)}.")
    found = seeds_of(seeds, n, normal=True)
    Budget(max_touched, max_seconds)
    goal = Goal(None if atol is None else float(atol), None if eps is None else float(eps))
    return Request(found, None if at is None else _nodes(at, n, found), goal, max_touched, max_seconds)


def _nodes(at: Any, n: int, seeds: Seeds) -> np.ndarray:
    queries = len(seeds.first) - 1
    nodes = np.asarray(at)
    if nodes.dtype.kind not in "iu" or not (nodes.ndim == 1 or (nodes.ndim == 2 and nodes.shape[0] == queries)):
        raise ValueError(
            f"walk: at must be integers (k,), or ({queries}, k), nodes for each query; got {describe(at)}."
        )
    flat = integers("walk: at", nodes.ravel()).astype(np.int64)
    if flat.size and (flat.min() < 0 or flat.max() >= n):
        raise ValueError(f"walk: at must lie in [0, {n}); got {flat.min()} to {flat.max()}.")
    return np.broadcast_to(flat.reshape(nodes.shape), (queries, nodes.shape[-1]))
