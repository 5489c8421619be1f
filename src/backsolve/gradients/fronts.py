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


def fronts_of(rows: np.ndarray, cols: np.ndarray, n: int, limit: float) -> tuple[np.ndarray, list[Front]] | None:
    """An order, as the new number of each unknown, and the fronts of a matrix with entries at (rows, cols) in it.

    The matrix is eliminated from its first unknown to its last, without pivoting; its pattern is made symmetric.
    Column j of the factor holds what column j of the matrix holds below the diagonal, and what the columns hold
    whose first entry is j, its children in the elimination tree (Liu 1990, doi:10.1137/0611010). Hence the rows of a
    front all lie in that of its parent. Unknowns are renumbered so that each subtree is a range: that changes no
    entry of the factor. None where it would have more than `limit`.
    """
    struct = _columns(rows, cols, n, limit)
    if struct is None:
        return None
    number = _postorder([int(s[0]) if len(s) else -1 for s in struct])
    moved: list[np.ndarray] = [np.empty(0, np.int64)] * n
    for j, below in enumerate(struct):
        moved[number[j]] = np.sort(number[below])
    parent = np.array([s[0] if len(s) else -1 for s in moved], np.int64)
    ends = _ends(parent, np.array([len(s) for s in moved], np.int64))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    owner = np.repeat(np.arange(len(ends)), ends - starts)
    made = []
    for start, stop in zip(starts.tolist(), ends.tolist(), strict=True):
        below = moved[stop - 1]
        made.append(Front(start, stop, below, int(owner[below[0]]) if len(below) else -1))
    return number, made


def _postorder(parent: list[int]) -> np.ndarray:
    """Numbers with which every subtree is a range that ends with its root. Parents come after their children."""
    n = len(parent)
    size = [1] * n
    for j, p in enumerate(parent):
        if p >= 0:
            size[p] += size[j]
    number, free, end = np.empty(n, np.int64), [0] * n, n
    for j in range(n - 1, -1, -1):  # a root takes the last places that are free, a child those of its parent
        if parent[j] >= 0:
            number[j] = free[parent[j]]
            free[parent[j]] -= size[j]
        else:
            number[j] = end - 1
            end -= size[j]
        free[j] = int(number[j]) - 1
    return number


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
    size = np.ones(n, np.int64)
    for j, p in enumerate(parent.tolist()):
        if p >= 0:
            size[p] += size[j]
    small = size <= _SUBTREE
    joins = np.zeros(n, bool)  # column j goes with j + 1
    if n > 1:
        chained = (parent[:-1] == np.arange(1, n)) & (count[:-1] + _SLACK >= count[1:] + 1)
        joins[:-1] = chained & ~small[:-1]
    for root in np.flatnonzero(small & ~np.where(parent >= 0, small[parent], False)).tolist():
        joins[root - size[root] + 1 : root] = True
    return np.flatnonzero(~joins) + 1
