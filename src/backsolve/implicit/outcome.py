"""What became of a root: the point, and what is known about it."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import SolveError, SolveWarning
from ..status import Status

__all__ = ["RootSolution", "report", "report_lines"]

_log = logging.getLogger("backsolve")

ADVICE = {
    Status.CONVERGED_RESIDUAL: "the residual, evaluated anew at z, met its target",
    Status.MAXITER: "the iterations ran out: raise maxiter, loosen the target, begin nearer, or take another solver",
    Status.STAGNATION: (
        "no step along the Newton direction lowers the residual: begin elsewhere, loosen the target to what rounding "
        "allows, use float64, or look for a local minimum of the norm that is no root"
    ),
    Status.SINGULAR: (
        "the Jacobian is singular, exactly or to working precision, so that there is no Newton step and no derivative: "
        "begin elsewhere, or remove the freedom that the equations leave"
    ),
    Status.NONFINITE: "the residual has a NaN or an infinity: look for the first iterate that has, or damp the steps",
    Status.BREAKDOWN: ("the iteration runs away: damp it, begin nearer, or use Newton, which needs no contraction"),
    Status.INACCURATE: "the solver returned a point whose residual, evaluated anew, is above the target",
}
"""What to do, in the words of nonlinear equations; where nothing stands here `Status.advice` holds."""


@dataclass(repr=False, eq=False)
class RootSolution:
    """What `root_with_info` and `fixed_point_with_info` return.

    Attributes
    ----------
    z : array
        The point, of the shape of z0, differentiable. Where the status says failure, the best point that was met.
    status : int32 array, without axes, or one for each sample
        Codes of `backsolve.Status`.
    residual_norm : array of the same shape
        2-norm of the residual, evaluated anew at z.
    iterations : array of the same shape
    evaluations : int
        Evaluations of the function, those of line searches included, those inside of products with the Jacobian not.
    solver : AbstractSolver or callable
        What was run, with its options.
    """

    z: Any
    status: Any
    residual_norm: Any
    iterations: Any
    evaluations: Any
    solver: Any
    _backward: list = field(default_factory=list)

    @property
    def converged(self) -> bool:
        """Whether every sample converged."""
        return bool((np.asarray(self.status) > 0).all())

    @property
    def adjoint(self) -> Any:
        """The latest backward pass in eager torch, None before: a `backsolve.Solution`, or a `SeriesAdjoint`."""
        return self._backward[-1] if self._backward else None

    @property
    def message(self) -> str:
        """One line per outcome: how many samples, how accurate, and what to do."""
        return report_lines(self.status, self.residual_norm, "residual norm", ADVICE)

    def __repr__(self) -> str:
        count = int(np.max(np.asarray(self.iterations), initial=0))
        plural = "s" * (count != 1)
        name = getattr(self.solver, "__name__", self.solver)
        return f"RootSolution: z of shape {tuple(self.z.shape)}, by {name}, {count} iteration{plural}\n{self.message}"


def report_lines(status: Any, norms: Any, what: str, advice: dict) -> str:
    """A line for each outcome."""
    status, norms = np.asarray(status).reshape(-1), np.asarray(norms).reshape(-1)
    lines = []
    for code in sorted(set(status.tolist())):
        which = np.flatnonzero(status == code)
        where = "" if status.size == 1 else f" ({which.size} of {status.size} samples, first {which[0]})"
        size = f"{what} {norms[which].max():.1e}"
        lines.append(f"{Status(code).name}{where}: {size}; {advice.get(Status(code), Status(code).advice)}.")
    return "\n".join(lines)


def report(owner: str, solution: Any, policy: str) -> None:
    """Raise or warn of what failed, as was asked."""
    if solution.converged:
        return
    message = f"{owner} failed: {solution.message}"
    _log.info(message)
    if policy == "raise":
        raise SolveError(message, solution)
    if policy == "warn":
        warnings.warn(SolveWarning(message), stacklevel=3)
