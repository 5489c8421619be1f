"""How far the entries of x̂ and λ̂ can be from the truth, and those of the gradient made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .half import Half
from .system import System, Vector

__all__ = ["TINY", "Errors", "lookup"]

_UP = 1 + 2.0**-49
"""More than eight roundings upwards."""
TINY = 2.0**-1020
"""More than what four operations lose by underflow, also where numbers below the normal ones are flushed."""


def lookup(vector: Vector, index: np.ndarray) -> np.ndarray:
    """Entries of a sparse vector with sorted indices, zero where it has none."""
    nodes, value = vector
    if not len(nodes):
        return np.zeros(len(index))
    at = np.minimum(np.searchsorted(nodes, index), len(nodes) - 1)
    return np.where(nodes[at] == index, value[at], 0.0)


@dataclass(frozen=True)
class Errors:
    """Bounds of |x - x̂|_j on one side N x = b, at any unknown.

    Where N is dominant by rows, w_j max (|r| + τ)/(⟨N⟩w); by columns, Σ v(|r| + τ)/(⟨N⟩ᵀv)_j: the smaller one.
    """

    system: System
    dual: bool
    rows: float
    columns: float
    x: Vector

    @classmethod
    def of(cls, half: Half) -> Errors:
        """Of a side whose residual has just been settled."""
        nodes, x, _, _ = half.side.support()
        order = np.argsort(nodes)
        return cls(half.system, half.dual, *half.bounds(), (nodes[order], x[order]))

    def at(self, nodes: np.ndarray) -> np.ndarray:
        """Bounds at some unknowns."""
        bound = np.full(len(nodes), np.inf)
        w = self.system.v if self.dual else self.system.w
        if np.isfinite(self.rows):
            bound = np.full(len(nodes), self.rows) if w is None else self.rows * w[nodes] * _UP + TINY
        if np.isfinite(self.columns) and len(nodes):
            margin = self.system.margins_at(nodes, columns=not self.dual)
            with np.errstate(divide="ignore", invalid="ignore"):
                by_columns = np.where(margin > 0, self.columns / margin * _UP + TINY, np.inf)
            bound = np.minimum(bound, by_columns)
        return bound

    def everywhere(self, anew: bool = False) -> float:
        """A bound at all unknowns; infinite if no smallest margin is known; `anew` makes one in O(nnz) if needed."""
        w = self.system.v if self.dual else self.system.w
        by_rows = self.rows * (1.0 if w is None else float(np.max(w))) * _UP + TINY
        least = self.system.least(not self.dual, anew and not np.isfinite(by_rows))
        by_columns = self.columns / least * _UP + TINY if least > 0 else np.inf
        return float(np.fmin(by_rows, by_columns))
