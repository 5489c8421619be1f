"""Flexible conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .cg import curvatures, indefinite_or_singular
from .iterative import IterativeMethod
from .recurrence import NOT_POSITIVE, OVERFLOW, RUNNING, System, choose, dot, mark, ratio, real_dot, started

__all__ = ["FCG"]


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    p: Any
    Ap: Any
    p_norm: Any
    """pᴴ A p of the step before, the square of the A-norm of p; 0 before the first."""
    curvature: Any
    stiffest: Any
    softest: Any


@dataclass(frozen=True)
class FCG(IterativeMethod):
    """Flexible conjugate gradients, for Hermitian positive definite operators and an M that may vary.

    Each direction is made A-orthogonal to the one before by an inner product with A p, and not by a formula that holds
    for a fixed M only. One product with A, three inner products and four vector updates in each iteration; six vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`.

    Notes
    -----
    *Fails with* INDEFINITE (a direction of curvature pᴴ A p <= 0), SINGULAR (curvatures that differ by more than
    working precision and no convergence), MAXITER, STAGNATION (the true residual stays above the target), NONFINITE,
    BREAKDOWN (overflow). *Differentiation*: the adjoint solve is another run with Aᴴ. *Differs from* Notay: one
    direction is kept, no more.

    References
    ----------
    Notay 2000, doi:10.1137/S1064827599362314; Golub and Ye 1999, doi:10.1137/S1064827597323415.
    """

    name: ClassVar[str] = "fcg"
    summary: ClassVar[str] = "flexible conjugate gradients: one product with A in each iteration"
    traceable: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})
    flexible: ClassVar[bool] = True

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state, zero = started(system, rr), xp.zeros_like(rr)
        none = xp.zeros_like(r)
        return _Work(x, r, rr, state, xp.zeros_like(state), none, none, zero, zero, zero, zero + float("inf"))

    def step(self, system: System, work: _Work) -> _Work:
        """Notay's algorithm with one direction kept."""
        xp = system.xp
        running = work.state == RUNNING
        z = system.M(work.r)
        beta = ratio(xp, running & (work.p_norm > 0), dot(xp, work.Ap, z), xp.astype(work.p_norm, z.dtype))
        p = choose(xp, running, z - beta * work.p, work.p)
        Ap = choose(xp, running, system.A(p), work.Ap)
        curvature, slope = real_dot(xp, p, Ap), dot(xp, p, work.r)
        finite = xp.isfinite(curvature) & xp.isfinite(xp.abs(slope))
        positive = curvature > 0
        ok = running & positive & finite
        alpha = ratio(xp, ok, slope, xp.astype(curvature, slope.dtype))
        x, r = work.x + alpha * p, work.r - alpha * Ap
        rr = real_dot(xp, r, r)
        state = mark(xp, started(system, rr), ~positive, NOT_POSITIVE)
        state = mark(xp, state, ~finite, OVERFLOW)
        stiffness = ratio(xp, ok & (xp.abs(slope) > 0), curvature, xp.abs(slope))
        return _Work(
            x=x,
            r=r,
            rr=rr,
            state=xp.where(running, state, work.state),
            count=work.count + xp.astype(ok, xp.int32),
            p=p,
            Ap=Ap,
            p_norm=xp.where(running, curvature, work.p_norm),
            curvature=xp.where(running, curvature, work.curvature),
            stiffest=xp.where(ok & (stiffness > work.stiffest), stiffness, work.stiffest),
            softest=xp.where(ok & (stiffness > 0) & (stiffness < work.softest), stiffness, work.softest),
        )

    def diagnose(self, system: System, work: _Work) -> Any:
        """Tell an indefinite matrix from a singular one, as CG does."""
        return indefinite_or_singular(system, work)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """The curvatures that say so."""
        return curvatures(work, known)
