"""Options of a local query, checked once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import SolveError, SolveWarning, describe
from ..options import check_on_failure, check_tolerance
from ..status import Status
from .budget import Budget
from .estimate import Estimate
from .system import System

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """What was asked of a query, and how to run it: `handover` is the global solver that takes over."""

    owner: str
    atol: float
    max_touched: int | None = None
    max_seconds: float | None = None
    fallback: str | None = "global"
    on_failure: str = "raise"
    grad: str = "sparse"
    gradient_atol: float | None = None
    handover: Callable[[Any, float], Estimate] | None = None

    def __post_init__(self):
        check_tolerance(self.owner, "atol", self.atol)
        if self.atol is None:
            raise ValueError(f"{self.owner}: atol must be a float in [0, inf); got None.")
        check_tolerance(self.owner, "gradient_atol", self.gradient_atol)
        if self.fallback not in ("global", None):
            raise ValueError(f"{self.owner}: fallback must be 'global' or None; got {describe(self.fallback)}.")
        if self.grad not in ("sparse", "dense"):
            raise ValueError(f"{self.owner}: grad must be 'sparse' or 'dense'; got {describe(self.grad)}.")
        check_on_failure(self.on_failure)
        self.budget()

    def budget(self) -> Budget:
        """A new countdown."""
        return Budget(self.max_touched, self.max_seconds)

    def run(self, system: System, make: Callable[[], Any]) -> Estimate:
        """Make a query and answer it."""
        return self.answer(system, make() if system.dominant else None)

    def answer(self, system: System, query: Any, atol: float | None = None) -> Estimate:
        """Answer a query: locally, by the global solver where that is quicker, or not at all."""
        atol = self.atol if atol is None else atol
        if query is None or not system.dominant:
            return self.judge(Estimate(float("nan"), float("inf"), "none", 0, Status.NO_CERTIFICATE), _reason(system))
        query.gradient_atol = self.gradient_atol
        leave = self.fallback == "global" and self.handover is not None and system.stored
        estimate = query.run(atol, self.budget(), leave)
        if estimate.status == Status.LOCAL_DOES_NOT_PAY and self.handover is not None:
            estimate = self.handover(query, atol)
        return self.judge(estimate, self._why(estimate, query, atol))

    def _why(self, estimate: Estimate, query: Any, atol: float) -> str:
        if self.gradient_atol is None or not estimate.bound <= atol:
            return "rounding, or margins too small, keep the bound above atol"
        if not max(half.scale for half in query.halves) < float("inf"):
            return (
                "gradient_atol needs the smallest margin of A, which is not known where dominance is promised in one "
                "sense: promise='both' if it is so, or leave promise out"
            )
        return (
            f"rounding, or margins too small, keep the bound of the gradient above gradient_atol={self.gradient_atol:g}"
        )

    def judge(self, estimate: Estimate, reason: str) -> Estimate:
        """Raise, warn or return, as asked. A budget that ran out is what was asked for."""
        if estimate.status > 0 or estimate.status == Status.BUDGET or self.on_failure == "return":
            return estimate
        message = (
            f"local.{self.owner}: {estimate.status.name}: {reason}; bound {estimate.bound:.3g}, atol {self.atol:g}: "
            f"{estimate.status.advice}."
        )
        if self.on_failure == "raise":
            raise SolveError(message, estimate)  # type: ignore[arg-type]
        warnings.warn(message, SolveWarning, stacklevel=5)
        return estimate


def _reason(system: System) -> str:
    (i, row), (j, column) = system.weakest(False), system.weakest(True)
    return (
        f"A is dominant neither by rows (row {i} has the margin {row:.3g}) nor by columns (column {j} has {column:.3g})"
    )
