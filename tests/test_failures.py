"""Solves that fail: the status, its remedy, what `on_failure` does forward and backward, and what is left of x."""

import copy
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve.methods import METHODS, superlu

FRAMEWORKS = {"numpy": np.asarray, "torch": lambda a: torch.from_numpy(np.asarray(a))}
ADVICE = {
    "SINGULAR": "ground the null space",
    "INDEFINITE": "declare assume='sym'",
    "INACCURATE": "loosen rtol or atol",
    "NONFINITE": "look for the first step that made it",
    "MAXITER": "raise maxiter",
    "BREAKDOWN": "use another method",
    "STAGNATION": "loosen rtol or atol",
}


def laplacian(n=6):
    """Neumann: constants are its null space."""
    A = 2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    A[0, 0] = A[-1, -1] = 1.0
    return A


def general(n=12):
    return np.eye(n) * 4 + np.random.default_rng(1).standard_normal((n, n))


def definite(n=12):
    G = general(n)
    return G @ G.T


def operator(dense, name, framework="numpy"):
    """The matrix as `name` takes it."""
    values = FRAMEWORKS[framework]
    if name not in ("superlu", "pardiso", "klu"):
        return bs.Dense(values(dense))
    A = sp.coo_array(dense)
    return bs.coo(values(A.data), (A.row, A.col), A.shape)


def hilbert(n):
    """Positive definite and very ill-conditioned."""
    return 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1)


def ramp(n):
    return np.arange(1.0, n + 1)


def with_nan(dense):
    dense[1, 0] = np.nan
    return dense


CURVED = np.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]])  # minors of order 2 are positive, that of 3 is not
LOWEST = np.linalg.eigh(CURVED)[1][:, 0]
CYCLE = np.roll(np.eye(12), 1, axis=0)
NEGATIVE = bs.preconditioners.Function(lambda v: -v, symmetric=True)

