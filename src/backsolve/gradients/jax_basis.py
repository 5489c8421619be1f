"""The basis of Hutch++ in JAX, a constant for derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import api

__all__ = ["basis", "detached"]


def basis(A: Any, B: Any, S: np.ndarray, solve: dict) -> jax.Array:
    """An orthonormal basis of A⁻¹B S."""
    A, B = jax.lax.stop_gradient((A, B))
    T = jnp.asarray(S)
    return jnp.linalg.qr(api.solve(A, T if B is None else B @ T, **solve))[0]


def detached(draws: jax.Array) -> jax.Array:
    """Samples without derivatives; traced in a compiled program."""
    return jax.lax.stop_gradient(draws)
