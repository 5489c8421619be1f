"""Direct methods: factor once, solve, refine, judge by the true residual."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..options import check_tolerance
from ..solution import Stats
from ..status import Status
from .base import Outcome, Target
from .judge import (
    A_MAX,
    OMEGA,
    X_MAX,
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


class Factors:
    """Factorizations of the matrices of a batch.

    Attributes
    ----------
    failed : (batch,) int32
        `Status` of each factorization that failed, 0 for the others.
    details : dict
        What was found about the first failure of each `Status`.
    count : int
        Numeric factorizations made per matrix.
    """

    def __init__(self, failed: np.ndarray, details: dict[int, str] | None = None, count: int = 1):
        self.failed, self.details, self.count = failed, details or {}, count

    @property
    def nbytes(self) -> int:
        """Memory of all factors."""
        raise NotImplementedError

    def fail(self, item: int, status: Status, detail: str) -> None:
        """Note that an item has no factors, and why."""
        self.failed[item] = status
        self.details.setdefault(status, detail)

    def strengthen(self, item: int) -> bool:
        """Replace the factors of an item by more accurate ones; False if there are none."""
        return False

    def solve(self, b: Any, adjoint: bool) -> Any:
        """Solve for b (batch, n, k); NaN for the items that failed."""
        raise NotImplementedError

    def slogdet(self, dtype: Any) -> tuple[Any, Any]:
        """Sign and logarithm of the modulus of the determinants, (batch,): (0, -inf) if singular, else NaN if failed.

        Only where the factors are triangular and a dense determinant is out of reach.
        """
        raise NotImplementedError


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
    """

    rtol: float | None = None
    atol: float | None = None

    name: ClassVar[str] = "direct"
    requires: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self):
        check_tolerance(type(self).__name__, "rtol", self.rtol, below=1)
        check_tolerance(type(self).__name__, "atol", self.atol)

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
        factors = self.factor(A, finite)
        if not all(finite.tolist()):
            factors.failed[~finite] = Status.NONFINITE
            factors.details[Status.NONFINITE] = nonfinite_sentence("A", A.data, A.structure)
        return DirectState(A, factors)

    def apply(self, state: DirectState, b: Any, target: Target, *, adjoint: bool = False) -> Outcome:
        """Solve A x = b, or Aᴴ x = b, refine and judge."""
        A, factors, definite = state.A, state.factors, state.A.assumed == "spd"
        x = factors.solve(b, adjoint)
        r, norms = A.structure.residual(A.data, x, b, adjoint)
        work = _Work(x, r, norms)
        if not factors.details and settled(norms, A.shape[0], state.eps, target, definite):
            return state.outcome(work, np.array([int(met_status(target))] * len(norms), np.int32), {})
        with np.errstate(all="ignore"):
            exponents = unsafe_exponents(norms, state.eps)
            if exponents is not None:
                return self._apply_scaled(state, b, target, adjoint, exponents)
            work = self._refine(state, b, work, target, adjoint)
            met = on_target(work.norms, A.shape[0], state.eps, target)
            lost = self._lost(state, work, met, target, adjoint)
            status = statuses(work.norms, met, target, factors.failed, definite, lost)
            doubtful = np.isin(status, (Status.INACCURATE, Status.SINGULAR)) & (factors.failed == 0)
            if any([factors.strengthen(item) for item in np.flatnonzero(doubtful).tolist()]):
                return self.apply(state, b, target, adjoint=adjoint)
        return state.outcome(work, status, {} if (status > 0).all() else _details(state, b, work, status))

    def _lost(self, state: DirectState, work: _Work, met: np.ndarray, target: Target, adjoint: bool) -> np.ndarray:
        """Columns of x without a right digit: (batch, k) booleans.

        Of a singular A, uᴴ A = 0 and A v = 0, the factors make a σ at rounding level, and x is v (uᴴ b) / σ. As
        uᴴ r = uᴴ b, the correction for r is then as large as x. Of an ill-conditioned A it is κ eps times x. In
        both, the backward error is small; where it is not, the factors are of another matrix than A.
        """
        norms = work.norms
        lost = unsolved(norms) & on_target(norms, state.A.shape[0], state.eps, Target())
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

    def stats(self, factorizations: int) -> Stats:
        shape = self.norms.shape[:1]
        return stats_of(
            self.norms,
            correction=self.correction,
            refinements=np.broadcast_to(np.asarray(self.refinements, np.int32), shape),
            factorizations=np.full(shape, factorizations, np.int32),
        )
