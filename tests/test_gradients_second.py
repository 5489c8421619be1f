"""Products with Hessians and Gauss-Newton matrices: right to rounding, by two solves each, of the factors there are."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax_cases import wide  # noqa: F401  (a fixture: double precision)
from scipy.sparse.linalg import cg

import backsolve as bs
from backsolve import gradients
from backsolve.factor_cache import CACHE
from backsolve.methods import superlu
from backsolve.plan import Plan

N = 7
AT = np.arange(N)
ROWS, COLS = np.r_[AT, AT[1:], AT[:-1], 0], np.r_[AT, AT[:-1], AT[1:], N - 1]
"""A ring that is open on one side, so A is not symmetric in its pattern either."""
FRAMEWORKS = {"torch": torch, "jax": jnp}
TIGHT = 1e-10


def numbers(*shape, seed=0, kind="float64"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if kind == "complex128" else x


def array(name, value):
    return torch.from_numpy(value) if name == "torch" else jnp.asarray(value)


def dense(xp, w):
    """The matrix of triplets by the framework's own operations: the truth knows nothing of our solves."""
    if xp is torch:
        return torch.zeros(N, N, dtype=w.dtype).index_put((torch.from_numpy(ROWS), torch.from_numpy(COLS)), w)
    return jnp.zeros((N, N), w.dtype).at[ROWS, COLS].set(w)


def ours(xp, w, b):
    return bs.solve(bs.coo(w, (ROWS, COLS), (N, N)), b, method="superlu")


def theirs(xp, w, b):
    return xp.linalg.solve(dense(xp, w), b)


def upstream(xp, d):
    """Matrix and right-hand side from parameters, strongly non-symmetric and far from singular."""
    join = torch.cat if xp is torch else jnp.concatenate
    grow = torch.nn.functional.softplus if xp is torch else jax.nn.softplus
    w = join([4 + d[:N] ** 2, -grow(d[N : 2 * N - 1]), 0.3 * xp.tanh(d[2 * N - 1 : 3 * N - 2]), d[:1] * d[1:2]])
    return w, xp.sin(d[:N]) + d[-N:] ** 3


def by_values(xp, solve, d):
    return (solve(xp, d, xp.ones(N, dtype=xp.float64)) ** 3).sum()


def by_right_hand_side(xp, solve, d):
    return (solve(xp, array("torch" if xp is torch else "jax", VALUES), d) ** 3).sum()


def by_parameters(xp, solve, d):
    w, b = upstream(xp, d)
    return (xp.exp(solve(xp, w, b)) * d[:N]).sum()


def by_many_columns(xp, solve, d):
    w, b = upstream(xp, d)
    return (solve(xp, w, xp.stack([b, b**2, 1 + b], -1)) ** 3).sum()


VALUES = np.r_[4 + AT / N, -1.5 * np.ones(N - 1), 0.4 * np.ones(N - 1), 0.7]
POINTS = {
    by_values: VALUES,
    by_right_hand_side: numbers(N, seed=1),
    by_parameters: numbers(3 * N, seed=2),
    by_many_columns: numbers(3 * N, seed=3),
}


@pytest.fixture
def work(monkeypatch):
    """What was done: ["factor", "solve", "solve", ...], through every framework."""
    done = []
    run, splu = Plan.run, superlu.sla.splu
    monkeypatch.setattr(Plan, "run", lambda *args, **named: done.append("solve") or run(*args, **named))
    monkeypatch.setattr(superlu.sla, "splu", lambda *args, **named: done.append("factor") or splu(*args, **named))
    return done


