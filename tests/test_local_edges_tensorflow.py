"""Edge models and learned walks of TensorFlow: what tapes get for theta, against dense algebra under another tape."""

import numpy as np
import pytest
import scipy.sparse as sp
from tensorflow_cases import fresh, tf  # noqa: F401

from backsolve import Status, local

N = 40
B, T = ([3, 20], [1.0, -0.5]), ([5], [2.0])


def problem():
    """A structure with its diagonal, not symmetric, and features of its entries."""
    rng = np.random.default_rng(0)
    near = (np.arange(N)[:, None] + rng.integers(1, 8, (N, 3))) % N
    A = sp.coo_array((np.ones(3 * N), (np.repeat(np.arange(N), 3), near.ravel())), shape=(N, N)) + sp.eye_array(N)
    A = sp.csr_array(A)
    A.sort_indices()
    return A, np.repeat(np.arange(N), np.diff(A.indptr)), rng.standard_normal((A.nnz, 2))


A, ROWS, FEATURES = problem()
PLACES = np.stack([ROWS, A.indices.astype(np.int64)], axis=1)
ON = tf.constant(PLACES[:, 0] == PLACES[:, 1])
NAMES = tf.constant(np.arange(A.nnz) % 5)


def entry_weight(theta, k):
    """Off the diagonal in (-1, 1); on it 12, more than the sum of the moduli in any row or column."""
    score = tf.linalg.matvec(tf.gather(FEATURES, k), theta["w"]) + tf.gather(theta["kinds"], tf.gather(NAMES, k))
    return tf.where(tf.gather(ON, k), tf.constant(12.0, tf.float64), tf.tanh(score))


def parameters():
    return {
        "w": tf.Variable([0.7, -0.4], dtype=tf.float64),
        "kinds": tf.Variable(np.linspace(-0.5, 0.5, 5)),
        "unused": tf.Variable(1.0),
        "step": tf.Variable(3),
    }


def wanted(theta):
    return [theta["w"], theta["kinds"]]


def dense_inverse(theta):
    """Recorded by the tape that looks on."""
    values = entry_weight(theta, tf.range(A.nnz))
    return tf.linalg.inv(tf.scatter_nd(PLACES, values, (N, N)))


def spread(vector):
    out = np.zeros(N)
    np.add.at(out, *vector)
    return out


def check_bars(bars, truth, atol):
    for got, want in zip(bars, truth, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(got), tf.convert_to_tensor(want), atol=atol, rtol=0)


@pytest.mark.parametrize("promise", ["rows", "columns", "both"])
def test_tapes_get_gradients_by_theta(promise):
    theta = parameters()
    model = local.EdgeModel(A, entry_weight, theta, promise=promise, margin=0.5)
    with tf.GradientTape() as tape:
        est = local.functional(model, B, T, 1e-9, gradient_atol=1e-9)
        loss = 3.0 * est.value
    with tf.GradientTape() as other:
        truth = 3.0 * tf.tensordot(spread(T), tf.linalg.matvec(dense_inverse(theta), spread(B)), 1)
    assert est.value.dtype == tf.float64 and abs(float(loss - truth)) <= 3 * est.bound <= 3e-9
    bars = tape.gradient(loss, [*wanted(theta), theta["unused"]])
    assert bars[2] is None and isinstance(bars[1], tf.IndexedSlices)
    check_bars(bars[:2], other.gradient(truth, wanted(theta)), 1e-7)
    found = est.gradient()
    assert tf.is_tensor(found.A.values) and np.array_equal(PLACES[found.A.places, 0], found.A.rows)
    inverse = dense_inverse(theta).numpy()
    x, lam = inverse @ spread(B), inverse.T @ spread(T)
    exact = -lam[PLACES[:, 0]] * x[PLACES[:, 1]]
    assert np.all(np.abs(found.A.values - exact[found.A.places]) <= found.A.bounds)


def test_solutions_are_sparse_tensors_and_steps_are_noticed():
    theta, c = parameters(), np.linspace(-1, 1, N)
    model = local.EdgeModel(A, entry_weight, theta)
    with tf.GradientTape() as tape:
        est = local.solve(model, (B[0], tf.constant(B[1], tf.float64)), 1e-10)
        loss = tf.reduce_sum(tf.sparse.to_dense(est.value) * c)
    with tf.GradientTape() as other:
        truth = tf.tensordot(c, tf.linalg.matvec(dense_inverse(theta), spread(B)), 1)
    assert abs(float(loss - truth)) <= N * est.bound
    check_bars(tape.gradient(loss, wanted(theta)), other.gradient(truth, wanted(theta)), 1e-8)
    with tf.GradientTape() as tape:
        value = local.entry(model, B, 5, 1e-2).value
    theta["w"].assign_add([0.1, 0.1])
    for call in (lambda: est.refine(1e-12), lambda: tape.gradient(value, wanted(theta))):
        with pytest.raises(RuntimeError, match="theta was assigned to since this estimate was made"):
            call()


def test_models_of_keras_are_trained():
    tf.keras.utils.set_random_seed(0)
    layers = [tf.keras.layers.Dense(4, activation="tanh"), tf.keras.layers.Dense(1, activation="tanh")]
    net = tf.keras.Sequential([tf.keras.Input((2,)), *layers])
    features = tf.constant(FEATURES, tf.float32)
    model = local.EdgeModel(A, lambda net, k: tf.where(tf.gather(ON, k), 4.0, net(tf.gather(features, k))[:, 0]), net)
    optimizer, losses = tf.keras.optimizers.SGD(2.0), []
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = local.functional(model, ([A.indices[1]], [1.0]), ([0], [1.0]), 1e-8).value
        optimizer.apply_gradients(
            zip(tape.gradient(loss, net.trainable_variables), net.trainable_variables, strict=True)
        )
        losses.append(float(loss))
    assert losses[2] < losses[1] < losses[0]


