"""Functions (theta, places) -> values of JAX, compiled for batches of 2^k places, and once more for their vjp.

A function is traced once for each size, and what it closes over becomes an argument of its programs: features of 10⁸
edges as a constant of each of them would be copied, and looked through by the compiler.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_jaxpr

from ..errors import describe

__all__ = ["Weighing", "array", "refuse_tracers"]

_LEAST = 256


class Weighing:
    """A function and the theta of one query, which stays as it is.

    Places beyond the last are the last again: whatever happens there, happens to a place that is looked at anyway.
    """

    def __init__(self, function: Callable, theta: Any):
        self.function = _hashable(_unwrapped(function))
        leaves, self.tree = jax.tree_util.tree_flatten(theta)
        refuse_tracers(*leaves)
        try:
            self.leaves = [_leaf(leaf) for leaf in leaves]
        except TypeError as error:
            raise TypeError(
                f"theta must be a pytree of arrays and numbers; {error}: leave other things to edge_weight."
            ) from None
        self.kinds = tuple(jax.ShapeDtypeStruct(v.shape, v.dtype, weak_type=v.weak_type) for v in self.leaves)
        self.dtype = np.dtype(jax.dtypes.canonicalize_dtype(np.float64))

    def evaluate(self, places: np.ndarray) -> np.ndarray:
        """A value for each place."""
        if not len(places):
            return np.zeros(0, self.dtype)
        program, padded = self._program(places)
        values = np.asarray(program.values(program.held, self.leaves, padded))[: len(places)]
        self.dtype = values.dtype
        return values

    def pull(self, places: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, Any]:
        """The values once more, and Σ g ∂value/∂theta, as a pytree like theta."""
        if not len(places):
            zeros = jax.tree_util.tree_unflatten(self.tree, [jnp.zeros_like(leaf) for leaf in self.leaves])
            return np.zeros(0, self.dtype), zeros
        program, padded = self._program(places)
        weights = np.pad(g, (0, len(padded) - len(g))).astype(program.dtype)
        values, bars = program.pullback(program.held, self.leaves, padded, weights)
        return np.asarray(values)[: len(places)], jax.tree_util.tree_unflatten(self.tree, bars)

    def _program(self, places: np.ndarray) -> tuple[_Program, jax.Array]:
        size = max(_LEAST, 1 << (len(places) - 1).bit_length())
        padded = array(np.pad(places, (0, size - len(places)), mode="edge"))
        key = self.tree, self.kinds, size, padded.dtype
        programs = _PROGRAMS.setdefault(self.function, {})
        if key not in programs:
            programs[key] = _traced(self.function, *key)
        return programs[key], padded


class _Program:
    """A function as traced for one size; both programs are compiled when they are first asked for."""

    def __init__(self, traced: Any):
        self.jaxpr, self.held, self.dtype = traced.jaxpr, traced.consts, traced.out_avals[0].dtype

    def _run(self, held: Any, leaves: Any, places: Any) -> Any:
        return eval_jaxpr(self.jaxpr, held, *leaves, places)[0]

    @cached_property
    def values(self) -> Callable:
        return jax.jit(self._run)

    @cached_property
    def pullback(self) -> Callable:
        def pullback(held: Any, leaves: Any, places: Any, g: Any) -> Any:
            values, pull = jax.vjp(lambda own: self._run(held, own, places), leaves)
            return values, pull(g)[0]

        return jax.jit(pullback)


_PROGRAMS: WeakKeyDictionary[Callable, dict[tuple, _Program]] = WeakKeyDictionary()
"""Of each function as long as it lives: what it closes over may be large."""


def _traced(function: Callable, tree: Any, kinds: tuple, size: int, integer: Any) -> _Program:
    def flat(*arguments: Any) -> Any:
        *leaves, places = arguments
        values = function(jax.tree_util.tree_unflatten(tree, leaves), places)
        if not isinstance(values, jax.Array) or values.shape != (size,) or values.dtype.kind != "f":
            raise ValueError(
                f"edge_weight must return one float for each of the {size} places that it was given; got "
                f"{describe(values)}."
            )
        return values

    return _Program(jax.make_jaxpr(flat)(*kinds, jax.ShapeDtypeStruct((size,), integer)))


def array(plain: np.ndarray) -> jax.Array:
    """In the precision that JAX has: indices as int64, and else as int32 if they fit."""
    dtype = jax.dtypes.canonicalize_dtype(plain.dtype)
    if dtype != plain.dtype and plain.dtype.kind == "i" and plain.size and plain.max() > np.iinfo(dtype).max:
        raise OverflowError(
            'places of A beyond 2^31 need 64-bit integers: call jax.config.update("jax_enable_x64", True).'
        )
    return jax.device_put(plain.astype(dtype))  # jnp.asarray would compile a program for each size


def _leaf(value: Any) -> jax.Array:
    return array(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else jnp.asarray(value)


def refuse_tracers(*values: Any) -> None:
    """Raise for what has no value."""
    if any(isinstance(value, Tracer) for value in values):
        raise TypeError(
            "local solves read values, so they cannot be traced by jax.jit, jax.grad or jax.vmap: call them outside, "
            "and local.value_and_grad for gradients."
        )


_COMPILED = type(jax.jit(lambda: 0))


def _unwrapped(function: Any) -> Any:
    """What was given to jax.jit: a function that is compiled by itself holds what it closes over as constants."""
    return inspect.unwrap(function, stop=lambda own: not isinstance(own, _COMPILED))


def _hashable(function: Any) -> Any:
    try:
        hash(ref(function))
    except TypeError:
        raise TypeError(
            f"edge_weight must be hashable, as its programs are kept for it; got {describe(function)}: wrap it in a "
            "function."
        ) from None
    return function
