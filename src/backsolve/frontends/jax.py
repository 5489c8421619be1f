"""JAX: arrays and tracers in, solves that every transform knows, to any order.

Products and the solve are primitives, and the algebra of operators is made of JAX's own operations.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from jax.experimental.sparse import BCOO, BCSR

from .. import calculus
from ..errors import describe
from ..factor_cache import CACHE
from ..full import Full
from ..methods import lapack
from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree, coo
from ..plan import Factored, Plan
from ..shapes import Layout, layout_of
from ..solution import Solution, Stats
from . import jax_products, jax_trees  # noqa: F401  (the trees are registered)
from .jax_arrays import asarray, canonical, concrete, cube, result_dtype
from .jax_solve import Call, Ops, run

__all__ = [
    "asarray",
    "asoperator",
    "full",
    "info",
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
    "vjp",
    "weakly",
]

name = "jax"


@lru_cache(maxsize=64)
def _full(shape: tuple[int, int]) -> Full:
    return Full(shape, lapack)


def full(data: jax.Array) -> Full:
    """The structure of a dense array, whose factorizations are those of the host."""
    return _full(tuple(data.shape[-2:]))


def of_function(A: Any, b: Any, n: int) -> Any:
    """Refuse a function: the host cannot call it from a compiled program."""
    raise TypeError(
        f"A must be a matrix beside JAX arrays; got {describe(A)}: solve with a function by "
        "jax.scipy.sparse.linalg.cg or bicgstab, or give its entries to backsolve.CSR."
    )


def asoperator(A: Any) -> AbstractLinearOperator:
    """A matrix that JAX users have, as an operator."""
    if isinstance(A, MatrixFree | sla.LinearOperator):
        return of_function(A, None, 0)
    if isinstance(A, AbstractLinearOperator):
        data = asarray("A", A.data)
        if A.structure.kind == "dense":
            return A if data is A.data else Dense(data).assume(A.assumed)
        return A if data is A.data else A.with_data(data)
    if isinstance(A, BCOO | BCSR):
        return _sparse(A)
    if sp.issparse(A):
        if A.ndim != 2:
            raise ValueError(f"A must be a 2-D scipy.sparse array; got {describe(A)}: use A.reshape(n, n).")
        csr: Any = sp.csr_array(A)
        return CSR(asarray("A", csr.data), csr.indices, csr.indptr, csr.shape)
    dense = asarray("A", A)
    if dense.ndim < 2:
        raise ValueError(
            f"A must be a matrix of shape (..., n, n); got {describe(dense)}: for a diagonal matrix use jnp.diag(A)."
        )
    return Dense(dense)


def _sparse(A: Any) -> CSR:
    """A BCOO or BCSR matrix; its values are differentiated, in their order."""
    if A.ndim != 2 or A.n_batch or A.n_dense:
        raise ValueError(
            f"A must be a 2-D {type(A).__name__} with scalar entries and no batch; got shape {A.shape}: for a batch "
            "on one pattern use backsolve.CSR(values, indices, indptr, shape) with values of shape (..., nnz)."
        )
    index = (A.indices,) if isinstance(A, BCOO) else (A.indices, A.indptr)
    if not concrete(*index):
        raise ValueError(
            f"A must have a pattern that is known when the program is traced; the indices of this {type(A).__name__} "
            "are traced: make A = backsolve.CSR(values, indices, indptr, shape) outside, and call A.with_data(values) "
            "inside."
        )
    data, shape = asarray("A", A.data), (A.shape[0], A.shape[1])
    if isinstance(A, BCOO):
        return coo(data, np.asarray(A.indices).T, shape)
    return CSR(data, A.indices, A.indptr, shape)


def _laid_out(A: AbstractLinearOperator, data: Any, b: Any, layout: Layout, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Canonical values (items, ...), and b as (items, n, columns)."""
    values = canonical(A, data, dtype)
    values = values.reshape((prod(A.batch_shape), *values.shape[values.ndim - A._data_axes :]))
    return values, cube(layout, b.astype(dtype))


def solve(A: AbstractLinearOperator, b: jax.Array, plan: Plan, factored: Factored, adjoint: bool = False):
    """Solve, and return x with what the primitive found and the call."""
    return _solve(A, b, plan, adjoint, stats=False)


def _solve(A: AbstractLinearOperator, b: jax.Array, plan: Plan, adjoint: bool, stats: bool) -> tuple[Any, Any, Call]:
    layout = layout_of(A.batch_shape, tuple(b.shape))
    call = Call(plan, layout)
    found = run(call, *_laid_out(A, A.data, b, layout, result_dtype(A.data, b)), adjoint, stats=stats)
    return layout.shown(found[0], jnp.transpose), found, call


