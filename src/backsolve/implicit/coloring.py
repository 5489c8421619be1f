"""Sparse Jacobians from a few products: columns that share no row are found together.

If no two columns of one colour have an entry in a common row, then (J s)_i = J_ij for the sum s of the unit vectors of
that colour and the one j of it with (i, j) in the pattern: a product for each colour gives all entries (Curtis, Powell
and Reid 1974, doi:10.1093/imamat/13.1.117).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from ..pattern import Pattern

__all__ = ["Coloring", "color", "greedy"]


class Coloring(NamedTuple):
    """Colours of columns, and how entries are read from products."""

    pattern: Pattern
    seeds: np.ndarray
    """(colours, n): ones at the columns of each colour."""
    places: np.ndarray
    """(nnz,): where the entries of the pattern are in the products (colours, n), flattened."""


def color(pattern: Pattern) -> Coloring:
    """Colour columns so that those of one colour share no row.

    The number of colours is at least the largest number of entries in a row. Kept in ``pattern.memo``.
    """
    if "coloring" in pattern.memo:
        return pattern.memo["coloring"]
    n, rows, columns = pattern.shape[1], np.asarray(pattern.rows, np.int64), np.asarray(pattern.indices, np.int64)
    at = sp.csr_array((np.ones(pattern.nnz, np.int32), (rows, columns)), shape=pattern.shape)
    colors = greedy(sp.csr_array(at.T @ at))
    seeds = np.zeros((int(colors.max(initial=-1)) + 1, n))
    seeds[colors, np.arange(n)] = 1.0
    made = Coloring(pattern, seeds, colors[columns] * pattern.shape[0] + rows)
    pattern.memo["coloring"] = made
    return made


def greedy(graph: sp.csr_array) -> np.ndarray:
    """A colour for each node, from 0 on: the first that no neighbour has, for nodes with most neighbours first.

    O(Σ over nodes of their neighbours); as few colours as possible for bands.
    """
    indptr, neighbours = np.asarray(graph.indptr), np.asarray(graph.indices)
    colors = np.full(len(indptr) - 1, -1, np.int64)
    for j in np.argsort(-np.diff(indptr), kind="stable"):
        taken = colors[neighbours[indptr[j] : indptr[j + 1]]]
        free = np.ones(len(taken) + 1, bool)
        free[taken[(taken >= 0) & (taken <= len(taken))]] = False
        colors[j] = int(np.argmax(free))
    return colors
