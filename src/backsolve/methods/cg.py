"""Conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..status import Status
from .iterative import IterativeMethod
from .recurrence import (
    NOT_POSITIVE,
    OVERFLOW,
    RUNNING,
    System,
    choose,
    mark,
    norm_of,
    ratio,
    real_dot,
    size_of,
    started,
)

__all__ = ["CG", "curvatures", "indefinite_or_singular"]


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    p: Any
    """Search direction."""
    rz: Any
    """rᴴ M r of the step before; 0 before the first."""
    curvature: Any
    """pᴴ A p where it was not positive."""
    stiffest: Any
    """Largest 1/α: no more than the largest eigenvalue of M A."""
    softest: Any
    """Smallest 1/α: no less than the smallest eigenvalue of M A."""


@dataclass(frozen=True)
class CG(IterativeMethod):
    """Conjugate gradients, for Hermitian positive definite operators (real: symmetric).

    Minimises the A-norm of the error over the Krylov space. One product with A, two inner products and three
    vector updates in each iteration; five vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`.

    Notes
    -----
    *Fails with* INDEFINITE (a direction of curvature pᴴ A p <= 0, or rᴴ M r <= 0), SINGULAR (curvatures that differ
    by more than working precision and no convergence), MAXITER, STAGNATION (the true residual stays above the
    target), NONFINITE, BREAKDOWN (overflow). *Differentiation*: the adjoint solve is another run with Aᴴ.
    *Differs from* the textbook: the true residual decides, and a run goes on from it if it misses the target; columns
    are independent runs.

    References
    ----------
    Hestenes and Stiefel 1952, doi:10.6028/jres.049.044; Saad, Iterative Methods for Sparse Linear Systems, 2nd
    edition, algorithm 9.1.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[4.0, 2.0], [2.0, 3.0]]), np.array([8.0, 7.0]), method="cg")
    array([1.25, 1.5 ])
    """

    name: ClassVar[str] = "cg"
    summary: ClassVar[str] = "conjugate gradients: one product with A in each iteration"
    traceable: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})
    definite: ClassVar[bool] = True

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state, zero = started(system, rr), xp.zeros_like(rr)
        return _Work(x, r, rr, state, xp.zeros_like(state), xp.zeros_like(r), zero, zero, zero, zero + float("inf"))

    def step(self, system: System, work: _Work) -> _Work:
        """Saad's algorithm, with the direction made first, so that r may be replaced between steps."""
        xp = system.xp
        running = work.state == RUNNING
        z = system.M(work.r)
        rz = real_dot(xp, work.r, z)
        beta = ratio(xp, running & (work.rz > 0), rz, work.rz)  # step 7; 0 at first
        p = choose(xp, running, z + beta * work.p, work.p)  # step 8
        Ap = system.A(p)
        curvature = real_dot(xp, p, Ap)
        finite = xp.isfinite(curvature) & xp.isfinite(rz)
        positive = (curvature > 0) & (rz > 0)
        ok = running & positive & finite
        alpha = ratio(xp, ok, rz, curvature)  # step 3
        x, r = work.x + alpha * p, work.r - alpha * Ap  # steps 4 and 5
        rr = real_dot(xp, r, r)
        state = mark(xp, started(system, rr), ~positive, NOT_POSITIVE)
        state = mark(xp, state, ~finite, OVERFLOW)
        stiffness = ratio(xp, ok, curvature, rz)
        return _Work(
            x=x,
            r=r,
            rr=rr,
            state=xp.where(running, state, work.state),
            count=work.count + xp.astype(ok, xp.int32),
            p=p,
            rz=xp.where(running, rz, work.rz),
            curvature=xp.where(running, curvature, work.curvature),
            stiffest=xp.where(ok & (stiffness > work.stiffest), stiffness, work.stiffest),
            softest=xp.where(ok & (stiffness < work.softest), stiffness, work.softest),
        )

    def resume(self, system: System, work: _Work, r: Any, where: Any) -> _Work:
        """Replace the residual, and keep the direction where it changes little: conjugacy saves iterations."""
        xp = system.xp
        stale = where & (real_dot(xp, r, r) > 4 * work.rr)
        return work._replace(
            r=choose(xp, where, r, work.r),
            rz=xp.where(stale, xp.zeros_like(work.rz), work.rz),
            state=mark(xp, work.state, where, RUNNING),
        )

    def diagnose(self, system: System, work: _Work) -> Any:
        """Tell an indefinite matrix from a singular one."""
        return indefinite_or_singular(system, work)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """The curvatures that say so."""
        return curvatures(work, known)


def indefinite_or_singular(system: System, work: Any) -> Any:
    """What a run of CG, or one of its kin, knows of a matrix that stopped it: (batch, 1, k) statuses.

    1/α lies between the extreme eigenvalues of M A. For a semidefinite A, norm(A p)² <= norm(A) pᴴ A p: where
    that is at rounding level, so is the curvature, and its sign means nothing.
    """
    xp, eps, n = system.xp, system.eps, work.x.shape[1]
    p_norm, Ap_norm = (norm_of(xp, v) for v in (work.p, system.A(work.p)))
    A_norm = size_of(system, work.p, system.A)
    A_norm = xp.where(A_norm > work.stiffest, A_norm, work.stiffest)
    stopped = work.state == NOT_POSITIVE
    flat = Ap_norm <= (10 * n**0.5 * eps) ** 0.5 * A_norm * p_norm
    ill = work.softest < eps * work.stiffest
    status = mark(xp, xp.zeros_like(work.state), stopped, Status.INDEFINITE)
    return mark(xp, status, flat & (stopped | ill), Status.SINGULAR)


def curvatures(work: Any, known: np.ndarray) -> dict[int, str]:
    """What to tell of the statuses (batch, k) that `indefinite_or_singular` gave."""
    details = {}
    if (known == Status.SINGULAR).any():
        details[Status.SINGULAR] = "the curvatures of A met on the way differ by more than working precision"
    if (known == Status.INDEFINITE).any():
        item, column = np.argwhere(known == Status.INDEFINITE)[0]
        size = work.curvature[item, 0, column] / np.linalg.norm(work.p[item, :, column]) ** 2
        count = work.count[item, 0, column]
        details[Status.INDEFINITE] = f"a direction p with pᴴ A p / pᴴ p = {size:.1e} after {count} iterations"
    return details
