"""Facts of the pattern alone: bands, components, blocks, rank."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

from .entries import Entries

__all__ = ["Structure", "structure"]


@dataclass(frozen=True, eq=False)
class Structure:
    """Where the entries other than zero are."""

    bandwidth: int
    """max |i - j| over the entries."""
    profile: int
    """Σ_i (i - first column of row i) of the pattern of A + Aᵀ."""
    rcm_bandwidth: int
    """`bandwidth` after reverse Cuthill-McKee."""
    rcm_profile: int
    """`profile` after reverse Cuthill-McKee."""
    components: np.ndarray = field(repr=False)
    """Component of each unknown, coupled in either direction: (n,) labels from 0."""
    component_count: int
    """Number of these: systems that do not know of each other."""
    strong_count: int
    """Components in which each unknown reaches each other one along the entries."""
    blocks: np.ndarray = field(repr=False)
    """Sizes of the diagonal blocks of the block triangular form, largest first; empty where the rank is deficient."""
    rank: int
    """Structural rank: no values in these places give a larger rank."""
    missing_diagonals: int
    """Diagonal entries that are not stored."""
    zero_diagonals: int
    """Diagonal entries that are stored, and zero."""
    empty_rows: np.ndarray = field(repr=False)
    """Rows without an entry."""
    empty_columns: np.ndarray = field(repr=False)
    """Columns without an entry."""
    triangle: str
    """"diagonal", "lower" or "upper" if no entry lies elsewhere, else an empty string."""


def structure(A: Entries) -> Structure:
    """Orderings and graph searches of SciPy: O(nnz log nnz), and O(nnz √n) for a matching at worst."""
    stored, A = A, A.nonzero
    rows, columns = A.rows.astype(np.int64), A.columns.astype(np.int64)
    band, profile = _bands(A.n, rows, columns)
    rcm_band, rcm_profile, count, strong, labels = band, profile, 0, 0, np.empty(0, np.int32)
    if A.n:
        place = np.empty(A.n, np.int64)
        place[reverse_cuthill_mckee(sp.csr_matrix(A.graph + A.graph.T), symmetric_mode=True)] = np.arange(A.n)
        rcm_band, rcm_profile = _bands(A.n, place[rows], place[columns])
        count, labels = connected_components(A.graph, directed=False)
        strong = connected_components(A.graph, connection="strong", return_labels=False)
    missing = int((stored.pattern.diagonal < 0).sum())
    triangle = {(False, False): "diagonal", (True, False): "lower", (False, True): "upper"}
    return Structure(
        band,
        profile,
        rcm_band,
        rcm_profile,
        labels,
        int(count),
        int(strong),
        _blocks(A),
        int((A.match >= 0).sum()),
        missing,
        int((A.pattern.diagonal < 0).sum()) - missing,
        np.flatnonzero(np.diff(A.pattern.indptr) == 0),
        np.flatnonzero(np.diff(A.pattern.t_indptr) == 0),
        triangle.get((bool((rows > columns).any()), bool((rows < columns).any())), ""),
    )


def _bands(n: int, rows: np.ndarray, columns: np.ndarray) -> tuple[int, int]:
    far, reach = np.maximum(rows, columns), np.zeros(n, np.int64)
    apart = np.abs(rows - columns)
    np.maximum.at(reach, far, apart)
    return int(apart.max(initial=0)), int(reach.sum())


def _blocks(A: Entries) -> np.ndarray:
    """With rows moved so that the matched columns are the diagonal, the blocks are the strong components."""
    if not A.n or (A.match < 0).any():
        return np.empty(0, np.int64)
    ones = np.ones(A.pattern.nnz, np.int8)
    moved = sp.csr_matrix((ones, (A.match[A.rows], A.columns)), shape=A.pattern.shape)
    _, labels = connected_components(moved, connection="strong")
    return np.sort(np.bincount(labels))[::-1]
