"""Between the sparse vectors of learned walks and arrays of one number for each node that is looked at."""

from __future__ import annotations

import numpy as np

from .entry_errors import lookup
from .learned import WalkAnswer
from .system import Vector
from .walk_options import Request

__all__ = ["cotangents", "stacked", "values_at"]


def values_at(found: WalkAnswer, asked: Request) -> np.ndarray:
    """x̂ at the nodes of each query, (queries, k) or (k,)."""
    assert asked.at is not None
    rows = zip(found.nodes, found.values, asked.at, strict=True)
    value = np.stack([lookup((nodes, x), at) for nodes, x, at in rows])
    return value[0] if asked.seeds.single else value


def stacked(found: WalkAnswer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, node, x̂) of all queries."""
    query = np.repeat(np.arange(len(found.nodes)), [len(nodes) for nodes in found.nodes])
    return query, np.concatenate(found.nodes), np.concatenate(found.values)


def cotangents(found: WalkAnswer, asked: Request, g: np.ndarray) -> list[Vector]:
    """A cotangent of `values_at`, or of the values of `stacked`, as one sparse vector for each query."""
    g = np.asarray(g, np.float64)
    if asked.at is None:
        parts = np.split(g, np.cumsum([len(nodes) for nodes in found.nodes])[:-1])
        return list(zip(found.nodes, parts, strict=True))
    out = []
    for at, row in zip(asked.at, g.reshape(asked.at.shape), strict=True):
        nodes, place = np.unique(at, return_inverse=True)
        out.append((nodes, np.bincount(place, row, minlength=len(nodes))))
    return out
