"""Triangular solves in compiled programs: by a kernel, without the host, unless something is in doubt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from jax_cases import wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve.frontends import jax_host
from backsolve.frontends.jax_kernels import Known

N = 6
ROWS, COLS = np.tril_indices(N)


@pytest.fixture
def asked(monkeypatch):
    """One entry for each time that the host is asked to solve."""
    made, original = [], jax_host._solve
    monkeypatch.setattr(jax_host, "_solve", lambda *args: made.append(args) or original(*args))
    return made


def problem(dtype="float64", items=(), side="lower", k=2):
    rng = np.random.default_rng(0)

    def numbers(*shape):
        values = rng.standard_normal(shape)
        return values + 1j * rng.standard_normal(shape) if "complex" in dtype else values

    places = (ROWS, COLS) if side == "lower" else (COLS, ROWS)
    w = numbers(*items, len(ROWS)) * 0.3 + 3.0 * (ROWS == COLS)
    return places, jnp.asarray(w, dtype), jnp.asarray(numbers(N, k), dtype)


def solver(places, side, **options):
    return lambda w, b: bs.solve(bs.coo(w, places, (N, N)).assume(side), b, **options)


def dense(places):
    return lambda w, b: jnp.linalg.solve(jnp.zeros((*w.shape[:-1], N, N), w.dtype).at[..., *places].set(w), b)


@pytest.mark.parametrize("side", ["lower", "upper"])
@pytest.mark.parametrize("items", [(), (3,), (0,)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_compiled_is_eager_to_the_bit_and_asks_nobody(dtype, items, side, asked):
    places, w, b = problem(dtype, items, side)
    f = solver(places, side)
    compiled = [jax.jit(g)(w, b) for g in (f, jax.grad(lambda w, b: jnp.abs(f(w, b)).sum(), (0, 1)))]
    assert not asked
    assert compiled[0].dtype == dtype and np.array_equal(compiled[0], f(w, b))
    jax.tree.map(
        np.testing.assert_array_equal, compiled[1], jax.grad(lambda w, b: jnp.abs(f(w, b)).sum(), (0, 1))(w, b)
    )


def test_single_precision_alone(asked):
    with jax.enable_x64(False):
        places, w, b = problem("float32")
        x = jax.jit(solver(places, "lower"))(w, b)
        assert x.dtype == np.float32 and not asked
        np.testing.assert_allclose(x, dense(places)(w, b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_third_order_in_both_modes(dtype):
    places, w, b = problem(dtype)
    check_grads(jax.jit(solver(places, "lower")), (w, b), 3, modes=("fwd", "rev"))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_is_the_loop(axes, asked):
    places, w, b = problem(items=(4,))
    given = w if axes[0] == 0 else w[0], jnp.stack([b, 2 * b, 0 * b, b + 1]) if axes[1] == 0 else b
    got = jax.jit(jax.vmap(jax.jacrev(solver(places, "lower"), (0, 1)), axes))(*given)
    assert not asked
    want = jax.jit(jax.vmap(jax.jacrev(dense(places), (0, 1)), axes))(*given)
    jax.tree.map(lambda g, t: np.testing.assert_allclose(g, t, rtol=1e-12, atol=1e-12), got, want)


DIAGONAL = np.flatnonzero(ROWS == COLS)
DOUBTFUL = {
    "zero on the diagonal": lambda w, b: (w.at[0, DIAGONAL[2]].set(0), b, {}),
    "nan in A": lambda w, b: (w.at[0, 1].set(jnp.nan), b, {}),
    "infinity in A": lambda w, b: (w.at[0, 1].set(jnp.inf), b, {}),
    "a target that is missed": lambda w, b: (w, b, {"rtol": 1e-30}),
    "large b": lambda w, b: (w, 1e200 * b, {}),
    "small b": lambda w, b: (w, 1e-200 * b, {}),
    "extended": lambda w, b: (w, b, {"method": bs.Triangular(extended=True)}),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_in_doubt_the_host_decides(name, asked):
    _, w, b = problem(items=(2,))
    w, b, options = DOUBTFUL[name](w, b)
    f = solver((ROWS, COLS), "lower", on_failure="return", **options)
    got = jax.jit(f)(w, b)
    assert len(asked) == 1
    np.testing.assert_array_equal(got, f(w, b))
    grads = [t(jax.grad(lambda w, b: (f(w, b) ** 2).sum(), (0, 1)))(w, b) for t in (jax.jit, lambda g: g)]
    jax.tree.map(np.testing.assert_array_equal, *grads)


def test_a_declaration_that_is_false_is_not_believed(asked):
    full = jnp.asarray(np.random.default_rng(0).standard_normal((N, N)) + 5 * np.eye(N))
    places = np.indices((N, N)).reshape(2, -1)
    x = jax.jit(solver(places, "lower"))(full.ravel(), jnp.ones(N))
    assert np.isnan(x).all() and len(asked) == 1
    sol = jax.jit(
        lambda w: bs.solve_with_info(bs.coo(w, places, (N, N)).assume("lower"), jnp.ones(N), on_failure="return")
    )
    assert sol(full.ravel()).status == bs.Status.INACCURATE


def test_nan_in_b_stays_in_its_system():
    places, w, b = problem(items=(2,))
    both = jnp.stack([b.at[0, 0].set(jnp.nan), b])
    got = jax.jit(solver(places, "lower"))(w, both)
    assert np.isnan(got[0]).all() and np.array_equal(got[1], solver(places, "lower")(w[1], b))


def test_factorize_and_its_adjoint_ask_nobody(asked):
    places, w, b = problem()
    f = jax.jit(lambda w, b: bs.factorize(bs.coo(w, places, (N, N)).assume("lower")).adjoint.solve(b))
    M = np.zeros((N, N))
    M[places] = w
    np.testing.assert_allclose(f(w, b), np.linalg.solve(M.T, b), rtol=1e-12)
    assert not asked


@pytest.mark.parametrize(
    "data, b, x, settled, standard, sentence",
    [
        ((1, 20), (1, 6, 2), (1, 6, 2), ((1,), "int32"), 10, r"data must have shape \(1,21,\)"),
        ((1, 21), (1, 5, 2), (1, 6, 2), ((1,), "int32"), 10, r"b must have shape \(1,6,2,\)"),
        ((1, 21), (1, 6, 2), (1, 6, 1), ((1,), "int32"), 10, r"x must have shape \(1,6,2,\)"),
        ((1, 21), (1, 6, 2), (1, 6, 2), ((2,), "int32"), 10, r"settled must have shape \(1,\)"),
        ((1, 21), (1, 6, 2), (1, 6, 2), ((1,), "float32"), 10, "settled must have the dtype"),
        ((1, 21), (1, 6, 2), (1, 6, 2), ((1,), "int32"), 9, "standard must have 10 numbers"),
    ],
)
def test_arrays_of_a_wrong_size_are_refused(data, b, x, settled, standard, sentence):
    known = Known(bs.coo(np.ones(21), (ROWS, COLS), (N, N)).pattern)
    kinds = jax.ShapeDtypeStruct(x, "float64"), jax.ShapeDtypeStruct(*settled)
    call = jax.ffi.ffi_call("backsolve_triangular", kinds)
    with pytest.raises(jax.errors.JaxRuntimeError, match=sentence):
        call(jnp.ones(data), jnp.ones(b), pattern=known.name, lower=True, adjoint=False, standard=np.ones(standard))
