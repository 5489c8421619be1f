"""JAX: arrays and tracers in, solves that every transform knows, to any order.

Products and the solve are primitives, and the algebra of operators is made of JAX's own operations. A solve runs on the
host by a direct method, and where the arrays are by an iterative one.
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

from ..errors import describe
from ..factor_cache import CACHE
from ..full import Full
from ..methods import lapack
from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree, coo
from ..plan import Factored, Plan
from ..solution import Solution
from . import jax_free, jax_products, jax_trees  # noqa: F401  (the trees are registered)
from .jax_arrays import asarray, canonical, concrete, result_dtype
from .jax_determinant import sparse_slogdet
from .jax_explicit import jvp, vjp
from .jax_free import of_function
from .jax_laid import laid_out, numbers_of, solution, start_of
from .jax_solve import Call, run

__all__ = [
    "asarray",
    "asoperator",
    "full",
    "info",
    "jvp",
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


def asoperator(A: Any) -> AbstractLinearOperator:
    """A matrix that JAX users have, as an operator."""
    if isinstance(A, sla.LinearOperator):
        raise TypeError(
            f"A must not be a SciPy LinearOperator beside JAX arrays; got {describe(A)}, which a compiled program "
            "cannot call: give a function of JAX arrays, v -> A v or backsolve.MatrixFree(fn, params, shape)."
        )
    if isinstance(A, MatrixFree):
        return A
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


def solve(A: AbstractLinearOperator, b: jax.Array, plan: Plan, factored: Factored, adjoint: bool = False):
    """Solve, and return x with what the primitive found and the call."""
    laid = laid_out(A, numbers_of(A), b)
    call = Call(plan, laid.layout, laid.structure)
    found = run(call, laid.data, laid.b, adjoint, x0=start_of(plan, laid))
    return laid.layout.shown(found[0], jnp.transpose), found, call


def info(A: AbstractLinearOperator, b: jax.Array, plan: Plan, factored: Factored, adjoint: bool = False) -> Solution:
    """Solve, with a verdict that leaves compiled programs as arrays."""
    laid = laid_out(A, numbers_of(A), b)
    call = Call(plan, laid.layout, laid.structure)
    return solution(call, run(call, laid.data, laid.b, adjoint, stats=True, x0=start_of(plan, laid)))


def prepare(A: AbstractLinearOperator, plan: Plan, factored: Factored) -> None:
    """Factor now, for the cache, which finds these factors as long as `factored` lives; not in a compiled program."""
    if getattr(plan.method, "loops", False) or not concrete(A.data):
        return
    values = canonical(A, A.data, A.data.dtype)
    host = np.array(values).reshape(prod(A.batch_shape), *values.shape[values.ndim - A._data_axes :])
    with CACHE.factors(A.structure, plan.method, A.assumed, host) as entry:
        entry.state(plan.method, A.on(host))
    CACHE.hold(entry, factored)


def matvec(A: AbstractLinearOperator, x: jax.Array) -> jax.Array:
    """A @ x."""
    laid = laid_out(A, numbers_of(A), x)
    if isinstance(A, MatrixFree):
        y = laid.structure.matvec(laid.data, laid.b)
    else:
        y = jax_products.matvec(laid.structure, laid.data[0], laid.b, False)
    return laid.layout._replace(n=A.shape[0]).shown(y, jnp.transpose)


def toarray(A: AbstractLinearOperator) -> jax.Array:
    """The dense array."""
    if isinstance(A, MatrixFree):
        return matvec(A, jax_free.identity(A))
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


def largest(values: jax.Array) -> jax.Array:
    """Largest modulus along the last axis, a constant for derivatives; 1 where all are zero."""
    size = jnp.max(jnp.abs(jax.lax.stop_gradient(values)), axis=-1, initial=0)
    return jnp.where(size > 0, size, 1)


def constant(array: np.ndarray, values: jax.Array) -> jax.Array:
    """An array as a constant with the dtype of `values`."""
    return jnp.asarray(array, values.dtype)


def weakly(s: Any, values: jax.Array) -> jax.Array:
    """A number or array of factors in the precision of `values` if it is a number."""
    return jnp.asarray(s, jnp.result_type(values, s))


def known(values: jax.Array) -> np.ndarray | None:
    """Values as a NumPy array, or None where they are only traced."""
    return np.asarray(values) if concrete(values) else None


def to_host(values: jax.Array) -> np.ndarray:
    """Values as a NumPy array."""
    return np.asarray(values)


def slogdet(A: AbstractLinearOperator, plan: Plan | None, factored: Factored) -> tuple[jax.Array, jax.Array]:
    """Sign and logarithm of the modulus of the determinant; the plan is for sparse A."""
    if plan is None:
        sign, size = jnp.linalg.slogdet(A.data)
        return sign, size
    values = canonical(A, A.data, A.data.dtype)
    sign, size = sparse_slogdet(plan, A.structure, values.reshape((prod(A.batch_shape), A.structure.nnz)))
    return sign.reshape(A.batch_shape), size.reshape(A.batch_shape)
