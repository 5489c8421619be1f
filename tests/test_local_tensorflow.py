"""Local queries of TensorFlow: slices for tapes, and what is refused in one sentence."""

import numpy as np
import pytest
from local_cases import band, dense_gradient, spread
from tensorflow_cases import fresh, tf  # noqa: F401

import backsolve as bs
from backsolve import local

N = 120
B, T = ([5, 9], [1.0, -2.0]), ([7, 30], [2.0, 1.0])
b, t = spread(B, N), spread(T, N)


def operator(w):
    A = band(N)
    return bs.CSR(w, A.indices, A.indptr, A.shape)


@pytest.mark.parametrize("grad, dtype", [("sparse", "float64"), ("dense", "float64"), ("sparse", "float32")])
def test_tapes_get_the_touched_entries(grad, dtype):
    w, part, whole = tf.Variable(band(N).data.astype(dtype)), tf.Variable(np.array(B[1])), tf.Variable(t)
    D = local.DiagonallyDominant(operator(w))  # outside of the tape: it is read again inside
    with tf.GradientTape() as tape:
        est = local.functional(D, (B[0], part), whole, 1e-10, grad=grad, gradient_atol=1e-9, fallback=None)
        loss = 3.0 * est.value
    bars = tape.gradient(loss, [w, part, whole])
    assert [isinstance(bar, tf.IndexedSlices) for bar in bars] == [grad == "sparse", False, grad == "sparse"]
    assert bars[0].dtype == dtype and est.value.dtype == tf.float64
    x, lam, truth = dense_gradient(band(N), b, t)
    atol = 1e-7 if dtype == "float64" else 1e-5
    for bar, want in zip(bars, (truth, lam[B[0]], x), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(bar), 3 * want, atol=atol)
    found = est.gradient()
    assert tf.is_tensor(found.A.values) and found.A.bound < 1e-3
    tf.keras.optimizers.SGD(0.1).apply_gradients([(bars[0], w)])
    with pytest.raises(RuntimeError, match=r"has been assigned to since local.DiagonallyDominant was made"):
        local.functional(D, B, T, 1e-6)


def test_solutions_are_sparse_tensors():
    w, part = tf.Variable(band(N).data), tf.Variable(np.array(B[1]))
    weights = np.random.default_rng(0).standard_normal(N)
    with tf.GradientTape() as tape:
        est = local.solve(operator(w), (B[0], part), 1e-10)
        loss = tf.reduce_sum(tf.sparse.to_dense(est.value) * weights)
    bars = tape.gradient(loss, [w, part])
    _, lam, truth = dense_gradient(band(N), b, weights)
    np.testing.assert_allclose(tf.convert_to_tensor(bars[0]), truth, atol=1e-8)
    np.testing.assert_allclose(bars[1], lam[B[0]], atol=1e-8)
    assert isinstance(est.value, tf.SparseTensor) and est.adjoint.certified
    later = local.functional(operator(w), B, tf.constant(t), 1e-6).update(db=([5], tf.constant([1.0])))
    assert abs(float(later.value) - t @ np.linalg.solve(band(N).toarray(), b + spread(([5], [1.0]), N))) <= later.bound


def test_what_cannot_be_is_refused_by_name():
    w = tf.constant(band(N).data)
    A = operator(w)
    with pytest.raises(TypeError, match=r"run eagerly only: call local.functional"):
        tf.function(lambda v: local.functional(A, ([5], v), T, 1e-6).value)(tf.ones(1))
    with tf.autodiff.ForwardAccumulator(w, tf.ones_like(w)), pytest.raises(TypeError, match="have no forward mode"):
        local.functional(operator(w), B, T, 1e-6)
    with tf.GradientTape() as outer:
        outer.watch(w)
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = local.functional(operator(w), B, T, 1e-6).value
        with pytest.raises(RuntimeError, match=r"call backsolve.local.hvp\(estimate, direction\)"):
            tape.gradient(value, w)
    with tf.GradientTape() as tape:
        tape.watch(w)
        with pytest.raises(ValueError, match="b must be sparse for a gradient"):
            local.functional(operator(w), tf.ones(N, tf.float64), T, 1e-6)
    with pytest.raises(ValueError, match="tensors of TensorFlow cannot be changed"):
        local.functional(A, B, T, 1e-6).update(dA=([0], [1.0]))
