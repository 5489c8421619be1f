"""Truncated adjoints in JAX."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..api import solve
from ..operators import AbstractLinearOperator
from .program import Program

__all__ = ["solved"]


def solved(A: AbstractLinearOperator, b: jax.Array, program: Program, options: dict, tally: Any) -> jax.Array:
    """x + S (b - A x) with x constant: what is in brackets is zero, but its derivative ḃ - Ȧ x is not."""
    constant = lax.stop_gradient(A)
    x = solve(constant, lax.stop_gradient(b), **options)
    return x + _series(b.astype(x.dtype) - A @ x, constant, program)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _series(r: jax.Array, A: Any, program: Program) -> jax.Array:
    """Zero; its pullback is the series. JAX's cotangents are the conjugates of those that Aᴴ is for."""
    return jnp.zeros_like(r)


def _forward(r: jax.Array, A: Any, program: Program) -> tuple[jax.Array, Any]:
    return jnp.zeros_like(r), A


def _backward(program: Program, A: Any, g: jax.Array) -> tuple[jax.Array, Any]:
    return jnp.conj(program.run(A.H, jnp.conj(g))), jax.tree.map(jnp.zeros_like, A)


_series.defvjp(_forward, _backward)
