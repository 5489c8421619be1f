"""Determinants of sparse matrices in JAX, against `jnp.linalg.slogdet`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jax_cases import COLS, ROWS, VALUES, B, dense, wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve.factor_cache import CACHE
from backsolve.frontends import jax_determinant


def ours(w):
    return bs.slogdet(bs.coo(w, (ROWS, COLS), (3, 3)))


def truth(w):
    return tuple(jnp.linalg.slogdet(dense(w)))


def close(got, want):
    jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-11, atol=1e-12), got, want)


def values(dtype):
    w = jnp.asarray(VALUES)
    return w if dtype == "float64" else w * (1 + 0.3j) ** jnp.arange(7)


DERIVATIVES = {
    "value": lambda f: f,
    "grad": jax.grad,
    "hessian": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
}


@pytest.mark.parametrize(("block", "compiled"), [(1, False), (2, False), (2, True), (3, False)])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_block_by_block(name, block, compiled, monkeypatch):
    monkeypatch.setattr(jax_determinant, "_BLOCK", 3 * block)
    derive, w = DERIVATIVES[name], jnp.asarray(VALUES)
    got = derive(lambda w: ours(w)[1] ** 2)
    close((jax.jit(got) if compiled else got)(w), jax.jit(derive(lambda w: truth(w)[1] ** 2))(w))


@pytest.mark.parametrize(("dtype", "order"), [("float64", 3), ("complex128", 2)])
def test_every_order_in_both_modes(dtype, order):
    check_grads(jax.jit(ours), (values(dtype),), order, modes=("fwd", "rev"))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("compiled", [False, True])
def test_sign_and_modulus_of_one_and_of_many(dtype, compiled):
    transform = jax.jit if compiled else lambda f: f
    w = values(dtype)
    many = jnp.stack([w, -w, 2 * w])
    for given in (w, many):
        sign, size = transform(ours)(given)
        assert sign.dtype == dtype and size.dtype == "float64"
        close((sign, size), truth(given))
    mapped, true = (jax.vmap(jax.vmap(jax.grad(lambda w, f=f: f(w)[1]))) for f in (ours, truth))
    close(transform(mapped)(many[None]), jax.jit(true)(many[None]))


def test_one_factorization_serves_values_and_derivatives():
    jax.jit(jax.hessian(lambda w: ours(w)[1]))(jnp.asarray(VALUES))
    assert CACHE.info().misses == 1
    F = bs.factorize(bs.coo(jnp.asarray(VALUES), (ROWS, COLS), (3, 3)), method="superlu")
    CACHE.clear()
    close(bs.slogdet(F), truth(jnp.asarray(VALUES)))
    assert CACHE.info().misses == 0


def test_singular_matrices_and_triangles():
    w = jnp.zeros(7)
    for transform in (jax.jit, lambda f: f):
        sign, size = transform(ours)(w)
        assert float(sign) == 0 and float(size) == -np.inf
    assert np.isnan(jax.jit(jax.grad(lambda w: ours(w)[1]))(w)).all()
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        jax.grad(lambda w: ours(w)[1])(w)
    L = bs.coo(jnp.asarray([2.0, 1, -4]), ([0, 1, 1], [0, 0, 1]), (2, 2)).assume("lower")
    sign, size = jax.jit(bs.slogdet)(L)
    assert float(sign) == -1
    close(size, np.log(8))
    close(jax.grad(lambda w: bs.slogdet(L.with_data(w))[1])(L.data), [0.5, 0, -0.25])


def test_a_density_of_a_gaussian_field_is_differentiated():
    """What determinants are for: log det Q / 2 - xᵀ Q x / 2, in the values of Q."""
    w, x = jnp.asarray(VALUES), jnp.asarray(B)

    def density(slogdet, times):
        return lambda w: slogdet(w)[1] / 2 - x @ times(w) / 2

    got = jax.jit(jax.hessian(density(ours, lambda w: bs.coo(w, (ROWS, COLS), (3, 3)) @ x)))(w)
    close(got, jax.jit(jax.hessian(density(truth, lambda w: dense(w) @ x)))(w))
