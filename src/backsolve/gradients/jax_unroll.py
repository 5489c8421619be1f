"""Iterations as loops of a JAX program, which reverse mode goes back through, with truncation and checkpoints."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from ..operators import AbstractLinearOperator
from .program import Program, diagonal_inverse
from .recurrences import RECURRENCES, System

__all__ = ["run"]


def run(program: Program, A: AbstractLinearOperator, b: jax.Array, tally: Any) -> jax.Array:
    """x after the iterations of `program`; NaN in columns that fail."""
    if program.method == "chebyshev" and program.bounds is None:
        raise ValueError(
            "unroll: in JAX 'chebyshev' needs bounds=(low, high) of the spectrum of M A: no program looks."
        )
    dtype = b.dtype if A.dtype is None else jnp.promote_types(A.dtype, b.dtype)
    single = b.ndim == 1
    b = b.astype(dtype)
    if A.batch_shape:
        b = b[:, None] if single else b
        b = jnp.broadcast_to(b, (*jnp.broadcast_shapes(A.batch_shape, b.shape[:-2]), *b.shape[-2:]))
    vector = b.ndim == 1
    axis = 0 if vector else -2
    # x is homogeneous in b: x(b) = s x(b/s) for any number s, so the derivative is right with s held constant.
    s = lax.stop_gradient(jnp.max(jnp.abs(b), axis=axis, keepdims=True))
    s = jnp.where((s > 0) & jnp.isfinite(s), s, 1)
    if program.scaled:
        inverse = diagonal_inverse(A, vector, _known)
        M: Any = lambda v: inverse * v  # noqa: E731
    else:
        M = program.M or (lambda v: v)
    bounds = program.bounds or (0.0, 0.0)
    system = System(jnp, A.__matmul__, M, axis, float(jnp.finfo(dtype).eps), program.omega, bounds)
    state = _iterate(program, system, b / s)
    sound = getattr(state, "sound", True)
    x = s * jnp.where(sound & jnp.all(jnp.isfinite(state.x), axis=axis, keepdims=True), state.x, jnp.nan)
    return x[..., 0] if single and not vector else x


def _iterate(program: Program, system: System, b: jax.Array) -> Any:
    init, step = RECURRENCES[program.method]
    if constant := program.iterations - program.recorded:
        # Where all that a step takes in is constant no derivative of it is made, and nothing kept for one.
        fixed = system._replace(A=_constant(system.A), M=_constant(system.M))
        state = _steps(step, fixed, init(fixed, lax.stop_gradient(b)), constant)
        state = lax.stop_gradient(state)
        state = state._replace(r=b - system.A(state.x))
    else:
        state = init(system, b)
    if program.checkpoint is None:
        return _steps(step, system, state, program.recorded)
    whole, rest = divmod(program.recorded, program.checkpoint)
    segment = jax.checkpoint(lambda state: _steps(step, system, state, program.checkpoint or 1))
    state, _ = lax.scan(lambda state, _: (segment(state), None), state, length=whole)
    return _steps(step, system, state, rest)


def _steps(step: Any, system: System, state: Any, count: int) -> Any:
    return lax.scan(lambda state, _: (step(system, state), None), state, length=count)[0]


def _constant(function: Any) -> Any:
    return lambda v: lax.stop_gradient(function(v))


def _known(d: jax.Array) -> Any:
    return None if isinstance(d, Tracer) else jax.device_get(d != 0)
