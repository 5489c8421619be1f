"""M⁻¹b as a sparse vector, and functionals of a dense b from the dual alone."""

from __future__ import annotations

import math

import numpy as np

from ..status import Status
from .budget import Budget
from .entry_errors import Errors
from .estimate import Estimate
from .forecast import pays
from .half import Half
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
        half, system = self.half, self.system
        w = system.v if half.dual else system.w
        if not half.by_rows and not system.least(not half.dual) > 0:
            return self.certify(atol, Status.NO_CERTIFICATE)  # no smallest margin is known: nothing bounds all entries
        scale = (
            (1.0 if w is None else float(np.max(w))) if half.by_rows else 1 / max(system.least(not half.dual), 5e-324)
        )
        goal, best = atol, math.inf
        while True:
            while half.size * scale > goal and not budget.empty:
                if leave and not pays(system, self.touched, atol / scale, half.size, half.epoch_work):
                    return self.certify(atol, Status.LOCAL_DOES_NOT_PAY)
                if not half.reduce(budget, goal / scale):
                    break
            estimate = self.certify(atol, Status.BUDGET if budget.empty else Status.INACCURATE)
            if estimate.bound <= atol or budget.empty or not estimate.bound < 0.9 * best:
                return estimate
            best, goal = estimate.bound, goal / 4

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand."""
        self.half.settle()
        errors = Errors.of(self.half)
        bound = errors.everywhere()
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
        self.by_rows, self.by_columns = self._sizes()

    def _sizes(self) -> tuple[float, float]:
        system, up = self.system, 1 + 4 * (self.system.n + 16) * 2.0**-53
        by_rows = by_columns = math.inf
        if system.rows:
            kept = system.current() or (system.row_margins(), None)
            with np.errstate(divide="ignore", invalid="ignore"):
                by_rows = float(np.max(np.abs(self.b) / kept[0], initial=0.0)) * up
            if not np.all(kept[0] > 0):
                by_rows = math.inf
        if system.columns:
            by_columns = float(np.sum(np.abs(self.b) * (1.0 if system.v is None else system.v))) * up
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
        dual = self.dual
        scale = self.by_columns if dual.by_rows else self.by_rows
        goal, best = atol, math.inf
        while True:
            while dual.size * scale > goal and not budget.empty:
                if leave and not pays(self.system, self.touched, atol, dual.size * scale, dual.epoch_work):
                    return self.certify(atol, Status.LOCAL_DOES_NOT_PAY)
                if not dual.reduce(budget, goal / scale):
                    break
            estimate = self.certify(atol, Status.BUDGET if budget.empty else Status.INACCURATE)
            if estimate.bound <= atol or budget.empty or not estimate.bound < 0.9 * best:
                return estimate
            best, goal = estimate.bound, goal / 4

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand."""
        self.dual.settle()
        nodes, lam, _, _ = self.dual.side.support()
        sigma, s = self.dual.bounds()
        terms = lam * self.b[nodes]
        value, size = float(np.sum(terms)), float(np.sum(np.abs(terms)))
        m = len(terms) + 16
        rounding = 2 * m * 2.0**-53 * size + m * 5e-324
        choices = {"rows": s * self.by_rows, "columns": sigma * self.by_columns}
        kind = min(choices, key=lambda k: math.inf if math.isnan(choices[k]) else choices[k])
        bound = math.nextafter(math.nextafter(choices[kind], math.inf) + rounding, math.inf)
        if not (math.isfinite(bound) and math.isfinite(value)):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        return Estimate(value, bound, kind, self.touched, Status.CERTIFIED if bound <= atol else otherwise, self)
