"""Which grid a sparse matrix lives on, found from its pattern alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

__all__ = ["grid_of", "layout_of"]

_MEMO = "learn.grid_layout"


def grid_of(pattern: Any) -> tuple[int, ...] | None:
    """The shape of the grid of one, two or three dimensions whose neighbours a Pattern joins; None if it is none."""
    found = layout_of(pattern, None)
    return None if found is None else found[0]


def layout_of(pattern: Any, grid: tuple[int, ...] | None) -> tuple | None:
    """(grid, directions, place of each entry in (directions, n)), or None; kept on the Pattern."""
    key = (_MEMO, grid)
    if key not in pattern.memo:
        pattern.memo[key] = _found_layout(pattern, grid)
    return pattern.memo[key]


def _found_layout(pattern: Any, grid: tuple[int, ...] | None) -> tuple | None:
    n, rows = pattern.shape[0], pattern.rows
    if not n or not pattern.nnz:
        return None
    steps = pattern.indices - rows
    counts = np.bincount(steps + (n - 1), minlength=2 * n - 1)
    offsets = np.flatnonzero(counts) - (n - 1)
    if len(offsets) > 27:
        return None
    for shape in [grid] if grid is not None else _candidates(n, offsets[offsets > 0]):
        directions = _directions(shape, offsets, n)
        if directions is None:
            continue
        which = np.zeros(2 * n - 1, np.int32)
        which[offsets + (n - 1)] = np.arange(len(offsets))
        places = which[steps + (n - 1)] * np.int64(n) + rows
        if _stays_inside(shape, directions, places):
            return shape, directions, places
    return None


def _candidates(n: int, steps: np.ndarray) -> list[tuple[int, ...]]:
    """Grids that the distances between joined unknowns allow: runs of them lie around 1, the row and the layer."""
    found: list[tuple[int, ...]] = [(n,)]
    beyond = [int(s) for s in steps if s > 1]
    widths = [w for s in beyond[:3] for w in (s, s + 1) if n % w == 0]
    for w in dict.fromkeys(widths):
        found.append((n // w, w))
        layers = [s for s in beyond if s > w + 1]
        depths = [d for s in layers for d in (s, s + w + 1, s + w, s + 1) if d % w == 0 and n % d == 0]
        found += [(n // d, d // w, w) for d in dict.fromkeys(depths) if d > w]
    return found


def _directions(shape: tuple[int, ...], offsets: np.ndarray, size: int) -> tuple | None:
    """What each offset is on a grid; None if one is no step to a neighbour, or the diagonal is missing.

    On rows of two points a step to the next is as long as one to the row after and back: no grid is seen there.
    """
    if int(np.prod(shape)) != size or min(shape[1:], default=3) < 3:
        return None
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    steps = {int(np.dot(strides, d)): d for d in product((-1, 0, 1), repeat=len(shape))}
    if 0 not in offsets or any(int(o) not in steps for o in offsets):
        return None
    return tuple(steps[int(o)] for o in offsets)


def _stays_inside(shape: tuple[int, ...], directions: tuple, places: np.ndarray) -> bool:
    """Whether no entry steps over the edge of the grid."""
    stored = np.zeros((len(directions), *shape), bool)
    stored.reshape(-1)[places] = True
    for kind, direction in zip(stored, directions, strict=True):
        for axis, d in enumerate(direction):
            edge = (slice(None),) * axis + (-1 if d > 0 else 0,)
            if d and kind[edge].any():
                return False
    return True
