"""What is decided about columns while they iterate, and at the end: pure functions, over NumPy for the loop of
`iterative` and over JAX for compiled loops, so that both stop, go on and judge alike.

Arrays are (batch, k) or (batch, 1, k), one number for each column, unless said otherwise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..status import Status
from .base import Target
from .judge import nonfinite_sentence
from .recurrence import BROKEN, CLAIMED, OVERFLOW, RUNNING

__all__ = ["REACH", "Verdict", "accounted", "blame", "blamed", "goals", "judged", "sentences", "tolerances", "worst"]

_MISSES = 3  # restarts from the true residual that do not halve it, after which a column is given up

REACH = {True: 1000, False: 120}
"""Of double precision, and of single: the largest binary exponent by which columns are scaled."""


class Verdict(NamedTuple):
    """The status of each column, and why it may be NONFINITE."""

    status: Any
    finite: Any
    """Whether the right-hand side is."""
    poisoned: Any
    """Whether the first product already was not."""
    overflows: Any
    """Whether x met its target and leaves the range of the dtype when it is scaled back."""


def tolerances(target: Target, eps: float) -> tuple[float, float]:
    """rtol and atol; 1e-8 or 1e-5, relatively, if none is given."""
    if target.rtol is None:
        return (0.0 if target.atol is not None else 1e-8 if eps < 1e-10 else 1e-5), target.atol or 0.0
    return target.rtol, target.atol or 0.0


def goals(xp: Any, target: Target, eps: float, b_norm: Any, back: Any) -> tuple[Any, Any]:
    """The norm that the true residual has to meet, and that at which the recursive one stops.

    `b_norm` is the norm of the scaled right-hand side, `back` what brings columns to their own scale. A recursive
    residual below rounding says nothing: there the true one is looked at.
    """
    rtol, atol = tolerances(target, eps)
    goal = xp.maximum(rtol * b_norm, atol / back)
    return goal, xp.maximum(goal, 0.1 * eps * b_norm)


def accounted(xp: Any, said: Any, size: Any, goal: Any, last: Any, misses: Any) -> tuple[Any, Any, Any]:
    """After true residuals of norm `size`: misses, the sizes that the next ones have to halve, and who goes on."""
    stopped = (said == CLAIMED) | (said == BROKEN)
    halved = size <= 0.5 * last
    misses = xp.where(stopped & ~halved, misses + 1, xp.where(stopped, xp.zeros_like(misses), misses))
    return misses, xp.where(stopped, size, last), ~(size <= goal) & stopped & (misses < _MISSES)


def judged(xp: Any, said: Any, count: Any, met: Any, known: Any, b_max: Any, x_max: Any, usable: Any) -> Verdict:
    """The verdict by the true residual of the best iterate, which is `met` or not.

    `known` is what the method diagnosed, `x_max` the largest modulus of x in its own scale and dtype, and `usable`
    whether the numbers of A are finite.
    """
    status = xp.where(said == RUNNING, int(Status.MAXITER), int(Status.STAGNATION))
    status = xp.where((said == BROKEN) | (said == OVERFLOW), int(Status.BREAKDOWN), status)
    status = xp.where(known != 0, known, status)
    status = xp.where(met, int(Status.CONVERGED_RESIDUAL), status)
    finite = xp.isfinite(b_max)
    poisoned = finite & (said == OVERFLOW) & (count == 0)
    overflows = finite & met & ~xp.isfinite(x_max)
    lost = ~finite | poisoned | overflows | ~usable
    return Verdict(xp.where(lost, int(Status.NONFINITE), status), finite, poisoned, overflows)


def blamed(xp: Any, verdict: Verdict, usable: Any, broken: Any) -> tuple[Verdict, Any, Any]:
    """The verdict with BREAKDOWN where there is no M (`broken`), or where M v is not finite and A and b are.

    Also in which columns the one is so, and the other.
    """
    sound = verdict.finite & usable
    broken = broken & sound
    wild = verdict.poisoned & sound & ~broken
    status = xp.where(broken | wild, int(Status.BREAKDOWN), verdict.status)
    return verdict._replace(status=status), broken, wild


def worst(xp: Any, status: Any) -> Any:
    """The worst status along the last axis, int32."""
    found = xp.full(status.shape[:-1], int(Status.CONVERGED_RESIDUAL), dtype=xp.int32)
    for code in reversed(_WORST_FIRST):
        found = xp.where(xp.any(status == code, axis=-1), xp.asarray(code, dtype=xp.int32), found)
    return found


def blame(details: dict[int, str], verdict: Verdict, usable: np.ndarray, faults: dict[int, str]) -> Verdict:
    """The verdict when it is `blamed` on M, with what there is to tell of it put into the details."""
    without = np.isin(np.arange(len(verdict.status)), list(faults))[:, None]
    verdict, broken, wild = blamed(np, verdict, usable, without)
    if wild.any():
        details[Status.BREAKDOWN] = "M v, or A M v, is not finite for a finite v: use another preconditioner"
    if broken.any():
        details[Status.BREAKDOWN] = next(iter(faults.values()))
    if not (verdict.status == Status.NONFINITE).any():
        details.pop(Status.NONFINITE, None)
    return verdict


def sentences(verdict: Verdict, count: np.ndarray, b: Any, structure: Any, of_A: str) -> dict[int, str]:
    """What there is to tell of MAXITER and NONFINITE; `of_A` says which number of A is not finite, if one is not."""
    details: dict[int, str] = {}
    if not verdict.finite.all():
        details[Status.NONFINITE] = nonfinite_sentence("the right-hand side", b, structure)
    if verdict.poisoned.any():
        details[Status.NONFINITE] = "the product of A with a finite vector, or its norm, is not finite"
    if verdict.overflows.any():
        details[Status.NONFINITE] = "x is too large for the dtype"
    if of_A:
        details[Status.NONFINITE] = of_A
    failed = count[verdict.status == Status.MAXITER]
    if failed.size:
        details[Status.MAXITER] = f"after {failed.max()} iterations"
    return details


_WORST_FIRST = [
    int(s)
    for s in (
        Status.NONFINITE,
        Status.SINGULAR,
        Status.INDEFINITE,
        Status.BREAKDOWN,
        Status.STAGNATION,
        Status.MAXITER,
        Status.CONVERGED_RESIDUAL,
    )
]
