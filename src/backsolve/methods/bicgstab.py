"""Stabilised biconjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .iterative import IterativeMethod
from .recurrence import BROKEN, OVERFLOW, RUNNING, System, choose, dot, mark, ratio, real_dot, started

__all__ = ["BiCGStab"]


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    shadow: Any
    """r̂, the residual at the (latest) start."""
    p: Any
    v: Any
    """A M p."""
    rho: Any
    alpha: Any
    omega: Any


@dataclass(frozen=True)
class BiCGStab(IterativeMethod):
    """Stabilised biconjugate gradients, for square operators of any kind.

    Two products with A, four inner products and six vector updates in each iteration; eight vectors. Short
    recurrences, and no residual that is sure to fall.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`.

    Notes
    -----
    *Fails with* MAXITER, BREAKDOWN (an inner product by which the recurrence divides vanishes, again after a
    restart; skew-symmetric matrices do that), STAGNATION (the true residual stays above the target), NONFINITE.
    *Differentiation*: the adjoint solve is another run with Aᴴ. *Differs from* the textbook: M acts from the right,
    so that the residual is the true one; a run that breaks down or whose true residual misses the target starts
    anew from it; columns are independent runs.

    References
    ----------
    Van der Vorst 1992, doi:10.1137/0913035; Saad, Iterative Methods for Sparse Linear Systems, 2nd edition,
    algorithm 7.7.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[4.0, 1.0], [0.0, 2.0]]), np.array([6.0, 4.0]), method="bicgstab").round(6)
    array([1., 2.])
    """

    name: ClassVar[str] = "bicgstab"
    summary: ClassVar[str] = "stabilised biconjugate gradients: two products with A in each iteration"
    traceable: ClassVar[bool] = True
    products: ClassVar[int] = 2

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r and becomes the shadow."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state, one = started(system, rr), xp.ones_like(dot(xp, r[:, :1], r[:, :1]))
        zero = xp.zeros_like(r)
        return _Work(x, r, rr, state, xp.zeros_like(state), r, zero, zero, one, one, one)

    def step(self, system: System, work: _Work) -> _Work:
        """Saad's algorithm, preconditioned from the right; a vanishing divisor is one below rounding."""
        xp, eps = system.xp, system.eps
        running = work.state == RUNNING
        shadow_size = xp.sqrt(real_dot(xp, work.shadow, work.shadow))
        rho = dot(xp, work.shadow, work.r)
        whole = xp.abs(rho) > eps * shadow_size * xp.sqrt(work.rr)
        beta = ratio(xp, running & whole, rho * work.alpha, work.rho * work.omega)  # step 8
        p = choose(xp, running, work.r + beta * (work.p - work.omega * work.v), work.p)  # step 9
        y = system.M(p)
        v = choose(xp, running, system.A(y), work.v)
        below = dot(xp, work.shadow, v)
        whole = whole & (xp.abs(below) > eps * shadow_size * xp.sqrt(real_dot(xp, v, v)))
        alpha = ratio(xp, running & whole, rho, below)  # step 4
        s = work.r - alpha * v  # step 5
        halfway = whole & (real_dot(xp, s, s) <= system.limit)
        z = system.M(s)
        t = system.A(z)
        ts, tt = dot(xp, t, s), real_dot(xp, t, t)
        full = whole & ~halfway & (xp.abs(ts) > eps * xp.sqrt(tt * real_dot(xp, s, s)))
        omega = ratio(xp, running & full, ts, tt)  # step 6
        x = work.x + alpha * y + omega * z  # step 7
        r = s - omega * t
        rr = real_dot(xp, r, r)
        finite = xp.isfinite(rr)
        state = started(system, rr)
        state = mark(xp, state, (state == RUNNING) & ~(full | halfway), BROKEN)
        state = mark(xp, state, ~finite, OVERFLOW)
        return _Work(
            x=choose(xp, running & finite, x, work.x),
            r=r,
            rr=rr,
            state=xp.where(running, state, work.state),
            count=work.count + xp.astype(running & finite, xp.int32),
            shadow=work.shadow,
            p=p,
            v=v,
            rho=xp.where(running, rho, work.rho),
            alpha=xp.where(running, alpha, work.alpha),
            omega=xp.where(running, omega, work.omega),
        )