def true_hessian(name, problem, d):
    xp = FRAMEWORKS[name]
    f = lambda d: problem(xp, theirs, d)  # noqa: E731
    return np.asarray(torch.func.hessian(f)(d) if name == "torch" else jax.jit(jax.hessian(f))(d))


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize("problem", POINTS, ids=lambda p: p.__name__)
def test_products_equal_the_dense_hessian_by_two_more_solves_of_one_factorization(name, problem, work):
    xp, d = FRAMEWORKS[name], array(name, POINTS[problem])
    truth = true_hessian(name, problem, d)
    v = numbers(len(d), seed=9)
    work.clear()
    product = gradients.hvp(lambda d: problem(xp, ours, d), d, array(name, v))
    assert sorted(work) == ["factor"] + 4 * ["solve"]  # x, λ, and two more
    assert np.abs(np.asarray(product) - truth @ v).max() <= TIGHT * np.abs(truth @ v).max()
    work.clear()
    CACHE.clear()  # where JAX finds the factors of the line above
    H = gradients.HessianOperator(lambda d: problem(xp, ours, d), d)
    assert sorted(work) == ["factor"] + 2 * ["solve"]
    for k in range(3):
        work.clear()
        v = numbers(len(d), seed=20 + k)
        got = np.asarray(H @ array(name, v))
        assert work == 2 * ["solve"]
        assert np.abs(got - truth @ v).max() <= TIGHT * np.abs(truth @ v).max()
    work.clear()
    del H
    CACHE.clear()
    got = np.asarray(gradients.hessian(lambda d: problem(xp, ours, d), d))
    assert sorted(work) == ["factor"] + 4 * ["solve"]  # many columns are one solve
    assert np.abs(got - truth).max() <= TIGHT * np.abs(truth).max()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_value_and_gradient_are_those_of_the_framework(name):
    xp, d = FRAMEWORKS[name], array(name, POINTS[by_parameters])
    H = gradients.HessianOperator(lambda d: by_parameters(xp, ours, d), d)
    if name == "torch":
        gradient, value = torch.func.grad_and_value(lambda d: by_parameters(xp, theirs, d))(d)
        assert not H.value.requires_grad and not H.gradient.requires_grad and not (H @ d).requires_grad
    else:
        value, gradient = jax.jit(jax.value_and_grad(lambda d: by_parameters(xp, theirs, d)))(d)
    assert abs(H.value - value) <= TIGHT * abs(value)
    assert np.abs(np.asarray(H.gradient - gradient)).max() <= TIGHT * np.abs(np.asarray(gradient)).max()
    assert H.shape == (3 * N, 3 * N) and repr(H) == "HessianOperator(21x21)"


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_complex_parameters_of_a_real_function(name):
    """The truth is over real and imaginary parts; torch's gradient is g_re + i g_im, JAX's the conjugate."""
    xp = FRAMEWORKS[name]
    w0, v = VALUES * (1 + 0.3j) ** np.arange(len(VALUES)), numbers(len(VALUES), seed=4, kind="complex128")
    b = array(name, numbers(N, seed=5, kind="complex128"))

    def energy(solve, w):
        x = solve(xp, w, b)
        return (abs(x) ** 2 * array(name, 1.0 + AT)).sum() + (x[0] ** 3).imag

    product = np.asarray(gradients.hvp(lambda w: energy(ours, w), array(name, w0), array(name, v)))
    parts = lambda z: array(name, np.stack([z.real, z.imag]))  # noqa: E731
    f = lambda p: energy(theirs, torch.complex(p[0], p[1]) if xp is torch else p[0] + 1j * p[1])  # noqa: E731
    if name == "torch":
        truth = torch.autograd.functional.hvp(f, parts(w0), parts(v))[1]
    else:
        truth = jax.jit(lambda p, v: jax.jvp(jax.grad(f), (p,), (v,))[1])(parts(w0), parts(v))
        product = product.conj()
    truth = np.asarray(truth[0]) + 1j * np.asarray(truth[1])
    assert np.abs(product - truth).max() <= TIGHT * np.abs(truth).max()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_nested_parameters_and_what_f_does_not_use(name):
    xp = FRAMEWORKS[name]
    d = {"w": array(name, VALUES), "rest": [array(name, numbers(N, seed=1)), array(name, numbers(2, seed=2))]}
    v = {"w": array(name, numbers(len(VALUES), seed=3)), "rest": [array(name, numbers(N, seed=4)), d["rest"][1]]}
    H = gradients.HessianOperator(lambda d: (ours(xp, d["w"], d["rest"][0]) ** 3).sum(), d)
    got = H(v)
    assert not np.asarray(got["rest"][1]).any() and not np.asarray(H.gradient["rest"][1]).any()
    h, f = 1e-4, lambda d: gradients.HessianOperator(lambda d: (theirs(xp, d["w"], d["rest"][0]) ** 3).sum(), d)
    plus, minus = (
        f({"w": d["w"] + s * v["w"], "rest": [d["rest"][0] + s * v["rest"][0], d["rest"][1]]}) for s in (h, -h)
    )
    for key in (lambda t: t["w"], lambda t: t["rest"][0]):
        change = np.asarray(key(plus.gradient) - key(minus.gradient)) / (2 * h)
        assert np.abs(np.asarray(key(got)) - change).max() <= 10 * h**2 * np.abs(change).max()


