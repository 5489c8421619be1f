"""Which unknowns meet when a sparse matrix is eliminated: the dense blocks that its factors consist of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Front", "fronts_of"]

_SUBTREE = 24  # unknowns of a subtree that are taken together, zeros included: BLAS calls cost more than zeros
_SLACK = 8  # zeros that a column may gain where it joins the next one


@dataclass(frozen=True)
class Front:
    """Columns start..stop-1, eliminated together, and the later unknowns `rows` that they meet."""

    start: int
    stop: int
    rows: np.ndarray
    parent: int
    """The front of the first of `rows`, which has all of `rows`; -1 where there are none."""

    @property
    def unknowns(self) -> np.ndarray:
        """All of them, ascending."""
        return np.concatenate([np.arange(self.start, self.stop), self.rows])


def fronts_of(rows: np.ndarray, cols: np.ndarray, n: int, limit: float) -> list[Front] | None:
    """The fronts of a matrix with entries at (rows, cols) that is eliminated in its order, without pivoting.

    Its pattern is made symmetric. Column j of the factor holds what column j of the matrix holds below the diagonal
    and what the columns hold whose first entry is j, its children in the elimination tree (Liu 1990). Hence the rows
    of a front all lie in that of its parent. None where the factor would have more than `limit` entries.
    """
    struct = _columns(rows, cols, n, limit)
    if struct is None:
        return None
    parent = np.array([s[0] if len(s) else -1 for s in struct], np.int64)
    ends = _ends(parent, np.array([len(s) for s in struct], np.int64))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    owner = np.repeat(np.arange(len(ends)), ends - starts)
    made = []
    for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
        below = struct[stop - 1]
        made.append(Front(start, stop, below, int(owner[below[0]]) if len(below) else -1))
    return made


def _columns(rows: np.ndarray, cols: np.ndarray, n: int, limit: float) -> list[np.ndarray] | None:
    """Rows below the diagonal of each column of the factor, ascending."""
    below, at = np.maximum(rows, cols).astype(np.int64), np.minimum(rows, cols).astype(np.int64)
    key = np.unique((at * n + below)[below > at])
    below, at = key % max(n, 1), key // max(n, 1)
    own = np.split(below, np.searchsorted(at, np.arange(1, n)))
    inherited: list[list[np.ndarray]] = [[] for _ in range(n)]
    total = 0
    for j in range(n):
        if inherited[j]:
            own[j] = np.unique(np.concatenate([own[j], *inherited[j]]))
            inherited[j] = []
        if len(own[j]):
            inherited[own[j][0]].append(own[j][1:])
        total += len(own[j])
        if total > limit:
            return None
    return own


def _ends(parent: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Where fronts end: small subtrees are one front, above them a column joins the next if few zeros are stored."""
    n = len(parent)
    size, first = np.ones(n, np.int64), np.arange(n)
    for j, p in enumerate(parent.tolist()):
        if p >= 0:
            size[p] += size[j]
            first[p] = min(first[p], first[j])
    whole = first == np.arange(n) - size + 1  # a subtree is a range of columns where the order is a postorder
    small = whole & (size <= _SUBTREE)
    joins = np.zeros(n, bool)  # column j goes with j + 1
    if n > 1:
        chained = (parent[:-1] == np.arange(1, n)) & (count[:-1] + _SLACK >= count[1:] + 1)
        joins[:-1] = chained & ~small[:-1]
    roots = np.flatnonzero(small & ~np.where(parent >= 0, small[parent], False))
    for root in roots.tolist():
        joins[root - size[root] + 1 : root] = True
        joins[root] = False
    return np.flatnonzero(~joins) + 1
