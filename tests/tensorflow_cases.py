"""One small system for the tests of TensorFlow: not symmetric, with a place that is given twice."""

import os

import numpy as np
import pytest

import backsolve as bs
from backsolve.factor_cache import CACHE

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it tells of the processor at import
tf = pytest.importorskip("tensorflow", reason="left out: tensorflow is not installed")

__all__ = [
    "COLS",
    "KINDS",
    "ROWS",
    "VALUES",
    "B",
    "both_modes",
    "close",
    "dense",
    "fresh",
    "loss",
    "sparse",
    "tf",
    "truth",
]

ROWS, COLS = [0, 0, 1, 1, 2, 2, 0], [0, 1, 1, 2, 0, 2, 0]
VALUES = np.array([2.0, 1, 4, -1, 0.5, 3, 1])
B = np.array([1.0, 2, 3])
PLACES = np.zeros((7, 9))
PLACES[np.arange(7), np.array(ROWS) * 3 + COLS] = 1

both_modes = pytest.mark.parametrize("mode", [lambda f: f, lambda f: tf.function(f)], ids=["eager", "function"])
"""As it is, and traced by tf.function."""


@pytest.fixture(autouse=True)
def fresh():
    """A cache that counts from zero, for every test of the module that imports this."""
    CACHE.clear()
    yield
    CACHE.clear()


def dense(w):
    """The matrix, or a batch of them, of values (..., 7)."""
    flat = tf.linalg.matvec(tf.constant(PLACES, w.dtype), w, transpose_a=True)
    return tf.reshape(flat, (*w.shape[:-1], 3, 3))


def sparse(w):
    return bs.coo(w, (ROWS, COLS), (3, 3))


def by_pattern(w, b):
    return bs.solve(sparse(w), b)


def by_entries(w, b):
    return bs.solve(dense(w), b)


def truth(w, b):
    """By TensorFlow's own solve, which knows matrices only."""
    return tf.linalg.solve(dense(w), b[:, None])[:, 0]


KINDS = pytest.mark.parametrize("solve", [by_pattern, by_entries])


def loss(solve):
    """A real function, not quadratic in x, nor blind to its phase."""

    def of(w, b):
        x = solve(w, b)
        size = tf.reduce_sum(tf.abs(x) ** 3 * np.arange(1, 4).astype(x.dtype.real_dtype.as_numpy_dtype))
        return size + tf.reduce_sum(tf.math.real(x) ** 2)

    return of


def close(got, want, factor=1):
    """Equal to rounding, and of one dtype and shape."""
    for g, t in zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True):
        g, t = np.asarray(g), np.asarray(t)
        assert g.shape == t.shape, f"{g.shape} is not {t.shape}"
        bound = 1e3 * factor * np.finfo(g.dtype).eps
        np.testing.assert_allclose(g, t, rtol=bound, atol=bound * max(1.0, np.abs(t).max(initial=0)))
