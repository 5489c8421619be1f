"""Rows of a sparse Jacobian that one vector-Jacobian product serves at once."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..implicit.coloring import greedy
from ..pattern import Pattern

__all__ = ["row_colours"]


def row_colours(pattern: Pattern) -> np.ndarray:
    """A colour for each row, (n_rows,) integers from 0 on; rows of one colour have no column in common.

    Then Jᵀ s, for the s that is 1 on the rows of a colour and else 0, has the entries of all these rows side by side.
    For bands the colours are as many as the longest column has entries. Kept in ``pattern.memo``. Curtis, Powell and
    Reid 1974, On the estimation of sparse Jacobian matrices.
    """
    known = pattern.memo.get("row_colours")
    return pattern.memo.setdefault("row_colours", _made(pattern)) if known is None else known


def _made(pattern: Pattern) -> np.ndarray:
    A = sp.csr_array((np.ones(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape)
    return greedy(sp.csr_array(A @ A.T))
