"""One small system for the tests of JAX: not symmetric, with a place that is given twice, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backsolve.factor_cache import CACHE

__all__ = ["COLS", "ROWS", "VALUES", "B", "dense", "wide"]

ROWS, COLS = [0, 0, 1, 1, 2, 2, 0], [0, 1, 1, 2, 0, 2, 0]
VALUES = np.array([2.0, 1, 4, -1, 0.5, 3, 1])
B = np.array([1.0, 2, 3])


@pytest.fixture(autouse=True)
def wide():
    """Double precision, and a cache that counts from zero, for every test of the module that imports this.

    In every thread: JAX rounds what a callback returns by the setting of the thread that runs it.
    """
    jax.config.update("jax_enable_x64", True)
    CACHE.clear()
    yield
    CACHE.clear()
    jax.config.update("jax_enable_x64", False)


def dense(w):
    """The matrix, or a batch of them, of values (..., 7)."""
    return jnp.zeros((*w.shape[:-1], 3, 3), w.dtype).at[..., ROWS, COLS].add(w)
