"""Matrices on uniform grids, their entries by direction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .grid_layout import layout_of

__all__ = ["Stencil"]


@dataclass(frozen=True)
class Stencil:
    """Matrices that join each point of a grid with points nearby only.

    `values` has an array (batch, *grid) for each direction: ``values[k][item, i]`` is the entry in the row of point i
    and the column of i + directions[k], zero where that lies outside.
    """

    grid: tuple[int, ...]
    directions: tuple[tuple[int, ...], ...]
    values: Sequence[np.ndarray]

    @staticmethod
    def of(pattern: Any, data: np.ndarray, grid: tuple[int, ...] | None = None) -> Stencil | None:
        """The matrices with values (batch, nnz) on a Pattern; None where it is no such grid."""
        found = layout_of(pattern, grid)
        if found is None:
            return None
        shape, directions, places = found
        values = np.zeros((len(data), len(directions), *shape), data.dtype)
        for item, numbers in zip(values, data, strict=True):
            item.reshape(-1)[places] = numbers
        return Stencil(shape, directions, list(values.swapaxes(0, 1)))

    @property
    def diagonal(self) -> np.ndarray:
        """(batch, *grid)."""
        return self.values[self.directions.index((0,) * len(self.grid))]

    def row_sums(self) -> np.ndarray:
        """(batch, *grid)."""
        return _sum(self.values)

    def moduli(self) -> np.ndarray:
        """Row sums of moduli: (batch, *grid)."""
        return _sum(map(np.abs, self.values))

    def shifted(self, direction: tuple[int, ...]) -> tuple[tuple, tuple]:
        """Slices of the points whose neighbour in a direction exists, and of these neighbours, after a batch axis."""
        here = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip(direction, self.grid, strict=True))
        there = tuple(slice(max(0, d), n - max(0, -d)) for d, n in zip(direction, self.grid, strict=True))
        return (slice(None), *here), (slice(None), *there)

    def asymmetry(self) -> np.ndarray:
        """Largest modulus in A - Aᵀ of each item, for a pattern that is symmetric: (batch,)."""
        worst = np.zeros(len(self.diagonal))
        for k, direction in enumerate(self.directions):
            opposite = tuple(-d for d in direction)
            if opposite < direction:
                here, there = self.shifted(direction)
                gap = np.abs(self.values[k][here] - self.values[self.directions.index(opposite)][there])
                worst = np.maximum(worst, gap.reshape(len(gap), -1).max(axis=1, initial=0.0))
        return worst

    def diagonals(self, scale: np.ndarray) -> sp.dia_array:
        """diag(scale) A of all items, one after the other, as one banded matrix; scale (batch, *grid)."""
        count, dtype = self.diagonal.size, self.diagonal.dtype
        strides = np.cumprod([1, *self.grid[:0:-1]])[::-1]
        # On a narrow grid two directions may be as far apart in the numbering; no row has entries of both.
        offsets = [int(np.dot(strides, d)) for d in self.directions]
        distinct = sorted(set(offsets))
        banded = np.zeros((len(distinct), count), dtype)  # banded[k, column]
        for offset, values in zip(offsets, self.values, strict=True):
            row, band = (values * scale).reshape(-1), banded[distinct.index(offset)]
            low, high = max(0, offset), count + min(0, offset)
            if len(distinct) == len(offsets):
                band[low:high] = row[low - offset : high - offset]
            else:
                band[low:high] += row[low - offset : high - offset]
        return sp.dia_array((banded, np.array(distinct)), shape=(count, count))

    def distances(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """How far beyond the first and the last points along each axis the solution vanishes, in units of the grid.

        A row at the boundary exceeds what a row inside would sum to by t/δ, where t is its coupling inwards, and δ the
        distance to a zero: ½ for cells, 1 for nodes, infinity where nothing leaves. Of each item: (batch,).
        """
        excess, found = self.row_sums(), []
        for axis, n in enumerate(self.grid):
            ends = []
            for at, inward in ((0, 1), (n - 1, -1)):
                face = _middle(self.grid, axis, at)
                inner = [v for v, d in zip(self.values, self.directions, strict=True) if d[axis] == inward]
                t, more = -_face_sum(inner, face, len(excess)), _face_sum([excess], face, len(excess))
                leaves = (t > 0) & (more > 1e-12 * np.abs(t))
                ends.append(np.where(leaves, np.maximum(0.5, t / np.where(leaves, more, 1)), np.inf))
            found.append((ends[0], ends[1]))
        return found


def _sum(arrays: Iterable[np.ndarray]) -> np.ndarray:
    first, *rest = arrays
    total = first.copy()
    for array in rest:
        total += array
    return total


def _face_sum(arrays: Sequence[np.ndarray], face: tuple, batch: int) -> np.ndarray:
    return sum((v[face].reshape(batch, -1).sum(axis=1) for v in arrays), np.zeros(batch))


def _middle(grid: tuple[int, ...], axis: int, at: int) -> tuple:
    """A face of the grid without its edges, if anything is left then; after a batch axis."""
    others = [slice(1, -1) if n > 2 else slice(None) for n in grid]
    return (slice(None), *(at if i == axis else others[i] for i in range(len(grid))))
