"""Iterative methods in JAX: the loop of NumPy and torch, compiled, with its counts, statuses, sentences and honesty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jax_cases import AS_USERS, wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve import gallery
from backsolve import preconditioners as pre
from backsolve.methods import METHODS

NAMES = ["cg", "bicgstab"]
OTHERS = ["fcg", "minres", "lsmr"]
"""Loops of the program that take the same way: to compile one takes a second, so these are compiled for fewer tests."""


def numbers(shape, dtype="float64", seed=1):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(shape)
    return (b + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else b).astype(dtype)


def definite(n, dtype="float64", seed=0):
    G = numbers((n, n), dtype, seed)
    return (G @ G.conj().T / n + np.eye(n)).astype(dtype)


def everywhere(dense):
    rows, cols = np.indices(dense.shape[-2:]).reshape(2, -1)
    return bs.coo(dense.reshape((*dense.shape[:-2], -1)), (rows, cols), dense.shape[-2:])


def kinds(A, to):
    """The same matrix as each kind of operator, on arrays of another framework."""
    dense = to(A.toarray())
    yield "csr", A.with_data(to(A.data))
    yield "dense", bs.Dense(dense)
    yield "free", bs.MatrixFree(lambda M, v: M @ v, dense, A.shape)


@pytest.mark.parametrize("name", NAMES + OTHERS)
def test_every_framework_makes_the_same_iterations(name):
    problem = gallery.problem("convection" if name in ("bicgstab", "lsmr") else "poisson2d", 400)
    want = int(bs.solve_with_info(problem.A, problem.b, method=name).stats.iterations)
    in_torch = bs.solve_with_info(problem.A.with_data(torch.from_numpy(problem.A.data)), problem.b, method=name)
    b = jnp.asarray(problem.b)
    for kind, A in kinds(problem.A, jnp.asarray):
        if name in OTHERS and kind == "dense":
            continue
        for solve in (bs.solve_with_info, jax.jit(bs.solve_with_info, static_argnames="method")):
            sol = solve(A, b, method=name)
            assert sol.converged and want > 20
            for made in (int(sol.stats.iterations), int(in_torch.stats.iterations)):
                assert abs(made - want) <= 0.02 * want
            once = 1 + METHODS[name].products_at_start
            residual = np.linalg.norm(problem.A @ np.asarray(sol.x) - problem.b)
            assert residual == pytest.approx(float(sol.stats.residual_norm), rel=1e-4)
            assert int(sol.stats.matvecs) == METHODS[name].products * int(sol.stats.iterations) + once


def test_what_loops_is_what_says_so():
    loops = {name for name, method in METHODS.items() if getattr(method(), "loops", False)}
    stationary = {"richardson", "jacobi", "sor", "neumann"}
    assert loops == {*NAMES, *OTHERS, "gmres", "fgmres", *stationary}
    assert bs.Chebyshev(bounds=(1.0, 2.0)).loops and not bs.Chebyshev().loops
    known = {name for name in pre.PRECONDITIONERS if bs.GMRES(M=name).loops}
    assert known == {"jacobi", "ssor", "ic0", "mic", "ilu0"}


def test_the_others_are_calls_of_the_host_with_the_same_iterations():
    problem = gallery.problem("poisson2d", 100)
    for method in (bs.GMRES(M="ilut"), bs.CG(M="amg"), bs.Chebyshev()):
        A, b = problem.A.with_data(jnp.asarray(problem.A.data)), jnp.asarray(problem.b)
        want = bs.solve_with_info(problem.A, problem.b, method=method)
        sol = jax.jit(lambda A, b, m=method: bs.solve_with_info(A, b, method=m))(A, b)
        assert sol.converged and int(sol.stats.iterations) == int(want.stats.iterations)
    with pytest.raises(ValueError, match="cannot be compiled for a MatrixFree A of JAX"):
        bs.solve(bs.MatrixFree(lambda w, v: w * v, jnp.ones(3), (3, 3)), jnp.ones(3), method="chebyshev")


@pytest.mark.parametrize("method", ["lsmr"])
def test_preconditioners_in_the_loop(method):
    """Those that look at no number: of matrices and functions, with the iterations that NumPy makes."""
    p = gallery.problem("poisson2d", 100)
    dense, b = jnp.asarray(p.toarray()), jnp.asarray(p.b)
    free, csr = bs.MatrixFree(lambda M, v: M @ v, dense, (100, 100)), p.A.with_data(jnp.asarray(p.A.data))
    turned = jnp.asarray(np.linspace(0.2, 0.3, 100))
    host = np.asarray(turned)
    pairs = [
        (pre.Chebyshev(4, (0.3, 8.0)),) * 2,
        (pre.LowRank(np.full(100, 4.0), np.ones((100, 1))),) * 2,
        (pre.Function(lambda v: turned * v, symmetric=True), pre.Function(lambda v: host * v, symmetric=True)),
    ]
    for M, hosts in pairs:
        want = bs.solve_with_info(p.A, p.b, method=method, M=hosts)
        for A in (free, csr) if M is hosts and isinstance(M, pre.LowRank) else (free,):
            sol = jax.jit(lambda A, b, M=M: bs.solve_with_info(A, b, method=method, M=M))(A, b)
            assert sol.converged and abs(int(sol.stats.iterations) - int(want.stats.iterations)) <= 1
    grad = jax.grad(lambda D: bs.solve(free.with_data(D), b, method=method, M=pairs[0][0], rtol=1e-11).sum())(dense)
    want = jax.grad(lambda D: jnp.linalg.solve(D, b).sum())(dense)
    np.testing.assert_allclose(grad, want, rtol=1e-6, atol=1e-6 * float(abs(want).max()))


@pytest.mark.parametrize("transform", [jax.grad, jax.jit])
def test_a_preconditioner_that_closes_over_a_traced_value_is_refused(transform):
    A, b = bs.coo(jnp.ones(3), (range(3), range(3)), (3, 3)), jnp.ones(3)

    def loss(d):
        return bs.solve(A, b, method="cg", M=pre.Function(lambda v: v / d, symmetric=True)).sum()

    with pytest.raises(ValueError, match="M must not close over values that a transform of JAX traces"):
        transform(loss)(4.0)


def test_the_loop_is_part_of_the_program():
    A, b = bs.coo(jnp.ones(3), (range(3), range(3)), (3, 3)), jnp.ones(3)
    free = bs.MatrixFree(lambda w, v: w * v, jnp.ones(3), (3, 3))
    for operator, method, calls in ((A, "cg", 0), (A, "bicgstab", 0), (free, "cg", 0), (A, "superlu", 1)):
        grad = jax.jit(jax.grad(lambda A, b, method=method: bs.solve(A, b, method=method).sum()))
        text = grad.lower(operator, b).as_text()
        assert ("callback" in text) == bool(calls) and ("while" in text) != bool(calls)


# -- failures ------------------------------------------------------------------------------------------------

SKEW = np.array([[0.0, 1.0], [-1.0, 0.0]])
HUGE = np.diag(np.full(8, 1.7e308))
TURN = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 60)))[0]
SPREAD = ((TURN * np.logspace(0, 5, 60)) @ TURN.T).astype("float32")
FAILURES = {  # name -> (status, method, A, b, options)
    "maxiter": ("MAXITER", bs.CG(maxiter=3), definite(20), numbers(20), {}),
    "breakdown": ("BREAKDOWN", "bicgstab", SKEW, np.array([1.0, 0.0]), {}),
    "indefinite": ("INDEFINITE", "cg", np.diag([1.0, 2, -3, 4]), np.ones(4), {}),
    "singular": ("SINGULAR", "cg", np.diag([1.0, 2, 0, 4]), np.ones(4), {}),
    "right-hand side": ("NONFINITE", "cg", np.eye(3), np.array([1.0, np.nan, 1]), {}),
    "matrix": ("NONFINITE", "bicgstab", np.array([[1.0, np.inf], [0, 1]]), np.ones(2), {}),
    "product": ("NONFINITE", "cg", HUGE, np.ones(8), {}),
    "stagnation": ("STAGNATION", bs.CG(maxiter=5000), SPREAD, numbers(60, "float32"), {"rtol": 1e-7}),
}


@pytest.mark.parametrize("kind", ["csr", "free"])
@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_those_of_numpy_in_the_same_words(name, kind):
    status, method, dense, b, options = FAILURES[name]
    if kind == "free" and name == "matrix":
        return  # parameters may be anything
    in_numpy, A = (dict(kinds(everywhere(dense), to))[kind] for to in (np.asarray, jnp.asarray))
    options, v = {"method": method, **options}, jnp.asarray(b)
    want = bs.solve_with_info(in_numpy, b, **options, on_failure="return")
    assert bs.Status(int(want.status)).name == status
    with pytest.raises(bs.SolveError) as theirs:
        bs.solve_with_info(in_numpy, b, **options)
    with pytest.raises(bs.SolveError) as error:
        bs.solve_with_info(A, v, **options)
    assert _words(str(error.value)) == _words(str(theirs.value))
    assert error.value.solution.x.shape == b.shape
    eager = bs.solve_with_info(A, v, **options, on_failure="return")
    compiled = jax.jit(lambda A, b: bs.solve_with_info(A, b, **options))(A, v)
    for sol in (eager, compiled):
        assert int(sol.status) == int(want.status) and not sol.converged
        assert np.isnan(sol.x).all() == np.isnan(want.x).all()
        if status not in ("SINGULAR", "STAGNATION"):  # there rounding alone goes on for a while
            assert int(sol.stats.iterations) == int(want.stats.iterations)
    assert _words(eager.message) == _words(want.message)


@pytest.mark.parametrize("name", ["maxiter", "breakdown"])
def test_what_failed_is_nan_and_so_are_its_gradients(name):
    status, method, dense, b, _ = FAILURES[name]
    A, b = everywhere(jnp.asarray(dense)), jnp.asarray(b)
    with pytest.warns(bs.SolveWarning, match=status):
        assert np.isnan(bs.solve(A, b, method=method, on_failure="warn")).all()
    x, bars = jax.jit(jax.value_and_grad(lambda A, b: bs.solve(A, b, method=method).sum(), (0, 1)))(A, b)
    assert np.isnan(x) and all(np.isnan(leaf).all() for leaf in jax.tree.leaves(bars))
    sol = jax.jit(lambda A, b: bs.solve_with_info(A, b, method=method))(A, b)
    assert np.isfinite(sol.x).all()  # the best iterate, with its status


def _words(message):
    """Without the residuals, of which the last digits are rounding."""
    parts = message.split("; ")
    return [p for p in parts if "residual 1" not in p and "e-" not in p][1:]


def test_a_backward_solve_is_judged_by_itself():
    problem = gallery.problem("poisson2d", 400)
    A, b = problem.A.with_data(jnp.asarray(problem.A.data)), jnp.asarray(problem.b)
    options = {"method": bs.CG(maxiter=40), "rtol": 0.1}
    f = lambda b: bs.solve(A, b, **options, adjoint=bs.Adjoint(rtol=1e-12)).sum()  # noqa: E731
    assert np.isfinite(jax.jit(f)(b))
    with pytest.raises(bs.SolveError, match="the adjoint \\(backward\\) solve failed: MAXITER"):
        jax.grad(f)(b)
    assert np.isnan(jax.jit(jax.grad(f))(b)).all()


# -- honesty -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    n=st.just(5),
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 12),
    name=st.sampled_from(NAMES),
    kind=st.sampled_from(["general", "symmetric", "definite", "singular", "skew"]),
    dtype=st.sampled_from(["float32", "complex64", "float32 alone", "float64", "complex128"]),
)
def test_nothing_converged_misses_its_target(n, seed, spread, name, kind, dtype):
    """By the residual that NumPy finds in double precision; "alone" is JAX without it."""
    dtype, _, alone = dtype.partition(" ")
    rng = np.random.default_rng(seed)
    G = 10.0 ** (-spread * rng.random(n) / 2)[:, None] * numbers((n, n), dtype, seed).astype("complex128")
    G = G if np.dtype(dtype).kind == "c" else G.real
    dense = {
        "general": lambda: G,
        "symmetric": lambda: G + G.conj().T,
        "definite": lambda: G @ G.conj().T,
        "singular": lambda: G[:, :1] @ G[:, :1].conj().T,
        "skew": lambda: G - G.conj().T,
    }[kind]().astype(dtype)
    b = numbers(n, dtype, seed)
    with jax.enable_x64(not alone):
        A, v = everywhere(jnp.asarray(dense)), jnp.asarray(b)
        solve = jax.jit(bs.solve_with_info, static_argnames="method", compiler_options=AS_USERS)
        sol = solve(A, v, method=name)
        assert sol.x.dtype == dtype
    if sol.converged:
        x, wide = np.asarray(sol.x), dense.astype("complex128")
        rtol = 1e-5 if np.finfo(dtype).eps > 1e-10 else 1e-8
        rounding = 2 * np.finfo("float64").eps * n * np.linalg.norm(np.abs(wide) @ np.abs(x))
        assert np.linalg.norm(wide @ x - b) <= rtol * np.linalg.norm(b) * (1 + 1e-6) + rounding
    else:
        assert int(sol.status) < 0


@pytest.mark.parametrize(("kind", "alone"), [("csr", False), ("csr", True), ("dense", True)])
def test_a_drifting_residual_is_found_out_in_single_precision(kind, alone):
    dense, b = SPREAD, numbers(60, "float32")
    with jax.enable_x64(not alone):
        A = dict(kinds(everywhere(dense), jnp.asarray))[kind]
        for rtol in (1e-3, 1e-7):
            options = {"method": bs.CG(maxiter=5000), "rtol": rtol, "on_failure": "return"}
            solve = jax.jit(lambda A, b, o=options: bs.solve_with_info(A, b, **o), compiler_options=AS_USERS)
            sol = solve(A, jnp.asarray(b))
            true = np.linalg.norm(dense.astype("float64") @ np.asarray(sol.x, "float64") - b) / np.linalg.norm(b)
            assert float(sol.stats.relative_residual) == pytest.approx(true, rel=1e-3)
            assert sol.converged == (true <= rtol)
    assert bs.Status(int(sol.status)) is bs.Status.STAGNATION


@pytest.mark.parametrize("name", NAMES)
def test_tiny_and_huge_right_hand_sides_and_cotangents(name):
    dense, b = jnp.asarray(definite(12, "float32")), jnp.asarray(numbers(12, "float32"))
    solve = jax.jit(lambda M, b: bs.solve(bs.Dense(M), b, method=name, rtol=1e-6))
    pull = jax.jit(lambda M, b, g: jax.vjp(solve, M, b)[1](g))
    truth = np.linalg.solve(np.asarray(dense, "float64"), np.asarray(b, "float64"))
    whole = pull(dense, b, jnp.ones_like(b))
    for size in map(np.float32, (1e-30, 1e-13, 1e13, 1e30)):
        x = np.asarray(solve(dense, size * b), "float64")
        np.testing.assert_allclose(x / float(size), truth, rtol=1e-3, atol=1e-4)
        for one, other in zip(whole, pull(dense, b, jnp.full_like(b, size)), strict=True):
            assert other.dtype == np.float32
            np.testing.assert_allclose(np.asarray(other, "float64") / float(size), one, rtol=1e-3, atol=1e-4)


# -- systems and columns beside each other -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csr", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_every_system_of_a_batch_runs_for_itself(name, kind):
    dense = np.stack([definite(16, seed=s) for s in range(3)])
    dense[1] += 30 * np.eye(16)  # converges much sooner
    b = numbers((3, 16, 2))
    b[0, :, 1] = 0
    batch = everywhere(jnp.asarray(dense)) if kind == "csr" else bs.Dense(jnp.asarray(dense))
    sol = jax.jit(lambda A, b: bs.solve_with_info(A, b, method=name, rtol=1e-10))(batch, jnp.asarray(b))
    alone = [bs.solve_with_info(bs.Dense(M), v, method=name, rtol=1e-10) for M, v in zip(dense, b, strict=True)]
    assert sol.stats.iterations.tolist() == [int(one.stats.iterations) for one in alone]
    np.testing.assert_allclose(sol.x, np.stack([one.x for one in alone]), rtol=1e-9, atol=1e-12)
    assert (sol.x[0, :, 1] == 0).all() and sol.converged


def test_solutions_under_maps_and_derivatives():
    dense = jnp.stack([jnp.asarray(definite(8, seed=s)) for s in range(3)])
    b = jnp.asarray(numbers((4, 8)))
    options = {"method": "cg", "rtol": 1e-12}

    def info(M, b):
        return bs.solve_with_info(bs.Dense(M), b, **options)

    alone = [[bs.solve_with_info(bs.Dense(np.asarray(M)), np.asarray(v), **options) for v in b] for M in dense]
    for sol in (jax.vmap(jax.vmap(info, (None, 0)), (0, None))(dense, b),
                jax.jit(jax.vmap(jax.vmap(info, (0, None)), (None, 0), 1))(dense, b)):  # fmt: skip
        assert sol.status.shape == sol.stats.iterations.shape == (3, 4) and sol.converged
        counts = [[int(one.stats.iterations) for one in row] for row in alone]
        assert np.abs(np.asarray(sol.stats.iterations) - counts).max() <= 1

    def loss(M):
        sol = info(M, b[0])
        return (sol.x**2).sum() + sol.stats.iterations, sol.stats

    grad, stats = jax.jit(jax.grad(loss, has_aux=True))(dense[0])
    want = jax.grad(lambda M: (jnp.linalg.solve(M, b[0]) ** 2).sum())(dense[0])
    np.testing.assert_allclose(grad, want, rtol=1e-9, atol=1e-12)
    assert int(stats.iterations) > 3


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_mapped_right_hand_side_that_fails_leaves_the_others_alone(name, compiled):
    dense, b = definite(6), numbers((5, 6))
    b[3, 2] = np.nan
    f = jax.vmap(lambda b: bs.solve_with_info(bs.Dense(jnp.asarray(dense)), b, method=name, on_failure="return"))
    sol = (jax.jit(f) if compiled else f)(jnp.asarray(b))
    assert (np.asarray(sol.status) > 0).tolist() == [True, True, True, False, True]
    good = [0, 1, 2, 4]
    np.testing.assert_allclose(np.asarray(sol.x)[good], np.linalg.solve(dense, b[good].T).T, rtol=1e-6, atol=1e-7)
    assert np.isnan(sol.x[3]).all() and sol.stats.iterations[3] == 0
