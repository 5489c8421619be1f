"""Iterative methods: what they share, which is everything but the recurrence.

A method gives `init` and `step`, pure functions of arrays (batch, n, k) over the array namespace of the operator, in
which every column runs for itself. Here is the loop around them: scaling, stopping, and the true residual, which
alone says whether a column has converged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..options import check_tolerance
from ..preconditioners import Prepared, check_preconditioner
from ..solution import Stats
from .base import Outcome, Target
from .columns import REACH, accounted, blame, goals, judged, sentences, worst
from .judge import B_MAX, B_SQUARE, R_SQUARE, X_MAX, nonfinite_sentence, stats_of
from .recurrence import RUNNING, System, choose, put, when

__all__ = ["IterativeMethod", "IterativeState", "Watch"]

Watch = Callable[[int, np.ndarray, Any], None]
"""(iteration, residual norms (batch, k), x (batch, n, k))."""


class IterativeState:
    """What `prepare` returns: the operator, checked, and its preconditioner."""

    def __init__(self, A: Any, usable: np.ndarray, detail: str, M: Prepared | None = None, found: Any = None):
        self.A, self.usable, self.detail = A, usable, detail
        self.M, self.found = M, found
        self.adjoint_seen = A.structure.kind != "free"

    @property
    def nbytes(self) -> int:
        """Memory of the preconditioner."""
        return 0 if self.M is None else self.M.nbytes


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
    M : str or preconditioner, optional
        M ≈ A⁻¹; see `backsolve.preconditioners`. Backward solves use Mᴴ.
    """

    rtol: float | None = None
    atol: float | None = None
    maxiter: int | None = None
    M: Any = None

    name: ClassVar[str] = "iterative"
    requires: ClassVar[frozenset[str]] = frozenset()
    products: ClassVar[int] = 1
    """Products with A, or Aᴴ, in each iteration."""
    products_at_start: ClassVar[int] = 0
    """Products with A, or Aᴴ, before the first."""
    definite: ClassVar[bool] = False
    """Whether M must be Hermitian positive definite."""
    flexible: ClassVar[bool] = False
    """Whether M may differ from one iteration to the next."""
    traceable: ClassVar[bool] = False
    """Whether `init` and `step` can be traced, without a look at any number."""
    two_sided: ClassVar[bool] = False
    """Whether the recurrence applies Aᴴ and Mᴴ too."""

    def __post_init__(self):
        owner = type(self).__name__
        check_tolerance(owner, "rtol", self.rtol, below=1)
        check_tolerance(owner, "atol", self.atol)
        n = self.maxiter
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise ValueError(f"{owner}: maxiter must be an integer of at least 1; got {describe(n)}.")
        object.__setattr__(self, "M", check_preconditioner(self.M))

    def __str__(self) -> str:
        shown = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        given = (f"{name}={value if name == 'M' else repr(value)}" for name, value, usual in shown if value != usual)
        return f"{type(self).__name__}({', '.join(given)})"

    def refuse(self, A: Any) -> str | None:
        """Iterative methods take every square operator; not every preconditioner does."""
        M = self.M
        if M is None:
            return None
        if why := M.refuse(A):
            return f"cannot have M={M}, which {why}"
        if M.varying and not self.flexible:
            return f"takes a fixed M, and M={M} varies: use 'fcg' or 'fgmres'"
        if self.definite and not M.hermitian:
            return (
                f"takes a Hermitian positive definite M only, and M={M} is not known to be one: use 'ic0', 'mic', "
                "'ssor' or 'amg', declare Function(apply, symmetric=True) if it is, or use 'gmres'"
            )
        return None

    def explain(self, A: Any) -> str:
        """What the method will do with A, and why."""
        return self.summary if self.M is None else f"{self.summary}; M is {self.M.explain(A)}"

    summary: ClassVar[str] = "an iterative method"
    """What it is, in a few words."""

    def init(self, system: System, x: Any, r: Any) -> Any:
        """The state of the recurrence at x, whose residual is r: a NamedTuple that begins like `Iterate`."""
        raise NotImplementedError

    def step(self, system: System, work: Any) -> Any:
        """One iteration of the columns that are RUNNING; the others stay as they are."""
        raise NotImplementedError

    def finish(self, system: System, work: Any) -> Any:
        """The state with x and r up to date, for methods that let them wait."""
        return work

    def resume(self, system: System, work: Any, r: Any, where: Any) -> Any:
        """Go on from the true residual r in the columns `where`: here, begin anew at x."""
        fresh = self.init(system, work.x, r)._replace(count=work.count)
        return type(work)(*(choose(system.xp, where, new, old) for new, old in zip(fresh, work, strict=True)))

    def diagnose(self, system: System, work: Any) -> Any:
        """A status for columns of which the recurrence knows why they failed, 0 for others: (batch, 1, k) int32.

        ``work.r`` is the true residual of the best iterate; b has entries of about 1.
        """
        return system.xp.zeros_like(work.state)

    def bound(self, A: Any, x: Any, b: Any, r: Any, adjoint: bool) -> Any:
        """A proven bound of norm(x - A⁻¹ b, inf) for each column, (batch, 1, k), if there is one; r = b - A x."""
        return None

    def details(self, work: Any, known: np.ndarray) -> dict[int, str]:
        """What to tell of the statuses (batch, k) that `diagnose` gave; the arrays of `work` are NumPy's."""
        return {}

    def limit(self, n: int) -> int:
        """Iterations allowed for n unknowns."""
        return self.maxiter or max(100, min(10 * n, 10_000))

    @property
    def loops(self) -> bool:
        """Whether a compiler can make a loop of it: neither the recurrence nor M look at any number."""
        return self.traceable and (self.M is None or self.M.traceable)

    def find(self, A: Any, M: Prepared | None) -> Any:
        """What the recurrence needs to know of A and M beforehand."""
        return None

    def prepare(self, A: Any) -> IterativeState:
        """Look for numbers that are not finite, and make the preconditioner."""
        usable = A.structure.finite_items(A.data)
        if usable.all():
            sound, detail = A, ""
        else:
            sound, detail = _sound(A, usable), nonfinite_sentence("A", A.data, A.structure)
        with np.errstate(all="ignore"):
            M = None if self.M is None else self.M.prepare(sound)
            return IterativeState(A, usable, detail, M, self.find(sound, M))

    def apply(
        self,
        state: IterativeState,
        b: Any,
        target: Target,
        *,
        adjoint: bool = False,
        x0: Any = None,
        watch: Watch | None = None,
    ) -> Outcome:
        """Iterate from x0, restart from the true residual where the recursive one lied, and judge."""
        with np.errstate(all="ignore"):
            return _Loop(self, state, b, target, adjoint, watch).run(x0)


