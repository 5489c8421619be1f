"""Iterative methods: what they share, which is everything but the recurrence.

A method gives `init` and `step`, pure functions of arrays (batch, n, k) over the array namespace of the operator, in
which every column runs for itself. Here is the loop around them: scaling, stopping, and the true residual, which
alone says whether a column has converged.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..options import check_tolerance
from ..solution import Stats
from .base import Outcome, Target
from .columns import REACH, accounted, goals, judged, sentences, worst
from .judge import B_MAX, B_SQUARE, R_SQUARE, X_MAX, nonfinite_sentence, stats_of
from .recurrence import RUNNING, System, choose

__all__ = ["IterativeMethod", "IterativeState"]


class IterativeState:
    """What `prepare` returns: the operator, checked."""

    def __init__(self, A: Any, usable: np.ndarray, detail: str):
        self.A, self.usable, self.detail = A, usable, detail
        self.adjoint_seen = A.structure.kind != "free"
        self.nbytes = 0


@dataclass(frozen=True)
class IterativeMethod:
    """Base of the iterative methods.

    A column stops when the norm of its recursive residual is at the target. Then the true residual b - A x is
    computed, in double precision where the operator has entries; a column that misses the target goes on from it
    (van der Vorst and Ye 2000), until that no longer helps.

    Parameters
    ----------
    rtol, atol : float, optional
        Target norm(b - A x) <= max(rtol norm(b), atol). If neither is given here or in the call, rtol is 1e-8
        in double and 1e-5 in single precision; if only atol is given, rtol is 0.
    maxiter : int, optional
        Iterations allowed; 10 n, but at least 100 and at most 10,000, if None.
    """

    rtol: float | None = None
    atol: float | None = None
    maxiter: int | None = None

    name: ClassVar[str] = "iterative"
    requires: ClassVar[frozenset[str]] = frozenset()
    products: ClassVar[int] = 1
    """Products with A in each iteration."""

    def __post_init__(self):
        owner = type(self).__name__
        check_tolerance(owner, "rtol", self.rtol, below=1)
        check_tolerance(owner, "atol", self.atol)
        n = self.maxiter
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise ValueError(f"{owner}: maxiter must be an integer of at least 1; got {describe(n)}.")

    def __str__(self) -> str:
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"{type(self).__name__}({', '.join(given)})"

    def refuse(self, A: Any) -> str | None:
        """Iterative methods take every square operator."""
        return None

    def explain(self, A: Any) -> str:
        """What the method will do with A, and why."""
        raise NotImplementedError

    def init(self, system: System, x: Any, r: Any) -> Any:
        """The state of the recurrence at x, whose residual is r: a NamedTuple that begins like `Iterate`."""
        raise NotImplementedError

    def step(self, system: System, work: Any) -> Any:
        """One iteration of the columns that are RUNNING; the others stay as they are."""
        raise NotImplementedError

    def resume(self, system: System, work: Any, r: Any, where: Any) -> Any:
        """Go on from the true residual r in the columns `where`: here, begin anew at x."""
        fresh = self.init(system, work.x, r)._replace(count=work.count)
        return type(work)(*(choose(system.xp, where, new, old) for new, old in zip(fresh, work, strict=True)))

    def diagnose(self, system: System, work: Any) -> Any:
        """A status for columns of which the recurrence knows why they failed, 0 for others: (batch, 1, k) int32."""
        return system.xp.zeros_like(work.state)

    def details(self, work: Any, known: np.ndarray) -> dict[int, str]:
        """What to tell of the statuses (batch, k) that `diagnose` gave; the arrays of `work` are NumPy's."""
        return {}

    def limit(self, n: int) -> int:
        """Iterations allowed for n unknowns."""
        return self.maxiter or max(100, min(10 * n, 10_000))

    def prepare(self, A: Any) -> IterativeState:
        """Look for numbers that are not finite; nothing is factored."""
        usable = A.structure.finite_items(A.data)
        return IterativeState(A, usable, "" if usable.all() else nonfinite_sentence("A", A.data, A.structure))

    def apply(self, state: IterativeState, b: Any, target: Target, *, adjoint: bool = False) -> Outcome:
        """Iterate, restart from the true residual where the recursive one lied, and judge."""
        with np.errstate(all="ignore"):
            return _Loop(self, state, b, target, adjoint).run()


