"""Iterations as pure steps from state to state, which a framework can record: written once for all of them.

A step is differentiated as it stands, so every division is safe in value and derivative. A quotient that may be 0/0 is

    where(live, u / where(live, v, 1), 0),

since in where(live, u / v, 0) alone the backward multiplies the infinity that it does not use by zero, which is NaN.
Whether a column lives is told by its size relative to where it began, so nothing depends on the scale of b.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["CONJUGATE", "RECURRENCES", "SEMI", "STATIONARY", "Recurrence", "System", "dot"]


class System(NamedTuple):
    """What a step needs beside its state."""

    xp: Any
    A: Callable
    """v -> A v, recorded."""
    M: Callable
    """v -> M v, recorded."""
    axis: int
    """Of the unknowns: 0 of a vector, -2 of columns."""
    eps: float
    omega: float = 1.0
    """Weight of Richardson's and Jacobi's corrections."""
    bounds: tuple[Any, Any] = (0.0, 0.0)
    """The interval of Chebyshev's iteration."""
    track: list | None = None
    """Where a loop that runs eagerly leaves the coefficients of CG."""


class Recurrence(NamedTuple):
    """``init(system, b)`` begins at x = 0, ``step(system, state)`` goes on; states begin with x and r."""

    init: Callable
    step: Callable


def dot(system: System, u: Any, v: Any) -> Any:
    """Re⟨u, v⟩ of each column."""
    xp = system.xp
    return xp.real(xp.sum(xp.conj(u) * v, axis=system.axis, keepdims=True))


class _Conjugate(NamedTuple):
    x: Any
    r: Any
    p: Any
    rz: Any
    """rᴴ M r of the step before."""
    floor: Any
    """rᴴ M r at which nothing is left to do: eps² times that of b."""
    live: Any
    """Columns that go on; none whose curvature was not positive."""
    sound: Any
    """Columns in which every curvature was positive."""
    made: Any
    """Steps that a column has made."""
    alpha: Any
    beta: Any


def _conjugate_init(system: System, b: Any) -> _Conjugate:
    xp, zero = system.xp, system.xp.zeros_like(b)
    rz = dot(system, b, system.M(b))
    none = xp.zeros_like(rz)
    return _Conjugate(zero, b, zero, none, system.eps**2 * rz, rz > 0, rz >= 0, none, none, none)


def _conjugate_step(system: System, state: _Conjugate) -> _Conjugate:
    """Saad's algorithm 9.1, the direction made first, so that r may be replaced between steps."""
    xp = system.xp
    z = system.M(state.r)
    rz = dot(system, state.r, z)
    live = state.live & (rz > state.floor)
    begun = live & (state.rz > 0)
    beta = xp.where(begun, rz / xp.where(begun, state.rz, 1), 0)
    p = xp.where(live, z + beta * state.p, state.p)
    Ap = system.A(p)
    curvature = dot(system, p, Ap)
    sound = state.sound & (~live | (curvature > 0))
    live = live & (curvature > 0)
    alpha = xp.where(live, rz / xp.where(live, curvature, 1), 0)
    x, r, rz = state.x + alpha * p, state.r - alpha * Ap, xp.where(live, rz, state.rz)
    return _Conjugate(x, r, p, rz, state.floor, live, sound, state.made + live, alpha, beta)


class _Stationary(NamedTuple):
    x: Any
    r: Any


def _stationary_init(system: System, b: Any) -> _Stationary:
    return _Stationary(system.xp.zeros_like(b), b)


def _stationary_step(system: System, state: _Stationary) -> _Stationary:
    """x += ω M r."""
    d = system.omega * system.M(state.r)
    return _Stationary(state.x + d, state.r - system.A(d))


class _Semi(NamedTuple):
    x: Any
    r: Any
    d: Any
    """The correction of the step before."""
    rho: Any
    """0 before the first step."""


def _semi_init(system: System, b: Any) -> _Semi:
    zero = system.xp.zeros_like(b)
    return _Semi(zero, b, zero, dot(system, zero, zero))


def _semi_step(system: System, state: _Semi) -> _Semi:
    """Saad's algorithm 12.1; the first step is that of ρ = 0. ρ depends on the interval alone: it has no derivative."""
    xp, (low, high) = system.xp, system.bounds
    theta, delta = (high + low) / 2, (high - low) / 2
    begun = state.rho > 0
    rho = xp.where(begun, 1 / (2 * theta / delta - state.rho), delta / theta + xp.zeros_like(state.rho))
    ahead = xp.where(begun, 2 * rho / delta, 1 / theta + xp.zeros_like(rho))
    d = rho * state.rho * state.d + ahead * system.M(state.r)
    return _Semi(state.x + d, state.r - system.A(d), d, rho)


CONJUGATE = Recurrence(_conjugate_init, _conjugate_step)
STATIONARY = Recurrence(_stationary_init, _stationary_step)
SEMI = Recurrence(_semi_init, _semi_step)

RECURRENCES = {"cg": CONJUGATE, "chebyshev": SEMI, "jacobi": STATIONARY, "richardson": STATIONARY}
