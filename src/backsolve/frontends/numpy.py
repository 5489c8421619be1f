"""NumPy and SciPy: solves, and explicit derivatives for people without automatic differentiation."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from .. import calculus
from ..errors import describe
from ..full import Full
from ..methods import Outcome, lapack
from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree, coo
from ..plan import Factored, Plan
from ..shapes import Layout, layout_of, plain_array
from . import numpy_free
from .numpy_free import of_function
from .numpy_ops import Ops

__all__ = [
    "asarray",
    "asoperator",
    "full",
    "known",
    "matvec",
    "of_function",
    "prepare",
    "put",
    "result_dtype",
    "slogdet",
    "solve",
    "take",
    "to_host",
    "toarray",
    "values",
    "weakly",
]

name = "numpy"


def asarray(label: str, value: Any) -> np.ndarray:
    """Return `value` as an array of a supported dtype; integers become float64."""
    return plain_array(label, value)


def result_dtype(*arrays: Any) -> Any:
    """The dtype that a solve with these arrays computes in."""
    return np.result_type(*(a.dtype for a in arrays))


@lru_cache(maxsize=64)
def _full(shape: tuple[int, int]) -> Full:
    return Full(shape, lapack)


def full(data: np.ndarray) -> Full:
    """The structure of a dense array."""
    return _full(tuple(data.shape[-2:]))


def asoperator(A: Any) -> AbstractLinearOperator:
    """A matrix that NumPy users have, as an operator."""
    if isinstance(A, MatrixFree | sla.LinearOperator):
        return numpy_free.asoperator(A)
    if isinstance(A, AbstractLinearOperator):
        data = asarray("A", A.data)
        return A if data is A.data else A.with_data(data)
    if sp.issparse(A):
        return sparse_operator(A)
    array = asarray("A", A)
    if array.ndim < 2:
        raise ValueError(
            f"A must be a matrix of shape (..., n, n); got {describe(array)}: for a diagonal matrix use numpy.diag(A)."
        )
    return Dense(array)


def sparse_operator(A: Any) -> CSR:
    """A scipy.sparse matrix, duplicates summed; values keep the order of CSR, CSC and COO, others become CSR."""
    if A.ndim != 2:
        raise ValueError(f"A must be a 2-D scipy.sparse array; got {describe(A)}: use A.reshape(n, n).")
    if A.format == "coo":
        return coo(asarray("A", A.data), (A.row, A.col), A.shape)
    if A.format == "csc":
        columns = np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
        return coo(asarray("A", A.data), (A.indices, columns), A.shape)
    csr = A.tocsr()
    return CSR(asarray("A", csr.data), csr.indices, csr.indptr, csr.shape)


def canonical(A: AbstractLinearOperator, data: np.ndarray, dtype: Any) -> np.ndarray:
    """Stored values in canonical order, contiguous, (items, ...) or without batch axes."""
    data = np.asarray(data, dtype)
    slots = getattr(A, "slots", None)
    if slots is not None:
        summed = np.zeros((*data.shape[:-1], A.structure.nnz), dtype)
        np.add.at(summed, (..., slots), data)  # type: ignore[arg-type]
        data = summed
    return np.ascontiguousarray(data)


def given(A: AbstractLinearOperator, canonical_bar: np.ndarray) -> np.ndarray:
    """Transpose of `canonical`: one number per given value."""
    slots = getattr(A, "slots", None)
    return canonical_bar if slots is None else canonical_bar[..., slots]


def solve(A: Any, b: np.ndarray, plan: Plan, factored: Factored, adjoint: bool = False):
    """Solve, and return x with the outcome and its layout."""
    data, layout, columns = _laid_out(A, b)
    ops = Ops(plan, factored, layout)
    x, outcome = ops.run(data, columns, adjoint, backward=False)
    return _restore(layout, x), outcome, layout


def _laid_out(A: Any, b: np.ndarray) -> tuple[Any, Layout, np.ndarray]:
    """Canonical data, layout, and b as columns, in the result dtype."""
    if isinstance(A, MatrixFree):
        return numpy_free.laid_out(A, b)
    dtype = result_dtype(A.data, b)
    layout = layout_of(A.batch_shape, b.shape)
    return canonical(A, A.data, dtype), layout, _columns(layout, b, dtype)


def prepare(A: Any, plan: Plan, factored: Factored) -> None:
    """Factor now."""
    data = canonical(A, A.data, A.data.dtype)
    factored.state(plan.method, A.on(data.reshape(prod(A.batch_shape), *data.shape[data.ndim - A._data_axes :])))


def matvec(A: AbstractLinearOperator, x: np.ndarray, adjoint: bool = False) -> np.ndarray:
    """A @ x, or A.H @ x."""
    data, layout, columns = _laid_out(A, x)
    y = Ops.of(A).matvec(data, columns, adjoint)
    return _restore(layout._replace(n=A.shape[1 if adjoint else 0]), y)


def toarray(A: AbstractLinearOperator) -> np.ndarray:
    """The dense array."""
    if isinstance(A, MatrixFree):
        return matvec(numpy_free.asoperator(A), numpy_free.identity(A))
    if A.structure.kind == "dense":
        return np.array(A.data)
    data = canonical(A, A.data, A.data.dtype)
    dense = np.zeros((*A.batch_shape, *A.shape), data.dtype)
    dense[..., A.structure.rows, A.structure.indices] = data
    return dense


def values(A: AbstractLinearOperator) -> np.ndarray:
    """Stored values in canonical order."""
    A = asoperator(A)
    return A.data if A.structure.kind == "dense" else canonical(A, A.data, A.data.dtype)


def take(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values at places of the last axis."""
    return values[..., places]


