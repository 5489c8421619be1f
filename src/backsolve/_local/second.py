"""How the gradient changes along a direction of the values: two more solves, with bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _kernels
from .entry_errors import UP, Errors, lookup
from .gradient import Gradient, Term, by_values, by_vector
from .half import Half
from .places import Change, Places
from .system import System, Vector
from .vector import VectorQuery

__all__ = ["along"]

_U = 2.0**-53
_DIGITS = 1e-13
"""Accuracy, relative to the largest entry that can be, of solves whose right-hand side is exact."""


def along(
    primal: Half,
    dual: Half,
    among: Places,
    change: Change,
    atol: float | None,
    run: Callable[[VectorQuery, float, bool], Any],
) -> Gradient:
    """Derivatives of (-λxᵀ, λ, x) along M ← M + V, from ẋ = -M⁻¹(V x) and λ̇ = -M⁻ᵀ(Vᵀλ).

    V x̂ is off by V(x - x̂): at most Σ_j |V_ij| Eˣ_j in row i, which is bounded like a residual. `run` answers a
    query, and where no `atol` is given takes what comes close to the error that x̂ and λ̂ bring.
    """
    if not primal.system.stored:
        raise TypeError("hvp needs stored values; A is given by functions.")
    x, lam = Errors.of(primal), Errors.of(dual)
    places, v = change
    rows, columns = among.entries(places)
    p = _product(v, rows, lookup(x.x, columns), x.at(columns))
    q = _product(v, columns, lookup(lam.x, rows), lam.at(rows))
    x_half, x_dot = _solved(primal.system, False, p, atol, run)
    lam_half, lam_dot = _solved(primal.system, True, q, atol, run)
    products = [
        _kernels.local_outer(a.side, b.side, primal.system.matrix) for a, b in ((primal, lam_half), (x_half, dual))
    ]
    terms = (Term(x, lam_dot), Term(x_dot, lam))
    return Gradient(by_values(terms, products, among), by_vector(lam_dot), by_vector(x_dot))


def _product(v: np.ndarray, to: np.ndarray, x: np.ndarray, error: np.ndarray) -> tuple[Vector, np.ndarray]:
    """-V x as a sparse vector, and how far each of its entries can be from the truth."""
    index, at = np.unique(to, return_inverse=True)
    value, size, off, terms = (np.zeros(len(index)) for _ in range(4))
    np.add.at(value, at, -v * x)
    np.add.at(size, at, np.abs(v * x))
    np.add.at(off, at, np.where(v == 0, 0.0, np.abs(v) * error))
    np.add.at(terms, at, 1.0)
    growth = (terms + 2) * _U
    bound = (off + growth * size) * (1 + 4 * growth) * UP + (terms + 2) * 5e-324
    return (index, value), bound


def _solved(
    system: System, dual: bool, rhs: tuple[Vector, np.ndarray], atol: float | None, run: Callable
) -> tuple[Half, Errors]:
    """The side of N y = rhs, and its errors, those of the right-hand side included."""
    (index, value), off = rhs
    query = VectorQuery(system, (index, value), dual, partial=True)
    half, by_rows, by_columns = query.half, 0.0, 0.0
    known, summed = (system.columns, system.w) if dual else (system.rows, system.v)
    growth = 1 + 4 * (len(index) + 4) * _U
    if known and len(index):
        by_rows = float(np.max(off / system.margins_at(index, columns=dual))) * growth
    if len(index):
        by_columns = float(np.sum(off * (1.0 if summed is None else summed[index]))) * growth
    scale = query.scale()
    moved = (by_rows if half.by_rows else by_columns) * scale
    target = max(moved, _DIGITS * half.size * scale) if atol is None else atol
    run(query, target, atol is not None)
    return half, Errors.of(half, by_rows, by_columns)
