"""Solvers of F(z) = 0 that need the residual alone: Picard, Anderson, Broyden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import describe
from .iteration import Iterate, Run, iterate

__all__ = ["AbstractSolver", "Anderson", "Broyden", "Picard"]


@dataclass(frozen=True)
class AbstractSolver:
    """Options of a solver; `solve` runs it."""

    maxiter: int = 100

    def __post_init__(self):
        check_count(self, "maxiter")

    def solve(self, run: Run, z0: Any) -> Iterate:
        """Iterate from z0 (batch, n)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Picard(AbstractSolver):
    """z ← z - mixing F(z); for a fixed point, F(z) = z - f(z), plain repetition of f.

    One evaluation and no memory for a step. The error falls by the norm of I - mixing ∂F/∂z, if that is below 1.

    Parameters
    ----------
    maxiter : int, optional
    mixing : float, optional
        Length of the step, above 0; below 1 it damps.

    Raises
    ------
    ValueError
        If an option does not fit.

    Notes
    -----
    *Fails with* MAXITER; BREAKDOWN where the residual grows to 1e8 times the first; NONFINITE.
    """

    mixing: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_positive(self, "mixing")

    def solve(self, run: Run, z0: Any) -> Iterate:
        """Iterate from z0 (batch, n)."""
        return iterate(run, z0, self.maxiter, (), lambda state: (state.z - self.mixing * state.r, ()))


@dataclass(frozen=True)
class Anderson(AbstractSolver):
    """Anderson acceleration of z ← z - mixing F(z), each sample with coefficients of its own.

    The residuals of the latest steps are combined to the least one, and so are the points (type II). Costs one
    evaluation, `memory` inner products and a system of that size for a step; remembers 2 `memory` vectors.

    Parameters
    ----------
    maxiter : int, optional
    memory : int, optional
        Steps that are combined.
    mixing : float, optional
        As for `Picard`.
    ridge : float, optional
        Ridge of the small least-squares problem, relative to the mean square of its columns; at least 10 eps.

    Raises
    ------
    ValueError
        If an option does not fit.

    Notes
    -----
    *Fails with* MAXITER; BREAKDOWN where the residual grows to 1e8 times the first; NONFINITE.

    References
    ----------
    Walker and Ni 2011, doi:10.1137/10078356X.
    """

    memory: int = 5
    mixing: float = 1.0
    ridge: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_count(self, "memory")
        check_positive(self, "mixing")

    def solve(self, run: Run, z0: Any) -> Iterate:
        """Iterate from z0 (batch, n)."""
        xp, m = run.backend.xp, self.memory
        empty = xp.stack([xp.zeros_like(z0)] * m, axis=1)
        eye = run.backend.like(z0, np.eye(m))
        ridge = max(self.ridge, 10 * float(xp.finfo(z0.dtype).eps))

        def step(state: Iterate) -> tuple[Any, Any]:
            # With g = -F, and columns Δz_j, Δg_j of the latest changes: γ = argmin |g - Δg γ|, and
            # z_new = z + mixing g - (Δz + mixing Δg) γ. A column that is still empty gets γ_j = 0 from the ridge.
            dz, dg, z_before, g_before, started = state.memory
            z, g = state.z, -state.r
            started_now = started[:, None, None]
            dz = xp.where(started_now, shifted(xp, dz, z - z_before), dz)
            dg = xp.where(started_now, shifted(xp, dg, g - g_before), dg)
            runs = (state.status == 0)[:, None, None]
            gram = xp.where(runs, dg @ xp.matrix_transpose(dg), 0 * eye)
            squares = xp.sum(gram * eye, axis=-1)
            mean = xp.sum(squares, axis=-1, keepdims=True) / m
            # Where nothing is remembered, or nothing is to be done, the system is the identity.
            weight = xp.where(mean > 0, ridge * mean, xp.ones_like(mean))
            system = gram + (weight + xp.where(squares > 0, 0 * squares, mean))[:, None, :] * eye
            gamma = xp.linalg.solve(system, dg @ g[:, :, None])
            move = xp.matrix_transpose(gamma) @ (dz + self.mixing * dg)
            return z + self.mixing * g - move[:, 0, :], (dz, dg, z, g, started | True)

        started = xp.zeros_like(z0[:, 0]) > 0
        return iterate(run, z0, self.maxiter, (empty, empty, z0, z0, started), step)


