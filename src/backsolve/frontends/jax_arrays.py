"""JAX arrays: conversion without a loss of precision, layouts, and products in JAX's own operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import describe
from ..operators import AbstractLinearOperator
from ..shapes import plain_array

__all__ = [
    "as_columns",
    "as_items",
    "asarray",
    "canonical",
    "concrete",
    "cube",
    "like",
    "matvec",
    "outer",
    "result_dtype",
    "varying_alike",
]


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


def as_columns(b: jax.Array, axis: int) -> tuple[jax.Array, Callable]:
    """b (items, n, k) with a mapped axis besides, as (items, n, size * k), and what undoes that: the axis is then 2."""
    b = jnp.moveaxis(b, axis, 2)
    items, n, size, k = b.shape
    return b.reshape((items, n, size * k)), lambda x: x.reshape((*x.shape[:2], size, k))


def as_items(arrays: Sequence[jax.Array], axes: Sequence[int | None]) -> tuple[list[jax.Array], Callable]:
    """Arrays (items, ...) that a mapped axis makes (size * items, ...), and what undoes that: the axis is then 0.

    Arrays without it are repeated.
    """
    size = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    apart = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(arrays, axes, strict=True)
    ]
    items = apart[0].shape[1]
    together = [a.reshape((size * items, *a.shape[2:])) for a in apart]
    return together, lambda x: x.reshape((size, items, *x.shape[1:]))


def _axes(value: Any) -> frozenset:
    """Axes of a mesh on which a value varies inside `jax.shard_map`."""
    kind = jax.typeof(value)
    return kind.vma if hasattr(kind, "vma") else kind.mat.varying


def varying_alike(*values: Any) -> list[Any]:
    """The values, all varying on the same axes, as `jax.shard_map` wants the operands of one operation."""
    axes = [_axes(value) for value in values]
    every = frozenset().union(*axes)
    return [
        jax.lax.pcast(value, tuple(every - own), to="varying") if every != own else value
        for value, own in zip(values, axes, strict=True)
    ]


def like(aval: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """The type of an array of this shape that lies and varies on a mesh as `aval` does, item by item."""
    spec = jax.P(*aval.sharding.spec[:1], *(None for _ in shape[1:]))
    return aval.update(
        shape=shape, dtype=dtype or aval.dtype, weak_type=False, sharding=aval.sharding.update(spec=spec)
    )


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
