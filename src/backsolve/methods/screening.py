"""What can be said against a sparse matrix before it is factored."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import structural_rank

__all__ = ["structural_deficiency", "why_indefinite"]


def why_indefinite(A: Any, item: int, i: int, j: int) -> str:
    """What the place (i, j) of `Pattern.not_definite` proves."""
    if i != j:
        return f"A was declared 'spd', but the 2x2 minor of rows {i} and {j} is not positive"
    slot = A.structure.diagonal[i]
    return f"A was declared 'spd', but diagonal entry {i} is {A.data[item][slot] if slot >= 0 else 'not stored'}"


def structural_deficiency(pattern: Any) -> str:
    """Why no values on the pattern make a regular matrix; empty if some do. Worked out once."""
    if "deficiency" not in pattern.memo:
        found, n = "", pattern.shape[0]
        if pattern.empty_row >= 0:
            found = f"A is structurally singular: row {pattern.empty_row} stores no entry"
        elif not pattern.has_full_diagonal:
            ones = np.ones(pattern.nnz, np.int8)
            rank = structural_rank(sp.csr_matrix((ones, pattern.indices, pattern.indptr), shape=pattern.shape))
            if rank < n:
                found = f"A is structurally singular: its structural rank is {rank} of {n}"
        pattern.memo["deficiency"] = found
    return pattern.memo["deficiency"]
