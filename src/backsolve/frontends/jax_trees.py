"""Operators and solutions as pytrees: numbers are leaves, the pattern and what was declared are static."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax.tree_util import register_pytree_node

from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree
from ..solution import Solution

__all__: list[str] = []


class _Same:
    """A `Template` that is compared by content, so that programs for equal patterns are found again."""

    def __init__(self, template: Any):
        self.template = template

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, _Same):
            return False
        mine, theirs = self.template, other.template
        if mine is theirs:
            return True
        if mine.pattern != theirs.pattern or mine.slots is None or theirs.slots is None:
            return mine.pattern == theirs.pattern and mine.slots is theirs.slots
        return np.array_equal(mine.slots, theirs.slots)

    def __hash__(self) -> int:
        return hash((self.template.pattern, self.template.count))


def _bare(kind: Any, structure: Any, data: Any, assumed: str) -> Any:
    """Unchecked: JAX also builds trees of things that are no arrays."""
    A = AbstractLinearOperator.__new__(kind)
    A.structure, A.data, A.assumed = structure, data, assumed
    return A


def _csr(static: Any, leaves: Any) -> CSR:
    same, assumed = static
    A = _bare(CSR, same.template.pattern, leaves[0], assumed)
    A.template = same.template
    return A


register_pytree_node(CSR, lambda A: ((A.data,), (_Same(A.template), A.assumed)), _csr)
register_pytree_node(
    Dense,
    lambda A: ((A.data,), (A.structure, A.assumed)),
    lambda static, leaves: _bare(Dense, static[0], leaves[0], static[1]),
)
register_pytree_node(
    MatrixFree,
    lambda A: ((A.data,), (A.map, A.assumed)),
    lambda static, leaves: _bare(MatrixFree, static[0], leaves[0], static[1]),
)
register_pytree_node(
    Solution,
    lambda sol: ((sol.x, sol.status, sol.stats), sol.method),
    lambda method, leaves: Solution(*leaves, method),
)
