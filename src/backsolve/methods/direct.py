"""Direct methods: factor once, solve, refine, judge by the true residual."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..options import check_tolerance
from ..status import Status
from .base import Outcome, Target
from .judge import B_MAX, OMEGA, X_MAX, on_target, stats_of, statuses

__all__ = ["DirectMethod", "DirectState", "Factors"]

_MAX_REFINEMENTS = 4


class Factors:
    """Factorizations of the matrices of a batch.

    Attributes
    ----------
    failed : (batch,) int32
        `Status` of each factorization that failed, 0 for the others.
    detail : str
        What was found about the first failure.
    count : int
        Numeric factorizations made per matrix.
    """

    def __init__(self, failed: np.ndarray, detail: str = "", count: int = 1):
        self.failed, self.detail, self.count = failed, detail, count

    def solve(self, b: Any, adjoint: bool) -> Any:
        """Solve for b (batch, n, k); NaN for the items that failed."""
        raise NotImplementedError


class DirectState:
    """What `prepare` returns: the operator, its factors and its norms."""

    def __init__(self, A: Any, factors: Factors, sums: Any, norm: np.ndarray):
        self.A, self.factors = A, factors
        self.eps = A.structure.eps(A.data)
        self._sums = {False: (sums, norm)}
        self._charged = False

    def sums(self, adjoint: bool) -> tuple[Any, np.ndarray]:
        """Absolute row sums of A or Aᴴ, (batch, n), and their maxima, the ∞-norms."""
        if adjoint not in self._sums:
            self._sums[adjoint] = row_sums(self.A, adjoint)
        return self._sums[adjoint]

    def charge(self) -> int:
        """Factorizations to count for this solve: those made, once."""
        made = 0 if self._charged else self.factors.count
        self._charged = True
        return made


def row_sums(A: Any, adjoint: bool = False) -> tuple[Any, np.ndarray]:
    """Absolute row sums in A's array namespace, and the ∞-norm of each item in NumPy; both keep NaN."""
    sums = A.structure.row_sums(A.data, adjoint)
    return sums, A.structure.to_numpy(sums).max(axis=-1, initial=0.0)


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

    def contradicts(self, A: Any, x: Any, b: Any) -> np.ndarray | None:
        """Items whose solution disproves what was declared about A: (batch,) booleans, or None for none."""
        return None

    def prepare(self, A: Any) -> DirectState:
        """Factor A. Failures are kept per item and told by `apply`."""
        sums, norm = row_sums(A)
        finite = np.isfinite(norm)
        factors = self.factor(A, finite)
        if not finite.all():
            factors.failed[~finite] = Status.NONFINITE
            value, place = A.structure.first_nonfinite(A.data)
            factors.detail = f"A has the value {value} at {place} of its data"
        return DirectState(A, factors, sums, norm)

    def apply(self, state: DirectState, b: Any, target: Target, *, adjoint: bool = False) -> Outcome:
        """Solve A x = b, or Aᴴ x = b, refine and judge."""
        A, structure, back = state.A, state.A.structure, 1.0
        norm = state.sums(adjoint)[1]
        with np.errstate(all="ignore"):
            x, norms, correction, refinements = self._solve(state, b, target, adjoint)
            exponents = _unsafe_exponents(norms[..., B_MAX], state.eps)
            if exponents is not None:
                # Powers of two, so the scaling is exact.
                back = 2.0**exponents
                scale = structure.like(b, back[:, None, :])
                target = target._replace(atol=None if target.atol is None else target.atol / back)
                x, norms, correction, refinements = self._solve(state, b / scale, target, adjoint)
                x = x * scale
            met = on_target(norms, norm, A.shape[0], state.eps, target)
            status = statuses(norms, met, target, state.factors.failed)
            wrong = self.contradicts(A, x, b)
        if wrong is not None and wrong.any():
            status = np.where(wrong & (status > 0), np.int32(Status.INDEFINITE), status)
        detail = "" if (status > 0).all() else self._detail(state, b, status)
        counts = {
            "correction": np.broadcast_to(np.asarray(correction, float), status.shape),
            "refinements": refinements,
            "factorizations": np.full(status.shape, state.charge(), np.int32),
            "copies": np.zeros(status.shape, np.int32),
        }
        return Outcome(x, status, lambda: stats_of(norms, norm, back, **counts), detail)

    def _solve(self, state: DirectState, b: Any, target: Target, adjoint: bool):
        """x refined, its norms, the relative size of the first correction, and the steps made for each item."""
        A, structure, factors = state.A, state.A.structure, state.factors
        sums, norm = state.sums(adjoint)
        x = factors.solve(b, adjoint)
        r, norms = structure.residual(A.data, x, b, sums, adjoint)
        correction, refinements = np.nan, np.zeros(len(norms), np.int32)
        for step in range(_MAX_REFINEMENTS):
            if step == 0:
                wanted = norms[..., OMEGA] > 4 * state.eps
            else:
                wanted = ~on_target(norms, norm, A.shape[0], state.eps, target) & (norms[..., OMEGA] > 0)
            wanted &= np.isfinite(norms[..., X_MAX])
            if not wanted.any():
                break
            d = factors.solve(r, adjoint)
            trial = x + d
            r_trial, norms_trial = structure.residual(A.data, trial, b, sums, adjoint)
            refinements += wanted.any(axis=-1)
            if step == 0:
                correction = structure.size(d) / norms[..., X_MAX].max(axis=-1)
            better = wanted & (norms_trial[..., OMEGA] < norms[..., OMEGA])
            halved = wanted & (norms_trial[..., OMEGA] <= 0.5 * norms[..., OMEGA])
            if better.all():
                x, r, norms = trial, r_trial, norms_trial
            else:
                x, r = structure.choose(better, trial, x), structure.choose(better, r_trial, r)
                norms = np.where(better[..., None], norms_trial, norms)
            if not halved.any():
                break
        return x, norms, correction, refinements

    def _detail(self, state: DirectState, b: Any, status: np.ndarray) -> str:
        if state.factors.detail:
            return state.factors.detail
        if (status == Status.NONFINITE).any():
            value, place = state.A.structure.first_nonfinite(b)
            return f"The right-hand side has {value} at {place}"
        return ""


def _unsafe_exponents(b_max: np.ndarray, eps: float) -> np.ndarray | None:
    """Binary exponents of columns near the ends of the floating-point range, 0 for safe ones; None if all are safe.

    Products of such a column with the factors, and its squared norm, would underflow or overflow.
    """
    low, high, reach = (1e-120, 1e120, 1000) if eps < 1e-10 else (1e-15, 1e15, 120)
    unsafe = ((b_max < low) & (b_max > 0)) | ((b_max > high) & np.isfinite(b_max))
    if not unsafe.any():
        return None
    return np.where(unsafe, np.clip(np.frexp(b_max)[1], -reach, reach), 0).astype(float)
