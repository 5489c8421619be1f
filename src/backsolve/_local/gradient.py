"""The gradient of a functional by the values of M, b and t, entry by entry with a bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import _kernels
from .entry_errors import TINY, UP, Errors, lookup
from .half import Half
from .places import Places
from .vectors import sparse_vector

__all__ = [
    "Gradient",
    "MatrixGradient",
    "Term",
    "VectorGradient",
    "by_values",
    "by_vector",
    "gradient",
    "uniform_bound",
]

_U = 2.0**-52
"""Rounding of a product, and of the sum that it may be part of."""


class Term(NamedTuple):
    """A product -λ_i x_j, known as -λ̂_i x̂_j."""

    x: Errors
    lam: Errors

    def error(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Bounds of its errors at entries (i, j)."""
        a, b = np.abs(lookup(self.lam.x, rows)), np.abs(lookup(self.x.x, columns))
        return _error(a, b, self.lam.at(rows), self.x.at(columns))


def uniform_bound(x: Errors, lam: Errors) -> float:
    """A bound of |λ_i x_j - λ̂_i x̂_j| for all i and j."""
    return float(_error(*map(np.float64, (lam.largest, x.largest, lam.everywhere, x.everywhere))))


def _error(a: Any, b: Any, e_a: Any, e_b: Any) -> np.ndarray:
    # |λx - λ̂x̂| <= |λ̂||x - x̂| + |x̂||λ - λ̂| + |x - x̂||λ - λ̂|, and rounding
    with np.errstate(invalid="ignore", over="ignore"):
        parts = [np.where((p == 0) | (q == 0), 0.0, p * q) for p, q in ((a, e_b), (b, e_a), (e_a, e_b), (a, b))]
        bound = (np.sum(parts[:3], axis=0) + _U * parts[3]) * UP + 4 * TINY
        overflows = ~np.isfinite(8 * parts[3])  # also where it is a term of a sum
    return np.where(np.isnan(bound) | overflows, np.inf, bound)


