"""Iterations towards F(z) = 0, written once for eager arrays and for traced programs.

Points and residuals are (batch, n): samples whose equations do not depend on each other have steps, verdicts and counts
of their own, and one that has arrived stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..status import Status

__all__ = ["Iterate", "Run", "iterate", "norms", "settled"]

RUNAWAY = 1e8
"""An iteration without a line search has broken down where its residual is so many times the first one."""


class Iterate(NamedTuple):
    """Where an iteration stands."""

    z: Any
    r: Any
    """F(z), (batch, n)."""
    status: Any
    """int32 (batch,): 0 while it runs."""
    steps: Any
    """int32 (batch,)."""
    evaluations: Any
    """int32, in all."""
    best: Any
    """The point of the least residual so far."""
    least: Any
    """Its norm, (batch,)."""
    memory: Any
    """What the method remembers: a tuple of arrays."""


class Run(NamedTuple):
    """What a solver is given: the framework, the residual at fixed parameters, and what counts as small."""

    backend: Any
    residual: Callable
    """(batch, n) -> (batch, n)."""
    arrived: Callable
    """(run, z, r) -> (batch,): whether that is a solution."""
    operator: Callable
    """z -> the Jacobian there, as an operator on batch·n unknowns; of least squares that of the residuals."""
    linear: dict
    """Options of `backsolve.solve` for systems with it."""


def norms(xp: Any, r: Any) -> Any:
    """2-norms, (batch,)."""
    return xp.sqrt(xp.sum(r * r, axis=-1))


def settled(run: Run, z: Any, r: Any, first: Any = None) -> Any:
    """Verdicts, (batch,): converged, not finite, run away, or 0."""
    xp, size = run.backend.xp, norms(run.backend.xp, r)
    status = xp.where(run.arrived(run, z, r), int(Status.CONVERGED_RESIDUAL), 0)
    if first is not None:
        status = xp.where(size > RUNAWAY * first, int(Status.BREAKDOWN), status)
    status = xp.where(xp.isfinite(size), status, int(Status.NONFINITE))
    return xp.astype(status, xp.int32)


def iterate(run: Run, z0: Any, maxiter: int, memory: Any, step: Callable) -> Iterate:
    """z ← step(state) until every sample is settled or the steps run out.

    ``step(state) -> (z, memory)`` proposes a point for every sample; F is evaluated there.
    """
    xp, loop = run.backend.xp, run.backend.loop
    r = run.residual(z0)
    first = norms(xp, r)
    zero = xp.astype(xp.zeros_like(first), xp.int32)
    state = Iterate(z0, r, settled(run, z0, r), zero, xp.sum(zero) + 1, z0, first, memory)

    def going(state: Iterate) -> Any:
        return xp.any((state.status == 0) & (state.steps < maxiter))

    def advance(state: Iterate) -> Iterate:
        z, memory = step(state)
        runs = state.status == 0
        z = xp.where(runs[:, None], z, state.z)
        r = xp.where(runs[:, None], run.residual(z), state.r)
        size = norms(xp, r)
        better = runs & (size < state.least)
        return Iterate(
            z,
            r,
            xp.where(runs, settled(run, z, r, first), state.status),
            state.steps + xp.astype(runs, xp.int32),
            state.evaluations + 1,
            xp.where(better[:, None], z, state.best),
            xp.where(better, size, state.least),
            memory,
        )

    return loop(going, advance, state)
