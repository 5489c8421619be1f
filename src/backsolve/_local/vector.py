"""M⁻¹b as a sparse vector, and functionals of a dense b from the dual alone."""

from __future__ import annotations

import math

import numpy as np

from ..status import Status
from .budget import Budget
from .entry_errors import TINY, Errors
from .estimate import Estimate
from .half import Half
from .rounds import answer
from .system import System, Vector

__all__ = ["DualQuery", "VectorQuery"]


class VectorQuery:
    """x = M⁻¹b, or M⁻ᵀb, with max |x - x̂| bounded.

    By rows the bound is max w · max |r|/(⟨M⟩w); by columns Σ v|r| over the smallest (⟨M⟩ᵀv)_j of all.
    """

    def __init__(self, system: System, b: Vector, dual: bool = False):
        self.system = system
        rows = system.columns if dual else system.rows
        self.half = Half(system, b, dual, by_rows=rows)

    @property
    def halves(self) -> list[Half]:
        """The one side."""
        return [self.half]

    @property
    def touched(self) -> int:
        """Entries read so far."""
        return self.half.touched

    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound is below `atol`."""
        self.half.begin()
        self.scale = self._scale()
        return answer(self, atol, budget, leave)

    def _scale(self) -> float:
        """max |x - x̂| over the size of the side."""
        half, system = self.half, self.system
        if half.by_rows:
            w = system.v if half.dual else system.w
            return 1.0 if w is None else float(np.max(w, initial=0.0))
        least = system.least(not half.dual, anew=True)
        return 1 / least if least > 0 else math.inf

    @property
    def size(self) -> float:
        """Of the bound."""
        return self.half.size * self.scale

    def aim(self, half: Half, goal: float) -> float:
        """What the side may leave."""
        return goal / self.scale

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand."""
        self.half.settle()
        errors = Errors.of(self.half)
        bound = errors.everywhere(anew=True)
        if not (math.isfinite(bound) and np.all(np.isfinite(errors.x[1]))):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        by_rows = self.half.by_rows != self.half.dual
        status = Status.CERTIFIED if bound <= atol else otherwise
        return Estimate(errors.x, bound, "rows" if by_rows else "columns", self.touched, status, self)


class DualQuery:
    """φ = t·M⁻¹b for a dense b, from λ̂ alone: |φ - λ̂·b| = |s·M⁻¹b| <= ‖s‖_w max|b|/(⟨M⟩w), or σ_v ‖b‖_v."""

    def __init__(self, system: System, b: np.ndarray, t: Vector):
        self.system, self.b = system, b
        self.dual = Half(system, t, dual=True, by_rows=not system.rows)
        self.by_rows = self.by_columns = math.inf

    def _sizes(self) -> tuple[float, float]:
        system, up = self.system, 1 + 4 * (self.system.n + 16) * 2.0**-53
        by_rows = by_columns = math.inf
        if system.rows:
            kept = system.current() or (system.row_margins(), None)
            with np.errstate(divide="ignore", invalid="ignore"):
                by_rows = float(np.max(np.abs(self.b) / kept[0], initial=0.0)) * up + TINY
            if not np.all(kept[0] > 0):
                by_rows = math.inf
        if system.columns:
            by_columns = (
                float(np.sum(np.abs(self.b) * (1.0 if system.v is None else system.v))) * up + (system.n + 1) * TINY
            )
        return by_rows, by_columns

    @property
    def halves(self) -> list[Half]:
        """The one side."""
        return [self.dual]

    @property
    def touched(self) -> int:
        """Entries read so far."""
        return self.dual.touched

    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound is below `atol`."""
        self.dual.begin()
        self.by_rows, self.by_columns = self._sizes()
        return answer(self, atol, budget, leave)

    @property
    def size(self) -> float:
        """Of the bound."""
        return self.dual.size * self._scale

    @property
    def _scale(self) -> float:
        return self.by_columns if self.dual.by_rows else self.by_rows

    def aim(self, half: Half, goal: float) -> float:
        """What the side may leave."""
        return goal / self._scale if self._scale > 0 else math.inf

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand."""
        self.dual.settle()
        nodes, lam, _, _ = self.dual.side.support()
        sigma, s = self.dual.bounds()
        terms = lam * self.b[nodes]
        value, size = float(np.sum(terms)), float(np.sum(np.abs(terms)))
        m = len(terms) + 16
        rounding = 2 * m * 2.0**-53 * size + m * TINY
        choices = {"rows": s * self.by_rows, "columns": sigma * self.by_columns}
        kind = min(choices, key=lambda k: math.inf if math.isnan(choices[k]) else choices[k])
        bound = math.nextafter(math.nextafter(choices[kind], math.inf) + rounding, math.inf)
        if not (math.isfinite(bound) and math.isfinite(value)):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        return Estimate(value, bound, kind, self.touched, Status.CERTIFIED if bound <= atol else otherwise, self)
