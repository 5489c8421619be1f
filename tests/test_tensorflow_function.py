"""Solves inside of tf.function: traced once, one call of the host each, factors kept for the backward; and Keras."""

import logging
import threading

import numpy as np
import pytest
from tensorflow_cases import COLS, KINDS, ROWS, VALUES, B, close, dense, fresh, loss, sparse, tf, truth  # noqa: F401

import backsolve as bs
from backsolve.factor_cache import CACHE

PATTERN = bs.coo(VALUES, (ROWS, COLS), (3, 3))


def calls_of_the_host(graph):
    return [op.type for op in graph.get_operations() if "PyFunc" in op.type]


@KINDS
def test_traced_once_for_changing_data(solve):
    traces = []

    @tf.function
    def step(w, b):
        traces.append(1)
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = loss(solve)(w, b)
        return tape.gradient(y, w)

    for s in range(3):
        w, b = tf.constant(VALUES + s), tf.constant(B * (1 + s))
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = loss(truth)(w, b)
        close(step(w, b), tape.gradient(y, w), 10)
    assert len(traces) == 1


@KINDS
def test_a_solve_and_its_derivatives_factor_once(solve):
    w, b = tf.constant(VALUES), tf.constant(B)

    def twice(w):
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as tape:
                tape.watch(w)
                y = loss(solve)(w, b)
            g = tape.gradient(y, w)
            total = tf.reduce_sum(g**2)
        return g, outer.gradient(total, w)

    tf.function(loss(solve))(w, b)
    assert CACHE.info()[:2] == (0, 1)
    tf.function(twice)(w)
    assert CACHE.info()[:2] == (4, 1)  # x again, λ, and the two solves of the second derivative


def test_one_call_of_the_host_for_each_solve():
    with_gradient = tf.function(lambda w: tape_gradient(lambda w: tf.reduce_sum(bs.solve(dense(w), B)), w))
    graph = with_gradient.get_concrete_function(tf.constant(VALUES)).graph
    assert calls_of_the_host(graph) == ["PyFuncStateless"] * 2


def tape_gradient(f, w):
    with tf.GradientTape() as tape:
        tape.watch(w)
        y = f(w)
    return tape.gradient(y, w, unconnected_gradients="zero")


def test_factors_that_the_cache_dropped_are_made_again():
    before = CACHE.info().capacity
    try:
        CACHE.resize(0)
        f = lambda w: tf.reduce_sum(bs.solve(sparse(w), B))  # noqa: E731
        w = tf.constant(VALUES)
        close(tf.function(lambda w: tape_gradient(f, w))(w), tape_gradient(f, w))
        assert CACHE.info().entries == 0
    finally:
        CACHE.resize(before)


def test_a_constant_matrix_is_factored_once_for_all_calls():
    A = sparse(tf.constant(VALUES)).T.T  # canonical values
    f = tf.function(lambda b: bs.solve(A, b))
    for s in (1.0, 2.0):
        close(f(tf.constant(B * s)), np.linalg.solve(A.toarray(), B * s))
    assert CACHE.info().misses == 0


def test_solutions_can_be_returned():
    f = tf.function(lambda w: bs.solve_with_info(PATTERN.with_data(w), B, rtol=1e-10, on_failure="return"))
    sol = f(tf.constant(VALUES))
    assert isinstance(sol, bs.Solution) and sol.converged and isinstance(sol.method, bs.SuperLU | bs.KLU)
    assert sol.status.dtype == tf.int32 and float(sol.stats.relative_residual) < 1e-10
    assert "CONVERGED_RESIDUAL" in repr(sol)
    close(
        tape_gradient(lambda w: tf.reduce_sum(f(w).x), tf.constant(VALUES)),
        tape_gradient(lambda w: tf.reduce_sum(truth(w, tf.constant(B))), tf.constant(VALUES)),
    )
    assert not f(tf.zeros(7, tf.float64)).converged
    many = tf.function(lambda w: bs.solve_with_info(PATTERN.with_data(w), np.ones((5, 3, 2))))
    assert many(tf.constant(np.stack([VALUES] * 5))).status.shape == (5,)


def test_variables_are_read_when_the_program_runs():
    v = tf.Variable(VALUES)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(bs.solve(PATTERN.with_data(v), B))
        bar = tape.gradient(y, v)
        v.assign_sub(0.1 * bar)
        return y

    first = step()
    close(first, np.sum(np.linalg.solve(dense(tf.constant(VALUES)), B)))
    moved = dense(tf.convert_to_tensor(v))
    close(step(), np.sum(np.linalg.solve(moved, B)))


