"""One family of tests over four frontends: the same numbers, derivatives, statuses and sentences."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from frontend_cases import EVERY, FRONTENDS

import backsolve as bs
from backsolve import gallery

PROBLEMS = [
    "poisson2d",
    "convection",
    "saddle",
    "duplicates",
    "unsorted",
    "complex_symmetric",
    "hermitian",
    "contraction",
]
METHODS = {  # of those that are not for sparse matrices "lu" stands for all, of the iterative ones these
    "superlu": PROBLEMS,
    "lu": ["convection", "hermitian"],
    "cg": ["hermitian"],
    "minres": ["saddle"],
    "bicgstab": ["convection"],
    "gmres": ["contraction"],
}
CASES = [(method, name) for method, names in METHODS.items() for name in names]


@functools.cache
def frontend(name):
    return FRONTENDS[name]()


class Make:
    """The operator of a problem, for values in the order in which they were given; dense for "lu"."""

    def __init__(self, problem, dense):
        self.problem, self.is_dense = problem, dense
        n = problem.n
        self.places = np.divmod(np.arange(n * n), n) if dense else (problem.rows, problem.cols)
        self.values = problem.toarray().ravel() if dense else problem.A.data

    def __call__(self, values):
        if not self.is_dense:
            return self.problem.A.with_data(values)
        n = self.problem.n
        reshape = bs.Dense(np.eye(n)).operations["reshape"]
        return bs.Dense(reshape(values, (n, n)))

    def matrix(self, values):
        A = np.zeros((self.problem.n,) * 2, values.dtype)
        np.add.at(A, self.places, values)
        return A


@functools.cache
def case(method, name):
    problem = gallery.problem(name, 25)
    make = Make(problem, method == "lu")
    rng = np.random.default_rng(1)
    w = 0.5 + rng.random(problem.n)
    v = rng.standard_normal(make.values.shape).astype(make.values.dtype)
    options = {"method": method} if method in ("superlu", "lu") else {"method": method, "rtol": 1e-13}
    return make, problem.b, w, v, options


@functools.cache
def truth(method, name):
    """x, the gradients of Σ w |x|², and its second derivative along v, by dense inverses."""
    make, b, w, v, _ = case(method, name)
    A, A_dot = make.matrix(make.values), make.matrix(v)
    rows, columns = make.places
    inverse = np.linalg.inv(A)
    x = inverse @ b
    x_dot = -inverse @ (A_dot @ x)
    lam = inverse.conj().T @ (2 * w * x)
    lam_dot = inverse.conj().T @ (2 * w * x_dot - A_dot.conj().T @ lam)
    curvature = -(lam_dot[rows] * x[columns].conj() + lam[rows] * x_dot[columns].conj())
    return x, -lam[rows] * x[columns].conj(), lam, curvature, np.linalg.cond(A)


def close(ours, want, kappa, method):
    level = 1e3 * kappa * (np.finfo(float).eps if method in ("superlu", "lu") else 1e-12)
    np.testing.assert_allclose(np.asarray(ours), want, atol=level * np.abs(want).max())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("method", "problem"), CASES)
def test_values_and_statuses(method, problem, name):
    make, b, _, _, options = case(method, problem)
    array = frontend(name).array
    sol = bs.solve_with_info(make(array(make.values)), array(b), **options)
    x, *_, kappa = truth(method, problem)
    close(sol.x, x, kappa, method)
    mine = bs.solve_with_info(make(make.values), b, **options)
    assert type(sol.x) is type(array(b)) and int(sol.status) == int(mine.status)
    assert int(sol.stats.iterations) == int(mine.stats.iterations)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("method", "problem"), CASES)
def test_first_derivatives(method, problem, name):
    make, b, w, _, options = case(method, problem)
    _, data_bar, b_bar, _, kappa = truth(method, problem)
    ours = frontend(name).loss_gradient(make, make.values, b, w, **options)
    for our, want in zip(ours, (data_bar, b_bar), strict=True):
        close(our, want, kappa**2, method)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("method", "problem"), CASES)
def test_second_derivatives(method, problem, name):
    make, b, w, v, options = case(method, problem)
    *_, want, kappa = truth(method, problem)
    close(frontend(name).loss_curvature(make, make.values, b, w, v, **options), want, kappa**3, method)


FAILURES = {
    "singular": (lambda: np.ones((3, 3)), np.arange(3.0), {}),
    "nan in A": (lambda: np.array([[1.0, np.nan], [0, 1]]), np.ones(2), {}),
    "inf in b": (lambda: np.eye(2), np.array([1.0, np.inf]), {}),
    "too little": (lambda: np.diag(np.arange(1.0, 9)), np.ones(8), {"method": bs.CG(maxiter=2)}),
    "indefinite": (lambda: np.diag([1.0, -1.0]), np.ones(2), {"method": "cg"}),
    "breakdown": (lambda: np.array([[0.0, 1], [-1, 0]]), np.ones(2), {"method": "bicgstab"}),
    "inaccurate": (lambda: np.eye(4) + 0.3 * np.tri(4), np.cos(np.arange(4.0)), {"rtol": 0.0}),
    "not definite": (lambda: np.diag([1.0, -1.0]), np.ones(2), {"method": "cholesky"}),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("what", FAILURES)
def test_failures_have_one_status_and_one_sentence(what, name):
    make, b, options = FAILURES[what]
    array = frontend(name).array
    with pytest.raises(bs.SolveError) as mine:
        bs.solve(bs.Dense(make()), b, **options)
    with pytest.raises(bs.SolveError) as theirs:
        bs.solve(bs.Dense(array(make())), array(b), **options)
    assert without_numbers(theirs.value) == without_numbers(mine.value)
    sol = bs.solve_with_info(bs.Dense(array(make())), array(b), on_failure="return", **options)
    assert int(sol.status) == int(mine.value.solution.status)
    x = np.asarray(bs.solve(bs.Dense(array(make())), array(b), on_failure="return", **options))
    assert np.isnan(x).all()


def without_numbers(error):
    """Residuals differ in the last digits from one LAPACK to the other, and some factor the transpose."""
    return re.sub(r"\d\.\de[+-]\d\d", "#", str(error)).replace("in column", "in row")


SPARSE = lambda array: bs.coo(array(np.array([2.0, 1.0, 4.0])), ([0, 0, 1], [0, 1, 1]), (2, 2))  # noqa: E731
MISTAKES = {
    "too long": lambda array: bs.solve(SPARSE(array), array(np.ones(3))),
    "not square": lambda array: bs.solve(bs.Dense(array(np.ones((2, 3)))), array(np.ones(2))),
    "a batch of vectors": lambda array: bs.solve(SPARSE(array), array(np.ones((5, 2)))),
    "no such method": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), method="magic"),
    "no such declaration": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), assume="nice"),
    "rtol": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), rtol=-1.0),
    "rtol twice": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), method=bs.CG(rtol=0.1), rtol=0.1),
    "on_failure": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), on_failure="ignore"),
    "M for a direct method": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), method="superlu", M="amg"),
    "M not definite": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), method="cg", M="ilu0"),
    "not triangular": lambda array: bs.solve(SPARSE(array), array(np.ones(2)), method="triangular"),
    "values": lambda array: SPARSE(array).with_data(array(np.ones(4))),
    "a column too many": lambda array: SPARSE(array) @ array(np.ones(3)),
    "other patterns": lambda array: SPARSE(array) + bs.coo(array(np.ones(1)), ([1], [0]), (2, 2)),
    "indices": lambda array: bs.coo(array(np.ones(1)), ([2], [0]), (2, 2)),
    "a batch that does not fit": lambda array: bs.solve(
        SPARSE(array).with_data(array(np.ones((3, 3)))), array(np.ones((2, 2, 1)))
    ),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_have_one_sentence(what, name):
    told = []
    for array in (np.asarray, frontend(name).array):
        with pytest.raises((ValueError, TypeError)) as caught:
            MISTAKES[what](array)
        told.append((caught.type, without_frameworks(str(caught.value))))
    assert told[0] == told[1]


def without_frameworks(sentence):
    """Arrays and dtypes are called what their framework calls them."""
    sentence = re.sub(r"(numpy|torch|jaxlib|tensorflow) \w+ of dtype", "array of dtype", sentence)
    return re.sub(r"torch\.(float|complex)", r"\1", sentence)