class _Loop:
    """One solve: columns scaled to size one by powers of two, which is exact, so that no product of small numbers
    underflows, however small the right-hand side or cotangent."""

    def __init__(
        self, method: IterativeMethod, state: IterativeState, b: Any, target: Target, adjoint: bool, watch: Any
    ):
        self.method, self.state, self.adjoint, self.watch = method, state, adjoint, watch
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
        uses_given = not state.adjoint_seen and (method.two_sided or adjoint != self.structure.map.flipped)
        if uses_given:  # the adjoint that was given
            self.structure.check_adjoint(self.A.data, self.b)
            state.adjoint_seen = True
        self.product = self.structure.product(self.A.data, adjoint)

    @cached_property
    def adjoint_product(self) -> Any:
        """Made when a method first asks for it: not every operator has one."""
        return self.structure.product(self.A.data, not self.adjoint)

    def system(self, floor: np.ndarray) -> System:
        """What the recurrence is given."""
        M, adjoint = self.state.M, self.adjoint
        return System(
            xp=self.xp,
            A=self.product,
            M=(lambda v: v) if M is None else (lambda v: M.apply(v, adjoint)),
            limit=self.structure.like(self.b, np.square(floor)[:, None, :]),
            eps=self.eps,
            AH=lambda v: self.adjoint_product(v),
            MH=(lambda v: v) if M is None else (lambda v: M.apply(v, not adjoint)),
            found=self.state.found,
            known=lambda values: self.structure.like(self.b, values[:, None, None]),
            put=put,
            when=when,
        )

    def run(self, x0: Any = None) -> Outcome:
        xp, method = self.xp, self.method
        x = xp.zeros_like(self.b) if x0 is None else xp.zeros_like(self.b) + x0 / self.scale
        r, norms = self.residual(x)
        goal, floor = goals(np, self.target, self.eps, np.sqrt(norms[..., B_SQUARE]), self.back)
        system = self.system(floor)
        work = method.init(system, x, self.b if x0 is None else r)
        self.tell(0, system, work)
        steps, misses = 0, np.zeros(goal.shape, int)
        last = np.sqrt(norms[..., R_SQUARE])
        best, best_norms, lowest, at_lowest = x, norms, work.rr, x
        while True:
            while steps < self.maxiter and bool(xp.any(work.state == RUNNING)):
                work, steps = method.step(system, work), steps + 1
                self.tell(steps, system, work)
                lower = work.rr < lowest
                lowest, at_lowest = xp.where(lower, work.rr, lowest), choose(xp, lower, work.x, at_lowest)
            work = method.finish(system, work)
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

    def tell(self, iteration: int, system: System, work: Any) -> None:
        """Norms of the recursive residuals, and x, to who watches."""
        if self.watch is not None:
            norms = np.sqrt(self.host(work.rr)) * self.back
            self.watch(iteration, norms, self.method.finish(system, work).x * self.scale)

    def better(self, x: Any, norms: np.ndarray, best: Any, best_norms: np.ndarray) -> tuple[Any, np.ndarray]:
        """Column by column the iterate with the smaller true residual."""
        mask = norms[..., R_SQUARE] <= best_norms[..., R_SQUARE]
        return choose(self.xp, self.device(mask), x, best), np.where(mask[..., None], norms, best_norms)

    def verdict(self, system: System, work: Any, x: Any, norms: np.ndarray, goal: np.ndarray) -> Outcome:
        """The status of each column by the true residual of its best iterate; of each item that of its worst."""
        met, count = np.sqrt(norms[..., R_SQUARE]) <= goal, self.host(work.count)
        known = np.zeros(goal.shape, np.int32)
        if not met.all():
            work = work._replace(r=self.residual(x)[0])
            known = self.host(self.method.diagnose(system, work))
        x_max = self.rounded(norms[..., X_MAX] * self.back)
        usable = self.state.usable[:, None]
        verdict = judged(np, self.host(work.state), count, met, known, norms[..., B_MAX], x_max, usable)
        details = {}
        if known.any():
            told = self.method.details(type(work)(*map(self.numpy, work)), known)
            details = {code: sentence for code, sentence in told.items() if (known == code).any()}
        details |= sentences(verdict, count, self.b, self.structure, self.state.detail)
        M = self.state.M
        if M is not None:
            verdict = blame(details, verdict, usable, M.broken)
            if not self.adjoint:
                M.observe(int(count.max(initial=0)))
        return Outcome(x * self.scale, worst(np, verdict.status), lambda: self.stats(work, norms), details)

    def stats(self, work: Any, norms: np.ndarray) -> Stats:
        count = self.host(work.count).max(axis=-1, initial=0).astype(np.int32)
        found = stats_of(
            norms,
            iterations=count,
            matvecs=(count * self.method.products + self.method.products_at_start + self.residuals).astype(np.int32),
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

    def numpy(self, leaf: Any) -> Any:
        """A part of a state with NumPy's arrays."""
        if isinstance(leaf, tuple):
            return tuple(map(self.numpy, leaf))
        return self.structure.to_numpy(leaf) if hasattr(leaf, "shape") else leaf


def _sound(A: Any, usable: np.ndarray) -> Any:
    """A with the identity in place of items that are not finite, or something as harmless."""
    structure = A.structure
    if structure.kind == "dense":
        xp = structure.xp
        identity = xp.eye(A.shape[0], dtype=A.data.dtype, device=A.data.device)
        return A.on(xp.where(structure.like(A.data, usable[:, None, None].astype(float)) > 0, A.data, identity))
    values = np.array(A.data)
    values[~usable] = 0
    places = structure.diagonal[structure.diagonal >= 0]
    values[np.ix_(~usable, places)] = 1
    return A.on(values)
