"""JAX transforms of a solve, against those of `jnp.linalg.solve`: any order, mode and nesting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jax_cases import COLS, ROWS, VALUES, B, dense, wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve.factor_cache import CACHE


def by_pattern(w, b):
    return bs.solve(bs.coo(w, (ROWS, COLS), (3, 3)), b)


def by_entries(w, b):
    return bs.solve(dense(w), b)


def truth(w, b):
    return jnp.linalg.solve(dense(w), b)


def loss(solve):
    return lambda w, b: jnp.sum(jnp.abs(solve(w, b)) ** 2 * jnp.arange(1.0, 4.0))


def close(got, want):
    jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-11, atol=1e-12), got, want)


SECOND = {
    "hessian": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "jvp of grad": lambda f: lambda w, b: jax.jvp(lambda w: jax.grad(f)(w, b), (w,), (jnp.cos(w),))[1],
    "value_and_grad": jax.value_and_grad,
    "grad of both": lambda f: jax.grad(f, (0, 1)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
}


@pytest.mark.parametrize("solve", [by_pattern, by_entries])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", SECOND)
def test_derivatives(name, compiled, solve):
    derive, (w, b) = SECOND[name], (jnp.asarray(VALUES), jnp.asarray(B))
    got = derive(loss(solve))
    close((jax.jit(got) if compiled else got)(w, b), jax.jit(derive(loss(truth)))(w, b))


@pytest.mark.parametrize("solve", [by_pattern, by_entries])
def test_complex_gradient_has_the_convention_of_jax(solve):
    w, b = jnp.asarray(VALUES) * (1 + 0.3j), jnp.asarray(B) * (2 - 1j)
    close(jax.grad(loss(solve), (0, 1))(w, b), jax.grad(loss(truth), (0, 1))(w, b))
    close(jax.jacrev(solve, holomorphic=True)(w, b), jax.jacrev(truth, holomorphic=True)(w, b))


@pytest.mark.parametrize("solve", [by_pattern, by_entries])
@pytest.mark.parametrize("turn", [1.0, 1 + 0.5j])
def test_third_order_in_both_modes(solve, turn):
    check_grads(solve, (jnp.asarray(VALUES) * turn, jnp.asarray(B) * turn), 3, modes=("fwd", "rev"))


def test_the_adjoint_of_a_factorization_is_differentiable():
    w, b = jnp.asarray(VALUES) * (1 + 0.3j), jnp.asarray(B) * (2 - 1j)

    def f(w, b):
        return bs.factorize(bs.coo(w, (ROWS, COLS), (3, 3))).adjoint.solve(b)

    def want(w, b):
        return jnp.linalg.solve(dense(w).mT.conj(), b)

    close(jax.grad(loss(f), (0, 1))(w, b), jax.grad(loss(want), (0, 1))(w, b))
    check_grads(f, (w, b), 2, modes=("fwd", "rev"))


def test_the_answer_is_that_of_custom_linear_solve():
    w, b = jnp.asarray(VALUES), jnp.asarray(B)

    def peer(w, b):
        A = dense(w)
        return jax.lax.custom_linear_solve(
            lambda x: A @ x, b, lambda _, b: jnp.linalg.solve(A, b), lambda _, b: jnp.linalg.solve(A.T, b)
        )

    close(jax.value_and_grad(loss(by_entries), (0, 1))(w, b), jax.value_and_grad(loss(peer), (0, 1))(w, b))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("solve", [by_pattern, by_entries])
def test_a_solve_and_its_derivatives_factor_once(solve, compiled):
    transform = jax.jit if compiled else lambda f: f
    transform(jax.grad(loss(solve)))(jnp.asarray(VALUES), jnp.asarray(B))
    assert CACHE.info()[:2] == (1, 1)
    transform(jax.hessian(loss(solve)))(jnp.asarray(VALUES), jnp.asarray(B))
    assert CACHE.info().misses == 1


def test_compiled_once_for_changing_data():
    traces = []

    @jax.jit
    def step(A, b):
        traces.append(1)
        return bs.solve(A, b)

    for s in range(3):
        A = bs.coo(jnp.asarray(VALUES) + s, (ROWS, COLS), (3, 3))  # an equal pattern, made again
        close(step(A, jnp.asarray(B)), truth(jnp.asarray(VALUES) + s, jnp.asarray(B)))
    assert len(traces) == 1


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("solve", [by_pattern, by_entries])
@pytest.mark.parametrize("compiled", [False, True])
def test_vmap_is_the_loop(compiled, solve, axes):
    rng = np.random.default_rng(0)
    values, vectors = (jnp.asarray(v + 0.2 * rng.random((64, len(v)))) for v in (VALUES, B))
    given = [v if a == 0 else v.T if a == 1 else v[0] for v, a in zip((values, vectors), axes, strict=True)]
    grad = jax.vmap(jax.value_and_grad(loss(solve), (0, 1)), axes)
    got = (jax.jit(grad) if compiled else grad)(*given)
    assert CACHE.info().misses == 1  # 64 systems in one call, or one factorization for 64 vectors
    w, b = (
        v if a is not None else jnp.broadcast_to(v[0], v.shape) for v, a in zip((values, vectors), axes, strict=True)
    )
    close(got, jax.jit(jax.vmap(jax.value_and_grad(loss(truth), (0, 1))))(w, b))


def test_nested_maps():
    rng = np.random.default_rng(0)
    w, b = jnp.asarray(VALUES + 0.2 * rng.random((5, 7))), jnp.asarray(rng.random((4, 3)))
    got = jax.vmap(jax.vmap(by_pattern, (None, 0)), (0, None))(w, b)
    close(got, jax.vmap(jax.vmap(truth, (None, 0)), (0, None))(w, b))
    assert CACHE.info().misses == 1
    sol = jax.vmap(lambda w: bs.solve_with_info(bs.coo(w, (ROWS, COLS), (3, 3)), b[0]))(w)
    assert sol.status.shape == sol.stats.factorizations.shape == (5,)


def test_scan_and_cond():
    w = jnp.asarray(VALUES)

    def walk(solve):
        def f(w):
            return jax.lax.scan(lambda x, _: (solve(w, x), x[0]), jnp.asarray(B), None, length=4)[0].sum()

        return f

    close(jax.grad(walk(by_pattern))(w), jax.jit(jax.grad(walk(truth)))(w))
    assert CACHE.info().misses == 1

    def either(solve):
        return lambda w: jax.lax.cond(w[0] > 1, lambda: solve(w, jnp.asarray(B)), lambda: jnp.asarray(B)).sum()

    for at in (w, w - 2):
        close(jax.grad(either(by_pattern))(at), jax.jit(jax.grad(either(truth)))(at))


def test_tiny_cotangents_keep_their_scale():
    w, b = jnp.asarray(VALUES, "float32"), jnp.asarray(B, "float32")
    whole = jax.grad(lambda w: by_pattern(w, b).sum())(w)
    tiny = jax.grad(lambda w: jnp.float32(1e-30) * by_pattern(w, b).sum())(w)
    assert tiny.dtype == np.float32
    np.testing.assert_allclose(tiny / np.float32(1e-30), whole, rtol=1e-5)


def test_operators_and_solutions_are_pytrees():
    A = bs.coo(jnp.asarray(VALUES), (ROWS, COLS), (3, 3)).assume("sym")
    for operator in (A, bs.aslinearoperator(dense(jnp.asarray(VALUES))).assume("sym")):
        leaves, tree = jax.tree.flatten(operator)
        again = jax.tree.unflatten(tree, leaves)
        assert again.assumed == "sym" and type(again) is type(operator) and again.structure is operator.structure
        assert jax.tree.map(lambda v: 2 * v, operator).data[0].tolist() == (2 * operator.data[0]).tolist()
        g = jax.grad(lambda A: bs.solve(A, jnp.asarray(B)).sum())(operator)
        assert g.data.shape == operator.data.shape
    sol = bs.solve_with_info(A, jnp.asarray(B))
    again = jax.tree.map(lambda v: v, sol)
    assert again.method == sol.method and again.converged and again.x.tolist() == sol.x.tolist()
