"""How far the entries of x̂ and λ̂ can be from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .half import Half
from .system import System, Vector

__all__ = ["TINY", "UP", "Errors", "lookup"]

UP = 1 + 2.0**-49
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


@dataclass(frozen=True, eq=False)
class Errors:
    """Bounds of |x - x̂|_j on one side N x = b, at any unknown.

    Where N is dominant by rows, w_j max (|r| + τ)/(⟨N⟩w); by columns, Σ v(|r| + τ)/(⟨N⟩ᵀv)_j: the smaller one.
    """

    system: System
    dual: bool
    rows: float
    columns: float
    x: Vector
    _least: float | None = None

    @classmethod
    def of(cls, half: Half, rows: float = 0.0, columns: float = 0.0) -> Errors:
        """Of a side whose residual has just been settled, and whose b is off by what adds so much to either bound."""
        nodes, x, _, _ = half.side.support()
        order = np.argsort(nodes)
        by_rows, by_columns = half.bounds()
        if rows or columns:
            by_rows, by_columns = (by_rows + rows) * UP, (by_columns + columns) * UP
        return cls(half.system, half.dual, by_rows, by_columns, (nodes[order], x[order]), half._least)

    def at(self, nodes: np.ndarray) -> np.ndarray:
        """Bounds at some unknowns."""
        bound = np.full(len(nodes), np.inf)
        w = self.system.v if self.dual else self.system.w
        if np.isfinite(self.rows):
            with np.errstate(over="ignore"):
                bound = np.full(len(nodes), self.rows) if w is None else self.rows * w[nodes] * UP + TINY
        if np.isfinite(self.columns) and len(nodes):
            margin = self.system.margins_at(nodes, columns=not self.dual)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                by_columns = np.where(margin > 0, self.columns / margin * UP + TINY, np.inf)
            bound = np.minimum(bound, by_columns)
        return bound

    @cached_property
    def everywhere(self) -> float:
        """A bound at all unknowns; infinite if no smallest margin is known."""
        if 0 in (self.rows, self.columns):
            return 0.0  # of b = 0
        w = self.system.v if self.dual else self.system.w
        by_rows = self.rows * (1.0 if w is None else float(np.max(w))) * UP + TINY
        costly = self._least is None and self.system.current() is None  # all margins would be made anew
        if not np.isfinite(self.columns) or (np.isfinite(by_rows) and costly):
            return by_rows
        least = self.system.least(not self.dual, anew=True) if self._least is None else self._least
        by_columns = self.columns / least * UP + TINY if least > 0 else np.inf
        return float(np.fmin(by_rows, by_columns))

    @property
    def largest(self) -> float:
        """max |x̂|."""
        return float(np.max(np.abs(self.x[1]), initial=0.0))
