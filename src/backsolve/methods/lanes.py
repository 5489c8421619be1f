"""The order of numbers that kernels compute for several items of a batch at once.

Items stand in groups of 4, or alone, from the first on; the numbers of a group are next to each other place by place
(csrc/lanes.hpp).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import _kernels

__all__ = ["by_item", "in_lanes"]


def by_item(array: np.ndarray) -> np.ndarray:
    """(items, count), each row the numbers of one item."""
    made = np.empty_like(array)
    for group in _groups(len(array)):
        made[group] = array[group].reshape(array.shape[1], -1).T
    return made


def in_lanes(array: np.ndarray) -> np.ndarray:
    """The inverse of `by_item`."""
    made = np.empty_like(array)
    for group in _groups(len(array)):
        made[group] = np.ascontiguousarray(array[group].T).reshape(made[group].shape)
    return made


def _groups(items: int) -> Iterator[slice]:
    first = 0
    for width in _kernels.LANES:
        while items - first >= width:
            yield slice(first, first + width)
            first += width
