"""Least squares as equations: what is zero at a minimum, and how systems with its Jacobian are solved.

Where ½ norm(r(z, θ))² is stationary, J = ∂r/∂z and s, which stands for r, solve

    F(s, z, θ) = [r(z, θ) - s] = 0,      K = ∂F/∂(s, z) = [-I  J],      S = Σ_i s_i ∂²r_i/∂z².
                 [    Jᵀ s   ]                            [Jᵀ  S]

So the rules of `problem` hold for (s, z), to any order, with a K that is symmetric and regular if and only if the
Hessian JᵀJ + S is. That is not formed as it stands: its condition is that of J squared. With any regular R, X = J R⁻¹
and z = R⁻¹ w, the system K (s, z) = (a, b) is

    (XᵀX + R⁻ᵀ S R⁻¹) w = Xᵀa + R⁻ᵀb,      s = X w - a,

and with the R of J = QR, XᵀX is the identity but for rounding, so the condition of J counts once, as in least squares
by orthogonal factors (Björck 1996, Numerical Methods for Least Squares Problems, section 2.4). R is a choice of
coordinates, so it is a constant in derivatives; that of [J; √eps D], D the norms of columns, is always regular.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..operators import Dense

__all__ = ["Saddle", "column_norms"]


class Saddle(NamedTuple):
    """Counts of residuals and unknowns."""

    m: int
    n: int

    def residuals(self, backend: Any, flat: Callable, y: Any, leaves: tuple) -> Dense:
        """J, (m, n), at the z of y, by n products."""
        s = 0 * y[: self.m]

        def r(z: Any, leaves: tuple) -> Any:
            return flat(backend.xp.concat([s, z]), leaves)[: self.m]

        return Dense(backend.columns(r, y[self.m :], leaves, np.eye(self.n)).T)

    def reduced(self, backend: Any, flat: Callable, y: Any, leaves: tuple, g: Any) -> tuple[Dense, Any, Callable]:
        """The system for w with right-hand side g = (a, b), and what makes (s, z) of w.

        An operator of zeros where the Hessian is singular to working precision.
        """
        xp, (m, n) = backend.xp, self
        directions = np.concatenate([np.zeros((n, m)), np.eye(n)], axis=1)
        products = backend.columns(flat, y, leaves, directions)
        J, S = products[:, :m].T, products[:, m:]
        R = coordinates(backend, backend.constant(J))
        X = xp.linalg.solve(R.T, J.T).T
        half = xp.linalg.solve(R.T, (S + S.T) / 2)
        H = X.T @ X + xp.linalg.solve(R.T, half.T)
        sizes = xp.abs(xp.linalg.eigvalsh(backend.constant(H)))
        regular = xp.min(sizes) > n * float(xp.finfo(y.dtype).eps) * xp.max(sizes)
        right = X.T @ g[:m] + xp.linalg.solve(R.T, g[m:])

        def back(w: Any) -> Any:
            return xp.concat([X @ w - g[:m], xp.linalg.solve(R, w)])

        return Dense(xp.where(regular, H, 0 * H)), right, back


def coordinates(backend: Any, J: Any) -> Any:
    """R of [J; √eps D], (n, n)."""
    xp = backend.xp
    D = column_norms(xp, J) * float(xp.finfo(J.dtype).eps) ** 0.5
    return xp.linalg.qr(xp.concat([J, D * backend.like(J, np.eye(J.shape[1]))]))[1]


def column_norms(xp: Any, J: Any) -> Any:
    """(n,), one where a column is zero."""
    sizes = xp.sqrt(xp.sum(J * J, axis=0))
    return xp.where(sizes > 0, sizes, 1 + 0 * sizes)