def test_loops_and_branches():
    w = tf.constant(VALUES)

    def walk(solve):
        def f(w):
            x = tf.constant(B)
            for _ in tf.range(4):
                x = solve(w, x)
            return tf.reduce_sum(x)

        return f

    ours = lambda w, b: bs.solve(PATTERN.with_data(w), b)  # noqa: E731
    close(tf.function(lambda w: tape_gradient(walk(ours), w))(w), tape_gradient(walk(truth), w), 10)
    close(tape_gradient(tf.function(walk(ours)), w), tape_gradient(walk(truth), w), 10)
    assert CACHE.info().misses == 1

    def either(solve):
        return lambda w: tf.reduce_sum(tf.cond(w[0] > 1, lambda: solve(w, tf.constant(B)), lambda: tf.constant(B)))

    for at in (w, w - 2):
        close(tf.function(lambda w: tape_gradient(either(ours), w))(at), tape_gradient(either(truth), at), 10)


def test_threads_share_a_function():
    f = tf.function(lambda w: bs.solve(PATTERN.with_data(w), B))
    f(tf.constant(VALUES))
    got = {}

    def work(s):
        for _ in range(50):
            got[s] = f(tf.constant(VALUES * s)).numpy()

    threads = [threading.Thread(target=work, args=(s,)) for s in (1.0, 2.0, 4.0)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(got[1.0], got[2.0] * 2)
    np.testing.assert_array_equal(got[1.0], got[4.0] * 4)


def test_autograph_leaves_the_library_alone(caplog):
    tf.autograph.set_verbosity(3)
    try:
        with caplog.at_level(logging.INFO, "tensorflow"):

            @tf.function
            def f(w, b):
                A = bs.CSR(w, [0, 1, 2], [0, 1, 2, 3], (3, 3)).with_data(w).assume("general")
                F = bs.factorize((2 * A + bs.eye(3)).T)
                sol = bs.solve_with_info(bs.Dense(A.toarray()), F.adjoint.solve(b), adjoint=bs.Adjoint())
                return bs.solve(bs.aslinearoperator(A), sol.x) + A.diagonal() * bs.slogdet(A)[1]

            f(tf.constant([1.0, 2, 4]), tf.ones(3))
    finally:
        tf.autograph.set_verbosity(0)
    converted = [r.getMessage() for r in caplog.records if "Transformed" in r.getMessage()]
    assert len(converted) == 1 and ".f at " in converted[0]


def test_xla_cannot_compile_a_call_of_the_host():
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="PyFuncStateless"):
        tf.function(lambda w: bs.solve(PATTERN.with_data(w), B), jit_compile=True)(tf.constant(VALUES))


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_keras_layer_learns_a_matrix(eagerly):
    """Batches of unknown size; the layer has one weight for each triplet, as float32."""
    tf.keras.utils.set_random_seed(0)

    class Solve(tf.keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(7,), initializer="ones")
            self.scale = tf.keras.layers.Dense(3)

        def call(self, b):
            A = PATTERN.with_data(self.w + tf.constant(VALUES, tf.float32))
            return bs.solve(A, self.scale(b)[..., None])[..., 0]

    model = tf.keras.Sequential([Solve()])
    rng = np.random.default_rng(0)
    b = rng.standard_normal((64, 3)).astype("float32")
    x = np.linalg.solve(PATTERN.toarray(), b[..., None])[..., 0]
    model.compile("adam", "mse", run_eagerly=eagerly)
    model.optimizer.learning_rate = 0.05
    history = model.fit(b, x, epochs=3 if eagerly else 15, batch_size=24, verbose=0).history["loss"]
    assert history[-1] < (0.9 if eagerly else 0.2) * history[0]
    assert model.predict(b[:5], verbose=0).shape == (5, 3)


def test_a_network_makes_the_matrix():
    """A batch of matrices on one pattern, one for each example."""
    tf.keras.utils.set_random_seed(0)

    class Solve(tf.keras.layers.Layer):
        def call(self, w):
            return bs.solve(PATTERN.with_data(VALUES + 0.1 * tf.cast(w, tf.float64)), tf.constant(B))

        def compute_output_shape(self, shape):
            return (shape[0], 3)

    inputs = tf.keras.Input((4,))
    model = tf.keras.Model(inputs, Solve()(tf.keras.layers.Dense(7)(inputs)))
    z = np.random.default_rng(0).standard_normal((32, 4))
    model.compile("adam", "mse")
    loss = model.fit(z, np.tile(np.linalg.solve(PATTERN.toarray(), B), (32, 1)), epochs=5, verbose=0).history["loss"]
    assert loss[-1] < loss[0]
