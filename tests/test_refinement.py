"""Equilibration and extended refinement: what they win, and that they change no derivative."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_properties import CASES, in_form

import backsolve as bs
from backsolve import gallery
from backsolve.methods import METHODS
from backsolve.methods.direct import DirectMethod
from backsolve.methods.equilibrate import exponents

DIRECT = [name for name, method in METHODS.items() if issubclass(method, DirectMethod)]
FORMS = {"lu": bs.Dense, "superlu": sp.csr_array}


def arrow(n=14, dtype="float64", seed=0):
    """Rows, columns and diagonal of very different sizes: pivots chosen unscaled, down columns, lose everything.

    torch.linalg chooses them so; those of LAPACK for NumPy's arrays are chosen along rows, and need no scaling here.
    """
    rng = np.random.default_rng(seed)
    reach = 60 if dtype == "float64" else 15
    M = np.diag(10.0 ** rng.uniform(-reach, reach, n))
    M[0] = rng.standard_normal(n) * 10.0**reach
    M[:, 0] = rng.standard_normal(n) * 10.0**-reach
    return M.astype(dtype), (M @ rng.standard_normal(n)).astype(dtype)


def hilbert(n):
    return 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1)


def exactly(M, b, digits=80):
    """The solution of A x = b for the numbers as stored."""
    with mpmath.workdps(digits):
        x = mpmath.lu_solve(mpmath.matrix(M.tolist()), mpmath.matrix(b.tolist()))
        return np.array([complex(v) if np.iscomplexobj(M) else float(v) for v in x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_automatic_equilibration_saves_what_is_in_doubt(dtype):
    saved = 0
    for seed in range(20):
        M, b = arrow(dtype=dtype, seed=seed)
        plain, auto, always = (
            bs.solve_with_info(*map(torch.from_numpy, (M, b)), method=bs.LU(equilibrate=choice), on_failure="return")
            for choice in (False, None, True)
        )
        assert auto.converged and always.converged
        assert int(auto.stats.factorizations) == 1 + (not plain.converged)
        saved += not plain.converged
    assert saved >= 5


def test_one_item_of_a_batch_is_rescued_and_the_others_stay():
    plain = bs.LU(equilibrate=False)
    in_doubt = (arrow(seed=seed) for seed in range(20))
    bad, b_bad = next((M, b) for M, b in in_doubt if not _solved(M, b, plain))
    good = hilbert(14) + np.eye(14)
    batch, b = (torch.from_numpy(v) for v in (np.stack([good, bad]), np.stack([np.ones(14), b_bad])[..., None]))
    sol = bs.solve_with_info(batch, b)
    assert sol.converged
    assert (sol.x[0, :, 0] == bs.solve(batch[0], torch.ones(14, dtype=torch.float64))).all()
    values = batch.clone().requires_grad_()
    x = bs.solve(values, b)
    x.sum().backward()
    lam = exactly(bad.T, np.ones(14), digits=400)
    np.testing.assert_allclose(values.grad[1].numpy(), -np.outer(lam, x[1, :, 0].detach()), rtol=1e-6)


def _solved(M, b, method):
    return bs.solve_with_info(*map(torch.from_numpy, (M, b)), method=method, on_failure="return").converged


@pytest.mark.parametrize("name", DIRECT)
def test_equilibration_is_exact_and_changes_no_gradient(name):
    done = 0
    for problem_name, kind in sorted({(p, k) for m, p, k in CASES if m == name}):
        problem = gallery.problem(problem_name)
        if not problem.solvable or "ill_conditioned" in problem.properties:
            continue
        A, b = in_form(problem, kind)
        if METHODS[name]().refuse(A):
            continue
        results = []
        for choice in (False, True):
            sol, pull = bs.vjp(A, b, method=METHODS[name](equilibrate=choice))
            results.append((sol.x, *pull(np.conj(b))[:2]))
        kappa = np.linalg.cond(problem.toarray())
        for one, two in zip(*results, strict=True):
            assert np.linalg.norm(one - two) <= 20 * kappa * np.finfo(float).eps * np.linalg.norm(one)
        done += 1
    assert done >= 3


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_scalings_bring_rows_and_columns_to_size_one(kind, symmetric):
    rng = np.random.default_rng(0)
    D = 10.0 ** rng.uniform(-20, 20, 30)
    M = rng.standard_normal((30, 30))
    M = D[:, None] * ((M + M.T) if symmetric else M) * (D if symmetric else 10.0 ** rng.uniform(-20, 20, 30))
    A = bs.Dense(M) if kind == "dense" else bs.aslinearoperator(sp.csr_array(M))
    r, c = exponents(A.on(A.data[None]), symmetric)
    balanced = np.ldexp(M, r[0][:, None] + c[0])
    assert (r == c).all() or not symmetric
    for axis in (0, 1):
        tops = np.abs(balanced).max(axis=axis)
        assert tops.max() <= 4 and tops.min() >= (1 / 16 if symmetric or axis == 0 else 0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", FORMS)
def test_extended_refinement_gives_the_last_digit(method, dtype):
    M = hilbert(9).astype(dtype)
    if dtype == "complex128":
        M = M * np.exp(1j * np.arange(9))
    b = np.arange(1.0, 10).astype(dtype)
    A = FORMS[method](M)
    plain, extended = (bs.solve_with_info(A, b, method=METHODS[method](extended=choice)) for choice in (False, True))
    x = exactly(M, b)
    errors = [np.abs(sol.x - x).max() / np.abs(x).max() for sol in (plain, extended)]
    assert errors[0] > 1e-9 and errors[1] <= 2 * np.finfo(float).eps, errors
    assert 2 <= int(extended.stats.refinements) <= 10 and extended.converged
    adjoint = bs.factorize(A, method=METHODS[method](extended=True)).adjoint.solve(b)
    truth = exactly(M.conj().T, b)
    assert np.abs(adjoint - truth).max() <= 2 * np.finfo(float).eps * np.abs(truth).max()


def test_extended_gradients_of_an_ill_conditioned_matrix_are_right_to_rounding():
    M, b = torch.from_numpy(hilbert(8)).requires_grad_(), torch.ones(8, dtype=torch.float64)
    bs.solve(M, b, method=bs.LU(extended=True)).sum().backward()
    x, lam = exactly(hilbert(8), np.ones(8)), exactly(hilbert(8), np.ones(8))
    expected = -np.outer(lam, x)
    assert np.abs(M.grad.numpy() - expected).max() <= 4 * np.finfo(float).eps * np.abs(expected).max()


def test_extended_refinement_in_single_precision_and_batches():
    rng = np.random.default_rng(0)
    M = np.stack([hilbert(5), rng.standard_normal((5, 5)) + 3 * np.eye(5)]).astype("float32")
    b = np.ones((2, 5, 3), "float32") * np.arange(1, 4, dtype="float32")
    for A in (bs.Dense(M), bs.coo(M.reshape(2, -1), np.indices((5, 5)).reshape(2, -1), (5, 5))):
        sol = bs.solve_with_info(A, b, method=(bs.LU if isinstance(A, bs.Dense) else bs.SuperLU)(extended=True))
        assert sol.x.dtype == np.float32
        for item in range(2):
            x = exactly(M[item].astype(float), np.ones(5))[:, None] * np.arange(1, 4)
            assert np.abs(sol.x[item] - x).max() <= 2 * np.finfo("float32").eps * np.abs(x).max()


def test_residual_in_double_double_is_exact_to_rounding():
    rng = np.random.default_rng(1)
    for dtype in ("float64", "complex128"):
        M = (rng.standard_normal((2, 6, 6)) + (1j * rng.standard_normal((2, 6, 6)) if dtype[0] == "c" else 0)).astype(
            dtype
        )
        x = rng.standard_normal((2, 6, 3)).astype(dtype)
        for adjoint in (False, True):
            A = M.conj().swapaxes(1, 2) if adjoint else M
            b = A @ x  # all that is left is rounding
            operator = bs.coo(M.reshape(2, -1), np.indices((6, 6)).reshape(2, -1), (6, 6))
            r = operator.structure.extended_residual(operator.data, x, np.ascontiguousarray(b), adjoint)
            with mpmath.workdps(60):
                for item, i, k in np.ndindex(*r.shape):
                    exact = mpmath.mpmathify(complex(b[item, i, k])) - sum(
                        mpmath.mpmathify(complex(A[item, i, j])) * mpmath.mpmathify(complex(x[item, j, k]))
                        for j in range(6)
                    )
                    assert abs(complex(exact) - r[item, i, k]) <= 4 * np.finfo(float).eps * abs(complex(exact)) + 1e-31


def test_options_are_checked_and_shown():
    for bad in (1, "yes", 0.5):
        with pytest.raises(ValueError, match=r"LU: equilibrate must be one of None, True, False; got"):
            bs.LU(equilibrate=bad)
    with pytest.raises(ValueError, match=r"SuperLU: extended must be one of True, False; got None"):
        bs.SuperLU(extended=None)
    assert str(bs.LU(equilibrate=True, extended=True)) == "LU(equilibrate=True, extended=True)"


def test_determinants_know_of_the_scaling():
    M, _ = arrow(8, seed=3)
    sign, size = bs.slogdet(bs.factorize(sp.csr_array(M), method=bs.SuperLU(equilibrate=True)))
    expected = np.linalg.slogdet(M)
    assert sign == expected[0] and size == pytest.approx(expected[1], rel=1e-12)
