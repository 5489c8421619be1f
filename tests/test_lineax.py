"""lineax: our operators in its solvers, its operators in ours; derivatives, tags, states, failures, refusals."""

import doctest
import inspect

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax_cases import COLS, ROWS, VALUES, B, dense, wide  # noqa: F401  (a fixture)

import backsolve as bs
from backsolve.factor_cache import CACHE

lx = pytest.importorskip("lineax", reason="left out: lineax is not installed")

SPD = np.array([[4.0, 1, 0], [1, 3, 1], [0, 1, 5]])
TAGS = {
    "spd": lx.positive_semidefinite_tag,
    "sym": lx.symmetric_tag,
    "lower": lx.lower_triangular_tag,
    "upper": lx.upper_triangular_tag,
}


def sparse(w, assume=None):
    return bs.as_lineax_operator(bs.coo(w, (ROWS, COLS), (3, 3)), assume=assume)


def solve(operator, b=B, solver=None, **options):
    return lx.linear_solve(operator, jnp.asarray(b, operator.out_structure().dtype), solver or ours(), **options)


def ours(*args, **options):
    return bs.as_lineax_solver(*args, **options)


def close(got, want, factor=1):
    eps = np.finfo(np.asarray(got).dtype).eps
    np.testing.assert_allclose(got, want, rtol=1e3 * factor * eps, atol=1e3 * factor * eps)


def values(dtype="float64"):
    w = jnp.asarray(VALUES, dtype)
    return (w * (1 + 0.5j) ** jnp.arange(7)).astype(dtype) if "complex" in dtype else w


# -- values and derivatives ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("method", ["auto", "superlu", "lu"])
def test_values_and_dtype(method, dtype):
    w = values(dtype)
    operator = bs.as_lineax_operator(dense(w)) if method == "lu" else sparse(w)
    solution = solve(operator, solver=ours(method))
    assert solution.value.dtype == dtype
    close(solution.value, jnp.linalg.solve(dense(w), jnp.asarray(B, dtype)))
    assert solution.result == lx.RESULTS.successful
    assert solution.stats["status"] == bs.Status.CONVERGED_BACKWARD


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives_of_three_orders_are_those_of_the_dense_solve(dtype):
    b = jnp.asarray(B, dtype)

    def by_lineax(w, b):
        return scalar(solve(sparse(w), b).value)

    def by_dense(w, b):
        return scalar(jnp.linalg.solve(dense(w), b))

    def scalar(x):
        return (jnp.abs(x) ** 2).sum() + (x[0] * x[1] ** 2).real

    # real parameters, so that every transform of JAX takes them
    def of_real(f):
        return lambda t: f(values(dtype) * (1 + t), b * (1 + t[:3]))

    first = (jax.grad, jax.jacfwd)
    second = (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)), lambda f: jax.jacfwd(jax.jacfwd(f)))
    t = jnp.zeros(7)
    for transform in (*first, *second, lambda f: jax.jacfwd(jax.hessian(f))):
        got, want = transform(of_real(by_lineax)), jax.jit(transform(of_real(by_dense)))
        close((got if transform in first else jax.jit(got))(t), want(t), 100)
    got = jax.grad(by_lineax, (0, 1))(values(dtype), b)
    for bar, want in zip(got, jax.grad(by_dense, (0, 1))(values(dtype), b), strict=True):
        close(bar, want)


def test_a_solve_and_its_derivatives_factor_once():
    def total(w):
        return (solve(sparse(w)).value ** 2).sum()

    jax.grad(total)(jnp.asarray(VALUES))
    assert CACHE.info().misses == 1
    jax.jit(jax.hessian(total))(jnp.asarray(VALUES))
    assert CACHE.info().misses == 1


