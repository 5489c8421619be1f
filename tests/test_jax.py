"""JAX arrays in: values, kinds of matrices, shapes, dtypes, failures, and what is refused in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax.experimental.sparse import BCOO, BCSR
from jax_cases import COLS, ROWS, VALUES, B, dense, wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve.factor_cache import CACHE


def sparse(w):
    return bs.coo(w, (ROWS, COLS), (3, 3))


def close(got, want, factor=1):
    eps = np.finfo(np.asarray(got).dtype).eps
    np.testing.assert_allclose(got, want, rtol=1e3 * factor * eps, atol=1e3 * factor * eps)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("make", [sparse, dense])
def test_values_and_dtype(make, dtype):
    w = jnp.asarray(VALUES, dtype)
    w = w * (1 + 0.5j) ** jnp.arange(7) if "complex" in dtype else w
    w = w.astype(dtype)
    x = bs.solve(make(w), jnp.asarray(B, dtype))
    assert isinstance(x, jax.Array) and x.dtype == dtype
    close(x, jnp.linalg.solve(dense(w), jnp.asarray(B, dtype)))


@pytest.mark.parametrize(
    "data_batch, b_shape, shape",
    [
        ((), (3,), (3,)),
        ((), (3, 2), (3, 2)),
        ((), (4, 3, 2), (4, 3, 2)),
        ((4,), (3,), (4, 3)),
        ((4,), (3, 2), (4, 3, 2)),
        ((4, 1), (5, 3, 2), (4, 5, 3, 2)),
        ((0,), (3, 2), (0, 3, 2)),
        ((), (3, 0), (3, 0)),
    ],
)
@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize("compiled", [False, True])
def test_shapes_broadcast(make, compiled, data_batch, b_shape, shape):
    rng = np.random.default_rng(0)
    w = jnp.asarray(VALUES + 0.1 * rng.random((*data_batch, 7)))
    b = jnp.asarray(rng.random(b_shape))
    solve = jax.jit(lambda w, b: bs.solve(make(w), b)) if compiled else lambda w, b: bs.solve(make(w), b)
    x = solve(w, b)
    assert x.shape == shape
    columns = jnp.broadcast_to(b[..., None] if b.ndim == 1 else b, (*x.shape, 1) if b.ndim == 1 else x.shape)
    matrices = jnp.broadcast_to(dense(w), (*columns.shape[:-2], 3, 3))
    want = jnp.linalg.solve(matrices, columns)
    close(x, want[..., 0] if b.ndim == 1 else want)


def test_every_kind_of_matrix():
    w, b = jnp.asarray(VALUES), jnp.asarray(B)
    want = jnp.linalg.solve(dense(w), b)
    index = jnp.array([ROWS, COLS])
    csr = sp.csr_array(np.asarray(dense(w)))
    parts = jnp.asarray(csr.data), jnp.asarray(csr.indices), jnp.asarray(csr.indptr)
    for A in (
        BCOO((w, index.T), shape=(3, 3)),
        BCSR(parts, shape=(3, 3)),
        bs.CSR(*parts, (3, 3)),
        bs.coo(w, index, (3, 3)),
        csr,
        csr.toarray(),
        bs.coo(VALUES, (ROWS, COLS), (3, 3)),
    ):
        close(bs.solve(A, b), want)
        close(jax.jit(lambda b, A=A: bs.solve(A, b))(b), want)
    close(bs.solve(sparse(w), B), want)


def test_gradient_reaches_the_values_of_bcoo():
    w, b, index = jnp.asarray(VALUES), jnp.asarray(B), jnp.array([ROWS, COLS]).T
    got = jax.jit(jax.grad(lambda w: bs.solve(BCOO((w, index), shape=(3, 3)), b).sum()))(w)
    close(got, jax.grad(lambda w: jnp.linalg.solve(dense(w), b).sum())(w))


def test_products_algebra_and_determinant():
    w, x = jnp.asarray(VALUES), jnp.asarray(B)
    for make in (sparse, dense):
        A, M = bs.aslinearoperator(make(w)), dense(w)
        close(A @ x, M @ x)
        close(A.T @ x, M.T @ x)
        close((2 * A + 3 * bs.eye(3)).toarray(), 2 * M + 3 * jnp.eye(3))
        close(A.scale(rows=x).toarray(), x[:, None] * M)
        close(A.diagonal(), jnp.diag(M))
        got = jax.grad(lambda w, make=make: (bs.aslinearoperator(make(w)).H @ x)[0])(w)
        close(got, jax.grad(lambda w: (dense(w).T @ x)[0])(w))
        close(bs.slogdet(A)[1], jnp.linalg.slogdet(M)[1])


def test_factorize_solves_with_one_factorization():
    w, b = jnp.asarray(VALUES), jnp.asarray(B)
    F = bs.factorize(sparse(w))
    close(F.solve(b), jnp.linalg.solve(dense(w), b))
    close(F.adjoint.solve(b), jnp.linalg.solve(dense(w).T, b))
    assert CACHE.info().misses == 1
    close(F.refactorize(2 * w).solve(b), jnp.linalg.solve(dense(2 * w), b))
    close(jax.jit(lambda w: bs.factorize(sparse(w)).solve(b))(w), F.solve(b))


def test_a_factorization_holds_its_factors_whatever_the_cache_drops():
    w, b = jnp.asarray(VALUES), jnp.asarray(B)
    want, turned = jnp.linalg.solve(dense(w), b), jnp.linalg.solve(dense(w).T, jnp.ones(3))
    before = CACHE.info().capacity

    def use(F):
        close(F.solve(b), want)
        close(jax.grad(lambda b: F.solve(b).sum())(b), turned)
        close(jax.jit(lambda b: F.solve(b))(b), want)
        assert CACHE.info().misses == 1
        CACHE.clear()
        close(F.adjoint.solve(jnp.ones(3)), turned)
        assert CACHE.info()[1:4] == (0, 0, 0)

    try:
        CACHE.resize(0)
        use(bs.factorize(sparse(w)))
        close(bs.solve(sparse(w), b), want)
        assert CACHE.info().misses == 1
    finally:
        CACHE.resize(before)


def test_factors_that_the_cache_dropped_are_made_again():
    w, b = jnp.asarray(VALUES), jnp.asarray(B)
    before = CACHE.info().capacity
    try:
        CACHE.resize(0)
        got = jax.jit(jax.grad(lambda w: bs.solve(sparse(w), b).sum()))(w)
        close(got, jax.grad(lambda w: jnp.linalg.solve(dense(w), b).sum())(w))
        assert CACHE.info().entries == 0 and CACHE.info().misses == 2
    finally:
        CACHE.resize(before)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("make", [sparse, dense])
def test_mapped_right_hand_sides_have_a_verdict_each(make, compiled):
    A, b = bs.aslinearoperator(make(jnp.asarray(VALUES))), jnp.asarray(B) + jnp.arange(5.0)[:, None]
    b = b.at[3, 1].set(jnp.nan).at[1, 0].set(jnp.inf)
    transform = jax.jit if compiled else lambda f: f
    good = [0, 2, 4]
    x = transform(jax.vmap(lambda b: bs.solve(A, b, on_failure="return")))(b)
    sol = transform(jax.vmap(lambda b: bs.solve_with_info(A, b, on_failure="return")))(b)
    for v in (x, sol.x):
        close(v[jnp.array(good)], jnp.linalg.solve(dense(jnp.asarray(VALUES)), b[jnp.array(good)].T).T)
        assert np.isnan(v[jnp.array([1, 3])]).all()
    assert (np.asarray(sol.status) > 0).tolist() == [True, False, True, False, True]
    assert np.isfinite(sol.stats.residual_norm).tolist() == [True, False, True, False, True]
    grad = transform(jax.vmap(jax.grad(lambda b: bs.solve(A, b, on_failure="return").sum())))(b)
    assert np.isfinite(grad).all(1).tolist() == [True, False, True, False, True]
    nested = transform(jax.vmap(jax.vmap(lambda b: bs.solve(A, b, on_failure="return"))))(jnp.stack([b, b[::-1]]))
    close(nested[0], x)
    close(nested[1], x[::-1])
    assert CACHE.info().misses == 1  # one factorization for all of it
    if not compiled:
        with pytest.raises(bs.SolveError, match=r"NONFINITE \(2 of 5 systems, first 1\)") as error:
            jax.vmap(lambda b: bs.solve(A, b))(b)
        assert error.value.solution.x.shape == (1, 5, 3, 1)


@pytest.mark.parametrize("method", ["superlu", "cg", "bicgstab", "cholesky"])
def test_methods_named(method):
    M = jnp.array([[4.0, 1, 0], [1, 3, 1], [0, 1, 5]])
    A = bs.aslinearoperator(M if method == "cholesky" else sp.csr_array(np.asarray(M))).assume("spd")
    x = jax.jit(lambda b: bs.solve(A, b, method=method, rtol=1e-12))(jnp.asarray(B))
    close(x, jnp.linalg.solve(M, jnp.asarray(B)), 10)


def test_failure_raises_eagerly_and_is_told_in_arrays():
    w, b = jnp.asarray([VALUES, 0 * VALUES]), jnp.asarray(B)
    with pytest.raises(bs.SolveError, match="SINGULAR") as error:
        bs.solve(sparse(w), b)
    assert error.value.solution.x.shape == (2, 3)
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        jax.grad(lambda w: bs.solve(sparse(w), b).sum())(w)
    with pytest.warns(bs.SolveWarning, match="SINGULAR"):
        bs.solve(sparse(w), b, on_failure="warn")
    for transform in (jax.jit, lambda f: f):
        sol = transform(lambda w: bs.solve_with_info(sparse(w), b, on_failure="return"))(w)
        assert sol.status.tolist() == [bs.Status.CONVERGED_BACKWARD, bs.Status.SINGULAR]
        assert sol.status.dtype == np.int32 and sol.stats.residual_norm.shape == (2,)
        assert not np.isnan(sol.x[0]).any() and np.isnan(sol.x[1]).all() and "SINGULAR" in sol.message
        g = transform(jax.grad(lambda w: bs.solve(sparse(w), b, on_failure="return").sum()))(w)
        assert np.isfinite(g[0]).all() and np.isnan(g[1]).all()
    assert np.isnan(jax.jit(lambda w: bs.solve(sparse(w), b))(w)[1]).all()


def test_gradients_of_a_best_iterate_are_nan():
    n, w = 64, jnp.linspace(1, 100, 64)

    def f(w):
        A = bs.coo(w, (range(n), range(n)), (n, n))
        return bs.solve_with_info(A, jnp.ones(n), method=bs.CG(maxiter=2), on_failure="return").x.sum()

    assert np.isfinite(jax.jit(f)(w))
    assert np.isnan(jax.jit(jax.grad(f))(w)).all()


def test_double_precision_never_becomes_single_silently():
    with jax.enable_x64(False):
        b = jnp.ones(3)
        with pytest.raises(TypeError, match=r'jax\.config\.update\("jax_enable_x64", True\)'):
            bs.solve(sparse(VALUES), b)
        x = bs.solve(sparse(VALUES.astype("float32")), b)
        assert x.dtype == np.float32
        sol = jax.jit(lambda b: bs.solve_with_info(sparse(jnp.asarray(VALUES, "float32")), b))(b)
        assert sol.stats.residual_norm.dtype == np.float32
        assert bs.solve(np.array([[2, 0], [0, 1]]), b[:2]).dtype == np.float32


def test_refusals():
    w, b, index = jnp.asarray(VALUES), jnp.asarray(B), jnp.array([ROWS, COLS]).T
    with pytest.raises(ValueError, match="with_data"):
        jax.jit(lambda i: bs.solve(BCOO((w, i), shape=(3, 3)), b))(index)
    with pytest.raises(ValueError, match="with_data"):
        jax.jit(lambda i: bs.coo(w, (i[:, 0], i[:, 1]), (3, 3)).data)(index)
    with pytest.raises(TypeError, match="jax and torch"):
        bs.solve(sparse(w), torch.ones(3, dtype=torch.float64))
    with pytest.raises(TypeError, match="float16"):
        bs.solve(dense(w).astype("float16"), b)
    with pytest.raises(ValueError, match="jvp needs a tangent"):
        bs.jvp(sparse(w), b)
    with pytest.raises(ValueError, match=r"data_dot must have the shape of A\.data, \(7,\)"):
        bs.jvp(sparse(w), b, b)
    with pytest.raises(ValueError, match="b_dot must be real, as b is"):
        bs.jvp(sparse(w), b, b_dot=1j * b)


@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize("b_shape", [(3,), (4, 3, 2)])
def test_explicit_pullback_is_that_of_jax(make, b_shape):
    w, b = jnp.asarray(VALUES) * (1 + 0.3j), jnp.arange(1.0, 1 + np.prod(b_shape)).reshape(b_shape)
    A = bs.aslinearoperator(make(w))
    sol, pullback = bs.vjp(A, b)
    g = sol.x * (2 - 1j) + 1
    want = jax.vjp(lambda data, b: bs.solve(A.with_data(data), b), A.data, b)[1](g)
    data_bar, b_bar, adjoint = pullback(g)
    close(data_bar, want[0], 10)
    close(b_bar, want[1], 10)
    assert adjoint.converged and b_bar.dtype == b.dtype


@pytest.mark.parametrize("make", [sparse, dense])
@pytest.mark.parametrize("compiled", [False, True])
def test_explicit_tangent_is_that_of_jax(make, compiled):
    transform = jax.jit if compiled else lambda f: f
    w, b = jnp.asarray(VALUES) * (1 + 0.3j), jnp.arange(1.0, 25).reshape(4, 3, 2)
    A = bs.aslinearoperator(make(w))
    dots = jnp.cos(A.data), jnp.sin(b)
    want = jax.jvp(lambda data, b: bs.solve(A.with_data(data), b), (A.data, b), dots)
    sol, dot = transform(lambda A, b: bs.jvp(A, b, *dots))(A, b)
    close(sol.x, want[0], 10)
    close(dot.x, want[1], 10)
    assert sol.converged and dot.converged and CACHE.info().misses == 1
    along = [bs.jvp(A, b, data_dot=dots[0])[1].x, bs.jvp(A, b, b_dot=dots[1])[1].x]
    close(sum(along), want[1], 10)
