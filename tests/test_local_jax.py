"""Local queries of JAX: plain values, gradients by name, and what cannot be traced."""

import jax
import numpy as np
import pytest
from local_cases import band, dense_gradient, spread

import backsolve as bs
from backsolve import local

N = 120
B, T = ([5, 9], [1.0, -2.0]), ([7, 30], [2.0, 1.0])
b, t = spread(B, N), spread(T, N)


def test_jax_gets_values_and_gradients_by_name():
    A = band(N)
    w = jax.numpy.asarray(A.data)
    operator = bs.CSR(w, A.indices, A.indptr, A.shape)
    rounded = A.copy()
    rounded.data = np.asarray(w, np.float64)
    truth = dense_gradient(rounded, b, t)[2]
    est, g = local.value_and_grad(operator, ([5, 9], jax.numpy.array([1.0, -2.0])), T, 1e-8)
    assert isinstance(est.value, float) and isinstance(g.A.values, jax.Array) and g.A.values.dtype == w.dtype
    assert isinstance(g.A.places, jax.Array)
    got, bounds, places = (np.asarray(v, np.float64) for v in (g.A.values, g.A.bounds, g.A.places))
    assert np.all(np.abs(truth[places.astype(int)] - got) <= bounds + 1e-15)
    h = local.hvp(est, (np.array([3]), jax.numpy.ones(1)))
    assert isinstance(h.A.values, jax.Array)
    assert local.solve(operator, B, 1e-4).value.shape == (N, 1)
    for call in (
        lambda: jax.jit(lambda v: local.functional(operator.with_data(v), B, T, 1e-6).value)(w),
        lambda: jax.grad(lambda v: local.functional(operator, ([5], v), T, 1e-6).value)(jax.numpy.ones(1)),
    ):
        with pytest.raises(TypeError, match=r"cannot be traced by jax.jit, .*local.value_and_grad"):
            call()
    with pytest.raises(ValueError, match="arrays of JAX cannot be changed"):
        est.update(dA=([0], [1.0]))
