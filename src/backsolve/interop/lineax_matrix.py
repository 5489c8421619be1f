"""The matrix of a lineax operator as one of backsolve: sparse as far as its parts are."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import jax.numpy as jnp
import lineax
import numpy as np
from jax.tree_util import tree_leaves

from ..operators import CSR, AbstractLinearOperator, Dense, coo
from ..pattern import Pattern
from .lineax_operator import StoredLinearOperator, triplets

__all__ = ["matrix_of"]

SMALL = 1_000
"""Size up to which the matrix of a function is made unasked: eight megabytes, by as many products."""


def matrix_of(operator: Any) -> AbstractLinearOperator:
    """The matrix with what it is declared to be; values may be traced.

    Raises
    ------
    ValueError
        If it is given by a function and too large to be made dense unasked.
    """
    A = _entries(operator)
    structures = operator.in_structure(), operator.out_structure()
    real = not any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in tree_leaves(structures))
    if real and jnp.issubdtype(A.dtype, jnp.complexfloating):
        raise ValueError(
            f"operator must be complex if it has complex parts; got {A!r} for an operator that lineax takes for real: "
            "make the real parts complex first."
        )
    return A.assume(_assumption(operator, A, real))


def _assumption(operator: Any, A: AbstractLinearOperator, real: bool) -> str:
    """The tags of lineax in the words of `assume`; without any, what A was declared to be itself."""
    if lineax.is_lower_triangular(operator):
        return "lower"
    if lineax.is_upper_triangular(operator):
        return "upper"
    if lineax.is_positive_semidefinite(operator):
        return "spd"
    if lineax.is_negative_semidefinite(operator) and not real:
        return "her"
    if lineax.is_negative_semidefinite(operator) or lineax.is_symmetric(operator):
        return "sym"
    return A.assumed


@singledispatch
def _entries(operator: Any) -> AbstractLinearOperator:
    """Of an operator that is a function, or unknown: the bands that it is tagged to have, or all if it is small."""
    banded = _banded(operator)
    if banded is not None:
        return banded
    size = max(operator.in_size(), operator.out_size())
    if size > SMALL:
        raise ValueError(
            f"operator must have entries; got a {type(operator).__name__} of size {size}, whose matrix would be dense "
            f"and is made unasked up to {SMALL} only: call lineax.materialise(operator) if it fits into memory, build "
            "it sparse with backsolve.as_lineax_operator, or use lineax.GMRES."
        )
    return Dense(operator.as_matrix())


@_entries.register(lineax.MatrixLinearOperator)
@_entries.register(lineax.PyTreeLinearOperator)
def _(operator):
    banded = _banded(operator)  # as its own products have it
    return Dense(operator.as_matrix()) if banded is None else banded


@_entries.register(StoredLinearOperator)
def _(operator):
    return operator.A


@_entries.register(lineax.TaggedLinearOperator)
def _(operator):
    return _entries(operator.operator)


@_entries.register(lineax.IdentityLinearOperator)
def _(operator):
    shape, dtype = (operator.out_size(), operator.in_size()), jnp.result_type(*tree_leaves(operator.in_structure()))
    return coo(jnp.ones(min(shape), dtype), (np.arange(min(shape)),) * 2, shape)


@_entries.register(lineax.DiagonalLinearOperator)
def _(operator):
    return _diagonal(operator)


@_entries.register(lineax.TridiagonalLinearOperator)
def _(operator):
    return _tridiagonal(operator)


@_entries.register(lineax.MulLinearOperator)
def _(operator):
    return _entries(operator.operator) * operator.scalar


@_entries.register(lineax.DivLinearOperator)
def _(operator):
    return _entries(operator.operator) / operator.scalar


@_entries.register(lineax.NegLinearOperator)
def _(operator):
    return -_entries(operator.operator)


@_entries.register(lineax.AddLinearOperator)
def _(operator):
    A, B = _entries(operator.operator1), _entries(operator.operator2)
    if "dense" in (A.structure.kind, B.structure.kind):
        return Dense(A.toarray() + B.toarray())
    (rows, columns), (more_rows, more_columns) = triplets(A), triplets(B)
    places = np.concatenate([rows, more_rows]), np.concatenate([columns, more_columns])
    return coo(jnp.concatenate([A.data, B.data]), places, A.shape)


@_entries.register(lineax.ComposedLinearOperator)
def _(operator):
    A, B = _entries(operator.operator1), _entries(operator.operator2)
    if "dense" in (A.structure.kind, B.structure.kind):
        return Dense(jnp.matmul(A.toarray(), B.toarray(), precision="highest"))
    return _product(A, B)


def _product(A: AbstractLinearOperator, B: AbstractLinearOperator) -> CSR:
    """A B of two sparse matrices: each stored a_ik meets the row k of B."""
    rows, k = triplets(A)
    order = np.argsort(triplets(B)[0], kind="stable")
    starts = np.searchsorted(triplets(B)[0][order], np.arange(B.shape[0] + 1))
    counts = np.diff(starts)[k]
    left = np.repeat(np.arange(k.size), counts)
    within = np.arange(left.size) - np.repeat(np.cumsum(counts) - counts, counts)
    right = order[starts[k][left] + within]
    return coo(A.data[left] * B.data[right], (rows[left], triplets(B)[1][right]), (A.shape[0], B.shape[1]))


def _banded(operator: Any) -> CSR | None:
    """The matrix of a square operator that is tagged to have one or three diagonals; else None."""
    if lineax.is_diagonal(operator):
        return _diagonal(operator)
    return _tridiagonal(operator) if lineax.is_tridiagonal(operator) else None


def _diagonal(operator: Any) -> CSR:
    n = operator.in_size()
    return CSR.from_pattern(lineax.diagonal(operator), Pattern(np.arange(n + 1), np.arange(n), (n, n)))


def _tridiagonal(operator: Any) -> CSR:
    at = np.arange(operator.in_size())
    places = np.concatenate([at, at[1:], at[:-1]]), np.concatenate([at, at[:-1], at[1:]])
    return coo(jnp.concatenate(lineax.tridiagonal(operator)), places, (at.size, at.size))