def test_maps_over_values_vectors_and_both():
    w, b = jnp.asarray(VALUES) * jnp.array([[1.0], [2], [3]]), jnp.eye(3)
    for axes, items in (((None, 0), 1), ((0, None), 3), ((0, 0), 3)):
        CACHE.clear()
        given = w[0] if axes[0] is None else w, b[0] if axes[1] is None else b
        got = jax.vmap(lambda w, b: solve(sparse(w), b).value, axes)(*given)
        close(got, jax.vmap(lambda w, b: jnp.linalg.solve(dense(w), b), axes)(*given))
        assert CACHE.info().misses == 1
        (entry,) = CACHE._entries
        assert entry[2][0] == items, "a map over b alone factors one matrix"
        got = jax.vmap(jax.grad(lambda w, b: solve(sparse(w), b).value[0]), axes)(*given)
        close(got, jax.jit(jax.vmap(jax.grad(lambda w, b: jnp.linalg.solve(dense(w), b)[0]), axes))(*given))
    operators = equinox.filter_vmap(sparse)(w)
    close(equinox.filter_vmap(lambda A: solve(A).value)(operators), jnp.linalg.solve(dense(w), jnp.asarray(B)))


def test_gradients_arrive_at_the_stored_values():
    operator = sparse(jnp.asarray(VALUES))
    bar = equinox.filter_grad(lambda operator: solve(operator).value.sum())(operator)
    assert bar.A.data.shape == (7,)
    close(bar.A.data, jax.grad(lambda w: jnp.linalg.solve(dense(w), jnp.asarray(B)).sum())(jnp.asarray(VALUES)))


def test_a_large_sparse_system_stays_sparse():
    n = 20_000
    at = np.arange(n)
    places = np.concatenate([at, at[1:], at[:-1]]), np.concatenate([at, at[:-1], at[1:]])
    w = jnp.concatenate([jnp.full(n, 3.0), jnp.full(n - 1, -1.5), jnp.full(n - 1, -0.5)])
    b = jnp.ones(n)
    bar = jax.grad(lambda w: solve(bs.as_lineax_operator(bs.coo(w, places, (n, n))), b).value[0])(w)
    x, lam = (
        bs.solve(A, v) for A, v in ((bs.coo(w, places, (n, n)), b), (bs.coo(w, places[::-1], (n, n)), jnp.eye(1, n)[0]))
    )
    close(bar, -lam[places[0]] * x[places[1]])


# -- states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("conjugated", [False, True])
def test_states_of_transposes_and_conjugates_solve_with_the_same_factors(transposed, conjugated):
    w, b = values("complex128"), jnp.asarray(B, "complex128") * (1 - 2j)
    solver, operator, M = ours(), sparse(w), dense(w)
    state = solver.init(operator, {})
    if transposed:
        state, M = solver.transpose(state, {})[0], M.T
    if conjugated:
        state, M = solver.conj(state, {})[0], M.conj()
    x, result, _ = solver.compute(state, b, {})
    close(x, jnp.linalg.solve(M, b))
    assert result == lx.RESULTS.successful and CACHE.info().misses == 1


def test_a_state_made_before_serves_many_solves_and_invert():
    operator, solver = sparse(jnp.asarray(VALUES)), ours()
    state = solver.init(operator, {})
    assert CACHE.info().misses == 1, "known values are factored at once"
    for b in (B, 2 * B):
        close(solve(operator, b, solver, state=state).value, jnp.linalg.solve(dense(jnp.asarray(VALUES)), b))
    inverse = lx.invert(operator, solver)
    close(inverse.as_matrix(), jnp.linalg.inv(dense(jnp.asarray(VALUES))))
    close(inverse.transpose().mv(jnp.asarray(B)), jnp.linalg.solve(dense(jnp.asarray(VALUES)).T, B))
    assert CACHE.info().misses == 1


def test_tolerances_of_the_adjoint_are_its_own():
    operator = bs.as_lineax_operator(sp.diags_array(np.linspace(1.0, 1e3, 200)), assume="spd")
    b = jnp.ones(200)
    solver = ours("cg", rtol=1e-10, adjoint=bs.Adjoint(rtol=1e-2))
    state = solver.init(operator, {})
    forward, backward = (solver.compute(s, b, {})[2] for s in (state, solver.transpose(state, {})[0]))
    assert forward["relative_residual"] <= 1e-10 < backward["relative_residual"] <= 1e-2
    assert backward["iterations"] < forward["iterations"]


# -- operators of lineax ---------------------------------------------------------------------------------------

