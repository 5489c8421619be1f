"""Gauss and Newton's method for least squares, damped as by Levenberg and Marquardt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..status import Status
from .iteration import Iterate, Run, norms
from .saddle import column_norms
from .solvers import AbstractSolver, check_count, check_positive

__all__ = ["LevenbergMarquardt", "stationary"]

_DECREASE = 1e-4


@dataclass(frozen=True)
class LevenbergMarquardt(AbstractSolver):
    """min_d norm(J d + r)² + μ norm(D d)², z ← z + d, with the first μ that lowers norm(r) as J foretells.

    D holds the largest norms that the columns of J have had, so the units of the unknowns do not matter (Moré 1978). μ
    falls where J foretells well, and the method becomes that of Gauss and Newton; it rises where a step is refused
    (Nielsen 1999). Where the gradient is small the last step has no damping. Costs a Jacobian for each step, and for
    each μ that is tried a QR factorization, so that JᵀJ is not formed, and an evaluation.

    Parameters
    ----------
    maxiter : int, optional
    damping : float, optional
        The first μ, above 0.
    trials : int, optional
        How many μ a step tries before the method gives up.

    Raises
    ------
    ValueError
        If an option does not fit.

    Notes
    -----
    *Fails with* MAXITER; STAGNATION where no μ lowers norm(r); BREAKDOWN where the gradient vanishes since an unknown
    no longer matters, its column of J having fallen below eps of what it was, as where a rate runs to infinity;
    NONFINITE, if r or J has a NaN or an infinity at a point that was taken. Converges quadratically where residuals or
    their curvatures are small, else linearly.

    References
    ----------
    Moré 1978, doi:10.1007/BFb0067700; Nielsen 1999, Damping parameter in Marquardt's method, report IMM-REP-1999-05.
    """

    damping: float = 1e-3
    trials: int = 20

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "damping")
        check_count(self, "trials")

    def solve(self, run: Run, z0: Any) -> Iterate:
        """Iterate from y = (s, z), (1, m + n), of which z counts."""
        xp = run.backend.xp
        J = run.operator(z0).data
        m = J.shape[0]
        y = xp.concat([_evaluated(run, z0[:, m:], m), z0[:, m:]], axis=1)
        zero = xp.astype(0 * norms(xp, y), xp.int32)
        damping = 0 * norms(xp, y)[0] + self.damping
        memory = (J, 0 * y[0, m:], damping, damping < 0)
        state = _told(run, J, Iterate(y, y, zero, zero, xp.sum(zero) + 1, y, norms(xp, y), memory), False)

        def going(state: Iterate) -> Any:
            return xp.any((state.status == 0) & (state.steps < self.maxiter))

        def step(state: Iterate) -> Iterate:
            J, largest, damping, close = state.memory
            size = xp.maximum(largest, column_norms(xp, J))
            y, calmer, tried, found = self._search(run, J / size, size, damping, close, state.z)
            new = state._replace(
                z=y,
                steps=state.steps + 1,
                evaluations=state.evaluations + tried,
                memory=(J, size, xp.where(close, damping, calmer), close),
            )
            new = _told(run, run.operator(y).data, new, close)
            refused = xp.where(close, int(Status.CONVERGED_RESIDUAL), int(Status.STAGNATION))
            return new._replace(status=xp.astype(xp.where(found, new.status, refused), xp.int32))

        return run.backend.loop(going, step, state)

    def _search(self, run: Run, J: Any, scale: Any, damping: Any, close: Any, y: Any) -> tuple[Any, Any, Any, Any]:
        """The point that is taken, the damping to go on with, evaluations, and whether there is such a point.

        J has columns over `scale`. Where `close` holds, the one step that is tried has no damping but eps.
        """
        xp, (m, n) = run.backend.xp, J.shape
        r, z, eps = y[0, :m], y[0, m:], float(xp.finfo(y.dtype).eps)
        before = xp.sum(r * r)
        rounding = 10 * eps * xp.sqrt(before) * (xp.sqrt(before) + xp.sum(scale * xp.abs(z)))
        trials = xp.where(close, 1, self.trials)
        right, eye = xp.concat([-r, 0 * z]), run.backend.like(y, np.eye(n))

        def going(trial: tuple) -> Any:
            return ~trial[-1] & (trial[-2] < trials)

        def tried(trial: tuple) -> tuple:
            _, damping, growth, count, _ = trial
            Q, R = xp.linalg.qr(xp.concat([J, xp.sqrt(damping) * eye]))
            e = xp.linalg.solve(R, Q.T @ right)
            foretold = xp.sum((J @ e) ** 2) + 2 * damping * xp.sum(e * e)  # norm(r)² - norm(r + J d)²
            at = (z + e / scale)[None, :]
            s = _evaluated(run, at, m)
            gain = before - xp.sum(s * s)
            # Near a minimum gains drown in rounding; a step so short that nothing changes is none.
            allowed = xp.where(count > 0, 0 * rounding, rounding)
            found = (gain >= _DECREASE * foretold - allowed) & (foretold > 0)
            ratio = xp.where(found & (foretold > rounding), gain / foretold, 1 + 0 * gain)
            calmer = damping * xp.clip(1 - (2 * ratio - 1) ** 3, 0.1, 2.0)
            new = xp.concat([s, at], axis=1)
            return new, xp.where(found, calmer, damping * growth), 2 * growth, count + 1, found

        none = xp.astype(0 * before, xp.int32)
        damping = xp.where(close, eps**2 + 0 * damping, damping)
        new, damping, _, count, found = run.backend.loop(going, tried, (y, damping, 2 + 0 * before, none, none > 0))
        return xp.where(found, new, y), damping, count, found


def _told(run: Run, J: Any, state: Iterate, polished: Any) -> Iterate:
    """The state with the gradient, the verdict and J at its point.

    The gradient hardly sees an error where columns of J nearly depend on each other. So where it is small one step more
    is made, without damping, which sees it.
    """
    xp, m = run.backend.xp, J.shape[0]
    s = state.z[:, :m]
    F = xp.concat([0 * s, (J.T @ s[0])[None, :]], axis=1)
    _, largest, damping, _ = state.memory
    close = run.arrived(run, state.z, F, J)
    status = xp.where(close & polished, int(Status.CONVERGED_RESIDUAL), 0)
    lost = xp.sqrt(xp.sum(J * J, axis=0)) < float(xp.finfo(s.dtype).eps) * largest
    status = xp.where(close & xp.any(lost), int(Status.BREAKDOWN), status)
    finite = xp.isfinite(xp.sum(s * s)) & xp.all(xp.isfinite(J))
    status = xp.astype(xp.where(finite, status, int(Status.NONFINITE)), xp.int32)
    memory = (J, largest, damping, close[0])
    return state._replace(r=F, status=status, best=state.z, least=norms(xp, F), memory=memory)


def stationary(run: Run, J: Any, y: Any, F: Any, rtol: float) -> Any:
    """Whether Jᵀs is small beside its terms, whatever the units, and s is r: (1,).

    |J_jᵀ s| / norm(J_j) ≤ rtol (norm(s) + Σ_k norm(J_k) |z_k|) for all j. The first term is the cosine of an angle, as
    in MINPACK's gtol; the second what rounding of a model about J z leaves, and what there is where residuals vanish.
    """
    xp, m = run.backend.xp, J.shape[0]
    size = column_norms(xp, J)
    whole = norms(xp, y[:, :m]) + xp.sum(size * xp.abs(y[:, m:]), axis=-1)
    slope = xp.max(xp.abs(F[:, m:]) / size, axis=-1)
    return (slope <= rtol * whole) & (norms(xp, F[:, :m]) <= rtol * whole)


def _evaluated(run: Run, z: Any, m: int) -> Any:
    """Residuals at z (1, n): (1, m)."""
    xp = run.backend.xp
    return run.residual(xp.concat([run.backend.like(z, np.zeros((1, m))), z], axis=1))[:, :m]
