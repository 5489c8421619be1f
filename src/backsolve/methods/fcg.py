"""Flexible conjugate gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import describe
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
    P: tuple
    """The latest directions, the latest one first."""
    AP: tuple
    norms: tuple
    """pᴴ A p of each, the square of its A-norm; 0 where there is none."""
    curvature: Any
    stiffest: Any
    softest: Any

    @property
    def p(self) -> Any:
        """The latest direction."""
        return self.P[0]


@dataclass(frozen=True)
class FCG(IterativeMethod):
    """Flexible conjugate gradients, for Hermitian positive definite operators and an M that may vary.

    Each direction is made A-orthogonal to those before by inner products with A p, and not by a formula that holds
    for a fixed M only. With one direction kept, one product with A, three inner products and four vector updates in
    each iteration, and six vectors; an inner product, an update and two vectors more for each further direction.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`.
    directions : int
        How many of the latest directions are kept. One is enough for a fixed M. Ten save up to half of the work of an
        inner CG that stops at half of its residual, and up to three quarters of the iterations where M is a simple one
        with noise; of an inner CG of a few steps they save nothing that can be relied on.

    Notes
    -----
    *Fails with* INDEFINITE (a direction of curvature pᴴ A p <= 0), SINGULAR (curvatures that differ by more than
    working precision and no convergence), MAXITER, STAGNATION (the true residual stays above the target), NONFINITE,
    BREAKDOWN (overflow). *Differentiation*: the adjoint solve is another run with Aᴴ. *Differs from* Notay: the
    latest directions are kept, and never all dropped at once.

    References
    ----------
    Notay 2000, doi:10.1137/S1064827599362314; Golub and Ye 1999, doi:10.1137/S1064827597323415.
    """

    directions: int = 1

    name: ClassVar[str] = "fcg"
    summary: ClassVar[str] = "flexible conjugate gradients: one product with A in each iteration"
    traceable: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})
    flexible: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        k = self.directions
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"FCG: directions must be an integer of at least 1; got {describe(k)}.")

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state, zero = started(system, rr), xp.zeros_like(rr)
        none, count = (xp.zeros_like(r),) * self.directions, xp.zeros_like(state)
        norms = (zero,) * self.directions
        return _Work(x, r, rr, state, count, none, none, norms, zero, zero, zero + float("inf"))

    def step(self, system: System, work: _Work) -> _Work:
        """Notay's algorithm."""
        xp = system.xp
        running = work.state == RUNNING
        z = system.M(work.r)
        p = z
        for q, Aq, norm in zip(work.P, work.AP, work.norms, strict=True):
            p = p - ratio(xp, running & (norm > 0), dot(xp, Aq, z), xp.astype(norm, z.dtype)) * q
        p = choose(xp, running, p, work.p)
        Ap = choose(xp, running, system.A(p), work.AP[0])
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
            P=(p, *work.P[:-1]),
            AP=(Ap, *work.AP[:-1]),
            norms=(xp.where(running, curvature, work.norms[0]), *work.norms[:-1]),
            curvature=xp.where(running, curvature, work.curvature),
            stiffest=xp.where(ok & (stiffness > work.stiffest), stiffness, work.stiffest),
            softest=xp.where(ok & (stiffness > 0) & (stiffness < work.softest), stiffness, work.softest),
        )

    def resume(self, system: System, work: _Work, r: Any, where: Any) -> _Work:
        """Begin anew from the true residual, without the directions."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        return work._replace(
            r=choose(xp, where, r, work.r),
            rr=xp.where(where, rr, work.rr),
            state=xp.where(where, started(system, rr), work.state),
            norms=tuple(xp.where(where, xp.zeros_like(norm), norm) for norm in work.norms),
        )

    def diagnose(self, system: System, work: _Work) -> Any:
        """Tell an indefinite matrix from a singular one, as CG does."""
        return indefinite_or_singular(system, work)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """The curvatures that say so."""
        return curvatures(work, known)
