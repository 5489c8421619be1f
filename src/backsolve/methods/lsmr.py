"""Least squares by Golub and Kahan's bidiagonalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..status import Status
from .iterative import IterativeMethod
from .recurrence import (
    BROKEN,
    OVERFLOW,
    RUNNING,
    System,
    choose,
    mark,
    ratio,
    real_dot,
    residual_in_null_space,
    started,
)

__all__ = ["LSMR"]


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    u: Any
    v: Any
    h: Any
    """In the space of x, that is, after M."""
    h_bar: Any
    Ah: Any
    Ah_bar: Any
    alpha: Any
    alpha_bar: Any
    zeta_bar: Any
    rho: Any
    rho_bar: Any
    c_bar: Any
    s_bar: Any
    norm: Any
    """Largest norm of a column of the bidiagonal matrix."""


@dataclass(frozen=True)
class LSMR(IterativeMethod):
    """LSMR, which is MINRES on Aᴴ A x = Aᴴ b without ever forming it, for square operators of any kind.

    Neither norm(Aᴴ r) nor norm(r) ever rises. A product with A and one with Aᴴ in each iteration; eight vectors. The
    iterations grow with the condition number of A, where those of CG grow with its root: for matrices on which
    the others fail, such as far from normal or nearly singular ones.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`. M acts from the right.

    Notes
    -----
    *Fails with* SINGULAR (what is left of b lies in the null space of Aᴴ), MAXITER, NONFINITE, BREAKDOWN (overflow).
    *Differentiation*: the adjoint solve is another run with Aᴴ and Mᴴ. *Differs from* SciPy: a run stops by the true
    residual, carried along as a vector.

    References
    ----------
    Fong and Saunders 2011, doi:10.1137/10079687X.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([2.0, 3.0]), method="lsmr").round(6)
    array([-3.,  2.])
    """

    name: ClassVar[str] = "lsmr"
    summary: ClassVar[str] = "LSMR: a product with A and one with its adjoint in each iteration"
    traceable: ClassVar[bool] = True
    products: ClassVar[int] = 2
    products_at_start: ClassVar[int] = 1
    two_sided: ClassVar[bool] = True

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state, one, zero = started(system, rr), xp.ones_like(rr), xp.zeros_like(rr)
        beta = xp.sqrt(rr)
        u = r / xp.where(beta > 0, beta, one)
        v = system.MH(system.AH(u))
        alpha = xp.sqrt(real_dot(xp, v, v))
        v = v / xp.where(alpha > 0, alpha, one)
        state = mark(xp, state, ~xp.isfinite(alpha), OVERFLOW)
        state = mark(xp, state, (alpha == 0) & (state == RUNNING), BROKEN)
        none = xp.zeros_like(x)
        return _Work(x, r, rr, state, xp.zeros_like(state), u, v, system.M(v), none, none, none, alpha, alpha,
                     alpha * beta, one, one, one, zero, zero)  # fmt: skip

    def step(self, system: System, work: _Work) -> _Work:
        """Steps 3 to 6 of the algorithm, and A h beside h, from which the residual follows."""
        xp = system.xp
        running = work.state == RUNNING
        one = xp.ones_like(work.alpha)
        # step 3: the next column of the bidiagonal matrix
        z = system.M(work.v)
        Az = system.A(z)
        u = Az - work.alpha * work.u
        beta = xp.sqrt(real_dot(xp, u, u))
        u = u / xp.where(beta > 0, beta, one)
        v = system.MH(system.AH(u)) - beta * work.v
        alpha = xp.sqrt(real_dot(xp, v, v))
        v = v / xp.where(alpha > 0, alpha, one)
        # steps 4 and 5: two rotations
        rho = xp.sqrt(work.alpha_bar**2 + beta**2)
        norm = xp.sqrt(work.alpha**2 + beta**2)
        norm = xp.where(norm > work.norm, norm, work.norm)
        tiny = 10 * work.r.shape[1] ** 0.5 * system.eps * norm
        ok = running & xp.isfinite(alpha) & xp.isfinite(beta) & (rho > 0)
        c, s = ratio(xp, ok, work.alpha_bar, rho), ratio(xp, ok, beta, rho)
        theta, alpha_bar = s * alpha, c * alpha
        theta_bar = work.s_bar * rho
        rho_bar = xp.sqrt((work.c_bar * rho) ** 2 + theta**2)
        ok = ok & (rho_bar > tiny)  # else A is singular on the space
        c_bar, s_bar = ratio(xp, ok, work.c_bar * rho, rho_bar), ratio(xp, ok, theta, rho_bar)
        zeta = c_bar * work.zeta_bar
        # step 6; A M v is at hand, so A h is too
        Ah = work.Ah + Az
        factor = ratio(xp, ok, theta_bar * rho, work.rho * work.rho_bar)
        h_bar, Ah_bar = work.h - factor * work.h_bar, Ah - factor * work.Ah_bar
        length = ratio(xp, ok, zeta, rho * rho_bar)
        x, r = work.x + length * h_bar, work.r - length * Ah_bar
        turn = ratio(xp, ok, theta, rho)
        h, Ah = system.M(v) - turn * work.h, -turn * Ah
        rr = real_dot(xp, r, r)
        state = started(system, rr)
        # an exhausted space: what comes next would be noise
        over = (alpha <= tiny) | (beta <= tiny) | ~(rho_bar > tiny)
        state = mark(xp, state, (state == RUNNING) & over, BROKEN)
        state = mark(xp, state, ~(xp.isfinite(alpha) & xp.isfinite(beta)), OVERFLOW)
        new = _Work(x, r, rr, work.state, work.count, u, v, h, h_bar, Ah, Ah_bar, alpha, alpha_bar,
                    -s_bar * work.zeta_bar, rho, rho_bar, c_bar, s_bar, norm)  # fmt: skip
        kept = _Work(*(choose(xp, ok, a, b) for a, b in zip(new, work, strict=True)))
        return kept._replace(state=xp.where(running, state, work.state), count=work.count + xp.astype(ok, xp.int32))

    def diagnose(self, system: System, work: _Work) -> Any:
        """A least-squares solution whose residual is not small: A is singular."""
        xp = system.xp
        lost = residual_in_null_space(system, work.r, system.AH)
        return mark(xp, xp.zeros_like(work.state), lost, Status.SINGULAR)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """What is left."""
        return {Status.SINGULAR: "what is left of the right-hand side lies in the null space of the adjoint of A"}
