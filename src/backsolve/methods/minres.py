"""Minimal residuals, for Hermitian operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..status import Status
from .iterative import IterativeMethod
from .recurrence import (
    BROKEN,
    NOT_POSITIVE,
    OVERFLOW,
    RUNNING,
    System,
    choose,
    dot,
    mark,
    norm_of,
    ratio,
    real_dot,
    residual_in_null_space,
    started,
)

__all__ = ["MINRES"]


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    v: Any
    """Lanczos vector, not normalised."""
    v_old: Any
    z: Any
    """M v."""
    w: Any
    w_old: Any
    gamma: Any
    """Square root of zᴴ v."""
    gamma_old: Any
    eta: Any
    """What is left of the residual, in the norm of M."""
    c: Any
    c_old: Any
    s: Any
    s_old: Any
    norm: Any
    """Largest norm of a column of the tridiagonal matrix."""


@dataclass(frozen=True)
class MINRES(IterativeMethod):
    """Minimal residuals, for Hermitian operators, definite or not (real: symmetric).

    Minimises the residual in the norm of M (2-norm without M) over the Krylov space, by Lanczos' three-term
    recurrence. One product with A, three inner products and six vector updates in each iteration; eight vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`. M must be Hermitian positive definite.

    Notes
    -----
    *Fails with* INDEFINITE (zᴴ v < 0 for z = M v: M is not positive definite), SINGULAR (what is left of b
    lies in the null space of A), BREAKDOWN (A is not Hermitian: found by a dot test where a run did not converge),
    MAXITER, STAGNATION, NONFINITE. *Differentiation*: the adjoint solve is another run with Aᴴ. *Differs from* the
    textbook: the residual vector is carried along, so that a run stops by its 2-norm.

    References
    ----------
    Paige and Saunders 1975, doi:10.1137/0712047; Elman, Silvester and Wathen 2014, Finite Elements and Fast
    Iterative Solvers, 2nd edition, algorithm 4.1.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 3.0]), method="minres").round(6)
    array([3., 2.])
    """

    name: ClassVar[str] = "minres"
    summary: ClassVar[str] = "minimal residuals for a Hermitian A: one product with A in each iteration"
    traceable: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({"hermitian"})
    definite: ClassVar[bool] = True

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state, one, zero = started(system, rr), xp.ones_like(rr), xp.zeros_like(rr)
        z = system.M(r)
        square = real_dot(xp, z, r)
        state = mark(xp, state, (square <= 0) & (state == RUNNING), NOT_POSITIVE)
        state = mark(xp, state, ~xp.isfinite(square), OVERFLOW)
        gamma = xp.sqrt(xp.where(square > 0, square, zero))
        none = xp.zeros_like(r)
        return _Work(x, r, rr, state, xp.zeros_like(state), r, none, z, none, none, gamma, one, gamma, one, one,
                     zero, zero, zero)  # fmt: skip

    def step(self, system: System, work: _Work) -> _Work:
        """The algorithm of Elman, Silvester and Wathen; r is s² r + η c v / γ (Paige and Saunders)."""
        xp = system.xp
        running = work.state == RUNNING
        one = xp.ones_like(work.gamma)
        z = work.z / xp.where(running, work.gamma, one)
        Az = system.A(z)
        delta = real_dot(xp, z, Az)
        v = (
            Az
            - ratio(xp, running, delta, work.gamma) * work.v
            - ratio(xp, running, work.gamma, work.gamma_old) * work.v_old
        )
        after = system.M(v)
        square = real_dot(xp, after, v)
        finite = xp.isfinite(square) & xp.isfinite(delta)
        gamma = xp.sqrt(xp.where(square > 0, square, xp.zeros_like(square)))
        # the rotations of the step before and of this one, on the new column of the tridiagonal matrix
        diagonal = work.c * delta - work.c_old * work.s * work.gamma
        above = work.s * delta + work.c_old * work.c * work.gamma
        far = work.s_old * work.gamma
        rho = xp.sqrt(diagonal**2 + gamma**2)
        norm = xp.sqrt(delta**2 + gamma**2 + xp.where(work.count > 0, work.gamma, xp.zeros_like(gamma)) ** 2)
        norm = xp.where(norm > work.norm, norm, work.norm)
        tiny = 10 * v.shape[1] ** 0.5 * system.eps * norm
        ok = running & finite & (rho > tiny)  # else A is singular on the space
        c, s = ratio(xp, ok, diagonal, rho), ratio(xp, ok, gamma, rho)
        w = (z - far * work.w_old - above * work.w) / xp.where(ok, rho, one)
        x = work.x + (c * work.eta) * w
        eta = -s * work.eta
        r = s**2 * work.r + ratio(xp, ok & (gamma > 0), eta * c, gamma) * v
        rr = real_dot(xp, r, r)
        # M v and v must agree in sign; below rounding the sign means nothing
        negative = square < -10 * system.eps * xp.sqrt(xp.abs(real_dot(xp, v, v) * real_dot(xp, after, after)))
        state = started(system, rr)
        # an exhausted space: what comes next would be noise
        over = (gamma <= tiny) | ~(rho > tiny)
        state = mark(xp, state, over & (state == RUNNING), BROKEN)
        state = mark(xp, state, negative, NOT_POSITIVE)
        state = mark(xp, state, ~finite, OVERFLOW)

        def kept(new: Any, old: Any) -> Any:
            return choose(xp, ok, new, old)

        return _Work(
            x=kept(x, work.x),
            r=kept(r, work.r),
            rr=kept(rr, work.rr),
            state=xp.where(running, state, work.state),
            count=work.count + xp.astype(ok, xp.int32),
            v=kept(v, work.v),
            v_old=kept(work.v, work.v_old),
            z=kept(after, work.z),
            w=kept(w, work.w),
            w_old=kept(work.w, work.w_old),
            gamma=kept(gamma, work.gamma),
            gamma_old=kept(work.gamma, work.gamma_old),
            eta=kept(eta, work.eta),
            c=kept(c, work.c),
            c_old=kept(work.c, work.c_old),
            s=kept(s, work.s),
            s_old=kept(work.s, work.s_old),
            norm=kept(norm, work.norm),
        )

    def diagnose(self, system: System, work: _Work) -> Any:
        """A matrix that is not Hermitian, an M that is not definite, or a singular matrix."""
        xp, r = system.xp, work.r
        status = xp.zeros_like(work.state)
        # ⟨p, A r⟩ is ⟨A p, r⟩ for Hermitian A only
        p = xp.flip(r, axis=1)
        Ar, Ap = system.A(r), system.A(p)
        difference = xp.abs(dot(xp, p, Ar) - dot(xp, Ap, r))
        size = norm_of(xp, p) * norm_of(xp, Ar)
        askew = (difference > system.eps**0.5 * size) & xp.isfinite(difference) & (size > 0)
        status = mark(xp, status, residual_in_null_space(system, r, system.A), Status.SINGULAR)
        status = mark(xp, status, work.state == NOT_POSITIVE, Status.INDEFINITE)
        return mark(xp, status, askew, Status.BREAKDOWN)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """What A or M is not."""
        found = {
            Status.BREAKDOWN: "A is not Hermitian, as MINRES takes it to be: use 'gmres' or 'bicgstab'",
            Status.SINGULAR: "what is left of the right-hand side lies in the null space of A",
            Status.INDEFINITE: "vᴴ M v <= 0 for some v: M is not positive definite",
        }
        return {status: sentence for status, sentence in found.items() if (known == status).any()}
