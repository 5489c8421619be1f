"""Random walks along the rows of a matrix that is diagonally dominant by rows.

From i a walk goes to j ≠ i with probability |M_ij|/|M_ii| and stops with what is left, Δ_i/|M_ii|. A step multiplies
the weight of the walk by the sign of -M_ij M_ii. With G = I - D⁻¹M, D the diagonal, the weighted chance of a path is
the product of its entries of G, so that the expected weight at j after k steps from i is (Gᵏ)_ij, and M⁻¹ = Σ_k Gᵏ
D⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Paths", "Rows", "start", "walk"]


class Rows:
    """The rows of a square real matrix, of which walks read those that they come to; or of its transpose.

    Attributes
    ----------
    diagonal : (n,) float64
        NaN in rows that were not read yet.
    own : (n,) int64
        The entries on the diagonal; -1 in rows that were not read yet.
    """

    def __init__(self, access: Any, transposed: bool = False):
        self.n = access.n
        self.indptr, self.indices, self._places, self._data = access.columns if transposed else access.rows
        self.diagonal, self.own = np.full(self.n, np.nan), np.full(self.n, -1, np.int64)

    def values(self, entries: np.ndarray) -> np.ndarray:
        """The values of entries, given by their position in the rows."""
        return np.asarray(self._data[self.stored(entries)], np.float64)

    def stored(self, entries: np.ndarray) -> np.ndarray:
        """Places of entries among the stored values."""
        return entries if self._places is None else self._places[entries]

    def entries_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The entries of some rows, row after row, and how many there are of each."""
        first = self.indptr[rows].astype(np.int64)
        length = self.indptr[rows + 1] - first
        ends = np.cumsum(length)
        return np.repeat(first - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0), length

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of some rows: their entries, the size of each with 0 on the diagonal, and how many there are in each row."""
        entries, length = self.entries_of(rows)
        sizes, at = self.values(entries), np.repeat(rows, length)
        on = np.flatnonzero(self.indices[entries] == at)
        self.diagonal[at[on]], self.own[at[on]] = sizes[on], entries[on]
        sizes[on] = 0.0
        return entries, np.abs(sizes), length

    def step(self, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The entries that walks at `at` go along, -1 for those that stop."""
        rows, which = np.unique(at, return_inverse=True)
        entries, sizes, length = self.read(rows)
        # One increasing sequence for all rows that are touched: a walk looks between the ends of its own.
        reached = np.concatenate([[0.0], np.cumsum(sizes)])
        ends = np.cumsum(length)
        aim = reached[ends - length][which] + rng.random(len(at)) * np.abs(self.diagonal[at])
        found = np.searchsorted(reached, aim, "right") - 1
        return np.where(found < ends[which], entries[np.minimum(found, len(entries) - 1)], -1)

    def margins(self, rows: np.ndarray) -> np.ndarray:
        """|M_ii| - Σ_{j≠i} |M_ij| of some rows, in plain floating point."""
        _, sizes, length = self.read(rows)
        return np.abs(self.diagonal[rows]) - np.bincount(np.repeat(np.arange(len(rows)), length), sizes, len(rows))


@dataclass(frozen=True)
class Paths:
    """Walks, step by step.

    Attributes
    ----------
    walkers, nodes, weights : lists of arrays
        Who is still under way at each step, where, and with which weight.
    entries : list of arrays
        The entry along which each of them goes on, -1 where it stops.
    count : int
        Walks.
    """

    walkers: list[np.ndarray]
    nodes: list[np.ndarray]
    weights: list[np.ndarray]
    entries: list[np.ndarray]
    count: int

    @property
    def steps(self) -> int:
        """Nodes visited, the first ones included."""
        return sum(len(nodes) for nodes in self.nodes)

    def signs(self, M: Rows, k: int) -> np.ndarray:
        """Factor of the weight in step k, 1 where the walk stops."""
        entry = self.entries[k]
        return np.where(entry < 0, 1.0, -np.sign(M.values(entry) * M.diagonal[self.nodes[k]]))

    def suffixes(self, M: Rows, scores: np.ndarray) -> list[np.ndarray]:
        """What the rest of a walk collects from each step on, started anew with the weight 1."""
        later = np.zeros(self.count)
        made = []
        for k in range(len(self.nodes) - 1, -1, -1):
            walkers = self.walkers[k]
            going = np.where(self.entries[k] < 0, 0.0, later[walkers])
            later[walkers] = scores[self.nodes[k]] + self.signs(M, k) * going
            made.append(later[walkers])
        return made[::-1]


def start(t: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where walks begin, with chances ∝ |t_i|, and their weights sgn(t_i) ‖t‖₁."""
    support = np.flatnonzero(t)
    reached = np.cumsum(np.abs(t[support]))
    found = np.searchsorted(reached, rng.random(count) * reached[-1], "right")
    nodes = support[np.minimum(found, len(support) - 1)]
    return nodes, np.sign(t[nodes]) * reached[-1]


def walk(M: Rows, t: np.ndarray, count: int, rng: np.random.Generator, max_steps: int) -> Paths:
    """Walks from t until all have stopped."""
    nodes, weights = start(t, count, rng)
    walkers, made = np.arange(count), Paths([], [], [], [], count)
    while len(nodes):
        entries = M.step(nodes, rng)
        for record, array in zip(
            (made.walkers, made.nodes, made.weights, made.entries), (walkers, nodes, weights, entries), strict=True
        ):
            record.append(array)
        going = entries >= 0
        weights = (weights * made.signs(M, len(made.nodes) - 1))[going]
        walkers, nodes = walkers[going], M.indices[entries[going]]
        if len(made.nodes) >= max_steps and len(nodes):
            raise ValueError(
                f"max_steps must let every walk stop; {len(nodes)} of {count} have not after {max_steps} steps: raise "
                "it, or use a solve, as margins of dominance are small."
            )
    return made
