"""The KKT system of a quadratic program on its active constraints, and what is judged by it.

With λ ≥ 0 for Gx ≤ h and ν for Ax = b, x is optimal if and only if (P is positive semidefinite)

    Px + q + Gᵀλ + Aᵀν = 0,   Ax = b,   s = h - Gx ≥ 0,   λᵢsᵢ = 0.

Where for each i exactly one of λᵢ and sᵢ is zero, the set 𝒜 = {i: sᵢ = 0} stays as it is in a neighbourhood of the
data. There x, λ, ν solve a linear system, whose entries are data, or constants:

    [P   G_𝒜ᵀ  Aᵀ] [x  ]   [-q ]
    [G_𝒜          ] [λ_𝒜] = [h_𝒜],      λᵢ = 0 for i ∉ 𝒜.
    [A            ] [ν  ]   [b  ]

So one differentiable solve gives the solution, to rounding, and all its derivatives. The solver need only find 𝒜;
whether that is right the conditions above tell, evaluated at what the system gave.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..api import solve
from ..operators import CSR
from .qp_data import Program

__all__ = ["Judged", "Point", "judged", "on_active"]


class Point(NamedTuple):
    """A solution of the system: primal and dual."""

    x: Any
    lam: Any
    nu: Any
    growth: Any
    """(items,): norm(K) norm(K⁻¹ r) / norm(r) for some r, which is at most the condition of K, and mostly near it."""


def on_active(backend: Any, program: Program, active: Any, options: dict) -> Point:
    """Solve on the active constraints: a mask (items, m) of ones and zeros."""
    xp, form, mask = backend.xp, program.form, active
    G, h, back = program.G, program.h, None
    if form.patterns is None and (known := backend.known(active)) is not None:
        rows, inverse = (backend.index(program.q, at) for at in _chosen(known))
        G = xp.take_along_axis(G, rows[:, :, None] + 0 * backend.index(program.q, np.arange(form.n)), axis=1)
        h, mask, back = xp.take_along_axis(h, rows, axis=1), xp.take_along_axis(active, rows, axis=1), inverse
    K, size = _dense(backend, program, G, mask) if form.patterns is None else _sparse(xp, program, mask)
    n, m = form.n, h.shape[-1]
    right = xp.concat([-program.q, mask * h, program.b], axis=-1)
    probe = backend.like(right, np.random.default_rng(0).standard_normal(tuple(right.shape)))
    y = solve(K, xp.stack([right, probe], axis=-1), **options)
    lam = mask * y[:, n : n + m, 0]
    if back is not None:
        lam = xp.take_along_axis(xp.concat([lam, xp.zeros_like(lam[:, :1])], axis=1), back, axis=1) if m else 0 * active
    grown, began = (xp.max(xp.abs(v), axis=-1) for v in (y[:, :, 1], probe))
    return Point(y[:, :n, 0], lam, y[:, n + m :, 0], size * grown / began)


def _chosen(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows to take, as many for all items: the active ones, then others; and for each row its place, or the end."""
    items, m = mask.shape
    count = int(mask.sum(axis=1).max(initial=0))
    order = np.argsort(-mask, axis=1, kind="stable")
    place = np.empty((items, m), np.int64)
    np.put_along_axis(place, order, np.tile(np.arange(m), (items, 1)), axis=1)
    return order[:, :count], np.minimum(place, count)


def _dense(backend: Any, program: Program, G: Any, mask: Any) -> tuple[Any, Any]:
    """The matrix (items, N, N), with a row λᵢ = 0 where the mask is 0, and its largest sum of a row."""
    xp, k, p = backend.xp, G.shape[1], program.form.p
    items = program.q.shape[0]
    turned = xp.matrix_transpose
    P, C, A = (program.P + turned(program.P)) / 2, mask[:, :, None] * G, program.A
    idle = (mask - 1)[:, :, None] * backend.like(mask, np.eye(k))
    none_kp, none_pp = (backend.like(mask, np.zeros((items, rows, p))) for rows in (k, p))
    K = xp.concat(
        [
            xp.concat([P, turned(C), turned(A)], axis=-1),
            xp.concat([C, idle, none_kp], axis=-1),
            xp.concat([A, turned(none_kp), none_pp], axis=-1),
        ],
        axis=-2,
    )
    return K, xp.max(xp.sum(xp.abs(K), axis=-1), axis=-1)


def _sparse(xp: Any, program: Program, mask: Any) -> tuple[CSR, Any]:
    """The same on the patterns of P, G and A: entries of rows that are not active are zeros of the pattern."""
    form = program.form
    assert form.patterns is not None
    pattern, slots = form.kkt()
    rows = np.asarray(form.patterns[1].rows, np.int64)
    C = CSR.operations["take"](mask, rows) * program.G
    half = program.P / 2
    values = xp.concat([half, half, C, C, mask - 1, program.A, program.A], axis=-1)
    K = CSR.from_pattern(values, pattern, slots).assume("sym")
    return K, 3 * form.size**0.5 * xp.sqrt(xp.sum(values * values, axis=-1))


class Judged(NamedTuple):
    """What the conditions of optimality say of a point: (items,) each."""

    stationarity: Any
    """max |Px + q + Gᵀλ + Aᵀν| over the largest of these terms, or 1."""
    primal: Any
    """The largest violation of Gx ≤ h and Ax = b over the largest of |h|, |b| and |s|, or 1."""
    dual: Any
    """The most negative multiplier over the largest one, or 1."""
    complementarity: Any
    """max |λᵢsᵢ| over the product of the two scales."""


def judged(xp: Any, program: Program, point: Point) -> Judged:
    """Evaluate the conditions at a point."""
    x, lam, nu = point.x, point.lam, point.nu
    force = [program.apply("P", x) / 2 + program.apply("P", x, True) / 2, program.q]
    s, violated = program.h, []
    lam_scale = s_scale = 1.0
    if program.form.m:
        force.append(program.apply("G", lam, True))
        s = program.h - program.apply("G", x)
        s_scale = _scale(xp, [program.h, s])
        lam_scale = _scale(xp, [lam])
        violated.append(xp.max(-s, axis=-1) / s_scale)
    if program.form.p:
        force.append(program.apply("A", nu, True))
        violated.append(xp.max(xp.abs(program.apply("A", x) - program.b), axis=-1) / _scale(xp, [program.b]))
    total = sum(force[1:], force[0])
    stationarity = xp.max(xp.abs(total), axis=-1) / _scale(xp, force)
    zero = 0 * stationarity
    if not program.form.m:
        return Judged(stationarity, violated[0] if violated else zero, zero, zero)
    primal = xp.max(xp.stack([*violated, zero], axis=-1), axis=-1)
    dual = xp.max(xp.stack([xp.max(-lam, axis=-1) / lam_scale, zero], axis=-1), axis=-1)
    product = xp.max(xp.abs(lam * s), axis=-1) / (lam_scale * s_scale)
    return Judged(stationarity, primal, dual, product)


def _scale(xp: Any, vectors: list) -> Any:
    """The largest entry, or 1: (items,)."""
    sizes = xp.stack([xp.max(xp.abs(v), axis=-1) for v in vectors], axis=-1)
    largest = xp.max(sizes, axis=-1)
    return xp.where(largest > 1, largest, xp.ones_like(largest))
