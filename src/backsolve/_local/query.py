"""What all queries share: pushes until a bound is reached, and changes of what was asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from ..status import Status
from .budget import Budget
from .estimate import Estimate
from .forecast import pays
from .half import Half
from .system import System, Vector

__all__ = ["AbstractQuery"]

_DEEP = 1e-10
"""By which the bound may fall between two certificates: rounding, which pushes do not see, may have stopped it."""
_WORTH = 0.9
"""What a certificate must gain on the one before for another round."""


class AbstractQuery(ABC):
    """A question about M⁻¹, and the sides that pushes have brought so far."""

    system: System
    atol = 0.0
    gradient_atol: float | None = None

    @abstractmethod
    def by_rows(self, dual: bool) -> bool:
        """In which sense a side is pushed."""

    @property
    @abstractmethod
    def halves(self) -> list[Half]:
        """The sides that are pushed."""

    @abstractmethod
    def run(self, atol: float, budget: Budget, leave: bool = True) -> Estimate:
        """Push until the bound is below `atol`; with `leave`, stop where a global solve would be quicker."""

    @abstractmethod
    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand; `otherwise` is its status if the bound is above `atol`."""

    @abstractmethod
    def add(self, db: Vector | None, dt: Vector | None) -> None:
        """Change b and t."""

    @property
    def touched(self) -> int:
        """Entries read so far."""
        return sum(half.touched for half in self.halves)

    def begin(self, atol: float) -> None:
        """Before pushes start or go on."""
        self.atol = atol
        if any(half.stale for half in self.halves):
            self.renew()
        for half in self.halves:
            half.fresh = False

    def renew(self) -> None:
        """Take values that have changed."""
        self.system.current()
        for half in self.halves:
            half.renew(self.by_rows(half.dual))

    def descend(
        self,
        atol: float,
        budget: Budget,
        leave: bool,
        size: Callable[[], float],
        step: Callable[[float], bool],
        reached: Callable[[Estimate], float] = lambda estimate: estimate.bound,
    ) -> Estimate:
        """Take steps until what is `reached`, rounding included, is below `atol`.

        `size` is that without rounding, as pushes left it; `step` pushes towards a goal for it, and says whether
        anything was left to push.
        """
        target, best = atol, np.inf
        while True:
            goal = max(target, size() * _DEEP)
            while size() > goal and not budget.empty:
                if leave and not pays(self.system, self.touched, min(h.epoch_work for h in self.halves)):
                    return self.certify(self.atol, Status.LOCAL_DOES_NOT_PAY)
                if not step(goal):
                    break
            estimate = self.certify(self.atol, Status.BUDGET if budget.empty else Status.INACCURATE)
            bound = reached(estimate)
            if bound <= atol or budget.empty or not bound < _WORTH * best:
                return estimate
            best = bound
            if goal <= target:
                target /= 4