def info(A: AbstractLinearOperator, b: jax.Array, plan: Plan, factored: Factored, adjoint: bool = False) -> Solution:
    """Solve, with a verdict that leaves compiled programs as arrays."""
    x, found, call = _solve(A, b, plan, adjoint, stats=True)
    return _solution(call, x, found)


def _solution(call: Call, x: jax.Array, found: Any) -> Solution:
    layout = call.layout
    status, *stats = (jnp.broadcast_to(layout.per_item(v), layout.batch) for v in found[1:])
    return Solution(x, status, Stats(*stats), call.method, [], call.details)


def vjp(A: AbstractLinearOperator, b: jax.Array, plan: Plan) -> tuple[Solution, Any]:
    """The solution and its pullback, for cotangents as `jax.vjp` has them."""
    layout, dtype = layout_of(A.batch_shape, tuple(b.shape)), result_dtype(A.data, b)
    (values, columns), back = jax.vjp(lambda data, b: _laid_out(A, data, b, layout, dtype), A.data, b)
    call = Call(plan, layout)
    found = run(call, values, columns, False, stats=True)
    kept = jnp.where(found[1] > 0, 1.0, jnp.nan).astype(jnp.finfo(dtype).dtype)[:, None, None]

    def pullback(g: Any) -> tuple[Any, Any, Solution]:
        g = asarray("g", g)
        if g.shape != x.shape:
            raise ValueError(f"g must have the shape of x, {x.shape}; got {describe(g)}.")
        ops = _Watched(call)
        bars: Any = calculus.solve_vjp(
            ops, values, found[0] * kept, cube(layout, g.conj().astype(dtype)), False, (True, True)
        )
        data_bar, b_bar = back((bars[0].conj(), (bars[1] * kept).conj()))
        return data_bar, b_bar, _solution(call, layout.shown(bars[1], jnp.transpose), ops.last)

    x = layout.shown(found[0], jnp.transpose)
    return _solution(call, x, found), pullback


class _Watched(Ops):
    """Operations that keep what the latest solve found."""

    last: Any = None

    def solve(self, data, b, adjoint):
        self.last = run(self.call, data, b, adjoint, backward=True, stats=True)
        return self.last[0]


def prepare(A: AbstractLinearOperator, plan: Plan, factored: Factored) -> None:
    """Factor now, for the cache; in a compiled program the first solve does it."""
    if not concrete(A.data):
        return
    values = canonical(A, A.data, A.data.dtype)
    if not concrete(values):
        return
    host = np.array(values).reshape(prod(A.batch_shape), *values.shape[values.ndim - A._data_axes :])
    with CACHE.factors(A.structure, plan.method, A.assumed, host) as kept:
        kept.state(plan.method, A.on(host))


def matvec(A: AbstractLinearOperator, x: jax.Array) -> jax.Array:
    """A @ x."""
    layout = layout_of(A.batch_shape, tuple(x.shape))
    values, columns = _laid_out(A, A.data, x, layout, result_dtype(A.data, x))
    y = jax_products.matvec(A.structure, values, columns, False)
    return layout._replace(n=A.shape[0]).shown(y, jnp.transpose)


def toarray(A: AbstractLinearOperator) -> jax.Array:
    """The dense array."""
    if A.structure.kind == "dense":
        return A.data
    dense = jnp.zeros((*A.batch_shape, *A.shape), A.data.dtype)
    return dense.at[..., A.structure.rows, A.structure.indices].add(values(A))


def values(A: AbstractLinearOperator) -> jax.Array:
    """Stored values in canonical order."""
    A = asoperator(A)
    return canonical(A, A.data, A.data.dtype)


def take(values: jax.Array, places: np.ndarray) -> jax.Array:
    """Values at places of the last axis."""
    return values[..., places]


def put(values: jax.Array, places: np.ndarray, size: int) -> jax.Array:
    """Transpose of `take` for places that differ: zeros of (..., size), with the values at their places."""
    return jnp.zeros((*values.shape[:-1], size), values.dtype).at[..., places].add(values)


def weakly(s: Any, values: jax.Array) -> jax.Array:
    """A number or array of factors in the precision of `values` if it is a number."""
    return jnp.asarray(s, jnp.result_type(values, s))


def to_host(values: jax.Array) -> np.ndarray:
    """Values as a NumPy array."""
    return np.asarray(values)


def slogdet(A: AbstractLinearOperator, plan: Plan | None, factored: Factored) -> tuple[jax.Array, jax.Array]:
    """Sign and logarithm of the modulus of the determinant of a dense A."""
    if plan is None:
        sign, size = jnp.linalg.slogdet(A.data)
        return sign, size
    raise TypeError(
        f"slogdet of JAX arrays is for dense A; got {A!r}: use A.toarray() if it is small, or a sparse A of NumPy."
    )
