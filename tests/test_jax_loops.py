"""Loops of a JAX program that keep a basis, have a preconditioner, begin somewhere, or are watched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_cases import wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve import gallery
from backsolve import preconditioners as pre
from backsolve.frontends import jax_sweeps


def on_jax(problem):
    return problem.A.with_data(jnp.asarray(problem.A.data)), jnp.asarray(problem.b)


def everywhere(dense):
    rows, cols = np.indices(dense.shape[-2:]).reshape(2, -1)
    return bs.coo(dense.reshape((*dense.shape[:-2], -1)), (rows, cols), dense.shape[-2:])


def words(message):
    """Without the residuals, of which the last digits are rounding."""
    return [part for part in message.split("; ") if "e-" not in part][1:]


# -- a basis of fixed size -----------------------------------------------------------------------------------


def compiled(function, *arguments):
    """The text of a program, and the program, traced once."""
    lowered = jax.jit(function).lower(*arguments)
    return lowered.as_text(), lowered.compile()


@pytest.mark.parametrize("method", [bs.GMRES(restart=20), bs.FGMRES(restart=12)], ids=str)
def test_gmres_restarts_in_the_program_as_it_does_in_numpy(method):
    p = gallery.problem("convection", 225)
    want = bs.solve_with_info(p.A, p.b, method=method)
    assert int(want.stats.iterations) > 2 * method.restart
    A, b = on_jax(p)
    sol = bs.solve_with_info(A, b, method=method)
    assert int(sol.stats.iterations) == int(want.stats.iterations)
    assert int(sol.stats.matvecs) == int(want.stats.matvecs) - 1  # zero has a residual that is known
    np.testing.assert_allclose(sol.x, want.x, rtol=1e-9, atol=1e-12)


def test_gmres_of_a_function_under_vmap_and_grad_in_one_program():
    p, method = gallery.problem("convection", 100), bs.GMRES(restart=10)
    b, dense = jnp.asarray(p.b), jnp.asarray(p.toarray())
    free = bs.MatrixFree(lambda M, v: M @ v, dense, dense.shape)

    def loss(M, b):
        sol = bs.solve_with_info(free.with_data(M), b, method=method, rtol=1e-12)
        return (sol.x**2).sum(), sol.stats.iterations

    text, run = compiled(jax.vmap(jax.grad(loss, has_aux=True), (None, 0)), dense, jnp.stack([b, 0 * b]))
    assert "callback" not in text and "while" in text
    grads, counts = run(dense, jnp.stack([b, 0 * b]))
    want = bs.solve_with_info(p.A, p.b, method=method, rtol=1e-12)
    assert abs(int(counts[0]) - int(want.stats.iterations)) <= 0.02 * int(want.stats.iterations) and counts[1] == 0
    truth = jax.grad(lambda M: (jnp.linalg.solve(M, b) ** 2).sum())(dense)
    np.testing.assert_allclose(grads[0], truth, rtol=1e-7, atol=1e-9 * float(abs(truth).max()))
    assert not grads[1].any()


CYCLIC = np.roll(np.eye(6), 1, axis=0)


@pytest.mark.parametrize(
    "status, method, dense, b",
    [
        ("STAGNATION", bs.GMRES(restart=3), CYCLIC, np.eye(6)[0]),
        ("SINGULAR", bs.GMRES(), np.diag([1.0, 2, 0, 4]), np.ones(4)),
        ("MAXITER", bs.FGMRES(maxiter=3), CYCLIC + 2 * np.eye(6), np.arange(6.0)),
    ],
)
def test_gmres_fails_as_it_does_in_numpy_in_the_same_words(status, method, dense, b):
    want = bs.solve_with_info(everywhere(dense), b, method=method, on_failure="return")
    got = bs.solve_with_info(everywhere(jnp.asarray(dense)), jnp.asarray(b), method=method, on_failure="return")
    assert bs.Status(int(got.status)).name == bs.Status(int(want.status)).name == status
    assert words(got.message) == words(want.message)
    assert status == "SINGULAR" or int(got.stats.iterations) == int(want.stats.iterations)  # there rounding goes on


def test_items_and_columns_of_a_complex_batch_restart_for_themselves():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((3, 20, 20)) + 1j * rng.standard_normal((3, 20, 20)) + 12 * np.eye(20)
    dense[1] += 50 * np.eye(20)
    b = rng.standard_normal((3, 20, 2)) + 0j
    b[0, :, 1] = 0
    want = bs.solve_with_info(everywhere(dense), b, method=bs.GMRES(restart=4), rtol=1e-10)
    got = bs.solve_with_info(everywhere(jnp.asarray(dense)), jnp.asarray(b), method=bs.GMRES(restart=4), rtol=1e-10)
    assert got.stats.iterations.tolist() == want.stats.iterations.tolist() and len(set(want.stats.iterations)) > 1
    np.testing.assert_allclose(got.x, want.x, rtol=1e-8, atol=1e-10)
    assert not got.x[0, :, 1].any()


def test_a_loop_carries_as_many_directions_as_are_kept():
    p = gallery.problem("poisson2d", 100)
    A, b = on_jax(p)
    d = 1 + 0.5 * np.sin(np.arange(100))
    counts = []
    for operator, v, weights in ((p.A, p.b, d), (A, b, jnp.asarray(d))):
        M = pre.Function(lambda v, w=weights: w * v * (1 + 0.5 * (v[3] > 0)), varying=True)
        sol = bs.solve_with_info(operator, v, method=bs.FCG(directions=3), M=M, rtol=1e-10)
        assert sol.converged
        counts.append(int(sol.stats.iterations))
    assert counts[0] == counts[1]


# -- preconditioners -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, M, kind",
    [("cg", "jacobi", "csr"), ("bicgstab", pre.SSOR(1.4), "dense"), ("cg", "mic", "csr"), ("lsmr", "ilu0", "csr")],
    ids=str,
)
def test_preconditioners_are_made_in_the_program(method, M, kind):
    """With the iterations of NumPy; in the backward solve Mᴴ."""
    p = gallery.problem("poisson2d" if method == "cg" else "convection", 225)
    A, b = on_jax(p)
    A = A if kind == "csr" else bs.Dense(jnp.asarray(p.toarray()))
    options = {"method": method, "M": M, "rtol": 1e-10}
    _, pull = bs.vjp(p.A, p.b, **options)
    want = bs.solve_with_info(p.A, p.b, **options), pull(p.b)[2]

    def both(A, b):
        sol, pull = bs.vjp(A, b, **options)
        data_bar, _, adjoint = pull(b)
        return sol, adjoint, data_bar

    text, run = compiled(both, A, b)
    assert "callback" not in text
    *found, data_bar = run(A, b)
    for got, one in zip(found, want, strict=True):
        assert got.converged and abs(int(got.stats.iterations) - int(one.stats.iterations)) <= 1  # rounding of BiCGStab
        assert int(one.stats.iterations) < 60
    rows, cols = (p.A.structure.rows, p.A.structure.indices) if kind == "csr" else np.indices((225, 225))
    truth = -np.outer(np.linalg.solve(p.toarray().T, p.b), np.linalg.solve(p.toarray(), p.b))[rows, cols]
    np.testing.assert_allclose(data_bar, truth, rtol=1e-6, atol=1e-7 * abs(truth).max())


def test_a_batch_item_without_a_preconditioner_says_so():
    dense = np.stack([np.diag(np.full(4, 3.0)), np.diag([1.0, 1, -2, 1]), np.diag(np.full(4, np.nan))]) + 0.1
    b = np.ones((3, 4, 1))
    options = {"method": "cg", "M": "ic0"}
    want = bs.solve_with_info(everywhere(dense), b, **options, on_failure="return")
    A, v = everywhere(jnp.asarray(dense)), jnp.asarray(b)
    got = bs.solve_with_info(A, v, **options, on_failure="return")
    assert [bs.Status(int(s)).name for s in want.status] == ["CONVERGED_RESIDUAL", "BREAKDOWN", "NONFINITE"]
    assert got.status.tolist() == want.status.tolist()
    assert "IC0: the pivot of row 2 is not positive and finite" in got.message
    told = [next(line for line in sol.message.split("\n") if "BREAKDOWN" in line) for sol in (got, want)]
    assert words(told[0]) == words(told[1])
    M = pre.Function(lambda v: v * jnp.nan)
    with pytest.raises(bs.SolveError, match="M v, or A M v, is not finite"):
        bs.solve(everywhere(jnp.asarray(dense[0])), v[0], method="bicgstab", M=M)


@pytest.mark.parametrize(
    "method", [bs.SOR(omega=1.5), bs.Neumann(maxiter=30), bs.Chebyshev(bounds=(0.2, 8.0))], ids=str
)
def test_methods_of_entries_and_of_bounds_are_loops(method):
    p = gallery.problem("poisson2d", 64)
    A, b = on_jax(p)
    A, shifted = A + 2.0 * bs.eye(64), p.A + 2.0 * bs.eye(64)
    want = bs.solve_with_info(shifted, p.b, method=method, on_failure="return")
    got = bs.solve_with_info(A, b, method=method, on_failure="return")
    assert int(got.stats.iterations) == int(want.stats.iterations) and int(got.status) == int(want.status)
    np.testing.assert_allclose(got.stats.error_bound, want.stats.error_bound, rtol=1e-6)
    assert np.isfinite(want.stats.error_bound) == (method.name == "neumann")


def test_where_there_is_no_kernel_the_host_or_operations_of_jax_do_the_same():
    p = gallery.problem("convection", 25)
    structure, values = p.A.structure, p.A.data[None]
    x = np.random.default_rng(0).standard_normal((1, 25, 2))
    for shapes, elsewhere, options in (
        (lambda d, x, pattern: [x], jax_sweeps._by_host(jax_sweeps._substituted), {"lower": True, "adjoint": True}),
        (lambda d, x, pattern: [x], jax_sweeps._natively(jax_sweeps._turned_product), {}),
    ):
        primitive = jax_sweeps._primitive("elsewhere", shapes)
        jax_sweeps.mlir.register_lowering(primitive, elsewhere)
        data = values if options else jax_sweeps._turned(values, pattern=structure)[0]
        (got,) = jax.jit(lambda d, x, p=primitive, o=options: p.bind(d, x, pattern=structure, **o))(data, x)
        want = structure.solve_triangular(values, x, True, True) if options else structure.matvec(values, x, True)
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-13)


# -- where to begin, and who is told -------------------------------------------------------------------------


@pytest.mark.parametrize("M", ["ilu0", "ilut"])
def test_a_start_saves_iterations_in_loops_and_calls_of_the_host(M):
    p = gallery.problem("convection", 100)
    A, b = on_jax(p)
    x = p.solution()
    starts = np.stack([x, x + 1e-6 * np.random.default_rng(0).standard_normal(100), 0 * x])
    options = {"method": "gmres", "M": M, "rtol": 1e-9}
    want = [int(bs.solve_with_info(p.A, p.b, x0=x0, **options).stats.iterations) for x0 in starts]
    assert want[0] == 0 < want[1] <= want[2]
    info = lambda x0: bs.solve_with_info(A, b, x0=x0, **options)  # noqa: E731
    assert jax.jit(jax.vmap(info))(starts).stats.iterations.tolist() == want
    assert [int(info(jnp.asarray(x0)).stats.iterations) for x0 in starts] == want
    if M == "ilu0":
        assert not jax.grad(lambda x0: bs.solve(A, b, x0=2 * x0, **options).sum())(jnp.asarray(x) / 2).any()
        with pytest.raises(ValueError, match=r"x0 must have the shape of x, \(100,\); got shape \(99,\)"):
            info(jnp.zeros(99))
        with pytest.raises(ValueError, match="x0 must be finite"):
            info(jnp.full(100, jnp.nan))
        lost = jax.jit(jax.vmap(info))(starts * np.nan)  # what a program begins with, it finds out
        assert (lost.status < 0).all() and np.isnan(lost.x).all()


def test_eager_solves_tell_of_every_iteration_and_programs_of_none():
    p = gallery.problem("convection", 100)
    A, b = on_jax(p)
    method, history, told = bs.BiCGStab(), bs.History(), bs.History()
    bs.solve(p.A, p.b, method=method, callback=history)
    shapes = set()

    def listen(iteration, norm, x):
        told(iteration, norm, x)
        shapes.add((type(x), x.shape, x.dtype))
        residual = np.linalg.norm(p.b - p.A @ np.asarray(x))
        assert norm == pytest.approx(residual, rel=1e-6, abs=1e-12)

    x, pull = jax.vjp(lambda b: bs.solve(A, b, method=method, callback=listen), b)
    assert len(told.norms) == len(history.norms) > 13 and shapes == {(type(x), (100,), np.dtype("float64"))}
    np.testing.assert_allclose(told.norms, history.norms, rtol=1e-6)
    before = len(told.norms)
    pull(x)
    assert len(told.norms) == before  # it is the forward solve that is watched

    def impatient(iteration, norm, x):
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bs.solve(A, b, method="cg", callback=impatient)
    bs.solve(A, b, method="gmres", M="ilut", callback=told)
    assert 1 < len(told.norms) < before
    with pytest.raises(TypeError, match="callback is for eager solves"):
        jax.jit(lambda b: bs.solve(A, b, method="cg", callback=told))(b)
    with pytest.raises(TypeError, match="callback is not for vmap"):
        jax.vmap(lambda b: bs.solve(A, b, method="cg", callback=told))(b[None])


# -- systems that determine x but for a constant -------------------------------------------------------------

N = 12
ENDS = np.arange(N - 1), np.arange(1, N)
PLACES = np.concatenate([*ENDS, *ENDS]), np.concatenate([*ENDS, *ENDS[::-1]])


def chain(w, b, skew=1.0, **options):
    A = bs.coo(jnp.concatenate([w, skew * w, -w, -w]), PLACES, (N, N))
    return bs.solve_with_info(A, b, nullspace="constant", **options)


@pytest.mark.parametrize("options", [{}, {"method": "cg", "M": "jacobi", "rtol": 1e-13}], ids=str)
def test_a_null_space_of_constants_compiled_and_differentiated(options):
    rng = np.random.default_rng(0)
    w, b = rng.random(N - 1) + 1, rng.standard_normal(N)
    b -= b.mean()

    def truth(w, b):
        L = jnp.zeros((N, N)).at[PLACES].add(jnp.concatenate([w, w, -w, -w]))
        return jnp.linalg.solve(L + 1 / N, b - b.mean())

    ours = jax.jit(lambda w, b: chain(w, b, **options))
    sol = ours(w, b)
    assert sol.converged
    np.testing.assert_allclose(sol.x, truth(w, b), rtol=1e-8, atol=1e-9)
    got, want = (jax.grad(lambda w, b, f=f: (f(w, b) ** 3).sum(), (0, 1))(w, b)
                 for f in (lambda w, b: chain(w, b, **options).x, truth))  # fmt: skip
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    for wrong in (ours(w, b + 1), jax.jit(lambda w, b: chain(w, b, skew=2.0, **options))(w, b)):
        assert bs.Status(int(wrong.status)) is bs.Status.INACCURATE and np.isnan(wrong.x).all()
    with pytest.raises(ValueError, match="b must have mean zero"):
        chain(jnp.asarray(w), jnp.asarray(b) + 1, **options)