@dataclass(frozen=True)
class Broyden(AbstractSolver):
    """Broyden's first ("good") method from ∂F/∂z ≈ I / mixing, with an inverse of low rank, for each sample its own.

    Costs one evaluation and 4 `memory` n flops for a step; remembers 2 `memory` vectors, and begins anew when full.

    Parameters
    ----------
    maxiter : int, optional
    memory : int, optional
        Rank of the correction.
    mixing : float, optional
        As for `Picard`.

    Raises
    ------
    ValueError
        If an option does not fit.

    Notes
    -----
    *Fails with* MAXITER; BREAKDOWN where the residual grows to 1e8 times the first; NONFINITE.

    References
    ----------
    Broyden 1965, doi:10.1090/S0025-5718-1965-0198670-6; Kelley 2003, Solving Nonlinear Equations with Newton's Method,
    chapter 4.
    """

    memory: int = 20
    mixing: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_count(self, "memory")
        check_positive(self, "mixing")

    def solve(self, run: Run, z0: Any) -> Iterate:
        """Iterate from z0 (batch, n)."""
        xp, m = run.backend.xp, self.memory
        empty = xp.stack([xp.zeros_like(z0)] * m, axis=1)

        def step(state: Iterate) -> tuple[Any, Any]:
            # H = mixing I + Σ u_j v_jᵀ approximates the inverse. Sherman and Morrison, with s = Δz, y = ΔF:
            # H ← H + (s - H y)(sᵀH) / (sᵀH y).
            U, V, z_before, r_before, count = state.memory
            full = (count % m == 0)[:, None, None]
            U, V = xp.where(full, xp.zeros_like(U), U), xp.where(full, xp.zeros_like(V), V)
            s, y = state.z - z_before, state.r - r_before
            Hy = self.mixing * y + low_rank(xp, U, V, y)
            sH = self.mixing * s + low_rank(xp, V, U, s)
            bottom = xp.sum(sH * y, axis=-1)
            usable = xp.abs(bottom) > 1e-14 * xp.sum(s * s, axis=-1)
            scale = xp.where(usable, 1.0 / xp.where(usable, bottom, xp.ones_like(bottom)), xp.zeros_like(bottom))
            U, V = shifted(xp, U, (s - Hy) * scale[:, None]), shifted(xp, V, sH)
            z = state.z - self.mixing * state.r - low_rank(xp, U, V, state.r)
            return z, (U, V, state.z, state.r, count + 1)

        count = xp.astype(xp.zeros_like(z0[:, 0]), xp.int32)
        return iterate(run, z0, self.maxiter, (empty, empty, z0, xp.zeros_like(z0), count), step)


def shifted(xp: Any, kept: Any, new: Any) -> Any:
    """The latest vectors (batch, m, n), the oldest of them left out for a new one."""
    return xp.concat([kept[:, 1:, :], new[:, None, :]], axis=1)


def low_rank(xp: Any, U: Any, V: Any, x: Any) -> Any:
    """Σ_j u_j (v_jᵀ x)."""
    return (xp.matrix_transpose(V @ x[:, :, None]) @ U)[:, 0, :]


def check_count(options: Any, name: str) -> None:
    """Raise unless that option is a positive integer."""
    value = getattr(options, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{type(options).__name__}: {name} must be an integer of at least 1; got {describe(value)}.")


def check_positive(options: Any, name: str) -> None:
    """Raise unless that option is a positive number."""
    value = getattr(options, name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ValueError(f"{type(options).__name__}: {name} must be a float above 0; got {describe(value)}.")
