"""JAX arrays: conversion without a loss of precision, canonical values, and products, which JAX differentiates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import describe
from ..operators import AbstractLinearOperator
from ..shapes import plain_array

__all__ = ["asarray", "canonical", "concrete", "cube", "matvec", "outer", "result_dtype"]


def asarray(label: str, value: Any) -> jax.Array:
    """Return `value` as an array of a supported dtype; integers become JAX's default float."""
    if not isinstance(value, jax.Array):
        explicit = isinstance(value, np.ndarray | np.generic) and value.dtype.char in "dD"
        value = plain_array(label, value)
        dtype = jax.dtypes.canonicalize_dtype(value.dtype)
        if explicit and dtype != value.dtype:
            raise TypeError(
                f"{label} is {value.dtype}, which JAX would round to single precision: call "
                'jax.config.update("jax_enable_x64", True) first, or convert it to single precision.'
            )
        return jnp.asarray(value, dtype)
    if jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == bool:
        return value.astype(float)
    if value.dtype.char not in "fdFD":
        raise TypeError(
            f"{label} must be an array of dtype float32, float64, complex64 or complex128; got {describe(value)}: "
            f"convert it, for example with {label}.astype('float32')."
        )
    return value


def concrete(*arrays: Any) -> bool:
    """Whether no array is traced."""
    return not any(isinstance(a, Tracer) for a in arrays)


def result_dtype(*arrays: Any) -> Any:
    """The dtype that a solve with these arrays computes in."""
    return np.result_type(*(a.dtype for a in arrays))


def canonical(A: AbstractLinearOperator, data: jax.Array, dtype: Any) -> jax.Array:
    """Stored values in canonical order; repeated ones are summed."""
    data = data.astype(dtype)
    slots = getattr(A, "slots", None)
    if slots is None:
        return data
    return jnp.zeros((*data.shape[:-1], A.structure.nnz), dtype).at[..., slots].add(data)


def cube(layout: Any, b: jax.Array) -> jax.Array:
    """b as (items, n, columns)."""
    columns = layout.columns(b, jnp.broadcast_to, jnp.transpose)
    return columns.reshape((int(np.prod(layout.items, dtype=int)), layout.n, layout._width))


def matvec(structure: Any, data: jax.Array, x: jax.Array, adjoint: bool) -> jax.Array:
    """A x or Aᴴ x for data (items, ...) and x (items, n, k)."""
    if structure.kind == "dense":
        return jnp.matmul(data.mT.conj() if adjoint else data, x, precision="highest")
    rows, columns = structure.rows, structure.indices
    n_rows = structure.shape[0]
    if adjoint:
        data, rows, columns, n_rows = data.conj(), columns, rows, structure.shape[1]
    y = jnp.zeros((data.shape[0], n_rows, x.shape[2]), x.dtype)
    return y.at[:, rows].add(data[..., None] * x[:, columns])


def outer(structure: Any, y: jax.Array, x: jax.Array) -> jax.Array:
    """Σ_k y_ik conj(x_jk) on the stored places."""
    if structure.kind == "dense":
        return jnp.matmul(y, x.mT.conj(), precision="highest")
    return (y[:, structure.rows] * x[:, structure.indices].conj()).sum(2)
