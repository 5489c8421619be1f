"""Local queries of JAX: concrete arrays in, plain values out, gradients on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import System, Vector
from .._local.vector import VectorQuery
from .._local.vectors import column, sparse_vector

__all__ = ["functional", "solve", "values"]


def values(data: Any, slots: np.ndarray | None, nnz: int) -> tuple[np.ndarray, Callable[[], int]]:
    """Stored values on the host; they never change."""
    data = _plain(data)
    if slots is not None:
        summed = np.zeros(nnz, data.dtype)
        np.add.at(summed, slots, data)
        data = summed
    return np.ascontiguousarray(data), lambda: 0


def functional(system: System, data: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    left, right = _vector("t", t, system.n), _vector("b", b, system.n)
    return _Session(system, options, lambda: functional_query(system, right, left), slots).start()


def solve(system: System, data: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as an (n, 1) sparse array of SciPy."""
    vector = _vector("b", b, system.n)
    return _Session(system, options, lambda: VectorQuery(system, vector), slots).start()


class _Session(AbstractSession):
    def value(self, raw: Estimate) -> Any:
        return column(raw.value, self.system.n)

    def shown(self, found: Gradient) -> Gradient:
        dtype = jnp.dtype(jax.dtypes.canonicalize_dtype(self.system.access.data.dtype))
        return found.rounded(dtype).mapped(_array)

    def vector(self, name: str, value: Any) -> Vector:
        return _vector(name, value, self.system.n)

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.among.change(name, tuple(map(_plain, dA)) if isinstance(dA, tuple) else _plain(dA))

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        raise ValueError("dA must be written into the values of A, and arrays of JAX cannot be changed: ask anew.")


def _vector(name: str, value: Any, n: int) -> Vector:
    return sparse_vector(name, tuple(map(_plain, value)) if isinstance(value, tuple) else _plain(value), n)


def _plain(value: Any) -> Any:
    if isinstance(value, Tracer):
        raise TypeError(
            "local solves read values, so they cannot be traced by jax.jit, jax.grad or jax.vmap: call them outside, "
            "and local.value_and_grad for gradients."
        )
    return np.asarray(value) if isinstance(value, jax.Array) else value


def _array(array: np.ndarray) -> jax.Array:
    """Indices as int64 where JAX has it, and else as int32 if they fit."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype != array.dtype and array.dtype.kind == "i" and array.size and array.max() > np.iinfo(dtype).max:
        raise OverflowError(
            'places of A beyond 2^31 need 64-bit integers: call jax.config.update("jax_enable_x64", True).'
        )
    return jnp.asarray(array.astype(dtype))
