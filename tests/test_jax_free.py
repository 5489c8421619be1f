"""Operators given by a function, on JAX arrays: params, gradients in them, closures, adjoints, transforms."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as sla
from jax.test_util import check_grads
from jax_cases import wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve.frontends import jax_solve

N = 6
TIGHT = {"rtol": 1e-14}
AHEAD = np.arange(2, N + 2) % N  # an integer parameter: the neighbour of each unknown


class Coefficients(NamedTuple):
    d: jax.Array
    c: jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["d", "c"], meta_fields=[])
@dataclass
class Model:
    d: jax.Array
    c: jax.Array


def apply(d, c, v, ahead=AHEAD, twice=2.0):
    """Non-symmetric, diagonally dominant where |d| and |c| are below one, non-linear in d and c."""
    return (4 + twice * jnp.sin(d)) * v + jnp.tanh(c) * v[ahead] + jnp.exp(c * d) * jnp.roll(v, 1) / 2


def adjoint(p, g):
    """Of `apply`, by hand: every shift goes back, every factor is conjugated."""
    d, c = p
    off = jnp.conj(jnp.exp(c * d) / 2) * g
    back = jnp.zeros_like(g).at[AHEAD].add(jnp.conj(jnp.tanh(c)) * g)
    return jnp.conj(4 + 2 * jnp.sin(d)) * g + back + jnp.roll(off, -1)


# How the two arrays can be handed over: name -> (d, c) to params, and params to what `apply` takes.
NESTINGS = {
    "array": (lambda d, c: jnp.append(d, c), lambda p: (p[:-1], p[-1])),
    "tuple": (lambda d, c: (d, c), tuple),
    "nested dict": (
        lambda d, c: {"diagonal": d, "rest": [{"c": c}, AHEAD, "a word", 2.0, None]},
        lambda p: (p["diagonal"], p["rest"][0]["c"]),
    ),
    "named tuple": (Coefficients, lambda p: (p.d, p.c)),
    "registered class": (Model, lambda p: (p.d, p.c)),
    "indices and numbers": (lambda d, c: (AHEAD, 2.0, None, [d, c]), lambda p: (*p[3], p[0], p[1])),
}


def fn(p, v, out=tuple):
    d, c, *rest = out(p)
    return apply(d, c, v, *rest)


def operator(d, c, name="tuple", **options):
    make, out = NESTINGS[name]
    return bs.MatrixFree(lambda p, v: fn(p, v, out), make(d, c), (N, N), **options)


def dense(d, c):
    return jax.vmap(lambda e: apply(d, c, e), 1, 1)(jnp.eye(N, dtype=jnp.result_type(d, c)))


def inputs(dtype=np.float64, *shape):
    rng = np.random.default_rng(0)
    made = [0.5 * rng.standard_normal(s) for s in ((N,), (), shape or (N,))]
    if np.dtype(dtype).kind == "c":
        made = [v + 0.5j * rng.standard_normal(v.shape) for v in made]
    return tuple(jnp.asarray(v, dtype) for v in made)


def energy(solve):
    return lambda d, c, b: jnp.sum(jnp.abs(solve(d, c, b)) ** 2 * jnp.arange(1.0, N + 1))


def ours(d, c, b, **options):
    return bs.solve(operator(d, c, **options), b, **TIGHT)


def truth(d, c, b):
    return jnp.linalg.solve(dense(d, c), b)


true_gradient = jax.jit(jax.grad(energy(truth), (0, 1, 2)))


def close(got, want, eps=1e-14):
    """Equal as far as rounding, what was asked for, and a condition number below ten allow; and no silent zero."""

    def one(g, t):
        assert g.dtype == t.dtype and g.shape == t.shape and np.abs(t).max() > 0
        np.testing.assert_allclose(g, t, rtol=1e3 * eps, atol=1e3 * eps * float(np.abs(t).max()))

    jax.tree.map(one, got, want)


# -- params --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, np.float64) for name in NESTINGS), ("nested dict", np.complex128)]
)
def test_params_of_every_nesting(name, dtype):
    def solve(d, c, b):
        return bs.solve(operator(d, c, name), b, **TIGHT)

    args = inputs(dtype)
    close(solve(*args), truth(*args))
    close(jax.grad(energy(solve), (0, 1, 2))(*args), true_gradient(*args))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("compiled", [False, True])
def test_dtypes_columns_and_batches(dtype, compiled):
    eps = float(np.finfo(dtype).eps)
    d, c, b = inputs(dtype, 2, N, 3)

    def solve(d, c, b):
        return bs.solve(operator(d, c), b, rtol=10 * eps)

    x = (jax.jit(solve) if compiled else solve)(d, c, b)
    assert x.dtype == dtype and x.shape == (2, N, 3)
    close(x, jnp.linalg.solve(dense(d, c), b), eps)


def test_products_and_entries_need_no_square():
    w, v = jnp.arange(1.0, 6), jnp.arange(1.0, 7)
    D = bs.MatrixFree(lambda w, v: w * jnp.diff(v), w, (5, 6))
    assert (D @ v).tolist() == w.tolist() and D.toarray().shape == (5, 6)
    assert (D @ jnp.stack([v, 2 * v], 1)).shape == (5, 2)
    close(D.T.toarray(), D.toarray().T)
    assert jax.grad(lambda w: (D.with_data(w) @ v).sum())(w).tolist() == [1.0] * 5


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_algebra(dtype):
    d, c, b = inputs(dtype)

    def solve(d, c, b):
        A = operator(d, c)
        B = (2 * A.H + 3 * bs.eye(N)).scale(rows=1 + d, columns=1 + jnp.abs(b))
        return bs.solve(B + bs.aslinearoperator(jnp.diag(d)), b, **TIGHT)

    def want(d, c, b):
        M = 2 * dense(d, c).conj().T + 3 * jnp.eye(N)
        return jnp.linalg.solve((1 + d)[:, None] * M * (1 + jnp.abs(b)) + jnp.diag(d), b)

    close(solve(d, c, b), want(d, c, b))
    close(jax.grad(energy(solve), (0, 1, 2))(d, c, b), jax.jit(jax.grad(energy(want), (0, 1, 2)))(d, c, b))


def test_a_matrix_free_operator_is_a_pytree():
    d, c, b = inputs()
    A = bs.MatrixFree(fn, (d, c), (N, N))
    assert jax.tree.map(lambda v: v, A.assume("spd")).assumed == "spd"
    got = jax.jit(jax.grad(lambda A: bs.solve(A, b, **TIGHT).sum()))(A)
    close(got.data, jax.grad(lambda p: truth(*p, b).sum())((d, c)))


# -- derivatives and transforms ------------------------------------------------------------------------------

DERIVATIVES = {
    "hessian": lambda f: jax.hessian(f, (0, 1)),
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f), (0, 1, 2)),
}


@pytest.mark.parametrize(
    ("name", "compiled"), [("hessian", False), ("checkpoint", False), *((name, True) for name in DERIVATIVES)]
)
def test_derivatives(name, compiled):
    derive, args = DERIVATIVES[name], inputs()
    got = derive(energy(ours))
    close((jax.jit(got) if compiled else got)(*args), jax.jit(derive(energy(truth)))(*args))


@pytest.mark.parametrize(("dtype", "given"), [(np.float64, adjoint), (np.complex128, None)])
def test_third_order_in_both_modes(dtype, given):
    check_grads(partial(ours, adjoint=given), inputs(dtype), 3, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)


def test_a_function_with_a_backward_alone_has_every_mode():
    @jax.custom_vjp
    def scaled(d, v):
        return jnp.sin(d) * v

    scaled.defvjp(
        lambda d, v: (scaled(d, v), (d, v)), lambda kept, g: (g * kept[1] * jnp.cos(kept[0]), g * jnp.sin(kept[0]))
    )
    d, _, b = inputs()
    f = lambda d: bs.solve(bs.MatrixFree(lambda d, v: 2 * v + scaled(d, v), d, (N, N)), b, **TIGHT)  # noqa: E731
    g = lambda d: b / (2 + jnp.sin(d))  # noqa: E731
    close(jax.grad(lambda d: (f(d) ** 2).sum())(d), jax.grad(lambda d: (g(d) ** 2).sum())(d))
    close(jax.jacfwd(f)(d), jax.jacfwd(g)(d))


AXES = [(0, None, None), (None, None, 0), (0, 0, 0), (None, 0, 0), (1, None, 1)]


@pytest.mark.parametrize(("axes", "compiled"), [((1, None, 1), False), *((axes, True) for axes in AXES)])
def test_vmap_is_the_loop(axes, compiled):
    rng = np.random.default_rng(1)
    args = [
        v if axis is None else jnp.moveaxis(v + 0.1 * rng.random((4, *v.shape)), 0, axis)
        for v, axis in zip(inputs(), axes, strict=True)
    ]
    grad = jax.vmap(jax.value_and_grad(energy(ours), (0, 1, 2)), axes)
    want = jax.jit(jax.vmap(jax.value_and_grad(energy(truth), (0, 1, 2)), axes))
    close((jax.jit(grad) if compiled else grad)(*args), want(*args))


def test_nested_maps():
    rng = np.random.default_rng(1)
    d, c, b = (jnp.asarray(0.5 * rng.random(s)) for s in ((3, N), (2,), (4, N)))
    maps = [jax.vmap(jax.vmap(jax.vmap(f, (None, None, 0)), (None, 0, None)), (0, None, None)) for f in (ours, truth)]
    close(maps[0](d, c, b), maps[1](d, c, b))
    inside = jax.vmap(jax.vmap(ours, (0, None, None)), (None, None, 0))(d, c[0], b)
    close(inside, jax.vmap(jax.vmap(truth, (0, None, None)), (None, None, 0))(d, c[0], b))


def test_scan_and_cond():
    args = inputs()

    def walk(solve):
        def run(d, c, b):
            return jax.lax.scan(lambda x, s: (solve(d + s, c, x), None), b, jnp.arange(3.0) / 4)[0].sum()

        return run

    close(jax.grad(walk(ours), (0, 1, 2))(*args), jax.jit(jax.grad(walk(truth), (0, 1, 2)))(*args))

    def either(solve):
        return lambda d, c, b: jax.lax.cond(d[0] > 0, lambda: solve(d, c, b), lambda: b * d[1]).sum()

    for sign in (1, -1):
        at = sign * args[0], *args[1:]
        got, want = jax.grad(either(ours))(*at), jax.grad(either(truth))(*at)
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


# -- what a function closes over -----------------------------------------------------------------------------


def by_closure(d, c, b, given=None):
    back = None if given is None else (lambda _, g: given((d, c), g))
    return bs.solve(bs.MatrixFree(lambda _, v: apply(d, c, v), (), (N, N), adjoint=back), b, **TIGHT)


def by_function(d, c, b):
    return bs.solve(lambda v: apply(d, c, v), b, **TIGHT)


@pytest.mark.parametrize("solve", [partial(by_closure, given=adjoint), by_function])
def test_values_closed_over_are_differentiated_and_mapped_over(solve):
    args = inputs()
    close(jax.grad(energy(solve), (0, 1, 2))(*args), true_gradient(*args))
    close(jax.jit(jax.hessian(energy(solve)))(*args), jax.jit(jax.hessian(energy(truth)))(*args))
    tangents = tuple(jnp.cos(v) for v in args)
    for transform in (jax.jit, lambda f: f):
        close(transform(lambda *a: jax.jvp(solve, a, tangents))(*args), jax.jvp(truth, args, tangents))
    many = jnp.stack([args[0], 2 * args[0], -args[0]])
    got = jax.jit(jax.vmap(jax.grad(energy(solve)), (0, None, None)))(many, *args[1:])
    close(got, jax.jit(jax.vmap(jax.grad(energy(truth)), (0, None, None)))(many, *args[1:]))
    close(jax.vmap(solve, (0, None, None))(many, *args[1:]), jax.vmap(truth, (0, None, None))(many, *args[1:]))


def test_no_traced_value_outlives_its_trace():
    args = inputs()
    with jax.checking_leaks():
        got = jax.jit(jax.grad(energy(by_closure), (0, 1, 2)))(*args)
    close(got, true_gradient(*args))
    close(by_closure(*args), truth(*args))


# -- adjoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_an_adjoint_that_is_given_is_used(dtype):
    args, used = inputs(dtype), []

    def noted(p, g):
        used.append(1)
        return adjoint(p, g)

    got = jax.grad(energy(partial(ours, adjoint=noted)), (0, 1, 2))(*args)
    assert used
    close(got, true_gradient(*args))


def test_a_wrong_adjoint_raises_or_leaves_nothing_but_nan():
    d, c, b = inputs()
    f = energy(partial(ours, adjoint=lambda p, g: apply(*p, g)))  # A, and not its adjoint
    with pytest.raises(ValueError, match=r"MatrixFree: adjoint must apply the conjugate transpose .* leave it out"):
        jax.grad(f)(d, c, b)
    assert np.isfinite(jax.jit(f)(d, c, b)) and np.isnan(jax.jit(jax.grad(f))(d, c, b)).all()
    A = bs.MatrixFree(fn, (d, c), (N, N), adjoint=lambda p, g: apply(*p, g))
    sol = jax.jit(lambda b: bs.solve_with_info(A.H, b))(b)
    assert int(sol.status) == bs.Status.INACCURATE and np.isnan(sol.x).all()
    with pytest.raises(ValueError, match="MatrixFree: adjoint must apply"):
        bs.solve(A.H, b)


def test_explicit_derivatives_are_those_of_jax():
    d, c, b = inputs(np.complex128, 2, N, 2)
    params = {"d": d, "rest": [c, AHEAD, "a word"]}
    A = bs.MatrixFree(lambda p, v: apply(p["d"], p["rest"][0], v, p["rest"][1]), params, (N, N))
    sol, pullback = bs.vjp(A, b, **TIGHT)
    g = sol.x * (2 - 1j) + 1
    bar, b_bar, last = pullback(g)
    want = jax.vjp(ours, d, c, b)[1](g)
    assert bar["rest"][1:] == [None, None] and last.converged and last.x.shape == b.shape
    close((bar["d"], bar["rest"][0], b_bar), want)
    sol, dot = bs.jvp(A, b, {"d": b[0, :, 0], "rest": [None, None, None]}, b, **TIGHT)
    close((sol.x, dot.x), jax.jvp(ours, (d, c, b), (b[0, :, 0], 0 * c, b)))
    assert dot.converged
    with pytest.raises(ValueError, match="data_dot must be nested"):
        bs.jvp(A, b, {"d": d})
    with pytest.raises(ValueError, match="must be None where"):
        bs.jvp(A, b, {"d": None, "rest": [None, d, None]})


# -- what is refused -----------------------------------------------------------------------------------------


def test_refusals():
    d, c, b = inputs()
    with pytest.raises(ValueError, match=r"fn\(params, v\) must return an array of shape \(6,\)"):
        bs.solve(bs.MatrixFree(lambda d, v: d[:3], d, (N, N)), b)
    with pytest.raises(ValueError, match=r"and of the dtype of v, float32"):
        bs.solve(bs.MatrixFree(lambda _, v: d * v, (), (N, N)), b.astype("float32"))
    with pytest.raises(ValueError, match="A must be a linear function"):
        bs.solve(lambda v: v + 1, b)
    with pytest.raises(TypeError, match="A must not be a SciPy LinearOperator beside JAX arrays"):
        bs.solve(sla.aslinearoperator(np.eye(N)), b)
    with pytest.raises(ValueError, match="needs the entries of A"):
        bs.solve(operator(d, c), b, method="superlu")
    with pytest.raises(ValueError, match="factorize needs the entries"):
        bs.factorize(operator(d, c))


def test_double_precision_params_never_become_single_silently():
    with jax.enable_x64(False):
        A = bs.MatrixFree(lambda d, v: d * v, np.arange(1.0, 4), (3, 3))
        with pytest.raises(TypeError, match=r'jax\.config\.update\("jax_enable_x64", True\)'):
            bs.solve(A, jnp.ones(3))


# -- what it costs -------------------------------------------------------------------------------------------


def test_a_function_made_anew_is_compiled_once():
    _, c, b = inputs()
    sizes = [jax_solve._looped._cache_size()]
    for twice in (2.25, 2.25, 2.25, 3.25):  # no other test has these functions
        fn = lambda p, v, twice=twice: apply(*p, v, twice=twice)  # noqa: E731
        bs.solve(bs.MatrixFree(fn, (0.1 * len(sizes) * b, c), (N, N)), b)
        sizes.append(jax_solve._looped._cache_size())
    assert np.diff(sizes).tolist() == [1, 0, 0, 1]


def test_declared_positive_definite_takes_cg():
    w, b = jnp.linspace(1, 3, N), jnp.arange(1.0, N + 1)
    A = bs.MatrixFree(lambda w, v: w * v, w, (N, N))
    sol = jax.jit(lambda b: bs.solve_with_info(A.assume("spd"), b, **TIGHT))(b)
    assert type(sol.method) is bs.CG and 0 < int(sol.stats.iterations) <= N + 1 and sol.converged
    assert type(bs.solve_with_info(A, b).method) is bs.BiCGStab