def put(values: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Transpose of `take` for places that differ: zeros of (..., size), with the values at their places."""
    whole = np.zeros((*values.shape[:-1], size), values.dtype)
    whole[..., places] = values
    return whole


def largest(values: np.ndarray) -> np.ndarray:
    """Largest modulus along the last axis, a constant for derivatives; 1 where all are zero."""
    size = np.abs(values).max(axis=-1, initial=0)
    return np.where(size > 0, size, 1)


def constant(array: np.ndarray, values: np.ndarray) -> np.ndarray:
    """An array as a constant with the dtype of `values`."""
    return array.astype(values.dtype)


def known(values: np.ndarray) -> np.ndarray | None:
    """Values as a NumPy array, or None where they are only traced."""
    return values


def to_host(values: np.ndarray) -> np.ndarray:
    """Values as a NumPy array, without a graph."""
    return values


def weakly(s: Any, values: np.ndarray) -> np.ndarray:
    """A number or array of factors in the precision of `values` if it is a number."""
    return np.asarray(s, np.result_type(values.dtype, s))


def slogdet(A: AbstractLinearOperator, plan: Plan | None, factored: Factored) -> tuple[Any, Any]:
    """Sign and logarithm of the modulus of the determinant; the plan is for sparse A."""
    if plan is None:
        return tuple(np.linalg.slogdet(A.data))  # type: ignore[return-value]
    data = canonical(A, A.data, A.data.dtype)
    sign, size = plan.slogdet(factored, data.reshape(prod(A.batch_shape), A.structure.nnz))
    return sign.reshape(A.batch_shape)[()], size.reshape(A.batch_shape)[()]


def vjp(A: Any, b: np.ndarray, plan: Plan, factored: Factored):
    """x, its outcome, and ``pullback(g) -> (data_bar, b_bar, adjoint outcome, λ)``."""
    x, outcome, layout = solve(A, b, plan, factored)
    dtype, lost = x.dtype, _lost(outcome, layout)

    def pullback(g: Any):
        g = asarray("g", g)
        if g.shape != x.shape:
            raise ValueError(f"g must have the shape of x, {x.shape}; got {describe(g)}.")
        ops = Ops(plan, factored, layout)
        data = _laid_out(A, b)[0]
        x_columns = _columns(layout, x if lost is None else np.where(lost, np.nan, x), dtype)
        bars: Any = calculus.solve_vjp(ops, data, x_columns, _columns(layout, g, dtype), False, (True, True))
        data_bar, lam = bars[0], _restore(layout, bars[1])
        b_bar = lam if lost is None else np.where(lost, np.nan, lam)
        return _as_given(A, data_bar), _summed_to(b_bar, b.shape, b.dtype), ops.last, lam

    return x, outcome, layout, pullback


def jvp(A: Any, b: np.ndarray, data_dot: Any, b_dot: Any, plan: Plan, factored: Factored):
    """x with its outcome, and ẋ with its own."""
    x, outcome, layout = solve(A, b, plan, factored)
    tangents: list[Any] = [None, None]
    if data_dot is not None and isinstance(A, MatrixFree):
        raise ValueError("jvp: data_dot must be None for a MatrixFree A, whose function NumPy cannot differentiate.")
    if data_dot is not None:
        data_dot = asarray("data_dot", data_dot)
        if data_dot.shape != A.data.shape:
            raise ValueError(f"data_dot must have the shape of A.data, {A.data.shape}; got {describe(data_dot)}.")
        tangents[0] = canonical(A, data_dot, x.dtype)
    if b_dot is not None:
        b_dot = asarray("b_dot", b_dot)
        if b_dot.shape != b.shape:
            raise ValueError(f"b_dot must have the shape of b, {b.shape}; got {describe(b_dot)}.")
        tangents[1] = _columns(layout, b_dot, x.dtype)
    if data_dot is None and b_dot is None:
        raise ValueError("jvp needs a tangent: give data_dot, b_dot or both.")
    ops = Ops(plan, factored, layout)
    x_columns = _columns(layout, x, x.dtype)
    x_dot = calculus.solve_jvp(ops, _laid_out(A, b)[0], x_columns, tangents[0], tangents[1], False)
    return x, outcome, layout, _restore(layout, x_dot), ops.last


def _columns(layout: Layout, b: np.ndarray, dtype: Any) -> np.ndarray:
    return layout.columns(np.asarray(b, dtype), np.broadcast_to, np.transpose)


def _restore(layout: Layout, x: np.ndarray) -> np.ndarray:
    return layout.restore(x, np.transpose)


def _lost(outcome: Outcome, layout: Layout) -> np.ndarray | None:
    """Where the forward solve failed, to broadcast against x."""
    if outcome.failed is None:
        return None
    lost = np.broadcast_to(layout.per_item(outcome.failed), layout.batch)
    return lost[..., None] if layout.vector else lost[..., None, None]


def _as_given(A: AbstractLinearOperator, data_bar: Any) -> Any:
    """A cotangent of canonical values in the order, shape and dtype of the values given; None stays."""
    if data_bar is None:
        return None
    return _real_if(given(A, data_bar).reshape(A.data.shape), A.data.dtype)


def _summed_to(bar: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    extra = tuple(range(bar.ndim - len(shape)))
    bar = bar.sum(axis=extra) if extra else bar
    ones = tuple(a for a, size in enumerate(shape) if size == 1 and bar.shape[a] != 1)
    return _real_if(bar.sum(axis=ones, keepdims=True) if ones else bar, dtype)


def _real_if(bar: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.real(bar) if bar.dtype.kind == "c" and dtype.kind != "c" else bar).astype(dtype, copy=False)
