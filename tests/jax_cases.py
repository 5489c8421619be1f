"""One small system for the tests of JAX: not symmetric, with a place that is given twice, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backsolve.factor_cache import CACHE

__all__ = ["AS_USERS", "COLS", "ROWS", "VALUES", "B", "dense", "wide"]

ROWS, COLS = [0, 0, 1, 1, 2, 2, 0], [0, 1, 1, 2, 0, 2, 0]
VALUES = np.array([2.0, 1, 4, -1, 0.5, 3, 1])
B = np.array([1.0, 2, 3])
AS_USERS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}
"""For ``jax.jit(compiler_options=...)``: what XLA does where XLA_FLAGS says nothing, and conftest.py turns off."""


@pytest.fixture(autouse=True)
def wide():
    """Double precision, and a cache that counts from zero, for every test of the module that imports this.

    For all threads, as users have it: ``jax.enable_x64()`` holds for one, and JAX may call the host from others.
    """
    before = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    jax.config.update("jax_enable_x64", True)
    CACHE.clear()
    yield
    CACHE.clear()
    jax.config.update("jax_enable_x64", before)


def dense(w):
    """The matrix, or a batch of them, of values (..., 7)."""
    return jnp.zeros((*w.shape[:-1], 3, 3), w.dtype).at[..., ROWS, COLS].add(w)
