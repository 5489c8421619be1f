"""Result of a solve: the array, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .errors import dtype_name
from .status import Status

__all__ = ["Solution", "Stats", "solution_of", "watcher"]


class Stats(NamedTuple):
    """Measured facts about a solve, one entry per system of the batch (0-d for a single system).

    Residuals are true residuals, recomputed from A, x and b in double precision; of several right-hand
    sides the worst counts.
    """

    residual_norm: Any
    """2-norm of b - A x."""
    relative_residual: Any
    """`residual_norm` over the 2-norm of b (0 where both vanish)."""
    backward_error: Any
    """norm(b - A x, inf) / (norm(A, inf) norm(x, inf) + norm(b, inf)) (Rigal and Gaches 1967)."""
    componentwise_error: Any
    """max |b - A x|_i / (|A| |x| + |b|)_i (Oettli and Prager 1964)."""
    correction: Any
    """Relative size of the last refinement step: an estimate of the error of x before it; NaN if none was needed."""
    refinements: Any
    """Steps of iterative refinement made."""
    iterations: Any
    """Iterations of an iterative method; of several right-hand sides the largest number."""
    matvecs: Any
    """Products with A or Aᴴ that these took, the true residuals included."""
    factorizations: Any
    """Numeric factorizations made for this solve; 0 when an earlier one was used again."""
    copies: Any
    """Transfers between devices."""
    error_bound: Any = np.nan
    """Bound of norm(x - A⁻¹ b, inf) that is proved, of a method that has one ("neumann"); else NaN."""


@dataclass(repr=False, eq=False)
class Solution:
    """What `solve_with_info` returns.

    Attributes
    ----------
    x : array
        The solution, in the framework, dtype and shape of the right-hand side. Systems whose status is
        SINGULAR or NONFINITE hold NaN; of the other failures it is the best iterate.
    status : int32 array of the batch shape
        Codes of `Status`.
    stats : Stats
        Residuals and counts of the same shape.
    method : AbstractMethod
        What was run, with its options.
    """

    x: Any
    status: Any
    stats: Stats
    method: Any
    _adjoint: list = field(default_factory=list)
    _details: dict[int, str] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether every system of the batch converged."""
        return bool((np.asarray(self.status) > 0).all())

    @property
    def adjoint(self) -> Solution | None:
        """The latest backward solve through `x` in eager mode; None before there was one."""
        return self._adjoint[-1] if self._adjoint else None

    @property
    def message(self) -> str:
        """One line per outcome: how many systems, how accurate, and what to do."""
        status = np.asarray(self.status).reshape(-1)
        lines = []
        for code in sorted(set(status.tolist())):
            which = np.flatnonzero(status == code)
            name = Status(code).name
            where = "" if status.size == 1 else f" ({which.size} of {status.size} systems, first {which[0]})"
            errors = [
                f"{label} {worst:.1e}"
                for label, values in (("relative residual", "relative_residual"), ("backward error", "backward_error"))
                if np.isfinite(worst := np.asarray(getattr(self.stats, values)).reshape(-1)[which].max())
            ]
            parts = [", ".join(errors), self._details.get(code, ""), Status(code).advice]
            lines.append(f"{name}{where}: {'; '.join(p for p in parts if p)}.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        shape = tuple(self.x.shape)
        iterations, refinements = (
            int(np.max(np.asarray(count), initial=0)) for count in (self.stats.iterations, self.stats.refinements)
        )
        made, what = (iterations, "iteration") if iterations else (refinements, "refinement step")
        return (
            f"Solution: x of shape {shape} and dtype {dtype_name(self.x.dtype)}, by {self.method}, "
            f"{made} {what}{'s' * (made != 1)}\n{self.message}"
        )


def watcher(callback: Any, layout: Any, present: Any, permute: Any, finish: Any = lambda x: x) -> Any:
    """How an iterative method tells a callback, in the shapes that the user knows; None if there is none."""
    if callback is None:
        return None

    def watch(iteration: int, norms: np.ndarray, x: Any) -> None:
        sizes = layout.per_column(norms, np.transpose)
        callback(iteration, float(sizes) if sizes.ndim == 0 else sizes, finish(layout.shown(present(x), permute)))

    return watch


def solution_of(method: Any, outcome: Any, layout: Any, x: Any, convert: Any = np.asarray) -> Solution:
    """The outcome of a method with its verdicts in the batch shape of x."""

    def spread(values: np.ndarray) -> Any:
        known = layout.per_item(values)
        return convert(np.array(known if known.shape == layout.batch else np.broadcast_to(known, layout.batch)))

    stats = Stats(*(spread(v) for v in outcome.stats))
    return Solution(x, spread(outcome.status), stats, method, [], outcome.details)
