"""Local queries of JAX: concrete arrays in, plain values out, gradients on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import System, Vector
from .._local.vector import VectorQuery
from .._local.vectors import column, sparse_vector
from .jax_batches import array, refuse_tracers

__all__ = ["functional", "plain", "solve", "values", "vector_of"]


def values(data: Any, slots: np.ndarray | None, nnz: int) -> tuple[np.ndarray, Callable[[], int]]:
    """Stored values on the host; they never change."""
    data = plain(data)
    if slots is not None:
        summed = np.zeros(nnz, data.dtype)
        np.add.at(summed, slots, data)
        data = summed
    return np.ascontiguousarray(data), lambda: 0


def functional(system: System, data: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    left, right = vector_of("t", t, system.n), vector_of("b", b, system.n)
    return _Session(system, options, lambda: functional_query(system, right, left), slots).start()


def solve(system: System, data: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as an (n, 1) sparse array of SciPy."""
    vector = vector_of("b", b, system.n)
    return _Session(system, options, lambda: VectorQuery(system, vector), slots).start()


class _Session(AbstractSession):
    def value(self, raw: Estimate) -> Any:
        return column(raw.value, self.system.n)

    def shown(self, found: Gradient) -> Gradient:
        dtype = jnp.dtype(jax.dtypes.canonicalize_dtype(self.system.access.data.dtype))
        return found.rounded(dtype).mapped(array)

    def vector(self, name: str, value: Any) -> Vector:
        return vector_of(name, value, self.system.n)

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.among.change(name, tuple(map(plain, dA)) if isinstance(dA, tuple) else plain(dA))

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        raise ValueError("dA must be written into the values of A, and arrays of JAX cannot be changed: ask anew.")


def vector_of(name: str, value: Any, n: int) -> Vector:
    """A vector of any kind."""
    return sparse_vector(name, tuple(map(plain, value)) if isinstance(value, tuple) else plain(value), n)


def plain(value: Any) -> Any:
    """The numbers of an array of JAX; other things as they are."""
    refuse_tracers(value)
    return np.asarray(value) if isinstance(value, jax.Array) else value
