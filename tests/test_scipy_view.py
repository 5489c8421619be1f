"""Operators and factorizations as SciPy's LinearOperator: dot tests, and SciPy's solvers with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch

import backsolve as bs

DTYPES = ["float32", "float64", "complex64", "complex128"]
TRIPLETS = np.array([0, 0, 1, 1, 2, 3, 3, 0, 2]), np.array([0, 3, 1, 2, 0, 2, 3, 0, 2])  # a place twice, unsorted
rng = np.random.default_rng(0)


def random(*shape, dtype="float64"):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def values(dtype):
    return random(9, dtype=dtype) + 3 * (TRIPLETS[0] == TRIPLETS[1]).astype(dtype)


def dense(w, shape=(4, 4)):
    M = np.zeros(shape, w.dtype)
    np.add.at(M, TRIPLETS, w)
    return M


def eps(dtype):
    return 100 * np.finfo(dtype).eps


MAKERS = {
    "coo": lambda w, shape: bs.coo(w, TRIPLETS, shape),
    "dense": lambda w, shape: bs.Dense(dense(w, shape)),
    "scipy.sparse": lambda w, shape: sp.coo_array((w, TRIPLETS), shape),
    "torch": lambda w, shape: bs.coo(torch.from_numpy(w), TRIPLETS, shape),
    "torch, dense": lambda w, shape: torch.from_numpy(dense(w, shape)),
    "torch.sparse": lambda w, shape: torch.sparse_coo_tensor(
        torch.tensor(np.array(TRIPLETS)), torch.from_numpy(w), shape, check_invariants=True
    ),
    "JAX": lambda w, shape: bs.coo(jnp.asarray(w), TRIPLETS, shape),
    "free": lambda w, shape: bs.MatrixFree(
        lambda M, v: M @ v, dense(w, shape), shape, adjoint=lambda M, g: M.conj().T @ g
    ),
    "torch, free": lambda w, shape: bs.MatrixFree(lambda M, v: M @ v, torch.from_numpy(dense(w, shape)), shape),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (7, 4)])
@pytest.mark.parametrize("kind", MAKERS)
def test_products_and_adjoints(kind, shape, dtype):
    w = values(dtype)
    with jax.enable_x64(True):
        S = bs.as_scipy_operator(MAKERS[kind](w, shape))
    M = dense(w, shape)
    assert isinstance(S, sla.LinearOperator) and S.shape == shape and S.dtype == dtype
    for x, y in (
        (random(shape[1], dtype=dtype), random(shape[0], dtype=dtype)),
        (random(shape[1], 3), random(shape[0], 3)),
    ):
        x, y = x.astype(dtype), y.astype(dtype)
        for got, want in ((S @ x, M @ x), (S.H @ y, M.conj().T @ y), (S.T @ y, M.T @ y), (S.H.H @ x, M @ x)):
            assert type(got) is np.ndarray and got.dtype == dtype
            np.testing.assert_allclose(got, want, rtol=eps(dtype), atol=eps(dtype) * 10)
        assert abs(np.vdot(y, S @ x) - np.vdot(S.H @ y, x)) <= eps(dtype) * np.linalg.norm(x) * np.linalg.norm(y)
    column = random(shape[1], 1, dtype=dtype)
    np.testing.assert_allclose(S.matvec(column), M @ column, rtol=eps(dtype), atol=eps(dtype) * 10)
    np.testing.assert_allclose(S @ np.ones(shape[1], int), M.sum(1), rtol=eps(dtype), atol=eps(dtype) * 10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["coo", "dense", "torch", "torch, dense", "JAX"])
def test_inverses(kind, dtype):
    w = values(dtype)
    with jax.enable_x64(True):
        F = bs.factorize(MAKERS[kind](w, (4, 4)))
        for G, M in ((F, dense(w)), (F.adjoint, dense(w).conj().T)):
            S, x = bs.as_scipy_operator(G), random(4, 2, dtype=dtype)
            assert S.shape == (4, 4) and S.dtype == dtype
            tolerance = eps(dtype) * np.linalg.cond(M) * np.linalg.norm(np.linalg.inv(M))
            for got, want in ((S @ x, np.linalg.solve(M, x)), (S.H @ x, np.linalg.solve(M.conj().T, x))):
                assert type(got) is np.ndarray and got.dtype == dtype
                np.testing.assert_allclose(got, want, atol=tolerance, rtol=0)
            np.testing.assert_allclose(S.T @ x[:, 0], np.linalg.solve(M.T, x[:, 0]), atol=tolerance, rtol=0)


def laplacian(n=12, dtype="float64"):
    line = sp.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(n, n))
    return sp.csr_array(sp.kronsum(line, line), dtype=dtype)


def operator(A, framework="numpy", **options):
    data = {"numpy": np.asarray, "torch": torch.from_numpy, "jax": jnp.asarray}[framework](A.data)
    return bs.CSR(data, A.indices, A.indptr, A.shape)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("sigma", [0.0, 3.3])
def test_eigsh_in_shift_invert_mode(framework, sigma):
    A = laplacian()
    own = operator(A, framework)
    inverse = bs.as_scipy_operator(bs.factorize(own - sigma * bs.eye(A.shape[0])))
    found = sla.eigsh(bs.as_scipy_operator(own), k=4, sigma=sigma, OPinv=inverse, return_eigenvectors=False)
    exact = np.linalg.eigvalsh(A.toarray())
    nearest = np.sort(exact[np.argsort(abs(exact - sigma))[:4]])
    np.testing.assert_allclose(np.sort(found), nearest, rtol=1e4 * np.finfo(float).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_gmres_with_our_factors_as_preconditioner(framework, dtype):
    A = laplacian(dtype=dtype)
    A = A + sp.diags_array(random(A.shape[0] - 1, dtype=dtype), offsets=1)  # not symmetric
    near = sp.csr_array(A + 0.05 * sp.diags_array(random(A.shape[0], dtype=dtype)), dtype=dtype)
    b, steps = random(A.shape[0], dtype=dtype), []
    with jax.enable_x64(True):
        M = bs.as_scipy_operator(bs.factorize(operator(near, framework)))
        S = bs.as_scipy_operator(operator(sp.csr_array(A, dtype=dtype), framework))
        rtol = 1e3 * float(np.finfo(dtype).eps)
        x, failed = sla.gmres(S, b, M=M, rtol=rtol, callback=steps.append, callback_type="pr_norm")
    assert failed == 0
    alone = []
    sla.gmres(S, b, rtol=rtol, callback=alone.append, callback_type="pr_norm")
    assert 2 * len(steps) < len(alone)
    assert np.linalg.norm(A @ x - b) <= 2 * rtol * np.linalg.norm(b)


def test_the_rest_of_scipy():
    A = laplacian()
    S, M = bs.as_scipy_operator(operator(A)), A.toarray()
    inverse = bs.as_scipy_operator(bs.factorize(operator(A)))
    b, n = random(A.shape[0]), A.shape[0]
    x, failed = sla.cg(S, b, M=inverse, rtol=1e-12)
    assert failed == 0 and np.linalg.norm(M @ x - b) <= 1e-11 * np.linalg.norm(b)
    tall = sp.csr_array(rng.standard_normal((20, 9)))
    found = np.sort(sla.svds(bs.as_scipy_operator(tall), k=3, return_singular_vectors=False))
    np.testing.assert_allclose(found, np.linalg.svd(tall.toarray(), compute_uv=False)[2::-1], rtol=1e-10)
    lowest, _ = sla.lobpcg(S, random(n, 3), M=inverse, largest=False, tol=1e-9, maxiter=60)
    np.testing.assert_allclose(np.sort(lowest), np.linalg.eigvalsh(M)[:3], rtol=1e-10)
    flow = sla.expm_multiply(-0.1 * S, b, traceA=-0.1 * np.trace(M))
    values, vectors = np.linalg.eigh(M)
    np.testing.assert_allclose(flow, vectors @ (np.exp(-0.1 * values) * (vectors.T @ b)), rtol=1e-10, atol=1e-12)
    composed = 2 * S @ S - S  # SciPy's own algebra of operators
    np.testing.assert_allclose(composed @ b, 2 * M @ M @ b - M @ b, rtol=1e-10)


def test_values_are_those_of_the_call_and_factors_notice_changes():
    w = values("float64")
    for data in (w, torch.from_numpy(w.copy())):
        A = bs.coo(data, TRIPLETS, (4, 4))
        S, inverse, before = (
            bs.as_scipy_operator(A),
            bs.as_scipy_operator(bs.factorize(A)),
            dense(np.asarray(data).copy()),
        )
        data *= 2
        np.testing.assert_allclose(S @ np.ones(4), before @ np.ones(4))
        with pytest.raises(RuntimeError, match="changed in place after they were factored"):
            inverse @ np.ones(4)


def test_failed_solves_raise():
    inverse = bs.as_scipy_operator(bs.factorize(np.ones((3, 3))))
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        inverse.matvec(np.ones(3))


def leaf(*shape):
    return torch.ones(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: np.ones((2, 3, 3)), ValueError, "A must be one matrix; got Dense"),
        (lambda: bs.factorize(np.eye(3) + np.zeros((2, 1, 1))), ValueError, "A must be one matrix; got Dense"),
        (lambda: bs.Dense(leaf(3, 3)), ValueError, r"none passes through SciPy; got Dense.*A\.data\.detach\(\)"),
        (lambda: bs.factorize(leaf(3, 3) + torch.eye(3)), ValueError, "A must not require a gradient"),
        (lambda: bs.MatrixFree(lambda p, v: p * v, leaf(3), (3, 3)), ValueError, "A must not require a gradient"),
        (lambda: lambda v: v, TypeError, "MatrixFree"),
    ],
)
def test_refusals_are_one_sentence(make, error, message):
    with pytest.raises(error, match=message):
        bs.as_scipy_operator(make())


def test_refusals_of_products_and_of_traced_values():
    secret = leaf(3)
    free = bs.as_scipy_operator(bs.MatrixFree(lambda p, v: p * secret * v, torch.ones(3, dtype=torch.float64), (3, 3)))
    with pytest.raises(ValueError, match="products must not require a gradient"):
        free.matvec(np.ones(3))
    for make in (bs.as_scipy_operator, lambda A: bs.as_scipy_operator(bs.factorize(A))):
        with pytest.raises(ValueError, match=r"A must hold numbers; got CSR.* traced"):
            jax.jit(lambda w, make=make: make(bs.coo(w, TRIPLETS, (4, 4))))(jnp.ones(9))
    with pytest.raises(ValueError, match="adjoint must be given in NumPy"):
        bs.as_scipy_operator(bs.MatrixFree(lambda p, v: v, (), (3, 3))).rmatvec(np.ones(3))
    with pytest.raises(TypeError, match="b must not need a wider dtype"):
        bs.as_scipy_operator(bs.factorize(np.eye(3, dtype="float32"))).matvec(np.ones(3))
    with pytest.raises(ValueError, match="dimension mismatch"):
        bs.as_scipy_operator(np.eye(3)).matvec(np.ones(4))


def test_scipy_operators_stay_as_they_are():
    S = sla.aslinearoperator(np.eye(2))
    assert bs.as_scipy_operator(S) is S
