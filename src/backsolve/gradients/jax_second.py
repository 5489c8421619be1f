"""Second derivatives in JAX: the gradient linearised once, forward over reverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..errors import describe
from ..factor_cache import CACHE

__all__ = ["gauss_newton_parts", "hessian_parts", "leaves_of"]

BLOCK = 128
"""Unit vectors that are multiplied together."""


class _Parts:
    """The linear map of directions, as `second` asks for it; `factors` keeps those of eager solves findable."""

    def __init__(self, d: Any, value: jax.Array, gradient: Any, product: Callable, factors: list):
        self.leaves, self._tree = jax.tree.flatten(d)
        self.value, self.gradient, self.product, self._factors = value, gradient, product, factors
        self.raveled = ravel_pytree(gradient)[0]
        self._unravel = ravel_pytree(d)[1]

    def split(self, v: Any) -> list:
        given, tree = jax.tree.flatten(v)
        if tree != self._tree:
            raise ValueError(f"v must be nested as d is; got {tree} for d {self._tree}.")
        return given

    def flat(self, v: jax.Array) -> jax.Array:
        """The product with all numbers in one vector."""
        return ravel_pytree(self.product(self._unravel(v)))[0]

    def matrix(self) -> jax.Array:
        eye = jnp.eye(self.raveled.size, dtype=self.raveled.dtype)
        blocks = [eye[at : at + BLOCK] for at in range(0, len(eye), BLOCK)]
        return jnp.concatenate([jax.vmap(self.flat)(block) for block in blocks] or [eye])


def leaves_of(d: Any) -> list:
    """The arrays in d."""
    leaves = jax.tree.leaves(d)
    for leaf in leaves:
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"d must hold arrays of floating point alone; got {describe(leaf)}: let f close over what is constant."
            )
    return leaves


def hessian_parts(f: Callable, d: Any) -> _Parts:
    """H v is the derivative of the gradient along v."""
    leaves_of(d)
    factors: list = []
    with CACHE.keeping(factors):
        both = jax.value_and_grad(lambda d: _scalar("f(d)", f(d)))
        (value, gradient), along = jax.linearize(both, d)
    return _Parts(d, value, gradient, lambda v: along(v)[1], factors)


def gauss_newton_parts(model: Callable, loss: Callable, d: Any) -> _Parts:
    """Jᵀ ℓ_xx J v, each linearised once; the transpose of J v is Jᵀ, and gives the gradient."""
    leaves_of(d)
    factors: list = []
    with CACHE.keeping(factors):
        x, push = jax.linearize(model, d)
        if not isinstance(x, jax.Array):
            raise TypeError(f"model(d) must be one array; got {describe(x)}.")
        (value, slope), curve = jax.linearize(jax.value_and_grad(lambda x: _scalar("loss(x)", loss(x))), x)
        pull = jax.linear_transpose(push, d)
        gradient = pull(slope)[0]
    return _Parts(d, value, gradient, lambda v: pull(curve(push(v))[1])[0], factors)


def _scalar(name: str, value: Any) -> jax.Array:
    if not isinstance(value, jax.Array) or value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name} must be one real number, an array of shape (); got {describe(value)}: sum it.")
    return value