M3 = np.array([[4.0, 1, 0], [-1, 3, 2], [0, 1, 5]])
D3 = np.array([2.0, 3.0, 5.0])


def linear(M):
    return lambda v: jnp.asarray(M) @ v


def three(M, **options):
    """Tridiagonal, of a matrix."""
    return lx.TridiagonalLinearOperator(*(jnp.asarray(np.diagonal(M, k)) for k in (0, -1, 1)))


STRUCTURE = jax.ShapeDtypeStruct((3,), np.float64)
OPERATORS = {
    "matrix": ("dense", lambda: lx.MatrixLinearOperator(jnp.asarray(M3)), M3),
    "matrix, tagged tridiagonal": ("csr", lambda: lx.MatrixLinearOperator(jnp.asarray(M3), lx.tridiagonal_tag), M3),
    "diagonal": ("csr", lambda: lx.DiagonalLinearOperator(jnp.asarray(D3)), np.diag(D3)),
    "tridiagonal": ("csr", lambda: three(M3), M3),
    "function": ("dense", lambda: lx.FunctionLinearOperator(linear(M3), STRUCTURE), M3),
    "function, tagged diagonal": (
        "csr",
        lambda: lx.FunctionLinearOperator(linear(np.diag(D3)), STRUCTURE, lx.diagonal_tag),
        np.diag(D3),
    ),
    "Jacobian": (
        "dense",
        lambda: lx.JacobianLinearOperator(lambda x, _: linear(M3)(x) + x**3, jnp.asarray(B)),
        M3 + np.diag(3 * B**2),
    ),
    "tagged": ("csr", lambda: lx.TaggedLinearOperator(bs.as_lineax_operator(sp.csr_array(SPD)), TAGS["spd"]), SPD),
    "times": ("csr", lambda: bs.as_lineax_operator(sp.csr_array(M3)) * 2.0, 2 * M3),
    "over": ("csr", lambda: bs.as_lineax_operator(sp.csr_array(M3)) / 2.0, M3 / 2),
    "minus": ("csr", lambda: -bs.as_lineax_operator(sp.csr_array(M3)), -M3),
    "sum": ("csr", lambda: sparse(values()) + three(M3), np.asarray(dense(jnp.asarray(VALUES))) + M3),
    "shift": ("csr", lambda: sparse(values()) - 0.5 * lx.IdentityLinearOperator(STRUCTURE), None),
    "sum with dense": ("dense", lambda: sparse(values()) + lx.MatrixLinearOperator(jnp.asarray(M3)), None),
    "product": ("csr", lambda: sparse(values()) @ bs.as_lineax_operator(sp.coo_array(M3.T)), None),
    "product with dense": ("dense", lambda: lx.MatrixLinearOperator(jnp.asarray(M3)) @ sparse(values()), None),
    "scaled": ("csr", lambda: lx.DiagonalLinearOperator(jnp.asarray(D3)) @ sparse(values()), None),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_of_lineax(name):
    kind, make, M = OPERATORS[name]
    operator = make()
    if M is not None:
        close(operator.as_matrix(), M)
    M = operator.as_matrix()
    solver = ours()
    assert solver.init(operator, {}).A.structure.kind == kind
    close(solve(operator).value, jnp.linalg.solve(M, B), 10)

    def total(operator, solver):
        return (lx.linear_solve(operator, jnp.asarray(B), solver).value ** 2).sum()

    got, want = (equinox.filter_grad(total)(operator, s) for s in (solver, lx.LU()))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: close(a, b, 100), got, want)


def test_pytrees_of_arrays():
    rng = np.random.default_rng(0)
    out = {"a": jax.ShapeDtypeStruct((2,), np.float64), "b": jax.ShapeDtypeStruct((1, 3), np.float64)}
    tree = {"a": jnp.asarray(rng.random((2, 5))), "b": jnp.asarray(rng.random((1, 3, 5)))}
    operator = lx.PyTreeLinearOperator(tree, out)
    b = {"a": jnp.arange(2.0), "b": jnp.ones((1, 3))}
    x = lx.linear_solve(operator, b, ours()).value
    assert x.shape == (5,)
    jax.tree.map(lambda y, want: close(y, want, 100), operator.mv(x), b)
    diagonal = lx.DiagonalLinearOperator({"p": jnp.asarray(D3), "q": jnp.array([7.0])})
    x = lx.linear_solve(diagonal, {"p": jnp.asarray(B), "q": jnp.array([14.0])}, ours()).value
    close(x["p"], B / D3)
    close(x["q"], 2.0)


