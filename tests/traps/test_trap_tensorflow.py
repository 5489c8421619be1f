"""Traps of TensorFlow's custom gradients: what is missing from a second derivative, or zero, without a word."""

import numpy as np
import pytest

import backsolve as bs

tf = pytest.importorskip("tensorflow", reason="left out: tensorflow is not installed")

N = 5
ROWS = [*range(N), *range(1, N), 0]
COLS = [*range(N), *range(N - 1), 3]
PATTERN = bs.coo(np.zeros(2 * N), (ROWS, COLS), (N, N))
PLACES = np.zeros((2 * N, N * N))
PLACES[np.arange(2 * N), np.array(ROWS) * N + COLS] = 1
W, B = np.concatenate([np.full(N, 3.0), np.linspace(-1, 1, N)]), np.arange(1.0, N + 1)
MODES = pytest.mark.parametrize("mode", [lambda f: f, lambda f: tf.function(f)], ids=["eager", "function"])


def dense(w):
    return tf.reshape(tf.linalg.matvec(PLACES, w, transpose_a=True), (N, N))


def solve(w):
    return bs.solve(PATTERN.with_data(w), tf.constant(B))


def truth(w):
    return tf.linalg.solve(dense(w), B[:, None])[:, 0]


def twice(f):
    def run(w):
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as tape:
                tape.watch(w)
                y = tf.reduce_sum(f(w) ** 3)
            total = tf.reduce_sum(tape.gradient(y, w) ** 2)
        return outer.gradient(total, w)

    return run


def with_output_from_inside(w):
    """What people write: the gradient uses the x inside of the custom gradient, which outer tapes do not know."""

    @tf.custom_gradient
    def f(w):
        x = truth(w)
        M = dense(w)

        def gradient(g):
            lam = tf.linalg.solve(M, g[:, None], adjoint=True)[:, 0]
            return tf.linalg.matvec(PLACES, tf.reshape(-lam[:, None] * tf.stop_gradient(x)[None, :], (N * N,)))

        return x, gradient

    return f(w)


@MODES
def test_second_derivatives_go_through_the_output_that_tapes_know(mode):
    w = tf.constant(W)
    want = twice(truth)(w)
    np.testing.assert_allclose(mode(twice(solve))(w), want, rtol=1e-11)
    wrong = twice(with_output_from_inside)(w)
    assert 0.01 < np.abs(wrong - want).max() / np.abs(want).max() < 1, "the trap itself is gone: this test sees nothing"


@MODES
def test_forward_mode_sees_more_than_a_constant(mode):
    def push(f):
        def run(w):
            with tf.autodiff.ForwardAccumulator(w, tf.cos(w)) as forward:
                y = f(w)
            return forward.jvp(y)

        return run

    w = tf.constant(W)
    want = push(truth)(w)
    assert np.abs(want).min() > 0
    np.testing.assert_allclose(mode(push(solve))(w), want, rtol=1e-11)


def test_custom_gradients_in_graphs_still_hide_a_constant_from_forward_mode():
    """If this fails, TensorFlow has been mended, and `tensorflow_recording.recorded` may become simpler."""

    @tf.custom_gradient
    def three_times(x):
        return tf.numpy_function(lambda x: 3 * x, (x,), x.dtype), lambda g: 3 * g

    @tf.function
    def push(x):
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
            y = three_times(x)
        return forward.jvp(y, tf.UnconnectedGradients.ZERO)

    assert float(push(tf.constant(2.0))) == 0
