"""Roots of JAX functions: loops that can be compiled, and a `custom_jvp` with the rule of `problem`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from types import SimpleNamespace
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_pytree_node

from ..operators import MatrixFree
from .nonlinear import LeastSquaresSolution
from .outcome import RootSolution

__all__ = ["BACKEND"]


def loop(going: Callable, step: Callable, state: Any) -> Any:
    """Repeat `step` while `going`."""
    kinds = jax.tree.map(lambda v: jnp.asarray(v).dtype, state)

    def same(state: Any) -> Any:
        return jax.tree.map(lambda v, kind: jnp.asarray(v, kind), state, kinds)

    return jax.lax.while_loop(going, lambda state: same(step(state)), same(state))


def like(b: jax.Array, array: Any) -> jax.Array:
    """An array in the dtype of b."""
    return jnp.asarray(array, b.dtype)


def known(array: Any) -> np.ndarray | None:
    """The numbers; None where they are traced."""
    return None if isinstance(array, jax.core.Tracer) else np.asarray(array)


def index(b: jax.Array, array: np.ndarray) -> jax.Array:
    """Integers as indices beside b."""
    return jnp.asarray(array)


def flatten_params(params: tuple) -> tuple[tuple, Callable]:
    """Arrays in the parameters, and what puts others in their place; other things stay."""
    leaves, tree = jax.tree.flatten(params)
    places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

    def rebuild(arrays: tuple) -> tuple:
        whole = list(leaves)
        for at, array in zip(places, arrays, strict=True):
            whole[at] = array
        return jax.tree.unflatten(tree, whole)

    return tuple(jnp.asarray(leaves[at]) for at in places), rebuild


def products(flat: Callable, z: jax.Array, leaves: tuple) -> MatrixFree:
    """J by products, which JAX transposes."""

    def product(params: tuple, v: jax.Array) -> jax.Array:
        z, leaves = params
        return jax.jvp(lambda z: flat(z, leaves), (z,), (v,))[1]

    return MatrixFree(product, (z, leaves), (len(z), len(z)))


def dense(flat: Callable, z: jax.Array, leaves: tuple) -> jax.Array:
    """The Jacobian."""
    return jax.jacfwd(lambda z: flat(z, leaves))(z)


def columns(flat: Callable, z: jax.Array, leaves: tuple, seeds: np.ndarray) -> jax.Array:
    """J s for each row s of `seeds`."""
    return jax.vmap(lambda s: jax.jvp(lambda z: flat(z, leaves), (z,), (s,))[1])(like(z, seeds))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attached(problem: Any, z: jax.Array, status: jax.Array, leaves: tuple) -> jax.Array:
    """z, as a function of the leaves."""
    return z


@_attached.defjvp
def _rule(problem: Any, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    z, status, leaves = primals
    z = _attached(problem, z, status, leaves)
    u = jax.jvp(lambda leaves: problem.flat(z, leaves), (leaves,), (tangents[2],))[1]
    z_dot = problem.inverse(BACKEND, z, leaves, -u, False)
    # A factor, and no choice: its transpose makes cotangents NaN, too.
    return z, z_dot * jnp.where(_every(problem, status, z) > 0, 1.0, jnp.nan).astype(z.dtype)


def _every(problem: Any, status: jax.Array, z: jax.Array) -> jax.Array:
    """The status of the sample of each unknown."""
    return jnp.repeat(status, z.shape[0] // max(problem.samples, 1))


def run(problem: Any, z0: jax.Array, leaves: tuple, backward: list) -> tuple[jax.Array, Any]:
    """The root, and what became of it. What F closes over is a parameter like any other."""
    flat, hoisted = jax.closure_convert(problem.flat, z0, leaves)
    count = len(leaves)
    problem = problem.on(lambda z, whole: flat(z, whole[:count], *whole[count:]))
    whole = (*leaves, *hoisted)
    found = problem.solve(BACKEND, jax.lax.stop_gradient(z0), jax.lax.stop_gradient(whole))
    return _attached(problem, found.z.reshape(-1), found.status, whole), found


def blanked(z: jax.Array, status: jax.Array) -> jax.Array:
    """z with NaN where a sample failed."""
    lost = (status <= 0).reshape(status.shape + (1,) * (z.ndim - status.ndim))
    return jnp.where(lost, jnp.nan, z)


register_pytree_node(
    LeastSquaresSolution,
    lambda sol: ((sol.z, sol.residual, sol.status, sol.gradient_norm, sol.iterations, sol.evaluations), sol.solver),
    lambda solver, leaves: LeastSquaresSolution(*leaves, solver),
)
register_pytree_node(
    RootSolution,
    lambda sol: ((sol.z, sol.status, sol.residual_norm, sol.iterations, sol.evaluations), sol.solver),
    lambda solver, leaves: RootSolution(*leaves, solver),
)


def found_on_host(solve: Callable, width: int, arrays: tuple) -> jax.Array:
    """What a function of NumPy arrays gives, (items, width), as a constant; compiled, by a call of the host."""
    items, kind = arrays[1].shape[0], arrays[1].dtype

    def call(*arrays: Any) -> np.ndarray:
        front = arrays[1].shape[:-2]
        count = prod(front) * items
        flat = (np.asarray(v).reshape(count, *v.shape[len(front) + 1 :]) for v in arrays)
        return solve(*flat).astype(kind).reshape(*front, items, width)

    form = jax.ShapeDtypeStruct((items, width), kind)
    return jax.pure_callback(call, form, *map(jax.lax.stop_gradient, arrays), vmap_method="broadcast_all")


BACKEND = SimpleNamespace(
    xp=jnp,
    name="jax",
    loop=loop,
    like=like,
    index=index,
    known=known,
    flatten_params=flatten_params,
    products=products,
    dense=dense,
    columns=columns,
    vjp=jax.vjp,
    constant=jax.lax.stop_gradient,
    run=run,
    found_on_host=found_on_host,
)
