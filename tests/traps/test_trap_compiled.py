"""The traps of compiled programs, in JAX and TensorFlow: cotangents, outputs, adjoints, handles and maps."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import backsolve as bs
from backsolve import gallery

jax = pytest.importorskip("jax", reason="left out: jax is not installed")
tf = pytest.importorskip("tensorflow", reason="left out: tensorflow is not installed")
jnp = jax.numpy

P = gallery.problem("convection", 16)
DENSE = P.toarray()


@pytest.fixture(autouse=True)
def wide():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def pulled(framework, options, w, b, g):
    """The cotangents of values and right-hand side, from a compiled program."""
    if framework == "jax":
        solve = jax.jit(lambda w, b, g: jax.vjp(lambda w, b: bs.solve(P.A.with_data(w), b, **options), w, b)[1](g))
        return [np.asarray(v) for v in solve(*map(jnp.asarray, (w, b, g)))]

    @tf.function
    def pull(w, b, g):
        with tf.GradientTape() as tape:
            tape.watch((w, b))
            x = bs.solve(P.A.with_data(w), b, **options)
        return tape.gradient(x, (w, b), g)

    return [v.numpy() for v in pull(*map(tf.constant, (w, b, g)))]


@pytest.mark.parametrize("method", ["superlu", "bicgstab"])
@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
def test_tiny_cotangents_in_compiled_programs(framework, method):
    w, b = P.A.data.astype("float32"), P.b.astype("float32")
    options = {"method": method, "rtol": 1e-6}
    whole = pulled(framework, options, w, b, np.ones_like(b))
    for size in (1e-13, 1e-30):
        for one, tiny in zip(whole, pulled(framework, options, w, b, np.full_like(b, size)), strict=True):
            assert tiny.dtype == np.float32 and np.isfinite(tiny).all()
            np.testing.assert_allclose(tiny / np.float32(size), one, rtol=1e-3, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
def test_the_preconditioner_is_adjointed_in_compiled_programs(framework):
    """Far from symmetric, and just enough iterations: with M in place of Mᴴ the adjoint would not converge."""
    problem, g = gallery.problem("convection", 900), np.ones(900)
    forward = bs.solve_with_info(problem.A, problem.b, method="gmres", M="ilu0")
    backward = bs.factorize(problem.A, method="gmres", M="ilu0").adjoint.solve_with_info(g)
    enough = max(int(forward.stats.iterations), int(backward.stats.iterations)) + 2
    method = bs.GMRES(maxiter=enough, M="ilu0")
    if framework == "jax":
        A, b = problem.A.with_data(jnp.asarray(problem.A.data)), jnp.asarray(problem.b)
        lam = jax.jit(lambda b: jax.vjp(lambda b: bs.solve(A, b, method=method), b)[1](jnp.asarray(g))[0])(b)
    else:
        b = tf.constant(problem.b)

        @tf.function
        def pull(b):
            with tf.GradientTape() as tape:
                tape.watch(b)
                x = bs.solve(problem.A, b, method=method)
            return tape.gradient(x, b, tf.constant(g))

        lam = pull(b)
    np.testing.assert_allclose(np.asarray(lam), backward.x, rtol=1e-5, atol=1e-6)


def test_second_derivatives_are_traced_through_the_output():
    """An opaque solve inside of a backward, or an output that is a constant, would lose terms."""
    w, b = jnp.asarray(P.A.data), jnp.asarray(P.b)
    at = P.rows, P.cols
    ours = lambda w: (bs.solve(P.A.with_data(w), b) ** 3).sum()  # noqa: E731
    truth = lambda w: (jnp.linalg.solve(jnp.zeros((16, 16)).at[at].add(w), b) ** 3).sum()  # noqa: E731
    mine, want = (jax.jit(jax.grad(lambda w, f=f: (jax.grad(f)(w) ** 2).sum()))(w) for f in (ours, truth))
    np.testing.assert_allclose(mine, want, rtol=1e-8, atol=1e-8 * float(abs(want).max()))


def test_handles_are_static_and_outlive_the_operator_that_brought_them():
    """Nothing of a Pattern is a traced value: equal patterns share a program, and a program keeps its own."""
    traces = []

    @jax.jit
    def f(A, x):
        traces.append(1)
        return A @ x

    x = jnp.arange(16.0)
    for scale in (1.0, 2.0):
        again = bs.coo(jnp.asarray(scale * P.A.data), (P.rows, P.cols), (16, 16))
        np.testing.assert_allclose(f(again, x), scale * DENSE @ np.arange(16.0), rtol=1e-12)
    compiled = f.lower(again, x).compile()
    data = again.data
    del again
    gc.collect()
    fresh = bs.coo(data, (P.rows, P.cols), (16, 16))
    np.testing.assert_allclose(compiled(fresh, x), 2 * DENSE @ np.arange(16.0), rtol=1e-12)
    assert len(traces) == 1


def test_gradients_of_maps_and_maps_of_gradients():
    w = jnp.stack([jnp.asarray(P.A.data), 1.5 * jnp.asarray(P.A.data)])
    b = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16)))
    at = P.rows, P.cols
    ours = lambda w, b: (bs.solve(P.A.with_data(w), b) ** 2).sum()  # noqa: E731
    truth = lambda w, b: (jnp.linalg.solve(jnp.zeros((16, 16)).at[at].add(w), b) ** 2).sum()  # noqa: E731
    for axes in ((0, 0), (None, 0), (0, None)):
        args = [v if axis == 0 else v[0] for v, axis in zip((w, b), axes, strict=True)]

        def of_gradients(f, axes=axes):
            return jax.vmap(jax.grad(f, (0, 1)), axes)

        def of_maps(f, axes=axes):
            return jax.grad(lambda *a: jax.vmap(f, axes)(*a).sum(), (0, 1))

        for shape in (of_gradients, of_maps):
            for mine, want in zip(jax.jit(shape(ours))(*args), jax.jit(shape(truth))(*args), strict=True):
                np.testing.assert_allclose(mine, want, rtol=1e-8, atol=1e-8 * float(abs(want).max()))