def test_functions_larger_than_small_are_made_dense_on_request_only():
    n = 1_001
    d = jnp.linspace(1.0, 2.0, n)
    operator = lx.FunctionLinearOperator(lambda v: d * v, jax.ShapeDtypeStruct((n,), np.float64))
    with pytest.raises(ValueError, match=r"of size 1001, .* up to 1000 only: call lineax.materialise\(operator\)"):
        solve(operator, np.ones(n))
    close(solve(lx.materialise(operator), np.ones(n)).value, 1 / d)


@pytest.mark.parametrize("assume", TAGS)
def test_tags_choose_the_method(assume):
    M = {"spd": SPD, "sym": SPD - 4 * np.eye(3), "lower": np.tril(M3), "upper": np.triu(M3)}[assume]
    tagged = lx.TaggedLinearOperator(bs.as_lineax_operator(sp.csr_array(M)), TAGS[assume])
    for operator in (lx.MatrixLinearOperator(jnp.asarray(M), TAGS[assume]), tagged):
        assert ours().init(operator, {}).A.assumed == assume
        close(solve(operator).value, np.linalg.solve(M, B), 10)
    declared = bs.as_lineax_operator(M, assume=assume)
    assert ours().init(declared, {}).A.assumed == assume
    assert ours().init(declared.T, {}).A.assumed == {"lower": "upper", "upper": "lower"}.get(assume, assume)
    for check in (lx.is_symmetric, lx.is_positive_semidefinite, lx.is_lower_triangular, lx.is_upper_triangular):
        assert check(declared) == check(lx.MatrixLinearOperator(jnp.asarray(M), TAGS[assume])), check


def test_negative_definite_and_hermitian_matrices():
    minus = lx.MatrixLinearOperator(jnp.asarray(-SPD), lx.negative_semidefinite_tag)
    assert ours().init(minus, {}).A.assumed == "sym"
    close(solve(minus).value, np.linalg.solve(-SPD, B))
    H = SPD + 1j * np.triu(np.ones((3, 3)), 1) - 1j * np.tril(np.ones((3, 3)), -1)
    for sign, tag, assumed in ((1, lx.positive_semidefinite_tag, "spd"), (-1, lx.negative_semidefinite_tag, "her")):
        operator = lx.MatrixLinearOperator(jnp.asarray(sign * H), tag)
        assert ours().init(operator, {}).A.assumed == assumed
        close(solve(operator).value, np.linalg.solve(sign * H, B), 10)
    assert ours().init(bs.as_lineax_operator(H, assume="her"), {}).A.assumed == "her"


# -- our operators in solvers of lineax ------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [lx.LU(), lx.QR(), lx.SVD(), lx.GMRES(1e-12, 1e-12), lx.BiCGStab(1e-12, 1e-12)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_solvers_of_lineax_take_our_operators(solver, dtype):
    w, b = values(dtype), jnp.asarray(B, dtype)
    close(solve(sparse(w), b, solver).value, jnp.linalg.solve(dense(w), b), 100)
    got = jax.grad(lambda w: solve(sparse(w), b, solver).value.sum().real)(w)
    close(got, jax.grad(lambda w: jnp.linalg.solve(dense(w), b).sum().real)(w), 100)


@pytest.mark.parametrize(
    "solver, M",
    [
        (lx.CG(1e-12, 1e-12), SPD),
        (lx.Cholesky(), SPD),
        (lx.Triangular(), np.tril(M3)),
        (lx.Triangular(), np.triu(M3)),
        (lx.Tridiagonal(), M3),
        (lx.Diagonal(), np.diag(D3)),
    ],
)
def test_solvers_that_ask_for_structure_find_it(solver, M):
    operator = bs.as_lineax_operator(sp.csr_array(M), assume="spd" if M is SPD else None)
    close(solve(operator, solver=solver).value, np.linalg.solve(M, B), 10)
    by_auto = lx.AutoLinearSolver(well_posed=True)
    close(solve(operator, solver=by_auto).value, np.linalg.solve(M, B), 10)


