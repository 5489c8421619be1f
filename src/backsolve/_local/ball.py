"""The nodes of a graph that are nearest to some, and the edges between them."""

from __future__ import annotations

import numpy as np

from ..errors import describe

__all__ = ["Ball"]


class Ball:
    """Grows ring by ring; rows are read once, and every index is checked.

    Nodes are numbered in the order in which they were met. An edge belongs to its end that comes first.
    """

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray | None, centres: tuple[int, ...]):
        self.indptr, self.indices, self.data = indptr, indices, data
        self.n = len(indptr) - 1
        self._place = np.zeros(self.n, np.int32)  # pages that nobody touches take no memory
        self.nodes = np.zeros(0, np.int64)
        self.touched = 0
        self._read = 0
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._meet(np.asarray(centres, np.int64))

    def _meet(self, nodes: np.ndarray) -> None:
        self._place[nodes] = np.arange(len(self.nodes), len(self.nodes) + len(nodes)) + 1
        self.nodes = np.concatenate([self.nodes, nodes])

    def grow(self, size: int, budget: int) -> bool:
        """Read rows until `size` nodes are inside, or the budget is used up; whether there is more of the graph."""
        while self._read < len(self.nodes) and (self._read < size):
            ring = self.nodes[self._read : max(size, self._read + 1)]
            begin, end = self.indptr[ring].astype(np.int64), self.indptr[ring + 1].astype(np.int64)
            if np.any(begin < 0) or np.any(end < begin) or np.any(end > len(self.indices)):
                raise ValueError(
                    "the positions of a row fall, or lie outside of the index array: the graph is damaged."
                )
            count = end - begin
            allowed = int(np.searchsorted(np.cumsum(count), budget, side="right"))
            if not allowed:
                break
            ring, begin, count = ring[:allowed], begin[:allowed], count[:allowed]
            budget -= int(count.sum())
            self.touched += int(count.sum())
            places = np.repeat(begin - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(count.sum())
            self._take(np.repeat(np.arange(self._read, self._read + len(ring)), count), places)
            self._read += len(ring)
        return self._read < len(self.nodes)

    def _take(self, row: np.ndarray, places: np.ndarray) -> None:
        to = self.indices[places].astype(np.int64)
        if to.size and (to.min() < 0 or to.max() >= self.n):
            bad = int(np.flatnonzero((to < 0) | (to >= self.n))[0])
            raise ValueError(f"node {self.nodes[row[bad]]} has the neighbour {to[bad]}; nodes lie in [0, {self.n}).")
        w = np.ones(len(places)) if self.data is None else np.asarray(self.data[places], np.float64)
        if not np.all((w >= 0) & np.isfinite(w)):
            bad = int(np.flatnonzero(~((w >= 0) & np.isfinite(w)))[0])
            raise ValueError(
                f"an edge of node {self.nodes[row[bad]]} has the weight {describe(w[bad])}; conductances must be "
                "finite and not negative."
            )
        use = (w > 0) & (to != self.nodes[row])
        row, to, w, places = row[use], to[use], w[use], places[use]
        fresh = to[self._place[to] == 0]
        if len(fresh):
            _, at = np.unique(fresh, return_index=True)
            self._meet(fresh[np.sort(at)])
        self._parts.append((row, to, w, places))

    def _all(self) -> tuple[np.ndarray, ...]:
        self._parts = [tuple(np.concatenate(part) for part in zip(*self._parts, strict=True))] if self._parts else []
        return (
            self._parts[0]
            if self._parts
            else (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        )

    def inside(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(i, j, w) of the edges with i < j inside of the rows that were read, and the sum of w that leaves each row.

        Raises
        ------
        ValueError
            If an edge is stored one way only, or with two weights.
        """
        row, to, w, _ = self._all()
        j = self._place[to].astype(np.int64) - 1
        within = j < self._read
        out = np.bincount(row[~within], w[~within], minlength=self._read)
        up, down = within & (row < j), within & (row > j)
        self._check_mirror(row, j, w, up, down)
        return row[up], j[up], w[up], out

    def _check_mirror(self, row: np.ndarray, j: np.ndarray, w: np.ndarray, up: np.ndarray, down: np.ndarray) -> None:
        n = max(self._read, 1)
        key_up, key_down = row[up] * n + j[up], j[down] * n + row[down]
        one, two = np.lexsort((w[up], key_up)), np.lexsort((w[down], key_down))
        same = len(one) == len(two)
        if same and np.array_equal(key_up[one], key_down[two]) and np.array_equal(w[up][one], w[down][two]):
            return
        keys, sides = np.unique(np.concatenate([key_up, key_down]), return_inverse=True)
        total = np.bincount(sides, np.concatenate([w[up], -w[down]]), minlength=len(keys))
        size = np.bincount(sides, np.concatenate([w[up], w[down]]), minlength=len(keys))
        bad = np.abs(total) > 1e-12 * size
        if np.any(bad):
            i, k = divmod(int(keys[np.flatnonzero(bad)[0]]), n)
            raise ValueError(
                f"the edge between nodes {self.nodes[i]} and {self.nodes[k]} has another weight one way than the "
                "other: a resistance needs an undirected graph."
            )

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """(places among the weights, w) of the edges that `inside` gives, in its order."""
        row, to, w, places = self._all()
        j = self._place[to].astype(np.int64) - 1
        up = (j < self._read) & (row < j)
        return places[up], w[up]