@dataclass(frozen=True, eq=False)
class MatrixGradient:
    """∂φ/∂A_ij = -λ_i x_j on stored entries that both supports meet; zero, within `bound_at`, on all others.

    Attributes
    ----------
    places : (k,) int64
        Among the values of A, in the order in which they were given, ascending; of `Rows`, whose entries have no
        places, a mere count.
    rows, columns : (k,) int64
    values, bounds : (k,) float64
        |error| of each value is at most its bound, rounding included.
    """

    places: Any
    rows: Any
    columns: Any
    values: Any
    bounds: Any
    _terms: tuple[Term, ...] = field(repr=False)
    _among: Places = field(repr=False)

    def bound_at(self, rows: Any, columns: Any) -> np.ndarray:
        """Bounds of the errors at any entries (i, j), those included that were dropped for being zero.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        n = self._among.access.n
        return _sum_of(self._terms, _nodes("rows", rows, n), _nodes("columns", columns, n))

    @property
    def bound(self) -> float:
        """A bound of the error of every entry; infinite where dominance is promised and no smallest margin known."""
        return float(np.sum([uniform_bound(*term) for term in self._terms]) * UP)


@dataclass(frozen=True, eq=False)
class VectorGradient:
    """The gradient by b, which is λ, or by t, which is x: on the unknowns that were reached, zero elsewhere.

    Attributes
    ----------
    indices : (k,) int64
        Ascending.
    values, bounds : (k,) float64
        |error| of each value is at most its bound.
    """

    indices: Any
    values: Any
    bounds: Any
    _errors: Errors = field(repr=False)

    def bound_at(self, indices: Any) -> np.ndarray:
        """Bounds of the errors at any unknowns.

        Raises
        ------
        ValueError
            If an index is out of range.
        """
        return self._errors.at(_nodes("indices", indices, self._errors.system.n))

    @property
    def bound(self) -> float:
        """A bound of the error of every entry; infinite where dominance is promised and no smallest margin known."""
        return self._errors.everywhere


@dataclass(frozen=True, eq=False)
class Gradient:
    """Derivatives of φ = t·A⁻¹b, entry by entry with bounds that are proved.

    Attributes
    ----------
    A : MatrixGradient
        By the values of A.
    b, t : VectorGradient
        By b and by t. For `local.solve`, t is its cotangent.
    """

    A: MatrixGradient
    b: VectorGradient
    t: VectorGradient
    _pull: Callable[[], Any] | None = field(default=None, repr=False)

    @cached_property
    def theta(self) -> Any:
        """By theta of an EdgeModel of JAX, as a pytree like theta: `A` pulled back through edge_weight.

        Made when it is first asked for, by one call of edge_weight's vjp at the places of `A`.

        Raises
        ------
        TypeError
            For other matrices, and other frameworks.
        """
        if self._pull is None:
            raise TypeError(
                "theta: only an EdgeModel of JAX is pulled back by name: in torch call backward, in TensorFlow use a "
                "GradientTape, in NumPy multiply A.values by the derivatives of edge_weight at A.places."
            )
        return self._pull()

    def directional(self, dA: Any = None, db: Any = None, dt: Any = None) -> tuple[float, float]:
        """(derivative along the changes, bound of its error).

        Parameters
        ----------
        dA : scipy.sparse matrix on A's pattern, pair (places, increments), or (count,) increments, optional
            For `Rows`, (rows, columns, increments).
        db, dt : dense (n,), scipy.sparse (n, 1), or pair (indices, values), optional
        """
        terms, errors = [np.zeros(0)], [np.zeros(0)]
        with np.errstate(over="ignore", invalid="ignore"):
            if dA is not None:
                places, step = self.A._among.change("dA", dA)
                rows, columns = self.A._among.entries(places)
                value = np.zeros(len(step))
                for term in self.A._terms:
                    value -= lookup(term.lam.x, rows) * lookup(term.x.x, columns)
                terms.append(step * value)
                errors.append(_weighed(step, _sum_of(self.A._terms, rows, columns)))
            for name, part, change in (("db", self.b, db), ("dt", self.t, dt)):
                if change is not None:
                    index, step = sparse_vector(name, change, part._errors.system.n)
                    terms.append(step * lookup(part._errors.x, index))
                    errors.append(_weighed(step, part._errors.at(index)))
            every = np.concatenate(terms)
            m = len(every) + 4
            value, size, bound = (float(np.sum(p)) for p in (every, np.abs(every), np.concatenate(errors)))
            bound = bound * (1 + 4 * m * _U) + 2 * m * _U * size + m * TINY
        return (value, bound) if np.isfinite(value) and np.isfinite(bound) else (np.nan, np.inf)

    def rounded(self, dtype: np.dtype) -> Gradient:
        """The same in another precision: what rounding takes from values is part of the bounds."""

        def part(of: Any) -> Any:
            values = of.values.astype(dtype)
            with np.errstate(over="ignore"):
                bounds = (of.bounds + np.abs(of.values - values.astype(np.float64))) * UP
                lower = bounds.astype(dtype)
            return replace(
                of, values=values, bounds=np.where(lower < bounds, np.nextafter(lower, dtype.type(np.inf)), lower)
            )

        return self if dtype == np.float64 else replace(self, A=part(self.A), b=part(self.b), t=part(self.t))

    def mapped(self, convert: Callable[[np.ndarray], Any]) -> Gradient:
        """The same with arrays of another framework."""

        def part(of: Any) -> Any:
            names = [name for name in of.__dataclass_fields__ if not name.startswith("_")]
            return replace(of, **{name: convert(getattr(of, name)) for name in names})

        return replace(self, A=part(self.A), b=part(self.b), t=part(self.t))


def gradient(primal: Half, dual: Half, among: Places) -> Gradient:
    """From two sides whose residuals have been settled."""
    x, lam = Errors.of(primal), Errors.of(dual)
    entries = outer(primal, dual)
    return Gradient(by_values((Term(x, lam),), [entries], among), by_vector(lam), by_vector(x))


def outer(primal: Half, dual: Half) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(places, rows, columns, -λ̂_i x̂_j) where no factor is zero; where entries have no places, they are counted."""
    slot, row, column, value = _kernels.local_outer(primal.side, dual.side, primal.system.matrix)
    if primal.system.stored:
        return slot, row, column, value
    order = np.lexsort((column, row))
    places = slot[order] if primal.system.placed else np.arange(len(order))
    return places, row[order], column[order], value[order]


def by_values(terms: tuple[Term, ...], products: list[Any], among: Places) -> MatrixGradient:
    """The sum of products, each as (stored places, rows, columns, values), in the order of the user."""
    slot, row, column, value = (np.concatenate(parts) for parts in zip(*products, strict=True))
    stored, first, position = np.unique(slot, return_index=True, return_inverse=True)
    rows, columns, values = row[first], column[first], np.zeros(len(stored))
    np.add.at(values, position, value)
    bounds = _sum_of(terms, rows, columns)
    places, at = among.given(stored)
    return MatrixGradient(places, rows[at], columns[at], values[at], bounds[at], terms, among)


def by_vector(errors: Errors) -> VectorGradient:
    """An unknown vector as the gradient that it is."""
    index, value = errors.x
    return VectorGradient(index, value, errors.at(index), errors)


def _sum_of(terms: tuple[Term, ...], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.sum([term.error(rows, columns) for term in terms], axis=0) * UP


def _weighed(step: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(step == 0, 0.0, np.abs(step) * bounds)


def _nodes(name: str, index: Any, n: int) -> np.ndarray:
    index = np.atleast_1d(np.asarray(index, np.int64))
    if index.size and (index.min() < 0 or index.max() >= n):
        raise ValueError(f"bound_at: {name} must lie in [0, {n}); got {index.min()} to {index.max()}.")
    return index
