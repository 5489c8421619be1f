"""Margins of diagonal dominance, as lower bounds that hold in floating point."""

from __future__ import annotations

import numpy as np

from .. import _kernels
from .access import Access

__all__ = ["margins", "margins_at"]


def margins(
    A: Access, columns: bool = False, weights: np.ndarray | None = None, first: int = 0, last: int | None = None
) -> np.ndarray:
    """Lower bounds of |a_ii| - Σ_{j≠i} |a_ij| of the rows, or of the columns, ``first <= i < last``.

    Exact where no addition rounds, else below the exact margin by about its own rounding and (m + 8)² u² Σ_j |a_ij|
    for m entries (Ogita, Rump & Oishi 2005); with weights by 2u Σ_j |a_ij| w_j more.

    Parameters
    ----------
    A : Access
    columns : bool
        Of columns instead of rows.
    weights : (n,) float64, optional
        w >= 0: bounds of |a_ii| w_i - Σ_{j≠i} |a_ij| w_j instead.
    first, last : int
        By default all.

    Returns
    -------
    (last - first,) float64
        NaN where a value is NaN or infinite, a weight is neither zero nor positive, or the sums overflow. Negative
        where the diagonal is missing and other entries are not, zero for an empty row.

    Raises
    ------
    ValueError
        If a row on the way has positions, an index or a place of a value outside of the arrays.
    """
    indptr, indices, slot, data = A.columns if columns else A.rows
    out = np.empty((A.n if last is None else last) - first)
    _kernels.local_margins(indptr, indices, slot, data, weights, out, first, columns and not A.symmetric)
    return out


def margins_at(A: Access, nodes: np.ndarray, columns: bool = False, weights: np.ndarray | None = None) -> np.ndarray:
    """`margins` of some rows or columns, given by their numbers: (k,) int64."""
    indptr, indices, slot, data = A.columns if columns else A.rows
    out, nodes = np.empty(len(nodes)), np.ascontiguousarray(nodes, np.int64)
    _kernels.local_margins_at(indptr, indices, slot, data, weights, out, nodes, columns and not A.symmetric)
    return out
