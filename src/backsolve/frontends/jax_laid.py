"""Systems as the primitive takes them, and what it found as the user knows it."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..operators import AbstractLinearOperator, MatrixFree
from ..shapes import Layout, check_start, layout_of
from ..solution import Solution, Stats
from . import jax_free
from .jax_arrays import canonical, cube, result_dtype
from .jax_solve import Call

__all__ = ["Laid", "laid_out", "numbers_of", "solution", "start_of"]


class Laid(NamedTuple):
    """A system as the primitive takes it."""

    structure: Any
    data: tuple
    """Operands: the canonical values (items, ...) of a matrix, or all that the functions of a MatrixFree use."""
    layout: Layout
    b: jax.Array
    """(items, n, columns)."""


def numbers_of(A: AbstractLinearOperator) -> tuple:
    """The arrays with respect to which A is differentiated, and for a MatrixFree the others in its parameters."""
    return jax_free.Parameters(A.data).arrays if isinstance(A, MatrixFree) else (A.data,)


def laid_out(A: AbstractLinearOperator, numbers: tuple, b: jax.Array) -> Laid:
    """The system of A, made of these numbers, and b; differentiable in both."""
    if isinstance(A, MatrixFree):
        return Laid(*jax_free.laid_out(A, numbers, b))
    dtype = result_dtype(A.data, b)
    layout = layout_of(A.batch_shape, tuple(b.shape))
    values = canonical(A, numbers[0], dtype)
    values = values.reshape((prod(A.batch_shape), *values.shape[values.ndim - A._data_axes :]))
    return Laid(A.structure, (values,), layout, cube(layout, b.astype(dtype)))


def start_of(plan: Any, laid: Laid) -> jax.Array | None:
    """Where the plan begins, as the primitive takes it, without a derivative."""
    if plan.x0 is None:
        return None
    check_start(plan.x0.shape, laid.layout)
    return cube(laid.layout, jax.lax.stop_gradient(plan.x0).astype(laid.b.dtype))


def solution(call: Call, found: Any) -> Solution:
    """x with its verdict, and the numbers behind it."""
    layout = call.layout
    status, *stats = (jnp.broadcast_to(layout.per_item(v[:, 0]), layout.batch) for v in found[1:])
    return Solution(layout.shown(found[0], jnp.transpose), status, Stats(*stats), call.method, [], call.details)
