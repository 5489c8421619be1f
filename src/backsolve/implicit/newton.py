"""Newton's method, damped, with whatever stands for the Jacobian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..api import solve_with_info
from ..options import check_tolerance
from ..status import Status
from .iteration import Iterate, Run, norms, settled
from .solvers import AbstractSolver, check_count

__all__ = ["Newton"]

_DECREASE = 1e-4


@dataclass(frozen=True)
class Newton(AbstractSolver):
    """J d = -F(z), z ← z + t d, with the first t of 1, 1/2, 1/4, ... that lowers the norm of F enough (Armijo).

    Costs a solve with the Jacobian and an evaluation for each t that is tried. Samples of a batch are one system here.

    Parameters
    ----------
    maxiter : int, optional
    linear_rtol : float, optional
        Relative residual of J d = -F where an iterative method solves it: an inexact Newton method, whose residual
        falls by about this factor in a step.
    halvings : int, optional
        How often t is halved before the method gives up.

    Raises
    ------
    ValueError
        If an option does not fit.

    Notes
    -----
    *Fails with* MAXITER; SINGULAR where the Jacobian has no inverse; STAGNATION where no t lowers the norm of F, as in
    a local minimum of it, or at the level of rounding; NONFINITE.

    References
    ----------
    Kelley 1995, Iterative Methods for Linear and Nonlinear Equations, algorithm 8.2.1; Dembo, Eisenstat and Steihaug
    1982, doi:10.1137/0719025.
    """

    maxiter: int = 50
    linear_rtol: float = 1e-3
    halvings: int = 30

    def __post_init__(self):
        super().__post_init__()
        check_count(self, "halvings")
        check_tolerance("Newton", "linear_rtol", self.linear_rtol, below=1)

    def solve(self, run: Run, z0: Any) -> Iterate:
        """Iterate from z0 (batch, n)."""
        xp = run.backend.xp
        r = run.residual(z0)
        zero = xp.astype(xp.zeros_like(norms(xp, r)), xp.int32)
        state = Iterate(z0, r, settled(run, z0, r), zero, xp.sum(zero) + 1, z0, norms(xp, r), ())

        def going(state: Iterate) -> Any:
            return xp.any((state.status == 0) & (state.steps < self.maxiter))

        def step(state: Iterate) -> Iterate:
            direction, singular = self._direction(run, state)
            z, r, tried, found = self._search(run, state, direction)
            runs, status = state.status == 0, settled(run, z, r)
            lost = xp.where(singular, int(Status.SINGULAR), int(Status.STAGNATION))
            status = xp.where(runs & ~found, xp.astype(lost, xp.int32), xp.where(runs, status, state.status))
            steps = state.steps + xp.astype(runs, xp.int32)
            return Iterate(z, r, status, steps, state.evaluations + tried, z, norms(xp, r), ())

        return run.backend.loop(going, step, state)

    def _direction(self, run: Run, state: Iterate) -> tuple[Any, Any]:
        """The Newton step, and whether there is none."""
        xp, J = run.backend.xp, run.operator(state.z)
        inexact = {"rtol": self.linear_rtol} if J.structure.kind == "free" else {}
        sol = solve_with_info(J, -xp.reshape(state.r, (-1,)), on_failure="return", **{**inexact, **run.linear})
        status = run.backend.like(state.status, sol.status)
        return xp.reshape(sol.x, state.z.shape), (status == int(Status.SINGULAR)) | ~xp.all(xp.isfinite(sol.x))

    def _search(self, run: Run, state: Iterate, direction: Any) -> tuple[Any, Any, Any, Any]:
        """The point that is taken, its residual, evaluations, and whether there is one."""
        xp = run.backend.xp
        size = xp.sqrt(xp.sum(state.r * state.r))

        def going(trial: tuple) -> Any:
            _, _, tried, found = trial
            return ~found & (tried < self.halvings)

        def halve(trial: tuple) -> tuple:
            _, _, tried, _ = trial
            t = 0.5 ** xp.astype(tried, size.dtype)
            z = state.z + t * direction
            r = run.residual(z)
            return z, r, tried + 1, xp.sqrt(xp.sum(r * r)) <= (1 - _DECREASE * t) * size

        none = 0 * xp.sum(state.steps)
        z, r, tried, found = run.backend.loop(going, halve, (state.z, state.r, none, none > 0))
        return xp.where(found, z, state.z), xp.where(found, r, state.r), tried, found
