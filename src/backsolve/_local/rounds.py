"""Rounds of pushes and certificates, until a bound is small enough or nothing makes it smaller."""

from __future__ import annotations

from typing import Protocol

from ..status import Status
from .budget import Budget
from .estimate import Estimate
from .forecast import pays
from .half import Half
from .system import System

__all__ = ["Query", "answer"]

_DEEP = 1e-10
"""By which the bound may fall between two certificates: rounding, which pushes do not see, may have stopped it."""
_WORTH = 0.9
"""What a certificate must gain on the one before for another round."""


class Query(Protocol):
    """What rounds need to know of a query."""

    system: System

    @property
    def halves(self) -> list[Half]:
        """The sides that are pushed."""
        ...

    @property
    def touched(self) -> int:
        """Entries read so far."""
        ...

    @property
    def size(self) -> float:
        """The bound as pushes see it, without rounding."""
        ...

    def aim(self, half: Half, goal: float) -> float:
        """The size of this side, in the sense of rows, at which `size` is `goal`."""
        ...

    def certify(self, atol: float, otherwise: Status) -> Estimate:
        """The estimate as things stand; `otherwise` is its status if the bound is above `atol`."""
        ...


def answer(query: Query, atol: float, budget: Budget, leave: bool) -> Estimate:
    """Push until the bound is below `atol`; with `leave`, stop where a global solve is forecast to be quicker."""
    target, best = atol, float("inf")
    while True:
        goal = max(target, query.size * _DEEP)
        if not _push(query, goal, atol, budget, leave):
            return query.certify(atol, Status.LOCAL_DOES_NOT_PAY)
        estimate = query.certify(atol, Status.BUDGET if budget.empty else Status.INACCURATE)
        if estimate.bound <= atol or budget.empty or not estimate.bound < _WORTH * best:
            return estimate
        best = estimate.bound
        if goal <= target:
            target /= 4


def _push(query: Query, goal: float, atol: float, budget: Budget, leave: bool) -> bool:
    """Push until `size` is below `goal`, a budget is empty, or nothing moves; False if that does not pay."""
    while query.size > goal and not budget.empty:
        # Where an epoch of a side is quick, it is that side's turn.
        halves = sorted(query.halves, key=lambda h: h.epoch_work)
        if leave and not pays(query.system, query.touched, atol, query.size, halves[0].epoch_work):
            return False
        if not any(half.reduce(budget, query.aim(half, goal)) for half in halves):
            break
    return True
