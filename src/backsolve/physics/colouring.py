"""Rows of a sparse Jacobian that one vector-Jacobian product serves at once."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..pattern import Pattern

__all__ = ["row_colours"]


def row_colours(pattern: Pattern) -> np.ndarray:
    """A colour for each row, (n_rows,) integers from 0 on; rows of one colour have no column in common.

    Then Jᵀ s, for the s that is 1 on the rows of a colour and else 0, has the entries of all these rows side by side.
    Greedy, longest rows first: optimal for bands, where the colours are as many as the longest column has entries.
    Kept in ``pattern.memo``. Curtis, Powell and Reid 1974, On the estimation of sparse Jacobian matrices.
    """
    known = pattern.memo.get("row_colours")
    return pattern.memo.setdefault("row_colours", _greedy(pattern)) if known is None else known


def _greedy(pattern: Pattern) -> np.ndarray:
    ones = np.ones(pattern.nnz)
    A = sp.csr_array((ones, pattern.indices, pattern.indptr), shape=pattern.shape)
    meets = sp.csr_array(A @ A.T)  # rows that share a column
    colours = np.full(pattern.shape[0], -1)
    for i in np.argsort(-np.diff(pattern.indptr), kind="stable"):
        taken = set(colours[meets.indices[meets.indptr[i] : meets.indptr[i + 1]]].tolist())
        colours[i] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours
