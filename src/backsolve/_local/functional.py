"""t·M⁻¹b from both sides: pushes for x and for λ, and the product of what is left of them as the bound."""

from __future__ import annotations

import math

import numpy as np

from .. import _kernels
from ..status import Status
from .budget import Budget
from .entry_errors import Errors
from .estimate import Estimate
from .gradient import uniform_bound
from .half import Half
from .query import AbstractQuery
from .system import System, Vector
from .vector import DualQuery
from .vectors import DENSE

__all__ = ["FunctionalQuery", "functional_query"]


class FunctionalQuery(AbstractQuery):
    """φ = t·M⁻¹b for sparse b and t.

    φ̂ = t·x̂ + λ̂·r has the error s·M⁻¹r with r = b - M x̂ and s = t - Mᵀλ̂. Where M is dominant by rows,
    |M⁻¹r|_i ≤ w_i max|r|/(⟨M⟩w), so the error is at most ‖s‖_w · max|r|/(⟨M⟩w); by columns the same with the sides
    exchanged. Rounding of r, s, the margins and the sums is part of the bound. With `gradient_atol` pushes go on until
    max|λ̂| Eˣ + max|x̂| E^λ + Eˣ E^λ, which bounds the error of -λ_i x_j for every i and j, is below that, too.
    """

    def __init__(self, system: System, b: Vector, t: Vector):
        self.system, self.t = system, t
        self.primal = Half(system, b, dual=False, by_rows=self.by_rows(False))
        self.dual = Half(system, t, dual=True, by_rows=self.by_rows(True))

    def by_rows(self, dual: bool) -> bool:
        """In the sense that holds for M, which is the other one for Mᵀ."""
        return self.system.rows != dual

    @property
    def halves(self) -> list[Half]:
        """Both sides."""
        return [self.primal, self.dual]

    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound, and that of the gradient if it was asked for, are small enough."""
        self.begin(atol)

        def step(goal: float) -> bool:
            # Where an epoch of a side is quick, it is that side's turn.
            for half in sorted(self.halves, key=lambda h: h.epoch_work):
                other = self.dual if half is self.primal else self.primal
                if half.reduce(budget, goal / other.size if other.size > 0 else 0.0):
                    return True
            return False

        estimate = self.descend(atol, budget, leave, lambda: self.primal.size * self.dual.size, step)
        if self.gradient_atol is None or not estimate.bound <= atol:
            return estimate

        if not max(half.scale for half in self.halves) < math.inf:
            return self.certify(atol, Status.INACCURATE)

        def step_of_gradient(goal: float) -> bool:
            (of_x, half), (of_lam, other) = zip(self._parts(), self.halves, strict=True)
            if of_lam > of_x:
                half, other = other, half
            return half.reduce(budget) or other.reduce(budget)

        return self.descend(
            self.gradient_atol, budget, leave, lambda: sum(self._parts()), step_of_gradient, lambda _: self._bound()
        )

    def _parts(self) -> tuple[float, float]:
        """What the errors of x̂ and of λ̂ add to those of the gradient, without rounding."""
        x, lam = (float(np.max(np.abs(half.side.support()[1]), initial=0.0)) for half in self.halves)
        of_x, of_lam = (half.size * half.scale for half in self.halves)
        return (lam + of_lam) * of_x if of_x else 0.0, x * of_lam if of_lam else 0.0

    def _bound(self) -> float:
        """The bound of every entry of the gradient."""
        return uniform_bound(Errors.of(self.primal), Errors.of(self.dual))

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand; `otherwise` is its status if a bound is above what was asked for."""
        self.primal.settle()
        self.dual.settle()
        value, rounding = _kernels.local_functional(self.primal.side, self.dual.side, *self.t)
        (rho, r), (sigma, s) = self.primal.bounds(), self.dual.bounds()
        by_rows, by_columns = _product(s, rho), _product(r, sigma)
        kind = "rows" if by_rows <= by_columns else "columns"
        bound = math.nextafter(min(by_rows, by_columns) + rounding, math.inf)
        if not (math.isfinite(bound) and math.isfinite(value)):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        reached = bound <= atol and (self.gradient_atol is None or self._bound() <= self.gradient_atol)
        return Estimate(value, bound, kind, self.touched, Status.CERTIFIED if reached else otherwise, self)

    def add(self, db: Vector | None, dt: Vector | None) -> None:
        """Change b and t."""
        if db is not None:
            self.primal.add_right_hand_side(*db)
        if dt is not None:
            self.dual.add_right_hand_side(*dt)
            self.t = self.dual.b


def functional_query(system: System, b: Vector, t: Vector) -> AbstractQuery:
    """The query for t·M⁻¹b that suits b: from both sides, or of a dense b from the dual alone."""
    index, value = b
    if not system.stored or len(index) <= DENSE * system.n or len(index) <= 16:
        return FunctionalQuery(system, b, t)
    dense = np.zeros(system.n)
    dense[index] = value
    return DualQuery(system, dense, t)


def _product(a: float, b: float) -> float:
    product = math.nextafter(a * b, math.inf)
    return math.inf if math.isnan(product) else product
