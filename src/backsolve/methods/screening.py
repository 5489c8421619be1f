"""What can be said against a sparse matrix before it is factored."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import structural_rank

from ..status import Status
from .factors import Factors

__all__ = ["screened", "storage_refusal", "structural_deficiency"]


def storage_refusal(A: Any) -> str | None:
    """Why an engine that takes sparse matrices with int32 indices cannot take A, as the end of a sentence."""
    if A.structure.kind != "csr":
        return "takes sparse matrices only: use method='lu' for a dense one"
    if A.structure.indices.dtype != np.int32:
        return (
            "uses int32 indices, and those of this matrix are int64: it takes fewer than 2³¹ entries, "
            "on a Pattern that was not made with index_dtype='int64'"
        )
    return None


def screened(A: Any, usable: np.ndarray, factors: Factors) -> list[int]:
    """The usable items against which nothing is found in O(nnz); what is found is noted in `factors`."""
    items: list[int] = []
    deficiency = structural_deficiency(A.structure)
    for item in np.flatnonzero(usable).tolist():
        place = A.structure.not_definite(A.data[item]) if A.assumed == "spd" else None
        if deficiency:
            factors.fail(item, Status.SINGULAR, deficiency)
        elif place is not None:
            factors.fail(item, Status.INDEFINITE, why_indefinite(A, item, *place))
        else:
            items.append(item)
    return items


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
