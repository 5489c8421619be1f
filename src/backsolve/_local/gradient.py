"""The gradient of a functional by the values of M, b and t, entry by entry with a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _kernels
from .entry_errors import TINY, Errors, lookup
from .half import Half

__all__ = ["Gradient", "ValuesGradient", "gradient", "outer"]

_UP = 1 + 2.0**-49


def outer(primal: Half, dual: Half) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(places among the values, rows, columns, -λ̂_i x̂_j) of the stored entries where no factor is zero, by place.

    Entries of a matrix that is not stored have no place: they come by row and column, and are counted.
    """
    slot, row, column, value = _kernels.local_outer(primal.side, dual.side, primal.system.matrix)
    if not primal.system.stored:
        order = np.lexsort((column, row))
        return np.arange(len(order)), row[order], column[order], value[order]
    order = np.argsort(slot, kind="stable")
    return slot[order], row[order], column[order], value[order]


@dataclass(frozen=True, eq=False)
class ValuesGradient:
    """∂φ/∂M_ij = -λ_i x_j on the stored entries that both supports meet; zero, within `bound_at`, on all others.

    Attributes
    ----------
    indices : (k,) int64
        Places among the stored values, ascending; of a matrix that is not stored, 0, 1, ...
    rows, columns : (k,) int64
    values : (k,) float64
    bounds : (k,) float64
        |error| of each value, rounding included.
    """

    indices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    bounds: np.ndarray
    _x: Errors
    _lam: Errors

    def bound_at(self, rows: Any, columns: Any) -> np.ndarray:
        """Bounds of the errors of any entries (i, j), those included that were dropped for being zero."""
        rows, columns = np.atleast_1d(np.asarray(rows, np.int64)), np.atleast_1d(np.asarray(columns, np.int64))
        return _entry_bounds(self._x, self._lam, rows, columns)

    def _at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Values of the entries (i, j)."""
        known = np.stack([self.rows, self.columns], axis=1)
        _, place = np.unique(np.concatenate([known, np.stack([rows, columns], axis=1)]), axis=0, return_inverse=True)
        value = np.zeros(len(place))
        value[place[: len(known)]] = self.values
        return value[place[len(known) :]]

    def directional(self, indices: Any, rows: Any, columns: Any, direction: Any) -> tuple[float, float]:
        """(derivative, bound of its error) along values dM at stored entries: Σ dM_k g_k, and Σ |dM_k| bound_k.

        Parameters
        ----------
        indices, rows, columns : (m,) integers
            Place among the values, row and column of each entry that changes; places are None for a matrix that is
            not stored.
        direction : (m,) floats
        """
        direction = np.asarray(direction, np.float64)
        if indices is None:
            g = self._at(np.asarray(rows, np.int64), np.asarray(columns, np.int64))
        else:
            g = lookup((self.indices, self.values), np.asarray(indices, np.int64))
        terms = direction * g
        m = len(terms) + 2
        size = float(np.sum(np.abs(terms)))
        bound = float(np.sum(np.abs(direction) * self.bound_at(rows, columns)))
        return float(np.sum(terms)), bound * (1 + 4 * m * 2.0**-53) + 2 * m * 2.0**-53 * size + m * TINY


@dataclass(frozen=True, eq=False)
class Gradient:
    """Of φ = t·M⁻¹b: by the values of M, by b (λ), and by t (x); with bounds for each entry.

    `b` and `t` are (indices, values, bounds) of the touched unknowns; `bound_b`, `bound_t` hold for those left out.
    """

    matrix: ValuesGradient
    b: tuple[np.ndarray, np.ndarray, np.ndarray]
    t: tuple[np.ndarray, np.ndarray, np.ndarray]
    bound_b: float
    bound_t: float


def gradient(primal: Half, dual: Half) -> Gradient:
    """From two sides whose residuals have been settled."""
    x, lam = Errors.of(primal), Errors.of(dual)
    slot, row, column, value = outer(primal, dual)
    matrix = ValuesGradient(slot, row, column, value, _entry_bounds(x, lam, row, column), x, lam)
    return Gradient(matrix, (*lam.x, lam.at(lam.x[0])), (*x.x, x.at(x.x[0])), lam.everywhere(), x.everywhere())


def _entry_bounds(x: Errors, lam: Errors, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    # |λx - λ̂x̂| <= |λ̂||x - x̂| + |x̂||λ - λ̂| + |x - x̂||λ - λ̂|, and the rounding of the product
    a, e_a, b, e_b = np.abs(lookup(lam.x, rows)), lam.at(rows), np.abs(lookup(x.x, columns)), x.at(columns)
    with np.errstate(invalid="ignore", over="ignore"):
        bound = (a * e_b + b * e_a + e_a * e_b + 2.0**-53 * a * b) * _UP + 4 * TINY
    return np.where(np.isnan(bound), np.inf, bound)
