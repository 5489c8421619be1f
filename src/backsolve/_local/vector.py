"""M⁻¹b as a sparse vector, and functionals of a dense b from the dual alone."""

from __future__ import annotations

import math

import numpy as np

from ..status import Status
from .budget import Budget
from .entry_errors import TINY, Errors
from .estimate import Estimate
from .half import Half
from .query import AbstractQuery
from .system import System, Vector

__all__ = ["DualQuery", "VectorQuery"]


class VectorQuery(AbstractQuery):
    """x = M⁻¹b, or M⁻ᵀb, with max |x - x̂| bounded.

    By rows the bound is max w · max |r|/(⟨M⟩w); by columns Σ v|r| over the smallest (⟨M⟩ᵀv)_j of all. Where that is
    not known and `partial`, over the smallest (⟨M⟩ᵀv)_j of those that were touched, and the bound is theirs alone.
    """

    def __init__(self, system: System, b: Vector, dual: bool = False, partial: bool = False):
        self.system = system
        self.half = Half(system, b, dual, by_rows=self.by_rows(dual))
        self.partial = partial and not self.half.scale < math.inf

    def by_rows(self, dual: bool) -> bool:
        """By rows where that can be, as the bound is then that of every entry."""
        return self.system.columns if dual else self.system.rows

    @property
    def halves(self) -> list[Half]:
        """The one side."""
        return [self.half]

    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound is below `atol`."""
        self.begin(atol)
        half = self.half
        return self.descend(
            atol,
            budget,
            leave,
            lambda: half.size * self.scale() if half.size else 0.0,
            lambda goal: (scale := self.scale()) < math.inf and half.reduce(budget, goal / scale),
        )

    def scale(self) -> float:
        """By how much the size of the side is to be multiplied to bound errors."""
        if not self.partial:
            return self.half.scale
        margin = self.system.margins_at(self.half.side.support(touched=True)[0], columns=not self.half.dual)
        least = float(np.min(margin, initial=math.inf))
        return 1 / least if least > 0 else math.inf

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand."""
        self.half.settle()
        errors = Errors.of(self.half)
        bound = float(np.max(errors.at(errors.x[0]), initial=0.0)) if self.partial else errors.everywhere
        if not (math.isfinite(bound) and np.all(np.isfinite(errors.x[1]))):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        by_rows = self.half.by_rows != self.half.dual
        status = Status.CERTIFIED if bound <= atol else otherwise
        return Estimate(errors.x, bound, "rows" if by_rows else "columns", self.touched, status, self)

    def add(self, db: Vector | None, dt: Vector | None) -> None:
        """Change b; there is no t."""
        if dt is not None:
            raise ValueError("dt has no meaning for local.solve, which has no t: leave it out.")
        if db is not None:
            self.half.add_right_hand_side(*db)


class DualQuery(AbstractQuery):
    """φ = t·M⁻¹b for a dense b, from λ̂ alone: |φ - λ̂·b| = |s·M⁻¹b| <= ‖s‖_w max|b|/(⟨M⟩w), or σ_v ‖b‖_v."""

    def __init__(self, system: System, b: np.ndarray, t: Vector):
        self.system, self.b = system, b
        self.dual = Half(system, t, dual=True, by_rows=self.by_rows(True))
        self.of_rows = self.of_columns = math.inf

    def by_rows(self, dual: bool) -> bool:
        """In the sense that holds for M, which is the other one for Mᵀ."""
        return self.system.rows != dual

    def _sizes(self) -> tuple[float, float]:
        system, up = self.system, 1 + 4 * (self.system.n + 16) * 2.0**-53
        by_rows = by_columns = math.inf
        with np.errstate(all="ignore"):
            if system.rows:
                kept = system.current() or (system.row_margins(), None)
                if np.all(kept[0] > 0):
                    by_rows = float(np.max(np.abs(self.b) / kept[0], initial=0.0)) * up + TINY
            if system.columns:
                total = float(np.sum(np.abs(self.b) * (1.0 if system.v is None else system.v)))
                by_columns = total * up + (system.n + 1) * TINY
        return by_rows, by_columns

    @property
    def halves(self) -> list[Half]:
        """The one side."""
        return [self.dual]

    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound is below `atol`."""
        self.begin(atol)
        dual = self.dual
        self.of_rows, self.of_columns = self._sizes()
        scale = self.of_columns if dual.by_rows else self.of_rows
        return self.descend(
            atol,
            budget,
            leave,
            lambda: dual.size * scale,
            lambda goal: dual.reduce(budget, goal / scale if scale > 0 else math.inf),
        )

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand."""
        self.dual.settle()
        nodes, lam, _, _ = self.dual.side.support()
        sigma, s = self.dual.bounds()
        with np.errstate(over="ignore", invalid="ignore"):
            terms = lam * self.b[nodes]
            value, size = float(np.sum(terms)), float(np.sum(np.abs(terms)))
        m = len(terms) + 16
        rounding = 2 * m * 2.0**-53 * size + m * TINY
        choices = {"rows": s * self.of_rows, "columns": sigma * self.of_columns}
        kind = min(choices, key=lambda k: math.inf if math.isnan(choices[k]) else choices[k])
        bound = math.nextafter(math.nextafter(choices[kind], math.inf) + rounding, math.inf)
        if not (math.isfinite(bound) and math.isfinite(value)):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        return Estimate(value, bound, kind, self.touched, Status.CERTIFIED if bound <= atol else otherwise, self)

    def renew(self) -> None:
        """Take values that have changed: O(n), as b is dense."""
        super().renew()
        self.of_rows, self.of_columns = self._sizes()

    def add(self, db: Vector | None, dt: Vector | None) -> None:
        """Change b and t."""
        if db is not None:
            self.b = self.b.copy()
            self.b[db[0]] += db[1]
            self.of_rows, self.of_columns = self._sizes()
        if dt is not None:
            self.dual.add_right_hand_side(*dt)
