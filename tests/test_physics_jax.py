"""A(y) dy/dt = f(t, y) in JAX: the vector field of diffrax, compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_cases import wide  # noqa: F401
from scipy.integrate import solve_ivp

from backsolve.pattern import canonical_pattern
from backsolve.physics import LinearlyImplicitField, dominant

diffrax = pytest.importorskip("diffrax", reason="left out: diffrax is not installed")

N = 4
PLACES, _ = canonical_pattern([0, 0, 1, 2, 3, 3], [1, 3, 2, 0, 2, 1], (N, N))
SIGNS = np.array([-1.0, 1, -1, 1, 1, -1])
W = 0.4 * np.random.default_rng(1).standard_normal((N, 6 + N))
Y0 = np.array([[0.5, -1.0, 0.3, 0.8], [1.0, 0.2, -0.4, 0.1]])
T = np.array([0.0, 0.4, 1.0])


def mass(y, w):
    out = jnp.tanh(y @ w)
    return dominant(SIGNS * (1.5 + out[..., :6]), out[..., 6:], PLACES)


def decay(t, y, w):
    return -(y**3) + jnp.sin(t)


def dense_rates(t, y, w):
    """The same rates by a dense solve of JAX's own."""
    return jnp.linalg.solve(mass(y, w).toarray(), decay(t, y, w)[..., None])[..., 0]


def test_gradients_through_a_trajectory_of_diffrax():
    """Compiled, for a batch of states: the value is that of SciPy, the gradients those of finite differences."""
    field = LinearlyImplicitField(mass, decay)
    steps = {"solver": diffrax.Midpoint(), "dt0": 0.02, "stepsize_controller": diffrax.ConstantStepSize()}

    @jax.jit
    def program(w, y0):
        return jax.value_and_grad(lambda w, y0: (field.trajectory(y0, T, w, **steps) ** 2).sum(), (0, 1))(w, y0)

    def rates(t, y):
        y = y.reshape(Y0.shape)
        out = np.tanh(y @ W)
        A = dominant(SIGNS * (1.5 + out[..., :6]), out[..., 6:], PLACES).toarray()
        return np.linalg.solve(A, (-(y**3) + np.sin(t))[..., None]).ravel()

    value, bars = program(W, Y0)
    expected = solve_ivp(rates, (0, 1), Y0.ravel(), method="DOP853", t_eval=T, rtol=1e-10, atol=1e-12)
    assert abs(value / np.square(expected.y).sum() - 1) < 1e-3  # of 50 steps of order 2
    h = 1e-5
    for at, bar in enumerate(bars):
        v = np.random.default_rng(at).standard_normal(bar.shape)
        dw, dy = (h * v, 0 * Y0) if at == 0 else (0 * W, h * v)
        difference = (program(W + dw, Y0 + dy)[0] - program(W - dw, Y0 - dy)[0]) / (2 * h)
        assert abs(difference / (bar * v).sum() - 1) < 1e-6


def test_rates_under_transforms_and_a_constant_matrix():
    field = LinearlyImplicitField(mass, decay)
    A = dominant(SIGNS * 1.5, np.zeros(N), PLACES)  # of NumPy: a constant beside y

    @jax.jit
    def program(y):
        constant = LinearlyImplicitField(A, decay)(0.3, y, W)
        return field(0.3, y, W), jax.vmap(field, (None, 0, None))(0.3, y, W), dense_rates(0.3, y, W), constant

    rates, mapped, dense, constant = program(Y0)
    np.testing.assert_allclose(rates, dense, rtol=1e-12)
    np.testing.assert_allclose(mapped, dense, rtol=1e-12)
    b = -(Y0**3) + np.sin(0.3)
    np.testing.assert_allclose(constant, np.linalg.solve(A.toarray(), b.T).T, rtol=1e-12)


def test_a_solve_that_fails_is_no_trajectory():
    """A becomes singular where y reaches 1/2: diffrax is told by NaN, accepts no such step, and raises."""

    def vanishing(y, args):
        return jnp.diag(jnp.where(y > 0.5, 1.0, 0.0))

    field = LinearlyImplicitField(vanishing, lambda t, y, args: -y)
    with pytest.raises(RuntimeError, match=r"maximum number of solver steps|minimum step size"):
        jax.block_until_ready(field.trajectory(jnp.ones(1), jnp.array([0.0, 2.0]), solver=diffrax.Heun(), max_steps=64))


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match="f must be a function"):
        LinearlyImplicitField(mass, 1.0)
    with pytest.raises(ValueError, match=r"the shape of y, \(2, 4\)"):
        LinearlyImplicitField(np.eye(N), lambda t, y, w: y[0])(0.0, jnp.asarray(Y0), W)
