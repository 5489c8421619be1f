"""Linear interpolation between a grid and one of blocks of two points, and coarse matrices made with it, by slicing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .stencil import Stencil

__all__ = ["Transfer"]


@dataclass(frozen=True, eq=False)
class Transfer:
    """Interpolation P along each axis from blocks of two to points, and its transpose.

    A point has ¾ of its own block and ¼ of the next one; at a boundary it has δ/(δ + ½) of its own, the line through a
    zero at the distance δ beyond it, which each item of a batch has of its own.
    """

    grid: tuple[int, ...]
    distances: Sequence[tuple[np.ndarray, np.ndarray]]
    """Of the zeros beyond the first and the last points along each axis: (batch,) each."""

    @property
    def coarse_grid(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // 2) for n in self.grid)

    def coarser(self) -> Transfer:
        """From the next grid: distances in its units, from the middles of its blocks."""
        ends = zip(self.distances, self.grid, strict=True)
        after = [((low + 0.5) / 2, (high + (0.5 if n % 2 == 0 else 0.0)) / 2) for (low, high), n in ends]
        return Transfer(self.coarse_grid, after)

    @cached_property
    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Along each axis, what each point has of its own block i // 2, and of the next one on its side: (batch, n)."""
        return [_weights(n, *ends) for n, ends in zip(self.grid, self.distances, strict=True)]

    def prolong(self, e: np.ndarray) -> np.ndarray:
        """(batch, *coarse) -> (batch, *grid)."""
        for axis in reversed(range(len(self.grid))):
            e = _prolonged(e, *self.weights[axis], axis + 1)
        return e

    def restrict(self, r: np.ndarray) -> np.ndarray:
        """(batch, *grid) -> (batch, *coarse): the transpose."""
        for axis in range(len(self.grid)):
            r = _restricted(r, *self.weights[axis], axis + 1)
        return r

    def galerkin(self, A: Stencil) -> Stencil:
        """Pᵀ A P, one axis after the other; its entries reach two blocks far, however far those of A do within two."""
        parts = dict(zip(A.directions, A.values, strict=True))
        for axis in range(len(self.grid)):
            parts = _merged(parts, *self.weights[axis], axis)
        return Stencil(self.coarse_grid, tuple(parts), list(parts.values()))


def _weights(n: int, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own, other = np.full((len(low), n), 0.75), np.full((len(low), n), 0.25)
    if n == 1:  # an axis that has shrunk before the others
        return np.ones_like(own), np.zeros_like(other)
    own[:, 0], other[:, 0] = _at_end(low), 0.0
    if n % 2 == 0:
        own[:, -1], other[:, -1] = _at_end(high), 0.0
    else:  # the last block has one point, so the middles of the last two are 1.5 points apart
        own[:, -1], other[:, -1] = 1.0, 0.0
        own[:, -2], other[:, -2] = 2 / 3, 1 / 3
    return own, other


def _at_end(distance: np.ndarray) -> np.ndarray:
    near = np.where(np.isinf(distance), 1.0, distance)
    return np.where(np.isinf(distance), 1.0, near / (near + 0.5))


def _cut(axis: int, start: int | None, stop: int | None, step: int | None = None) -> tuple:
    return (slice(None),) * axis + (slice(start, stop, step),)


def _along(weights: np.ndarray, like: np.ndarray, axis: int) -> np.ndarray:
    """Weights (batch, count) as they go with an array along its axis."""
    shape = (len(weights), *(1,) * (axis - 1), -1, *(1,) * (like.ndim - axis - 1))
    return weights.reshape(shape).astype(like.dtype, copy=False)


def _prolonged(e: np.ndarray, own: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    n = own.shape[1]
    fine = np.empty((*e.shape[:axis], n, *e.shape[axis + 1 :]), e.dtype)
    even, odd = fine[_cut(axis, 0, None, 2)], fine[_cut(axis, 1, None, 2)]
    np.multiply(e, _along(own[:, ::2], e, axis), out=even)
    np.multiply(e[_cut(axis, 0, n // 2)], _along(own[:, 1::2], e, axis), out=odd)
    even[_cut(axis, 1, None)] += e[_cut(axis, None, -1)] * _along(other[:, 2::2], e, axis)
    inner = (n - 1) // 2  # odd points with a block beyond them
    odd[_cut(axis, 0, inner)] += e[_cut(axis, 1, inner + 1)] * _along(other[:, 1::2][:, :inner], e, axis)
    return fine


def _restricted(r: np.ndarray, own: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    n = own.shape[1]
    even, odd = r[_cut(axis, 0, None, 2)], r[_cut(axis, 1, None, 2)]
    e = even * _along(own[:, ::2], r, axis)
    e[_cut(axis, 0, n // 2)] += odd * _along(own[:, 1::2], r, axis)
    e[_cut(axis, None, -1)] += even[_cut(axis, 1, None)] * _along(other[:, 2::2], r, axis)
    inner = (n - 1) // 2
    e[_cut(axis, 1, inner + 1)] += odd[_cut(axis, 0, inner)] * _along(other[:, 1::2][:, :inner], r, axis)
    return e


def _merged(parts: dict, own: np.ndarray, other: np.ndarray, axis: int) -> dict:
    """Pᵀ A P for the P of one axis: A P first, then its rows.

    Point i = 2 c + parity belongs to block c, and to that of c - 1 if it is even, of c + 1 if odd.
    """
    by_columns: tuple[dict, dict] = {}, {}  # for even and odd rows: direction -> entries of A P
    padded = [np.pad(weights, ((0, 0), (2, 3))) for weights in (own, other)]  # zero for points outside
    for direction, values in parts.items():
        d = direction[axis]
        for parity in (0, 1):
            rows = values[_cut(axis + 1, parity, None, 2)]
            near, side = (parity + d) // 2, _side(parity + d)
            for weights, block in zip(padded, (near, near + side), strict=True):
                columns = weights[:, parity + d + 2 :: 2][:, : rows.shape[axis + 1]]
                _add(by_columns[parity], _turned(direction, axis, block), rows * _along(columns, rows, axis + 1))
    shape = list(next(iter(parts.values())).shape)
    shape[axis + 1] = m = -(-own.shape[1] // 2)
    found: dict[tuple, np.ndarray] = {}
    for parity in (0, 1):
        side = _side(parity)
        for direction, values in by_columns[parity].items():
            count = values.shape[axis + 1]
            if (mine := found.get(direction)) is None:
                mine = found[direction] = np.zeros(shape, values.dtype)
            mine[_cut(axis + 1, 0, count)] += values * _along(own[:, parity::2], values, axis + 1)
            target = _turned(direction, axis, direction[axis] - side)
            if (far := found.get(target)) is None:
                far = found[target] = np.zeros(shape, values.dtype)
            first, last = (1, count) if side < 0 else (0, min(count, m - 1))
            part = values[_cut(axis + 1, first, last)]
            weights = _along(other[:, parity::2][:, first:last], values, axis + 1)
            far[_cut(axis + 1, first + side, last + side)] += part * weights
    return {direction: values for direction, values in found.items() if abs(direction[axis]) < m}


def _side(i: int) -> int:
    """Where the next block of point i lies: before its own, or after it."""
    return 1 if i % 2 else -1


def _turned(direction: tuple, axis: int, step: int) -> tuple:
    return (*direction[:axis], step, *direction[axis + 1 :])


def _add(into: dict, key: tuple, values: np.ndarray) -> None:
    if key in into:
        into[key] += values
    else:
        into[key] = values
