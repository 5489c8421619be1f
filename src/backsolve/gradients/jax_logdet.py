"""Determinants in JAX whose gradients are selected inverses: one call of the host, with the derivative as its rule."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..errors import SolveError
from ..frontends.jax_arrays import concrete
from .inversion import HostFactors

__all__ = ["by_factors"]


def by_factors(values: jax.Array, structure: Any) -> jax.Array:
    """log|det A| of canonical values (nnz,), differentiable once; in a compiled program NaN where A is singular.

    JAX's cotangents are such that df = Re Σ v̄ dv, without a conjugate: v̄ is the conjugate of A⁻ᴴ.
    """
    real = np.finfo(values.dtype).dtype
    number = jax.ShapeDtypeStruct((), real)

    def measured(v: Any) -> np.ndarray:
        return np.asarray(HostFactors(structure, np.array(v)).logabsdet, real)

    def inverted(v: Any) -> tuple[np.ndarray, np.ndarray]:
        host = HostFactors(structure, np.array(v))
        return np.asarray(host.logabsdet, real), host.inverse_entries().conj()

    @jax.custom_vjp
    def logdet(v: jax.Array) -> jax.Array:
        return _called(measured, number, v)

    def forward(v: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _called(inverted, (number, jax.ShapeDtypeStruct(v.shape, v.dtype)), v)

    logdet.defvjp(forward, lambda entries, g: (g * entries,))
    return logdet(values)


def _called(function: Any, shapes: Any, v: jax.Array) -> Any:
    """At once where v is known, so that failures raise; else when the program runs, where they are NaN."""
    if concrete(v):
        return jax.tree.map(jax.numpy.asarray, function(v))

    def guarded(v: Any) -> Any:
        try:
            return function(v)
        except SolveError:
            return jax.tree.map(lambda s: np.full(s.shape, np.nan, s.dtype), shapes)

    return jax.pure_callback(guarded, shapes, v, vmap_method="sequential")