def test_gradgradcheck():
    d = torch.from_numpy(POINTS[by_parameters]).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda d: by_parameters(torch, ours, d), (d,))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_functions_for_matrices_and_iterative_methods(name):
    xp, b = FRAMEWORKS[name], array(name, numbers(N, seed=1))
    mat = array(name, np.diag(np.full(N, 2.0)) - np.eye(N, k=1) - np.eye(N, k=-1))

    def f(solve, d):
        return (solve(d) ** 4).sum()

    def by_cg(d):
        A = bs.MatrixFree(lambda d, v: xp.exp(d) * v + mat @ v, d, (N, N)).assume("spd")
        return bs.solve(A, b, rtol=1e-14)

    full = lambda d: xp.linalg.solve(xp.diag(xp.exp(d)) + mat, b)  # noqa: E731
    d, v = array(name, numbers(N, seed=2) / 2), array(name, numbers(N, seed=3))
    got = np.asarray(gradients.hvp(lambda d: f(by_cg, d), d, v))
    hessian = torch.func.hessian if name == "torch" else lambda f: jax.jit(jax.hessian(f))
    truth = np.asarray(hessian(lambda d: f(full, d))(d) @ v)
    assert np.abs(got - truth).max() <= TIGHT * np.abs(truth).max()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_gauss_newton_products(name, work):
    xp, d = FRAMEWORKS[name], array(name, POINTS[by_parameters])
    weights = array(name, 1.0 + AT)
    loss = lambda x: (weights * xp.cosh(x)).sum()  # noqa: E731
    model = lambda solve: lambda d: solve(xp, *upstream(xp, d)) ** 2  # noqa: E731
    work.clear()
    G = gradients.GaussNewtonOperator(model(ours), loss, d)
    assert sorted(work) == ["factor"] + 2 * ["solve"]
    transforms = torch.func if name == "torch" else jax
    J = np.asarray(transforms.jacrev(model(theirs))(d))
    x = model(theirs)(d)
    truth = J.T @ np.diag(np.asarray(weights * xp.cosh(x))) @ J
    gradient = J.T @ np.asarray(weights * xp.sinh(x))
    assert np.abs(np.asarray(G.gradient) - gradient).max() <= TIGHT * np.abs(gradient).max()
    for k in range(2):
        v = numbers(len(d), seed=k)
        work.clear()
        got = np.asarray(G @ array(name, v))
        assert work == 2 * ["solve"]
        assert np.abs(got - truth @ v).max() <= TIGHT * np.abs(truth @ v).max()
    got = np.asarray(gradients.gnvp(model(ours), loss, d, array(name, v)))
    assert np.abs(got - truth @ v).max() <= TIGHT * np.abs(truth @ v).max()


def test_newton_cg_factors_once_for_each_point(work):
    """Conductivities of a line from its potentials: SciPy's CG takes products, each of them two solves."""
    m, true = 12, np.random.default_rng(0).uniform(-1, 1, 13)
    edges = np.eye(m + 1, m) - np.eye(m + 1, m, k=-1)
    G = torch.from_numpy(edges)
    rows, cols = map(np.ravel, np.indices((m, m)))

    def potentials(logs):
        values = (G.T @ (torch.exp(logs)[:, None] * G)).reshape(-1)
        return bs.solve(bs.coo(values, (rows, cols), (m, m)), torch.ones(m, dtype=torch.float64), method="superlu")

    seen = potentials(torch.from_numpy(true))
    loss = lambda x: ((x - seen) / seen).square().sum() / 2  # noqa: E731
    logs = torch.zeros(m + 1, dtype=torch.float64)
    for _ in range(8):
        work.clear()
        H = gradients.GaussNewtonOperator(potentials, loss, logs)
        S, products = bs.as_scipy_operator(H.as_operator()), []
        step, _ = cg(S, -H.gradient.numpy(), rtol=1e-10, maxiter=60, callback=products.append)
        assert work.count("factor") == 1 and work.count("solve") <= 2 + 2 * (len(products) + 1)
        logs = logs + torch.from_numpy(step)
    seen_again = potentials(logs)
    assert ((seen_again - seen) / seen).abs().max() < 1e-9


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_as_an_operator_of_solves(name):
    xp, d = FRAMEWORKS[name], array(name, POINTS[by_right_hand_side])
    f = lambda d: by_right_hand_side(xp, ours, d) + 9 * (d * d).sum()  # noqa: E731
    H = gradients.HessianOperator(f, d)
    step = bs.solve(H.as_operator(), H.gradient, method="cg", rtol=1e-12)
    residual = np.asarray(H @ step - H.gradient)
    assert np.linalg.norm(residual) <= 1e-11 * np.linalg.norm(np.asarray(H.gradient))
    S = bs.as_scipy_operator(H.as_operator())
    truth = np.asarray(gradients.hessian(f, d))
    assert np.abs(S @ np.eye(N)[:, :3] - truth[:, :3]).max() <= TIGHT * np.abs(truth).max()
    assert np.abs(S.H @ np.eye(N)[:, 0] - truth[:, 0]).max() <= TIGHT * np.abs(truth).max()