# method, status, matrix, right-hand side, options, what the message says besides the advice
FAILURES = [
    ("superlu", "SINGULAR", laplacian(), ramp(6), {}, "zero pivot"),
    ("superlu", "SINGULAR", laplacian(6) + 1e-17, ramp(6), {}, ""),
    ("superlu", "SINGULAR", np.diag([1.0, 0, 2]), ramp(3), {}, "structurally singular: row 1 stores no entry"),
    ("superlu", "SINGULAR", np.array([[1.0, 2, 3], [1, 0, 0], [1, 0, 0]]), ramp(3), {}, "structural rank is 2 of 3"),
    ("superlu", "INDEFINITE", np.diag([1.0, -1]), ramp(2), {"assume": "spd"}, "diagonal entry 1 is -1"),
    ("superlu", "INDEFINITE", np.array([[1.0, 2], [2, 1]]), ramp(2), {"assume": "spd"}, "2x2 minor of rows 0 and 1"),
    ("superlu", "INDEFINITE", np.array([[0.0, 1], [1, 1]]), ramp(2), {"assume": "spd"}, "diagonal entry 0"),
    ("superlu", "INDEFINITE", CURVED, LOWEST, {"assume": "spd"}, ""),
    ("superlu", "INACCURATE", general(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("superlu", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("superlu", "NONFINITE", general(3), np.array([1, np.inf, 2]), {}, "right-hand side has inf in row 1"),
    ("superlu", "NONFINITE", np.full((2, 2), 1.5e308), ramp(2), {}, "A has numbers so large"),
    ("pardiso", "SINGULAR", laplacian(), ramp(6), {}, ""),
    ("pardiso", "SINGULAR", laplacian(), ramp(6), {"assume": "sym"}, ""),
    ("pardiso", "SINGULAR", laplacian() * 1j, ramp(6), {"assume": "sym"}, ""),
    ("pardiso", "SINGULAR", laplacian(6) + 1e-17, ramp(6), {}, ""),
    ("pardiso", "SINGULAR", np.diag([1.0, 0, 2]), ramp(3), {}, "structurally singular: row 1 stores no entry"),
    ("pardiso", "SINGULAR", np.array([[1.0, 2, 3], [1, 0, 0], [1, 0, 0]]), ramp(3), {}, "structural rank is 2 of 3"),
    ("pardiso", "INDEFINITE", np.diag([1.0, -1]), ramp(2), {"assume": "spd"}, "diagonal entry 1 is -1"),
    ("pardiso", "INDEFINITE", np.array([[1.0, 2], [2, 1]]), ramp(2), {"assume": "spd"}, "2x2 minor of rows 0 and 1"),
    ("pardiso", "INDEFINITE", CURVED, LOWEST, {"assume": "spd"}, "pivot of row 2 is not positive"),
    ("pardiso", "INACCURATE", general(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("pardiso", "INACCURATE", general(), ramp(12), {"assume": "sym"}, "A was declared 'sym', but its entries ("),
    ("pardiso", "INACCURATE", general(), ramp(12), {"assume": "her"}, "A was declared 'her', but its entries ("),
    ("pardiso", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("pardiso", "NONFINITE", general(3), np.array([1, np.inf, 2]), {}, "right-hand side has inf in row 1"),
    ("pardiso", "NONFINITE", np.full((2, 2), 1.5e308), ramp(2), {}, "A has numbers so large"),
    ("klu", "SINGULAR", laplacian(), ramp(6), {}, "KLU met a zero pivot in row "),
    ("klu", "SINGULAR", laplacian(6) + 1e-17, ramp(6), {}, ""),
    ("klu", "SINGULAR", np.diag([1.0, 0, 2]), ramp(3), {}, "structurally singular: row 1 stores no entry"),
    ("klu", "SINGULAR", np.array([[1.0, 2, 3], [1, 0, 0], [1, 0, 0]]), ramp(3), {}, "structural rank is 2 of 3"),
    ("klu", "INDEFINITE", np.diag([1.0, -1]), ramp(2), {"assume": "spd"}, "diagonal entry 1 is -1"),
    ("klu", "INDEFINITE", np.array([[1.0, 2], [2, 1]]), ramp(2), {"assume": "spd"}, "2x2 minor of rows 0 and 1"),
    ("klu", "INDEFINITE", CURVED, LOWEST, {"assume": "spd"}, ""),
    ("klu", "INACCURATE", general(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("klu", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("klu", "NONFINITE", general(3), np.array([1, np.inf, 2]), {}, "right-hand side has inf in row 1"),
    ("klu", "NONFINITE", np.full((2, 2), 1.5e308), ramp(2), {}, "A has numbers so large"),
    ("lu", "SINGULAR", laplacian(), ramp(6), {}, "pivot that is exactly zero"),
    ("lu", "SINGULAR", np.ones((3, 3)), ramp(3), {}, "pivot that is exactly zero, in "),
    ("lu", "INACCURATE", general(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("lu", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("lu", "NONFINITE", general(3), np.array([1, np.nan, 2]), {}, "right-hand side has nan in row 1"),
    ("lu", "NONFINITE", np.full((2, 2), 1.5e308), ramp(2), {}, "A has numbers so large"),
    ("triangular", "SINGULAR", np.tril(laplacian(), -1), ramp(6), {"assume": "lower"}, "diagonal entry of row 0"),
    ("triangular", "INACCURATE", general(), ramp(12), {"assume": "upper"}, "backward error"),  # not triangular
    ("triangular", "NONFINITE", with_nan(general(3)), ramp(3), {"assume": "lower"}, "A has nan in row 1, column 0"),
    ("triangular", "NONFINITE", general(3), np.array([1, np.inf, 2]), {"assume": "upper"}, "right-hand side has inf"),
    ("cholesky", "INDEFINITE", np.diag([1.0, -1]), ramp(2), {}, "minor of A of order 2 is not positive"),
    ("cholesky", "INACCURATE", definite(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("cholesky", "INACCURATE", general() + 8 * np.eye(12), ramp(12), {}, "backward error"),  # not symmetric
    ("cholesky", "NONFINITE", with_nan(definite(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("cg", "INDEFINITE", np.diag([1.0, -1]), ramp(2), {}, "a direction p with pᴴ A p / pᴴ p = -6.0e-01 after 0"),
    ("cg", "INDEFINITE", np.array([[0.0, 1], [1, 0]]), np.array([1.0, 0]), {}, "after 0 iterations"),
    ("cg", "SINGULAR", laplacian(), ramp(6), {}, "the curvatures of A met on the way"),
    ("cg", "MAXITER", hilbert(12), ramp(12), {"method": bs.CG(maxiter=3)}, "after 3 iterations"),
    ("cg", "STAGNATION", definite(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("cg", "BREAKDOWN", 1e-310 * definite(3), ramp(3), {}, ""),
    ("cg", "NONFINITE", with_nan(definite(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("cg", "NONFINITE", definite(3), np.array([1, np.nan, 2]), {}, "right-hand side has nan in row 1"),
    ("bicgstab", "BREAKDOWN", np.array([[0.0, 1], [-1, 0]]), ramp(2), {}, "relative residual"),
    ("bicgstab", "MAXITER", general() + 1j, ramp(12) + 0j, {"method": bs.BiCGStab(maxiter=2)}, "after 2 iterations"),
    ("bicgstab", "STAGNATION", general(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("bicgstab", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("bicgstab", "NONFINITE", general(3), np.array([1, np.inf, 2]), {}, "right-hand side has inf in row 1"),
    ("fcg", "INDEFINITE", np.diag([1.0, -1]), ramp(2), {}, "a direction p with pᴴ A p / pᴴ p = -6.0e-01 after 0"),
    ("fcg", "SINGULAR", laplacian(), ramp(6), {}, "the curvatures of A met on the way"),
    ("fcg", "MAXITER", hilbert(12), ramp(12), {"method": bs.FCG(maxiter=3)}, "after 3 iterations"),
    ("fcg", "STAGNATION", definite(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("fcg", "BREAKDOWN", 1e-310 * definite(3), ramp(3), {}, ""),
    ("fcg", "NONFINITE", with_nan(definite(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("minres", "SINGULAR", laplacian(), ramp(6), {}, "lies in the null space of A"),
    ("minres", "SINGULAR", np.diag([1.0, 0, 2]), ramp(3), {}, "lies in the null space of A"),
    ("minres", "INDEFINITE", definite(), ramp(12), {"M": NEGATIVE}, "M is not positive definite"),
    ("minres", "BREAKDOWN", general(), ramp(12), {}, "A is not Hermitian, as MINRES takes it to be: use 'gmres'"),
    ("minres", "MAXITER", definite(), ramp(12), {"method": bs.MINRES(maxiter=3)}, "after 3 iterations"),
    ("minres", "STAGNATION", definite(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("minres", "NONFINITE", with_nan(definite(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("gmres", "STAGNATION", CYCLE, np.eye(12)[0], {"method": bs.GMRES(restart=5)}, "restart=5: raise restart"),
    ("gmres", "STAGNATION", general(), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("gmres", "MAXITER", general(), ramp(12), {"method": bs.GMRES(maxiter=2)}, "after 2 iterations"),
    ("gmres", "SINGULAR", laplacian(), ramp(6), {}, "the Krylov space is exhausted"),
    ("gmres", "BREAKDOWN", np.array([[0.0, 1], [-1, 0]]), ramp(2), {"M": "jacobi"}, "the diagonal entry of row 0"),
    ("gmres", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("fgmres", "STAGNATION", CYCLE, np.eye(12)[0], {"method": bs.FGMRES(restart=5)}, "restart=5: raise restart"),
    ("fgmres", "MAXITER", general(), ramp(12), {"method": bs.FGMRES(maxiter=2)}, "after 2 iterations"),
    ("fgmres", "SINGULAR", np.ones((3, 3)), ramp(3), {}, "the Krylov space is exhausted"),
    ("fgmres", "BREAKDOWN", np.array([[0.0, 1], [-1, 0]]), ramp(2), {"M": "jacobi"}, "the diagonal entry of row 0"),
    ("fgmres", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("lsmr", "SINGULAR", np.ones((3, 3)), ramp(3), {}, "lies in the null space of the adjoint of A"),
    ("lsmr", "MAXITER", hilbert(12), ramp(12), {"method": bs.LSMR(maxiter=3)}, "after 3 iterations"),
    ("lsmr", "BREAKDOWN", 1e-310 * general(), ramp(12), {}, ""),
    ("lsmr", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("jacobi", "MAXITER", laplacian() + 0.1 * np.eye(6), ramp(6), {"method": bs.Jacobi(maxiter=3)}, "after 3"),
    ("jacobi", "BREAKDOWN", general() - 3 * np.eye(12), ramp(12), {}, "the iteration diverges"),
    ("jacobi", "BREAKDOWN", np.array([[0.0, 1], [1, 0]]), ramp(2), {}, "diagonal entry of row 0 is zero"),
    ("jacobi", "STAGNATION", general() + 12 * np.eye(12), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("jacobi", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("sor", "MAXITER", laplacian(), ramp(6), {}, "after 100 iterations"),
    ("sor", "BREAKDOWN", general() - 3 * np.eye(12), ramp(12), {}, "the iteration diverges"),
    ("sor", "BREAKDOWN", np.array([[0.0, 1], [1, 0]]), ramp(2), {}, "diagonal entry of row 0 is zero"),
    ("sor", "STAGNATION", general() + 12 * np.eye(12), np.cos(ramp(12)), {"rtol": 0.0}, "relative residual"),
    ("sor", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("richardson", "MAXITER", definite(), ramp(12), {"method": bs.Richardson(omega=0.01, maxiter=3)}, "after 3"),
    ("richardson", "BREAKDOWN", general(), ramp(12), {}, "the iteration diverges"),
    ("richardson", "STAGNATION", 0.1 * general() + 0.6 * np.eye(12), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("richardson", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("neumann", "MAXITER", laplacian() + 0.1 * np.eye(6), ramp(6), {"method": bs.Neumann(maxiter=3)}, "after 3"),
    ("neumann", "BREAKDOWN", general() - 3 * np.eye(12), ramp(12), {}, "the iteration diverges"),
    ("neumann", "BREAKDOWN", np.array([[0.0, 1], [1, 0]]), ramp(2), {}, "diagonal entry of row 0 is zero"),
    ("neumann", "STAGNATION", general() + 12 * np.eye(12), ramp(12), {"rtol": 0.0}, "relative residual"),
    ("neumann", "NONFINITE", with_nan(general(3)), ramp(3), {}, "A has nan in row 1, column 0"),
    ("chebyshev", "MAXITER", hilbert(12), ramp(12), {"method": bs.Chebyshev(maxiter=3)}, "after 3 iterations"),
    ("chebyshev", "BREAKDOWN", np.diag([1.0, -1]), ramp(2), {}, "an eigenvalue of M A is not positive"),
    ("chebyshev", "BREAKDOWN", definite(), ramp(12), {"method": bs.Chebyshev(bounds=(0.1, 1.0))}, "give bounds"),
    ("chebyshev", "STAGNATION", definite(), ramp(12), {"method": bs.Chebyshev(maxiter=3000), "rtol": 0.0}, ""),
    ("chebyshev", "NONFINITE", with_nan(definite(3)), ramp(3), {}, "A has nan in row 1, column 0"),
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("case", FAILURES, ids=[f"{f[0]}-{f[1]}-{i}" for i, f in enumerate(FAILURES)])
def test_message_names_status_finding_and_remedy(case, framework):
    name, status, dense, b, options, finding = case
    A, b = operator(dense, name, framework), FRAMEWORKS[framework](b)
    with pytest.raises(bs.SolveError) as caught:
        bs.solve(A, b, **({"method": name} | options))
    message = str(caught.value)
    assert re.match(f"the solve failed: {status}: ", message), message
    assert finding in message and ADVICE[status] in message and message.count("\n") == 0, message
    sol = caught.value.solution
    assert bs.Status(int(sol.status)) is bs.Status[status] and not sol.converged
    assert type(sol.x) is type(b) and sol.x.shape == b.shape and sol.status.shape == ()
    assert sol.message in message and repr(sol).endswith(sol.message)
    kept = status not in ("SINGULAR", "NONFINITE") and np.isfinite(np.asarray(sol.x)).all()
    assert kept or np.isnan(np.asarray(sol.x)).all()


ENGINES = ("superlu", "pardiso", "klu")
BEFORE_FACTORING = ("structurally singular", "structural rank", "diagonal entry", "2x2 minor", "A has", "side has")
COMMON = [f[1:] for f in FAILURES if f[0] == "superlu"]


@pytest.mark.parametrize("engine", ENGINES[1:])
@pytest.mark.parametrize("adjoint", [False, True], ids=["forward", "adjoint"])
@pytest.mark.parametrize("case", COMMON, ids=[f"{f[0]}-{i}" for i, f in enumerate(COMMON)])
def test_every_sparse_engine_gives_one_verdict(case, adjoint, engine):
    """The status, its advice, and the whole sentence where the engine had nothing to do with the finding."""
    status, dense, b, options, finding = case
    told = []
    for name in ("superlu", engine):
        F = bs.factorize(operator(dense, name), method=name, on_failure="return", **options)
        sol = (F.adjoint if adjoint else F).solve_with_info(b)
        assert bs.Status(int(sol.status)) is bs.Status[status], sol
        assert ADVICE[status] in sol.message
        told.append(sol.message)
    if any(words in finding for words in BEFORE_FACTORING):
        assert told[0] == told[1] and finding in told[0]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_markov_chain_without_ground_is_singular_to_every_engine(engine):
    """Its factors have pivots at rounding level in many places, and its adjoint solve grows without bound."""
    A = sp.csr_array(scipy.io.mmread(Path(__file__).parent / "data" / "rw5151.mtx.gz"))
    F = bs.factorize(A, method=engine, on_failure="return")
    b = np.random.default_rng(0).standard_normal(F.shape[0])
    for solve in (F.solve_with_info, F.adjoint.solve_with_info):
        assert bs.Status(int(solve(b).status)) is bs.Status.SINGULAR


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_tells_that_memory_ran_out(engine):
    """In a process that may grow by a quarter of what the factors take, nine times over."""
    program = """if True:
        import resource, sys
        import numpy as np, scipy.sparse as sp, backsolve as bs
        n, name = 1500, sys.argv[1]
        A = sp.csr_array(sp.random_array((n, n), density=8 / n, rng=np.random.default_rng(0)) + 10 * sp.eye_array(n))
        bs.solve(sp.eye_array(9, format="csr"), np.ones(9), method=name)
        F = bs.factorize(A, method=name)
        size = F._factored.nbytes
        del F
        used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (1024 * used + size // 4,) * 2)
        try:
            keep = [bs.factorize(A, method=name) for _ in range(9)]
        except MemoryError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", program, engine], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"method '{engine}' found no memory for the factors of A"), done
    assert "analyze(A) forecasts" in done.stdout and "'cg' or 'bicgstab'" in done.stdout


def test_every_documented_failure_has_its_case():
    for name, method in METHODS.items():
        text = " ".join(method.__doc__.split()).split("*Fails with*")[1].split("*Differentiation*")[0]
        documented = {status for status in ADVICE if status in text}
        assert documented == {f[1] for f in FAILURES if f[0] == name}


def test_advice_is_there_for_every_status():
    of_local_solves = {"NO_CERTIFICATE", "BUDGET"}
    of_quadratic_programs = {"INFEASIBLE", "UNBOUNDED", "DEGENERATE"}
    assert set(ADVICE) | of_local_solves | of_quadratic_programs == {s.name for s in bs.Status if s < 0}
    assert all(s.advice for s in bs.Status)


# -- declarations never change the answer ------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("assume", ["spd", "sym", "her", "lower", "upper"])
@pytest.mark.parametrize("method", ["superlu", "pardiso", "klu", "lu", "cholesky", "auto"])
@pytest.mark.parametrize("make", [general, laplacian, lambda: -definite(), lambda: general() * (1 + 1j)])
def test_a_false_declaration_gives_the_right_answer_or_a_status(make, method, assume, framework):
    dense = make()
    b = ramp(len(dense)).astype(dense.dtype)
    A, b = operator(dense, method if method != "auto" else "superlu", framework), FRAMEWORKS[framework](b)
    for adjoint in (False, True):
        F = bs.factorize(A, method=method, assume=assume, on_failure="return")
        sol = (F.adjoint if adjoint else F).solve_with_info(b)
        if sol.converged:
            M, x = (dense.conj().T if adjoint else dense), np.asarray(sol.x)
            bound = (
                10
                * len(M)
                * np.finfo(float).eps
                * (np.abs(M).sum(1).max() * np.abs(x).max() + np.abs(ramp(len(M))).max())
            )
            assert np.abs(M @ x - np.asarray(b)).max() <= bound
        else:
            assert int(sol.status) in (bs.Status.INDEFINITE, bs.Status.INACCURATE, bs.Status.SINGULAR)


def test_a_matrix_that_is_not_hermitian_is_not_called_singular():
    rng = np.random.default_rng(0)
    for _ in range(50):
        A = 10 * np.eye(6) + 3 * rng.random() * rng.standard_normal((6, 6))
        for rtol in (None, 1e-6):
            sol = bs.solve_with_info(A, ramp(6), method="cholesky", rtol=rtol, on_failure="return")
            assert sol.converged or int(sol.status) in (bs.Status.INACCURATE, bs.Status.INDEFINITE)


# -- raise, warn, return: forward --------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["superlu", "klu", "lu"])
def test_policies_forward(name, framework):
    A, b = operator(laplacian(), name, framework), FRAMEWORKS[framework](ramp(6))
    with pytest.raises(bs.SolveError, match="the solve failed: SINGULAR"):
        bs.solve(A, b)
    with pytest.warns(bs.SolveWarning, match="the solve failed: SINGULAR.*ground the null space") as seen:
        x = bs.solve(A, b, on_failure="warn")
    assert len(seen) == 1 and issubclass(bs.SolveWarning, UserWarning)
    assert np.isnan(np.asarray(x)).all()
    assert np.isnan(np.asarray(bs.solve(A, b, on_failure="return"))).all()
    F = bs.factorize(A)  # a failed factorization is told by the first solve
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        F.solve(b)
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        F.adjoint.solve(b)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ["superlu", "lu"])
def test_best_iterate_is_kept_by_solve_with_info_only(name, framework):
    A, b = operator(general(), name, framework), FRAMEWORKS[framework](ramp(12))
    best = bs.solve_with_info(A, b, rtol=0.0, on_failure="return")
    assert int(best.status) == bs.Status.INACCURATE
    truth = np.linalg.solve(general(), ramp(12))
    bound = 10 * np.linalg.cond(general()) * np.finfo(float).eps * np.abs(truth).max()
    assert np.abs(np.asarray(best.x) - truth).max() <= bound
    assert np.isnan(np.asarray(bs.solve(A, b, rtol=0.0, on_failure="return"))).all()


def test_an_error_travels_between_processes():
    with pytest.raises(bs.SolveError) as caught:
        bs.solve(laplacian(), ramp(6))
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is bs.SolveError and str(again) == str(caught.value)
    assert str(copy.copy(caught.value)) == str(caught.value)


# -- backward ----------------------------------------------------------------------------------------------------


def leaf(A):
    """The same operator with values that need gradients."""
    return A.with_data(A.data.clone().requires_grad_())


@pytest.mark.parametrize("name", ["superlu", "lu"])
@pytest.mark.parametrize("status", ["NONFINITE", "INACCURATE"])
def test_policies_backward(name, status):
    A, b = leaf(operator(general(), name, "torch")), torch.from_numpy(ramp(12)).requires_grad_()
    g = torch.full((12,), float("nan")).double() if status == "NONFINITE" else torch.ones(12).double()
    rtol = 0.0 if status == "INACCURATE" else None

    def solve(policy, forward="raise"):
        A.data.grad = b.grad = None
        return bs.solve_with_info(A, b, on_failure=forward, adjoint=bs.Adjoint(rtol=rtol, on_failure=policy))

    said = f"the adjoint \\(backward\\) solve failed: {status}.*{re.escape(ADVICE[status])}"
    for policy, forward in (("raise", "return"), (None, "raise")):
        with pytest.raises(bs.SolveError, match=said) as caught:
            solve(policy, forward).x.backward(g)
        assert A.data.grad is None and b.grad is None
        assert caught.value.solution.x.shape == b.shape and isinstance(caught.value.solution.x, torch.Tensor)
    sol = solve("warn")
    with pytest.warns(bs.SolveWarning, match=said):
        sol.x.backward(g)
    assert int(sol.adjoint.status) == bs.Status[status] and not sol.adjoint.converged
    sol = solve("return", "raise")
    assert sol.converged and sol.adjoint is None
    sol.x.backward(g)
    assert b.grad.isnan().all() and A.data.grad.isnan().all()
    assert ADVICE[status] in sol.adjoint.message


def test_policies_of_explicit_derivatives():
    A, b, g = sp.csr_array(general()), ramp(12), np.full(12, np.nan)
    with pytest.raises(bs.SolveError, match=r"adjoint .*NONFINITE.*right-hand side has nan in row 0"):
        bs.vjp(A, b)[1](g)
    with pytest.warns(bs.SolveWarning, match="adjoint .*NONFINITE"):
        bs.vjp(A, b, adjoint=bs.Adjoint(on_failure="warn"))[1](g)
    data_bar, b_bar, adjoint = bs.vjp(A, b, on_failure="return")[1](g)
    assert np.isnan(data_bar).all() and np.isnan(b_bar).all() and int(adjoint.status) == bs.Status.NONFINITE
    with pytest.raises(bs.SolveError, match="NONFINITE"):
        bs.jvp(A, b, b_dot=g)


# -- one bad system in a batch -----------------------------------------------------------------------------------

GOOD, BAD = [0, 2], 1


def batch(name, framework, bad):
    """Three systems on one structure, of which the second fails."""
    stack = np.stack([general(5), bad, general(5).T])
    values = FRAMEWORKS[framework]
    if name == "lu":
        return bs.Dense(values(stack)), stack
    rows, cols = np.indices((5, 5)).reshape(2, -1)
    return bs.coo(values(stack.reshape(3, -1)), (rows, cols), (5, 5)), stack


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("status", ["SINGULAR", "NONFINITE"])
@pytest.mark.parametrize("name", ["superlu", "lu"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_failed_system_leaves_the_others_alone(framework, name, status, columns):
    bad = np.ones((5, 5)) if status == "SINGULAR" else with_nan(general(5))
    A, stack = batch(name, framework, bad)
    b = np.random.default_rng(2).standard_normal((3, 5, columns))
    sol = bs.solve_with_info(A, FRAMEWORKS[framework](b), on_failure="return")
    code = bs.Status[status]
    assert np.asarray(sol.status).tolist() == [2, code, 2]
    assert np.isnan(np.asarray(sol.x)[BAD]).all()
    for i in GOOD:
        truth = np.linalg.solve(stack[i], b[i])
        bound = 10 * np.linalg.cond(stack[i]) * np.finfo(float).eps * np.abs(truth).max()
        assert np.abs(np.asarray(sol.x)[i] - truth).max() <= bound
    assert f"{status} (1 of 3 systems, first 1)" in sol.message
    with pytest.raises(bs.SolveError, match=rf"{status} \(1 of 3 systems, first 1\)"):
        bs.solve(A, FRAMEWORKS[framework](b))


def test_each_status_of_a_batch_gets_its_own_finding():
    A, _ = batch("superlu", "numpy", np.ones((5, 5)))
    A.data[2, 7] = np.nan
    message = bs.solve_with_info(A, np.ones((5, 1)), on_failure="return").message
    singular, nonfinite = (next(line for line in message.split("\n") if s in line) for s in ("SINGULAR", "NONFINITE"))
    assert "zero pivot" in singular and "row" not in singular.split(";")[0]
    assert "A has nan in row 1, column 2 of system 2" in nonfinite and "pivot" not in nonfinite


@pytest.mark.parametrize("status", ["SINGULAR", "NONFINITE"])
@pytest.mark.parametrize("name", ["superlu", "lu"])
def test_gradients_of_a_failed_system_are_nan_and_of_others_right(name, status):
    bad = np.ones((5, 5)) if status == "SINGULAR" else with_nan(general(5))
    A, stack = batch(name, "torch", bad)
    A = leaf(A)
    b = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 5, 2))).requires_grad_()
    g = torch.from_numpy(np.random.default_rng(3).standard_normal((3, 5, 2)))
    bs.solve(A, b, on_failure="return").backward(g)
    assert A.data.grad[BAD].isnan().all() and b.grad[BAD].isnan().all()
    pull = bs.vjp(batch(name, "numpy", bad)[0], b.detach().numpy(), on_failure="return")[1]
    explicit = pull(g.numpy())
    for i in GOOD:
        lam = np.linalg.solve(stack[i].T, g[i].numpy())
        x = np.linalg.solve(stack[i], b[i].detach().numpy())
        bound = 10 * np.linalg.cond(stack[i]) ** 2 * np.finfo(float).eps
        for b_bar in (b.grad.numpy(), explicit[1]):
            assert np.abs(b_bar[i] - lam).max() <= bound * np.abs(lam).max()
        exact = -(lam @ x.T)
        for data_bar in (A.data.grad.numpy(), explicit[0]):
            assert np.abs(data_bar[i].reshape(5, 5) - exact).max() <= bound * np.abs(exact).max()
    assert np.isnan(explicit[0][BAD]).all() and np.isnan(explicit[1][BAD]).all()
    assert np.asarray(explicit[2].status).tolist() == [2, bs.Status[status], 2]


def test_one_bad_right_hand_side_spoils_its_own_system_only():
    A, _ = batch("superlu", "torch", general(5))
    b = torch.ones(3, 5, 1).double()
    b[1, 3] = float("inf")
    sol = bs.solve_with_info(A, b, on_failure="return")
    assert sol.status.tolist() == [2, bs.Status.NONFINITE, 2]
    assert sol.x.isnan().flatten(1).all(1).tolist() == [False, True, False]
    assert "right-hand side has inf in row 3, column 0 of system 1" in sol.message


def test_success_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bs.solve_with_info(general(), ramp(12), on_failure="warn").converged


@pytest.mark.parametrize("assume", ["general", "spd", "sym"])
def test_structurally_singular_matrices_never_reach_superlu(monkeypatch, assume):
    """SuperLU reads outside its arrays on them, and may take the process with it."""

    def refuse(*args, **kwargs):
        raise AssertionError("SuperLU was called")

    monkeypatch.setattr(superlu.sla, "splu", refuse)
    star = bs.coo(np.ones(7), ([0, 0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 0, 0, 0]), (4, 4)).assume(assume)
    sol = bs.solve_with_info(star, np.ones(4), on_failure="return")
    assert not sol.converged and np.isnan(sol.x).all()
    if assume != "spd":
        assert "structural rank is 2 of 4" in sol.message
