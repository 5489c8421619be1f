"""Direct methods: factor once, solve, refine, judge by the true residual."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..options import check_tolerance
from ..solution import Stats
from ..status import Status
from .base import Outcome, Target
from .equilibrate import Equilibrated, Rescued, exponents, scaled
from .factors import Factors
from .judge import (
    A_MAX,
    OMEGA,
    X_MAX,
    boundless,
    in_doubt,
    met_status,
    nonfinite_sentence,
    on_target,
    settled,
    stats_of,
    statuses,
    unsafe_exponents,
    unsolved,
)

__all__ = ["DirectMethod", "DirectState", "Factors"]

_MAX_REFINEMENTS = 4
_MAX_EXTENDED = 10
_SETTLED = 1e3  # times eps: how small the last correction of an extended refinement must be


class DirectState:
    """What `prepare` returns: the operator and its factors."""

    def __init__(self, A: Any, factors: Factors):
        self.A, self.factors, self.eps = A, factors, A.structure.eps(A.data)
        self._charged = 0

    @property
    def nbytes(self) -> int:
        """Memory of the factors."""
        return self.factors.nbytes

    def outcome(self, work: _Work, status: np.ndarray, details: dict) -> Outcome:
        """The verdict, charged with the factorizations made since the last solve."""
        made, self._charged = self.factors.count - self._charged, self.factors.count
        return Outcome(work.x, status, lambda: work.stats(made), details)


@dataclass(frozen=True)
class DirectMethod:
    """Base of the direct methods: everything but the factorization.

    A step of iterative refinement with the residual of the stored A, accumulated in double precision, is made
    unless the componentwise backward error is at rounding level already, and up to three more while the
    target is missed and each halves that error (Skeel 1980; Higham 2002, chapter 12). In float32 it wins back
    what the factors lost.

    Parameters
    ----------
    rtol, atol : float, optional
        Judge by norm(b - A x) <= max(rtol norm(b), atol) instead of by the backward error
        norm(r, inf) <= 10 sqrt(n) eps (norm(A, inf) norm(x, inf) + norm(b, inf)).
    equilibrate : bool, optional
        Factor A with rows and columns scaled by powers of two. None: only where a solve turns out to be in doubt.
        Exact: neither the residual nor a derivative knows of it.
    extended : bool, optional
        Refine with residuals in twice the working precision until x no longer changes: x is then right to about eps,
        whatever the condition of A below 1/eps (Demmel et al. 2006, doi:10.1145/1141885.1141894). Where x goes on to
        change the solve is INACCURATE, however small the residual.
    """

    rtol: float | None = None
    atol: float | None = None
    equilibrate: bool | None = None
    extended: bool = False

    name: ClassVar[str] = "direct"
    requires: ClassVar[frozenset[str]] = frozenset()
    scalable: ClassVar[bool] = True
    """Whether scaling may help at all."""
    together: ClassVar[int] = 0
    """Items of a batch that gain from being factored at the same time; 0 where all should be. See `blocks`."""

    def __post_init__(self):
        check_tolerance(type(self).__name__, "rtol", self.rtol, below=1)
        check_tolerance(type(self).__name__, "atol", self.atol)
        for option, choices in (("equilibrate", (None, True, False)), ("extended", (True, False))):
            value = getattr(self, option)
            if not any(value is choice for choice in choices):
                raise ValueError(
                    f"{type(self).__name__}: {option} must be one of {', '.join(map(str, choices))}; "
                    f"got {describe(value)}."
                )

    def __str__(self) -> str:
        given = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default)
        return f"{type(self).__name__}({', '.join(given)})"

    def refuse(self, A: Any) -> str | None:
        """Why this method cannot take A; None if it can."""
        raise NotImplementedError

    def explain(self, A: Any) -> str:
        """What the method will do with A, and why."""
        raise NotImplementedError

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor the matrices for which `usable` is true."""
        raise NotImplementedError

    def prepare(self, A: Any) -> DirectState:
        """Factor A. Failures are kept per item and told by `apply`."""
        finite = A.structure.finite_items(A.data)
        factors = self._factor(A, finite)
        if not all(finite.tolist()):
            factors.failed[~finite] = Status.NONFINITE
            factors.details[Status.NONFINITE] = nonfinite_sentence("A", A.data, A.structure)
        return DirectState(A, factors)

    def _factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor A as `equilibrate` wants it."""
        if self.equilibrate:
            return self._equilibrated(A, usable)
        factors = self._in_memory(A, usable)
        if self.equilibrate is None and self.scalable:
            return Rescued(factors, lambda item: self._again(A, item))
        return factors

    def _equilibrated(self, A: Any, usable: np.ndarray) -> Factors:
        r, c = exponents(A, self._symmetric(A))
        return Equilibrated(self._in_memory(scaled(A, r, c), usable), A.structure, r, c)

    def _in_memory(self, A: Any, usable: np.ndarray) -> Factors:
        """Factor, with one sentence for every engine that finds no memory."""
        try:
            return self.factor(A, usable)
        except MemoryError as error:
            told = f" ({error})" if str(error) else ""
            raise MemoryError(
                f"method {self.name!r} found no memory for the factors of A{told}; A is {A!r}: keep fewer alive, see "
                "what backsolve.analyze(A) forecasts, or use an iterative method such as 'cg' or 'bicgstab'."
            ) from error

    def _again(self, A: Any, item: int) -> Factors | None:
        """Equilibrated factors of one item; None if it is in balance already."""
        one = A.on(A.data[item : item + 1])
        if not any(e.any() for e in exponents(one, self._symmetric(A))):
            return None
        return self._equilibrated(one, np.ones(1, bool))

    def _symmetric(self, A: Any) -> bool:
        return A.assumed in ("spd", "sym", "her") or "positive_definite" in self.requires

    def apply(self, state: DirectState, b: Any, target: Target, *, adjoint: bool = False) -> Outcome:
        """Solve A x = b, or Aᴴ x = b, refine and judge."""
        A, factors, definite = state.A, state.factors, state.A.assumed == "spd"
        x = factors.solve(b, adjoint)
        r, norms = A.structure.residual(A.data, x, b, adjoint)
        work = _Work(x, r, norms)
        if not self.extended and not factors.details and settled(norms, A.shape[0], state.eps, target, definite):
            return state.outcome(work, np.array([int(met_status(target))] * len(norms), np.int32), {})
        with np.errstate(all="ignore"):
            exponents = unsafe_exponents(norms, state.eps)
            if exponents is not None:
                return self._apply_scaled(state, b, target, adjoint, exponents)
            refine = self._refine_extended if self.extended else self._refine
            work = refine(state, b, work, target, adjoint)
            met = on_target(work.norms, A.shape[0], state.eps, target) & ~work.unsettled
            lost = self._lost(state, work, met, target, adjoint)
            status = statuses(work.norms, met, target, factors.failed, definite, lost)
            doubtful = np.isin(status, (Status.INACCURATE, Status.SINGULAR))
            doubtful &= np.isin(factors.failed, (0, Status.SINGULAR))
            if any([factors.strengthen(item) for item in np.flatnonzero(doubtful).tolist()]):
                return self.apply(state, b, target, adjoint=adjoint)
        return state.outcome(work, status, {} if (status > 0).all() else _details(state, b, work, status))

    def _lost(self, state: DirectState, work: _Work, met: np.ndarray, target: Target, adjoint: bool) -> np.ndarray:
        """Columns of x without a right digit: (batch, k) booleans.

        Of a singular A, uᴴ A = 0 and A v = 0, the factors make a σ at rounding level, and x is v (uᴴ b) / σ. As
        uᴴ r = uᴴ b, the correction for r is then as large as x. Of an ill-conditioned A it is κ eps times x. In
        both, the backward error is small; where it is not, the factors are of another matrix than A, unless x has grown
        beyond what rounding makes of any regular one.
        """
        norms = work.norms
        lost = unsolved(norms) & (on_target(norms, state.A.shape[0], state.eps, Target()) | boundless(norms, state.eps))
        doubt = met & ~lost & in_doubt(norms, state.eps)
        if doubt.any() and met_status(target) is Status.CONVERGED_BACKWARD:
            d = state.factors.solve(work.r, adjoint)
            _, d_norms = state.A.structure.residual(state.A.data, d, work.r, adjoint)
            lost = lost | (doubt & (d_norms[..., X_MAX] > 0.1 * norms[..., X_MAX]))
        return lost

    def _apply_scaled(
        self, state: DirectState, b: Any, target: Target, adjoint: bool, exponents: np.ndarray
    ) -> Outcome:
        """Solve for columns brought to size one by powers of two, which is exact, and scale x back."""
        back = 2.0**exponents
        scale = state.A.structure.like(b, back[:, None, :])
        if target.atol is not None:
            target = target._replace(atol=target.atol / back)
        outcome = self.apply(state, b / scale, target, adjoint=adjoint)
        largest, stats = back.max(axis=-1), outcome.make_stats
        outcome.x = outcome.x * scale
        outcome.make_stats = lambda: (s := stats())._replace(residual_norm=s.residual_norm * largest)
        return outcome

    def _refine(self, state: DirectState, b: Any, work: _Work, target: Target, adjoint: bool) -> _Work:
        """Iterative refinement of the columns that need it, one step at least where rounding can be improved."""
        A, structure, eps = state.A, state.A.structure, state.eps
        work.refinements = np.zeros(len(work.norms), np.int32)
        for step in range(_MAX_REFINEMENTS):
            omega = work.norms[..., OMEGA]
            if step == 0:
                wanted = omega > 4 * eps
            else:
                wanted = ~on_target(work.norms, A.shape[0], eps, target) & (omega > 0)
            wanted &= np.isfinite(work.norms[..., X_MAX])
            if not wanted.any():
                break
            d = state.factors.solve(work.r, adjoint)
            x = work.x + d
            r, norms = structure.residual(A.data, x, b, adjoint)
            work.refinements += wanted.any(axis=-1)
            if step == 0:
                work.correction = structure.size(d) / work.norms[..., X_MAX].max(axis=-1)
            better = wanted & (norms[..., OMEGA] < omega)
            halved = wanted & (norms[..., OMEGA] <= 0.5 * omega)
            if better.all():
                work.x, work.r, work.norms = x, r, norms
            else:
                work.x, work.r = structure.choose(better, x, work.x), structure.choose(better, r, work.r)
                work.norms = np.where(better[..., None], norms, work.norms)
            if not halved.any():
                break
        return work

    def _refine_extended(self, state: DirectState, b: Any, work: _Work, target: Target, adjoint: bool) -> _Work:
        """Refine with residuals in twice the precision while each correction is at most half the one before.

        Each is the error of x before it, but for a share κ eps or so. Where they stay larger than rounding that share
        is near 1, and the columns are not settled: nothing is known of the error that is left.
        """
        A, structure, eps = state.A, state.A.structure, state.eps
        work.refinements = np.zeros(len(work.norms), np.int32)
        last = np.full(work.norms.shape[:2], np.inf)
        going_on = np.ones_like(last, bool)
        for step in range(_MAX_EXTENDED):
            r = structure.extended_residual(A.data, work.x, b, adjoint)
            d = state.factors.solve(r, adjoint)
            size = structure.sizes(d) / np.maximum(structure.sizes(work.x), np.finfo(float).tiny)
            if step == 0:
                work.correction = size.max(axis=-1, initial=0.0)
            going_on &= np.isfinite(size) & (size <= 0.5 * last)
            if not going_on.any():
                break
            work.x = structure.choose(going_on, work.x + d, work.x)
            work.refinements += going_on.any(axis=-1)
            last = np.where(going_on, size, last)
            going_on &= last > 0.5 * eps
            if not going_on.any():
                break
        work.unsettled = last > _SETTLED * eps
        work.r, work.norms = structure.residual(A.data, work.x, b, adjoint)
        return work


def _details(state: DirectState, b: Any, work: _Work, status: np.ndarray) -> dict[int, str]:
    details = dict(state.factors.details)
    if (status == Status.NONFINITE).any() and Status.NONFINITE not in details:
        overflows = not np.isfinite(work.norms[..., A_MAX]).all()
        what, array = ("A", state.A.data) if overflows else ("the right-hand side", b)
        details[Status.NONFINITE] = nonfinite_sentence(what, array, state.A.structure)
    return details


@dataclass
class _Work:
    """A solve in progress: x, its residual and their norms, and what refinement has done."""

    x: Any
    r: Any
    norms: np.ndarray
    correction: Any = np.nan
    refinements: Any = 0
    unsettled: Any = np.False_

    def stats(self, factorizations: int) -> Stats:
        shape = self.norms.shape[:1]
        return stats_of(
            self.norms,
            correction=self.correction,
            refinements=np.broadcast_to(np.asarray(self.refinements, np.int32), shape),
            factorizations=np.full(shape, factorizations, np.int32),
        )