def test_least_squares_by_sparse_normal_equations():
    rng = np.random.default_rng(0)
    tall = sp.random_array((30, 8), density=0.3, rng=rng) + sp.eye_array(30, 8)
    for M in (tall, tall.T):
        A = bs.aslinearoperator(sp.csr_array(M))
        b = jnp.asarray(rng.random(M.shape[0]))

        def by_lineax(w, A=A, b=b):
            return solve(bs.as_lineax_operator(A.with_data(w)), b, lx.Normal(ours())).value

        def by_dense(w, A=A, b=b):
            return jnp.linalg.lstsq(A.with_data(w).toarray(), b)[0]

        w = jnp.asarray(A.data)
        close(by_lineax(w), by_dense(w), 100)
        close(jax.grad(lambda w: by_lineax(w).sum())(w), jax.grad(lambda w: by_dense(w).sum())(w), 1e4)
        state = lx.Normal(ours()).init(bs.as_lineax_operator(A), {})
        assert state[0].A.structure.kind == "csr" and state[0].A.assumed == "spd"


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("make", [sparse, lambda w: bs.as_lineax_operator(dense(w))])
def test_what_lineax_asks_of_an_operator(make, dtype):
    w, x = values(dtype), jnp.asarray(B, dtype)
    operator, M = make(w), dense(w)
    close(operator.mv(x), M @ x)
    close(operator.as_matrix(), M)
    close(operator.T.mv(x), M.T @ x)
    close(lx.conj(operator).mv(x), M.conj() @ x)
    close(lx.diagonal(operator), jnp.diagonal(M))
    for got, k in zip(lx.tridiagonal(operator), (0, -1, 1), strict=True):
        close(got, jnp.diagonal(M, k))
    assert operator.in_structure() == operator.out_structure() == jax.ShapeDtypeStruct((3,), dtype)
    assert lx.linearise(operator) is operator and lx.materialise(operator) is operator
    for check in (lx.is_symmetric, lx.is_diagonal, lx.is_tridiagonal, lx.is_negative_semidefinite):
        assert check(operator) is False
    assert lx.has_unit_diagonal(operator) is False
    flat = bs.as_lineax_operator(sp.csr_array(np.ones((2, 3))))
    assert (flat.in_size(), flat.out_size(), flat.T.in_size()) == (3, 2, 2)
    assert not lx.is_diagonal(flat) and not lx.is_tridiagonal(flat)


def test_a_declaration_never_changes_the_gradient():
    w = jnp.asarray(sp.csr_array(SPD).data)
    A = bs.aslinearoperator(sp.csr_array(SPD))

    def total(w, assume):
        return solve(bs.as_lineax_operator(A.with_data(w), assume=assume)).value[0]

    close(jax.grad(total)(w, "spd"), jax.grad(total)(w, "general"))
    close(jax.grad(total)(w, "sym"), jax.grad(total)(w, "general"))


# -- failures --------------------------------------------------------------------------------------------------

ONES = np.ones((3, 3))
SKEW = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
HILBERT = 1 / (np.arange(12)[:, None] + np.arange(12) + 1.0)
Q = np.linalg.qr(np.random.default_rng(0).standard_normal((60, 60)))[0]
DRIFTING = ((Q * np.logspace(0, 5, 60)) @ Q.T).astype(
    "float32"
)  # the recursive residual of CG falls below the true one
FAILURES = {
    "SINGULAR": (ONES, {}, "singular"),
    "INDEFINITE": (SPD - 4 * np.eye(3), {"method": "cholesky"}, "singular"),
    "INACCURATE": (HILBERT, {"rtol": 1e-300}, "singular"),
    "NONFINITE": (np.where(np.eye(3) == 1, np.nan, SPD), {}, "nonfinite_input"),
    "MAXITER": (SPD, {"method": bs.CG(maxiter=1)}, "max_steps_reached"),
    "BREAKDOWN": (SKEW, {"method": "bicgstab"}, "breakdown"),
    "STAGNATION": (DRIFTING, {"method": bs.CG(maxiter=5000), "rtol": 1e-7}, "stagnation"),
}