GRAPH = local.Graph(
    (np.r_[np.arange(30), np.arange(30)], np.r_[(np.arange(30) + 1) % 30, (np.arange(30) * 7) % 30]), n=30
)
EDGES = tf.constant(np.random.default_rng(1).standard_normal((60, 3)))


def edge_weight(theta, edges):
    return tf.exp(tf.linalg.matvec(tf.gather(EDGES, edges), theta))


def dense_walk(theta, seeds, alpha=0.85):
    rows = np.repeat(np.arange(30), np.diff(GRAPH.indptr))
    W = tf.scatter_nd(np.stack([rows, GRAPH.indices], 1).astype(np.int64), edge_weight(theta, tf.range(60)), (30, 30))
    P = W / tf.reduce_sum(W, 1, keepdims=True)
    eye = tf.eye(30, dtype=tf.float64)
    return (1 - alpha) * tf.linalg.solve(eye - alpha * tf.transpose(P), tf.gather(eye, seeds, axis=1))


def test_walks_are_recorded_by_tapes():
    theta, c = tf.Variable([0.3, -0.2, 0.5], dtype=tf.float64), np.linspace(-1, 1, 60).reshape(2, 30)
    walk = local.LearnedWalk(GRAPH, edge_weight)
    with tf.GradientTape(persistent=True) as tape:
        est = walk(theta, [2, 9], at=np.tile(np.arange(30), (2, 1)), atol=1e-12)
        loss = tf.reduce_sum(est.value * c)
        sparse = walk(theta, [2, 9], atol=1e-12)
        other_loss = tf.reduce_sum(tf.sparse.to_dense(sparse.value) * c)
        truth = tf.reduce_sum(tf.transpose(dense_walk(theta, [2, 9])) * c)
        single = walk(theta, 2, atol=1e-10)
    assert est.status == Status.CERTIFIED and sparse.value.shape == (2, 30) and single.value.shape == (30,)
    want = tape.gradient(truth, theta)
    for found in (loss, other_loss):
        assert abs(float(found - truth)) <= 2 * est.bound
        np.testing.assert_allclose(tape.gradient(found, theta), want, atol=1e-10)
    x = tf.transpose(dense_walk(theta, [2, 9]))
    assert np.abs(tf.sparse.to_dense(single.value) - x[0]).sum() <= single.bound
    g = walk.gradient(est, c)
    assert np.all(g.bounds < 1e-9)
    low = tf.Variable([0.3, -0.2, 0.5])
    half = local.LearnedWalk(
        GRAPH, lambda theta, k: tf.exp(tf.linalg.matvec(tf.cast(tf.gather(EDGES, k), "float32"), theta))
    )
    assert half(low, 2, at=[1], atol=1e-6).value.dtype == tf.float32


def test_what_cannot_be_is_refused():
    theta, walk = parameters(), local.LearnedWalk(GRAPH, edge_weight)
    model = local.EdgeModel(A, entry_weight, theta)
    w = tf.Variable([0.3, -0.2, 0.5], dtype=tf.float64)
    ones = lambda t, k: tf.ones(tf.shape(k), tf.float64)  # noqa: E731
    nothing = lambda t, k: tf.fill(tf.shape(k), np.nan)  # noqa: E731
    for f, error, says in (
        (ones, ValueError, r"row \d+ is not dominant: its margin"),
        (nothing, ValueError, r"row \d+ has the value nan at \d+"),
        (lambda t, k: 2 * t["w"], ValueError, "one float for each of"),
        (lambda t, k: 3.0, TypeError, "must return a tensor of TensorFlow, as theta is of TensorFlow; got float"),
    ):
        with pytest.raises(error, match=says):
            local.entry(local.EdgeModel(A, f, theta), ([3], [1.0]), 3, 1e-6)
    with pytest.raises(TypeError, match=r"run eagerly only: call local\.LearnedWalk outside of"):
        tf.function(lambda v: walk(v, 2, at=[1], atol=1e-3).value, autograph=False)(w)
    with pytest.raises(TypeError, match=r"run eagerly only: call local\.functional"):
        tf.function(lambda: local.functional(model, B, T, 1e-6).value, autograph=False)()
    with (
        tf.GradientTape() as tape,
        pytest.raises(ValueError, match=r"b must be a constant.*call tf.stop_gradient\(b\)"),
    ):
        tape.watch(b := tf.constant(B[1]))
        local.functional(model, (B[0], b), T, 1e-6)
    for ask, leaf in (
        (lambda: local.functional(model, B, T, 1e-6).value, theta["w"]),
        (lambda: walk(w, 2, at=[1], atol=1e-3).value[0], w),
    ):
        with tf.GradientTape(), pytest.raises(RuntimeError, match="has first derivatives only"):
            with tf.GradientTape() as tape:
                value = ask()
            tape.gradient(value, leaf)
        with (
            tf.autodiff.ForwardAccumulator(leaf, tf.ones_like(leaf)),
            pytest.raises(TypeError, match="no forward mode"),
        ):
            ask()
    with pytest.raises(TypeError, match="in TensorFlow use a GradientTape"):
        walk.value_and_grad(sum, w, 2, at=[1], atol=1e-3)
    assert local.predict_cost(model, B, T, 1e-6).entries > 0
