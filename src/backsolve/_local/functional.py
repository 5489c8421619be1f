"""t·M⁻¹b from both sides: pushes for x and for λ, and the product of what is left of them as the bound."""

from __future__ import annotations

import math

from .. import _kernels
from ..status import Status
from .budget import Budget
from .estimate import Estimate
from .half import Half
from .rounds import answer
from .system import System, Vector

__all__ = ["FunctionalQuery"]


class FunctionalQuery:
    """φ = t·M⁻¹b for sparse b and t.

    φ̂ = t·x̂ + λ̂·r has the error s·M⁻¹r with r = b - M x̂ and s = t - Mᵀλ̂. Where M is dominant by rows,
    |M⁻¹r|_i ≤ w_i max|r|/(⟨M⟩w), so the error is at most ‖s‖_w · max|r|/(⟨M⟩w); by columns the same with the sides
    exchanged. Rounding of r, s, the margins and the sums is part of the bound.
    """

    def __init__(self, system: System, b: Vector, t: Vector):
        self.system, self.t = system, t
        by_rows = system.rows
        self.primal = Half(system, b, dual=False, by_rows=by_rows)
        self.dual = Half(system, t, dual=True, by_rows=not by_rows)

    @property
    def halves(self) -> list[Half]:
        """Both sides."""
        return [self.primal, self.dual]

    @property
    def touched(self) -> int:
        """Entries read so far."""
        return self.primal.touched + self.dual.touched

    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound is below `atol`; with `leave`, stop where a global solve would be quicker."""
        for half in self.halves:
            half.begin()
        return answer(self, atol, budget, leave)

    @property
    def size(self) -> float:
        """The product of what is left on both sides."""
        return self.primal.size * self.dual.size

    def aim(self, half: Half, goal: float) -> float:
        """What one side may leave."""
        other = self.dual if half is self.primal else self.primal
        return goal / other.size if other.size > 0 else 0.0

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand; `otherwise` is its status if the bound is above `atol`."""
        self.primal.settle()
        self.dual.settle()
        value, rounding = _kernels.local_functional(self.primal.side, self.dual.side, *self.t)
        (rho, r), (sigma, s) = self.primal.bounds(), self.dual.bounds()
        by_rows, by_columns = _product(s, rho), _product(r, sigma)
        kind = "rows" if by_rows <= by_columns else "columns"
        bound = math.nextafter(min(by_rows, by_columns) + rounding, math.inf)
        if not (math.isfinite(bound) and math.isfinite(value)):
            return Estimate(math.nan, math.inf, "none", self.touched, Status.NO_CERTIFICATE, self)
        return Estimate(value, bound, kind, self.touched, Status.CERTIFIED if bound <= atol else otherwise, self)


def _product(a: float, b: float) -> float:
    product = math.nextafter(a * b, math.inf)
    return math.inf if math.isnan(product) else product