@pytest.mark.parametrize("status", FAILURES)
def test_failures_are_results_of_lineax(status):
    M, options, expected = FAILURES[status]
    operator = lx.MatrixLinearOperator(jnp.asarray(M), TAGS["spd"] if status == "INDEFINITE" else ())
    b = np.array([1.0, 0, 0]) if status == "BREAKDOWN" else np.arange(1.0, len(M) + 1)
    solution = solve(operator, b, ours(**options), throw=False)
    assert bs.Status(int(solution.stats["status"])).name == status
    assert solution.result == getattr(lx.RESULTS, expected)
    assert jnp.isnan(solution.value).all()
    with pytest.raises(RuntimeError, match=str(lx.RESULTS[solution.result])[:30]):
        solve(operator, b, ours(**options))


def test_a_status_without_an_entry_does_not_exist():
    from backsolve.interop.lineax_solver import _FAILED

    of_local_solves = {bs.Status.NO_CERTIFICATE, bs.Status.BUDGET}
    of_programs = {bs.Status.INFEASIBLE, bs.Status.UNBOUNDED, bs.Status.DEGENERATE}
    assert set(_FAILED) == {s for s in bs.Status if s < 0} - of_local_solves - of_programs


def test_a_failed_adjoint_solve_raises():
    operator = bs.as_lineax_operator(sp.diags_array(np.linspace(1.0, 1e3, 200)), assume="spd")
    solver = ours("cg", rtol=1e-8, adjoint=bs.Adjoint(rtol=0.0))
    with pytest.raises(RuntimeError):
        jax.grad(lambda b: solve(operator, b, solver).value.sum())(jnp.ones(200))


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: bs.as_lineax_operator(jnp.ones((2, 3, 3))), ValueError, "A must be one matrix; got Dense"),
        (lambda: bs.as_lineax_operator(bs.MatrixFree(lambda p, v: v, (), (3, 3))), TypeError, "FunctionLinearOperator"),
        (lambda: bs.as_lineax_operator(lambda v: v), TypeError, "A must store its entries"),
        (lambda: bs.as_lineax_operator(torch.eye(3)), TypeError, "one framework; got jax and torch"),
        (lambda: bs.as_lineax_operator(three(M3)), TypeError, "got a TridiagonalLinearOperator"),
        (lambda: bs.as_lineax_operator(M3, assume="triangular"), ValueError, "assume must be one of"),
        (lambda: ours("mumps"), ValueError, "method must be one of"),
        (lambda: ours(rtol=-1), ValueError, r"as_lineax_solver: rtol must be a float in \[0, 1\); got -1"),
        (lambda: ours(adjoint=1e-3), TypeError, "adjoint must be a backsolve.Adjoint"),
        (lambda: ours(adjoint=bs.Adjoint(on_failure="warn")), ValueError, "on_failure must be None; got 'warn'"),
        (lambda: solve(three(M3), options={"y0": jnp.zeros(3)}), ValueError, "options must be empty"),
        (lambda: solve(lx.MatrixLinearOperator(jnp.ones((3, 2)))), ValueError, "A must be square"),
        (lambda: solve(sparse(values()), solver=ours("lu")), ValueError, "method 'lu'"),
        (lambda: solve(lx.MatrixLinearOperator(jnp.asarray(M3)) * 1j), ValueError, "operator must be complex if"),
    ],
)
def test_refusals_are_one_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("function", [bs.as_lineax_operator, bs.as_lineax_solver])
def test_doctests_run(function):
    text, failures = inspect.getdoc(function).replace("  # doctest: +SKIP", ""), []
    test = doctest.DocTestParser().get_doctest(text, {}, function.__name__, None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=failures.append)
    assert len(test.examples) >= 4 and runner.failures == 0, "".join(failures)
