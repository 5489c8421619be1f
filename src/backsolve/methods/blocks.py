"""Batches that are solved block by block, where nobody asks for their factors again.

The factors of one block are dropped before those of the next are made: they take the memory of a block, which is warm,
and not that of the batch. Every item is treated as in the whole batch, so the answer is the same to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..solution import Stats
from ..status import Status
from .base import AbstractMethod, Outcome, Target
from .direct import DirectMethod
from .judge import nonfinite_sentence

__all__ = ["block_of", "in_blocks"]

_WORTH_A_CALL = 50_000  # stored entries of a block, beside which what a call takes is little


def block_of(method: AbstractMethod, A: Any, items: int) -> int:
    """Items of a block; 0 where the batch is to be solved as a whole."""
    if not isinstance(method, DirectMethod) or not method.together:
        return 0
    size = max(method.together, _WORTH_A_CALL // max(A.structure.nnz, 1))
    return size if size < items else 0


def in_blocks(method: AbstractMethod, A: Any, b: Any, target: Target, adjoint: bool, size: int) -> Outcome:
    """Solve A x = b, or Aᴴ x = b, for `size` items at a time."""
    x, parts, details = np.empty(b.shape, b.dtype), [], {}
    for first in range(0, len(b), size):
        block = slice(first, first + size)
        found = method.apply(method.prepare(A.on(A.data[block])), b[block], target, adjoint=adjoint)
        x[block], found.x = found.x, None
        parts.append(found)
        details = found.details | details
    if Status.NONFINITE in details:  # which system it was, counted in the whole batch
        of_A = not A.structure.finite_items(A.data).all()
        what, array = ("A", A.data) if of_A else ("the right-hand side", b)
        details[Status.NONFINITE] = nonfinite_sentence(what, array, A.structure)

    def stats() -> Stats:
        return Stats(*map(np.concatenate, zip(*(found.stats for found in parts), strict=True)))

    return Outcome(x, np.concatenate([found.status for found in parts]), stats, details)