def test_in_jax_every_matrix_of_f_is_factored_once_and_goes_with_the_operator(work):
    """The cache keeps the latest factors that a backward has used; an operator holds all of its own."""

    def f(w):
        b = jnp.ones(N)
        return (ours(jnp, 2 * w, ours(jnp, w, b)) ** 3).sum()

    d, v = jnp.asarray(VALUES), jnp.asarray(numbers(len(VALUES)))
    H = gradients.HessianOperator(f, d)
    assert sorted(work) == 2 * ["factor"] + 4 * ["solve"]
    for _ in range(2):
        work.clear()
        H(v)
        assert work == 4 * ["solve"]
    entries = [weakref.ref(entry) for entry in H._parts._factors]
    assert len(entries) == 2
    del H
    CACHE.clear()
    gc.collect()
    assert not any(entry() for entry in entries)


def test_in_jax_a_compiled_product_has_four_solves():
    d = jnp.asarray(POINTS[by_parameters])
    product = lambda d, v: gradients.hvp(lambda d: by_parameters(jnp, ours, d), d, v)  # noqa: E731
    v = jnp.asarray(numbers(len(d)))
    text = str(jax.make_jaxpr(product)(d, v))
    assert text.count("backsolve_solve[") == 4
    eager = product(d, v)
    assert jnp.abs(jax.jit(product)(d, v) - eager).max() <= TIGHT * jnp.abs(eager).max()


def test_in_torch_values_changed_afterwards_raise():
    d = torch.from_numpy(VALUES.copy())
    H = gradients.HessianOperator(lambda d: by_values(torch, ours, d), d)
    d[0] += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        H(torch.ones_like(d))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_function_that_is_linear_has_no_curvature(name):
    xp, d = FRAMEWORKS[name], array(name, POINTS[by_right_hand_side])
    w = array(name, VALUES)
    product = gradients.hvp(lambda b: ours(xp, w, b).sum(), d, d)
    assert np.array_equal(np.asarray(product), np.zeros(N))


def test_failures_are_told_or_are_nan():
    d = torch.zeros(len(VALUES), dtype=torch.float64)
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        gradients.hvp(lambda d: by_values(torch, ours, d), d, d)
    quiet = lambda d: bs.solve(  # noqa: E731
        bs.coo(d, (ROWS, COLS), (N, N)), torch.ones(N, dtype=torch.float64), on_failure="return"
    ).sum()
    assert torch.isnan(gradients.hvp(quiet, d, d)).all()


def test_wrong_arguments_are_named():
    f = lambda d: d.sum()  # noqa: E731
    t, j = torch.ones(3, dtype=torch.float64), jnp.ones(3)
    for error, message, call in (
        (TypeError, "d must hold tensors of torch or arrays of JAX", lambda: gradients.hvp(f, np.ones(3), np.ones(3))),
        (TypeError, r"f\(d\) must be one real number", lambda: gradients.hvp(lambda d: d, t, t)),
        (TypeError, r"f\(d\) must be one real number", lambda: gradients.hvp(lambda d: d, j, j)),
        (TypeError, r"f\(d\) must depend on", lambda: gradients.hvp(lambda d: d.detach().sum(), t, t)),
        (TypeError, "of floating point alone", lambda: gradients.hvp(f, {"a": t, "i": torch.ones(2).int()}, t)),
        (TypeError, "of floating point alone", lambda: gradients.hvp(f, {"a": j, "i": jnp.arange(2)}, j)),
        (TypeError, r"torch\.func\.jvp", lambda: torch.func.grad(lambda d: gradients.hvp(f, d, d).sum())(t)),
        (ValueError, "v must have the shape and dtype of d", lambda: gradients.hvp(f, t, t[:2])),
        (ValueError, "v must have the shape and dtype of d", lambda: gradients.hvp(f, j, j[:2])),
        (ValueError, "v must be nested as d is", lambda: gradients.hvp(f, t, [t])),
        (ValueError, "v must be nested as d is", lambda: gradients.hvp(f, j, [j])),
        (ValueError, "at most 2000 numbers; got 2001", lambda: gradients.hessian(f, torch.ones(2001))),
        (TypeError, "hessian: d must be real", lambda: gradients.hessian(f, t + 0j)),
        (
            TypeError,
            "as_operator: d must be real",
            lambda: gradients.HessianOperator(lambda d: abs(d).sum(), t + 0j).as_operator(),
        ),
        (TypeError, r"model\(d\) must be one", lambda: gradients.gnvp(lambda d: (d, d), f, t, t)),
        (TypeError, r"loss\(x\) must be one real", lambda: gradients.gnvp(lambda d: 2 * d, lambda x: x, j, j)),
    ):
        with pytest.raises(error, match=message):
            call()