class _Loop:
    """One solve: columns scaled to size one by powers of two, which is exact, so that no product of small numbers
    underflows, however small the right-hand side or cotangent."""

    def __init__(self, method: IterativeMethod, state: IterativeState, b: Any, target: Target, adjoint: bool):
        self.method, self.state, self.adjoint = method, state, adjoint
        self.A, self.structure = state.A, state.A.structure
        xp, self.eps = self.structure.xp, self.structure.eps(b)
        self.xp = xp
        largest = self.structure.to_numpy(xp.max(xp.abs(b), axis=1)) if b.shape[1] else np.zeros(b.shape[::2])
        reach = REACH[self.eps < 1e-10]
        exponents = np.where(np.isfinite(largest), np.clip(np.frexp(largest)[1], -reach, reach), 0)
        self.back = 2.0 ** exponents.astype(float)
        self.scale = self.structure.like(b, self.back[:, None, :])
        self.b = b / self.scale
        self.target, self.maxiter = target, method.limit(b.shape[1])
        self.residuals = 0
        if not state.adjoint_seen and adjoint != self.structure.map.flipped:  # the given adjoint will be used
            self.structure.check_adjoint(self.A.data, self.b)
            state.adjoint_seen = True
        self.product = self.structure.product(self.A.data, adjoint)

    def run(self) -> Outcome:
        xp, method = self.xp, self.method
        x = xp.zeros_like(self.b)
        _, norms = self.residual(x)
        goal, floor = goals(np, self.target, self.eps, np.sqrt(norms[..., B_SQUARE]), self.back)
        limit = self.structure.like(self.b, np.square(floor)[:, None, :])
        system = System(xp, self.product, lambda v: v, limit, self.eps)
        work = method.init(system, x, self.b)
        steps, misses = 0, np.zeros(goal.shape, int)
        last = np.sqrt(norms[..., R_SQUARE])
        best, best_norms, lowest, at_lowest = x, norms, work.rr, x
        while True:
            while steps < self.maxiter and bool(xp.any(work.state == RUNNING)):
                work, steps = method.step(system, work), steps + 1
                lower = work.rr < lowest
                lowest, at_lowest = xp.where(lower, work.rr, lowest), choose(xp, lower, work.x, at_lowest)
            r, norms = self.residual(work.x)
            best, best_norms = self.better(work.x, norms, best, best_norms)
            size = np.sqrt(norms[..., R_SQUARE])
            misses, last, again = accounted(np, self.host(work.state), size, goal, last, misses)
            if steps >= self.maxiter or not again.any():
                break
            work = method.resume(system, work, r, self.device(again))
        if not (best_norms[..., R_SQUARE] <= np.square(goal)).all():
            best, best_norms = self.better(at_lowest, self.residual(at_lowest)[1], best, best_norms)
        return self.verdict(system, work, best, best_norms, goal)

    def better(self, x: Any, norms: np.ndarray, best: Any, best_norms: np.ndarray) -> tuple[Any, np.ndarray]:
        """Column by column the iterate with the smaller true residual."""
        mask = norms[..., R_SQUARE] <= best_norms[..., R_SQUARE]
        return choose(self.xp, self.device(mask), x, best), np.where(mask[..., None], norms, best_norms)

    def verdict(self, system: System, work: Any, x: Any, norms: np.ndarray, goal: np.ndarray) -> Outcome:
        """The status of each column by the true residual of its best iterate; of each item that of its worst."""
        met, count = np.sqrt(norms[..., R_SQUARE]) <= goal, self.host(work.count)
        known = np.zeros(met.shape, np.int32) if met.all() else self.host(self.method.diagnose(system, work))
        x_max = self.rounded(norms[..., X_MAX] * self.back)
        usable = self.state.usable[:, None]
        verdict = judged(np, self.host(work.state), count, met, known, norms[..., B_MAX], x_max, usable)
        details = sentences(verdict, count, self.b, self.structure, self.state.detail)
        if known.any():
            details |= self.method.details(type(work)(*map(self.structure.to_numpy, work)), known)
        return Outcome(x * self.scale, worst(np, verdict.status), lambda: self.stats(work, norms), details)

    def stats(self, work: Any, norms: np.ndarray) -> Stats:
        count = self.host(work.count).max(axis=-1, initial=0).astype(np.int32)
        found = stats_of(
            norms,
            iterations=count,
            matvecs=(count * self.method.products + self.residuals).astype(np.int32),
        )
        return found._replace(residual_norm=(np.sqrt(norms[..., R_SQUARE]) * self.back).max(axis=-1, initial=0.0))

    def residual(self, x: Any) -> tuple[Any, np.ndarray]:
        self.residuals += 1
        if self.structure.kind == "free":
            return self.structure.rest(self.product(x), x, self.b)
        return self.structure.residual(self.A.data, x, self.b, self.adjoint)

    def host(self, scalars: Any) -> np.ndarray:
        """(batch, 1, k) as a NumPy array (batch, k)."""
        return self.structure.to_numpy(scalars)[:, 0, :]

    def device(self, mask: np.ndarray) -> Any:
        """A (batch, k) mask where the arrays are, as (batch, 1, k)."""
        return self.structure.like(self.b, mask[:, None, :].astype(float)) > 0

    def rounded(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32) if self.eps > 1e-10 else values
