"""A diagonal and a few columns, their losses, and which losses teach nothing."""

import jax
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import gallery, learn

KERNEL = gallery.Kernel(n=60, length=0.4, spread=0.05, noise=1e-2)
GRID = gallery.Diffusion(side=8)
QUICK = {"train": 4, "batch": 4, "held_out": 2, "every": 25}


def matrix(p):
    return sp.csr_array((p.A.data, (p.rows, p.cols)), shape=p.A.shape)


def count(p, M):
    return int(bs.solve_with_info(p.A, p.b, method="cg", M=M).stats.iterations)


def dense(M, A):
    """M of a preconditioner as an array."""
    return np.stack([learn.propose(M, A, e) for e in np.eye(A.shape[0])], axis=1)


def scattered(module, size, seed=0):
    """The module with random parameters."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(size * rng.standard_normal(tuple(parameter.shape))))
    return module


class Cholesky(torch.nn.Module):
    """M = L Lᵀ with all of L learned."""

    def __init__(self, n):
        super().__init__()
        self.L = torch.nn.Parameter(torch.eye(n, dtype=torch.float64))

    def forward(self, A, r):
        lower = torch.tril(self.L)
        return lower @ (lower.T @ r)


@pytest.mark.parametrize("outliers", ["small", "large"])
def test_the_export_the_module_and_the_formula_are_one(outliers):
    A = matrix(GRID(0))
    module = scattered(learn.LowRankDiagonal(64, 5, outliers), 0.5)
    c, U = (v.detach().numpy() for v in module.parts())
    S = np.diag(1 / np.sqrt(A.diagonal()))
    middle = np.diag(c) + U @ U.T
    truth = S @ (middle if outliers == "small" else np.linalg.inv(middle)) @ S
    np.testing.assert_allclose(dense(module, A), truth, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(module(A, torch.eye(64, dtype=torch.float64)).detach(), truth, rtol=1e-11, atol=1e-13)
    assert float(module.trace(A).detach()) == pytest.approx(np.trace(truth @ A.toarray()), rel=1e-12)
    assert float(module.logdet(A).detach()) == pytest.approx(np.linalg.slogdet(truth)[1], rel=1e-12)
    np.testing.assert_allclose(dense(module, 8 * A), truth / 8, rtol=1e-11, atol=1e-14)
    assert learn.examine(module, A).passed


@pytest.mark.parametrize("outliers", ["small", "large"])
def test_kaporin_loss_is_exact_on_both_ways(outliers):
    A = matrix(GRID(1))
    module = scattered(learn.LowRankDiagonal(64, 4, outliers), 0.3)
    M = dense(module, A)
    product = M @ A.toarray()
    truth = np.log(np.trace(product) / 64) - np.linalg.slogdet(product)[1] / 64
    quick = learn.kaporin_loss(module, A)
    whole = learn.kaporin_loss(module(A, torch.eye(64, dtype=torch.float64)), A)
    assert float(quick.detach()) == pytest.approx(truth, rel=1e-10)
    assert float(whole.detach()) == pytest.approx(truth, rel=1e-10)
    for one, other in zip(*(torch.autograd.grad(v, [module.g, module.U]) for v in (quick, whole)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    inverse = torch.from_numpy(3 * np.linalg.inv(A.toarray()))
    assert abs(float(learn.kaporin_loss(inverse, A))) < 1e-12


def test_condition_loss_and_its_gradient_are_those_of_dense_eigenvalues():
    A = matrix(GRID(2))
    module = scattered(learn.LowRankDiagonal(64, 3), 0.3)
    value = learn.condition_loss(module, A, tol=1e-8)
    root = torch.from_numpy(np.linalg.cholesky(A.toarray()))
    M = module(A, torch.eye(64, dtype=torch.float64))
    eigenvalues = torch.linalg.eigvalsh(root.T @ M @ root)
    truth = torch.log(eigenvalues[-1]) - torch.log(eigenvalues[0])
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=0)
    for one, other in zip(*(torch.autograd.grad(v, [module.g, module.U]) for v in (value, truth)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


def test_condition_loss_stops_by_the_residual():
    A = matrix(gallery.Diffusion(side=14)(0))
    calls = []

    class Counted(torch.nn.Module):
        def forward(self, A, r):
            calls.append(r.shape)
            return r

    steps = []
    for tol in (0.1, 1e-6):
        calls.clear()
        learn.condition_loss(Counted(), A, tol=tol)
        steps.append(len(calls))
    assert steps[0] < steps[1] < 196
    with pytest.raises(ValueError, match="were not found to 1e-06 in 20 Lanczos steps: raise maxiter or tol"):
        learn.condition_loss(Counted(), A, tol=1e-6, maxiter=20)
    single = sp.csr_array(3 * sp.eye_array(5))
    assert float(learn.condition_loss(Counted(), single)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("outliers", ["small", "large"])
def test_random_settings_are_definite(outliers):
    rng, A = np.random.default_rng(3), matrix(gallery.Diffusion(side=5)(0))
    module = learn.LowRankDiagonal(25, 3, outliers)
    for setting in range(500):  # of each sign: a thousand in all
        scattered(module, 10 ** rng.uniform(-2, 5), setting)
        found = learn.examine(module, A, samples=2)
        assert found.passed, (setting, found)


def test_the_spectral_start_does_what_the_oracle_does():
    still = gallery.Kernel(n=60, length=0.4, spread=0.0, noise=1e-2)
    M = learn.LowRankDiagonal(60, 20, "large").set_spectral([still(0)])
    p = still(5)
    oracle = learn.Deflation.eigenvectors(p.A, 20, "large")
    assert count(p, M) <= count(p, oracle) < 10
    grid = learn.LowRankDiagonal(64, 6, "small").set_spectral([GRID(0)])
    assert (
        count(GRID(0), grid)
        <= count(GRID(0), learn.Deflation.eigenvectors(GRID(0).A, 6)) + 3
        < count(GRID(0), "jacobi")
    )


def test_learned_columns_beat_jacobi_on_kernels_and_reach_pod_on_diffusion():
    family = gallery.Kernel(n=80, length=0.3, spread=0.05, noise=1e-3)
    M = learn.LowRankDiagonal(80, 30, "large")
    found = learn.fit(M, family, steps=100, lr=0.1, **QUICK)
    assert found.best < 0.1 * found.validations[0][1]
    tests = [family(seed) for seed in (90, 91)]
    jacobi = sum(count(p, "jacobi") for p in tests)
    assert 5 * sum(count(p, M.deflation()) for p in tests) < jacobi
    assert 2 * sum(count(p, M) for p in tests) < jacobi
    problems = [GRID(seed) for seed in range(4)]
    M = learn.LowRankDiagonal(64, 4, "small")
    learn.fit(M, GRID, steps=100, lr=0.1, **QUICK)
    pod = learn.Deflation.pod(problems, 4)
    tests = [GRID(seed) for seed in (90, 91)]
    assert sum(count(p, M) for p in tests) <= sum(count(p, pod) for p in tests)


def test_deflation_is_its_formula():
    A, rng = matrix(GRID(0)), np.random.default_rng(0)
    for scaled in (False, True):
        V = rng.standard_normal((64, 3))
        M = learn.Deflation(V, scaled=scaled)
        W = V / np.sqrt(A.diagonal())[:, None] if scaled else V
        E = np.linalg.inv(W.T @ A @ W)
        P = np.eye(64) - A @ W @ E @ W.T
        truth = P.T @ np.diag(1 / A.diagonal()) @ P + W @ E @ W.T
        np.testing.assert_allclose(dense(M, A), truth, rtol=1e-9, atol=1e-11)
        assert learn.examine(M, A).passed
    labels = learn.Deflation.aggregates([0, 0, 1, 1])
    np.testing.assert_allclose(np.abs(labels.V), np.array([[1, 0], [1, 0], [0, 1], [0, 1]]) / np.sqrt(2))
    values = np.linalg.eigvals(dense(learn.Deflation.eigenvectors(GRID(0).A, 5), A) @ A.toarray()).real
    S = 1 / np.sqrt(A.diagonal())
    plain = np.linalg.eigvalsh(S[:, None] * A.toarray() * S)
    assert values.min() == pytest.approx(min(1, plain[5]), rel=1e-8)
    indefinite = sp.csr_array(np.diag([1.0, 1.0, -1.0]))
    with pytest.raises(bs.SolveError, match="VᵀAV must be positive definite"):
        bs.solve(indefinite, np.ones(3), method="cg", M=learn.Deflation(np.eye(3)[:, 2:]))


@pytest.mark.parametrize("loss", ["steps", "kaporin", "condition"])
def test_any_definite_module_is_trained_by_each_loss(loss):
    family = gallery.Diffusion(side=6)
    M = learn.DifferentiablePreconditioner(Cholesky(36), loss=loss, steps=4)
    found = learn.fit(M, family, steps=60, lr=0.01, train=8, batch=8, held_out=4, every=10)
    assert found.best < found.validations[0][1]
    p = family(50)
    x = bs.solve(p.A, p.b, method="cg", M=M, rtol=1e-10)
    np.testing.assert_allclose(matrix(p) @ x, p.b, atol=1e-9 * np.linalg.norm(p.b))
    if loss != "kaporin":
        assert count(p, M) < count(p, None)
    with pytest.raises(TypeError, match=r"inner must have export\(\)"):
        M.export()


def test_woodbury_is_the_default_and_is_saved(tmp_path):
    M = learn.DifferentiablePreconditioner(n=60, rank=20, loss="kaporin")
    learn.fit(M, KERNEL, steps=150, lr=0.1, **QUICK)
    p = KERNEL(70)
    assert 2 * count(p, M) < count(p, "jacobi") and M.export().outliers == "large"
    learn.save(M, tmp_path / "M.pt")
    again = learn.load(tmp_path / "M.pt")
    np.testing.assert_array_equal(again.export().U, M.export().U)
    low = scattered(learn.LowRankDiagonal(9, 2, "large", "condition", 5), 1.0)
    learn.save(low, tmp_path / "low.pt")
    np.testing.assert_array_equal(learn.load(tmp_path / "low.pt").export().c, low.export().c)


def test_losses_of_converged_solutions_are_refused():
    p = gallery.Diffusion(side=5)(0)
    A = matrix(p)

    def implicit(M, problems):
        """Through backsolve's own derivative: the graph has A, and no parameter of M."""
        x = bs.solve(bs.CSR(torch.tensor(A.data, requires_grad=True), A.indices, A.indptr, A.shape),
                     torch.from_numpy(p.b), method="cg", M=M)  # fmt: skip
        return x.square().sum()

    def unrolled(M, problems):
        """Through as many steps of Richardson's iteration as it takes."""
        product = torch.from_numpy(A.toarray())
        x, b = torch.zeros(25, 1, dtype=torch.float64), torch.from_numpy(p.b)[:, None]
        step = 1 / float(abs(A).sum(axis=1).max())
        for _ in range(4000):
            x = x + step * M(A, b - product @ x)
        return x.square().sum()

    for loss, steps in ((implicit, 6), (unrolled, 6), ("steps", 40)):
        M = learn.DifferentiablePreconditioner(Cholesky(25), loss=loss, steps=steps)
        with pytest.raises(ValueError, match=r"check_loss: the loss .* a converged solution does not depend on its"):
            M.loss(M.batch([p]))
    few = learn.DifferentiablePreconditioner(Cholesky(25), loss="steps", steps=3)
    few.loss(few.batch([p])).backward()
    assert float(few.inner.L.grad.abs().max()) > 1e-3
    with pytest.raises(ValueError, match="loss must be a scalar tensor"):
        learn.check_loss(torch.ones(2), few)
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        learn.check_loss(torch.ones(()), torch.nn.Identity())


def test_modules_that_are_not_definite_are_refused():
    class Wrong(torch.nn.Module):
        def __init__(self, matrix):
            super().__init__()
            self.M = torch.nn.Parameter(torch.from_numpy(matrix))

        def forward(self, A, r):
            return self.M @ r

    skew, p = np.eye(25) + np.triu(np.ones((25, 25)), 1), gallery.Diffusion(side=5)(0)
    for wrong in (skew, np.diag(np.linspace(-1, 1, 25))):
        with pytest.raises(ValueError, match="inner must be linear, symmetric and positive definite"):
            learn.DifferentiablePreconditioner(Wrong(wrong)).batch([p])
    with pytest.raises(ValueError, match="kaporin_loss: M must be positive definite, and is not"):
        learn.kaporin_loss(-torch.eye(25, dtype=torch.float64), matrix(p))
    with pytest.raises(ValueError, match="condition_loss: M must be positive definite"):
        learn.condition_loss(-torch.eye(25, dtype=torch.float64), matrix(p))


def test_low_rank_serves_in_every_frontend():
    p = KERNEL(3)
    A, M = matrix(p), learn.LowRankDiagonal(60, 12, "large").set_spectral([KERNEL(0)]).export()
    truth, base = np.linalg.solve(A.toarray(), p.b), count(p, M)
    with jax.enable_x64(True):
        for asarray in (torch.tensor, jax.numpy.asarray):
            for operator in (asarray(A.toarray()), bs.CSR(asarray(A.data), A.indices, A.indptr, A.shape)):
                sol = bs.solve_with_info(operator, asarray(p.b), method="cg", M=M)
                np.testing.assert_allclose(np.asarray(sol.x), truth, rtol=1e-5, atol=1e-6 * np.abs(truth).max())
                assert abs(int(sol.stats.iterations) - base) <= 1
    deflated = bs.solve(torch.tensor(A.toarray()), torch.tensor(p.b), method="cg", M=learn.Deflation(np.eye(60)[:, :3]))
    np.testing.assert_allclose(deflated, truth, rtol=1e-5, atol=1e-6 * np.abs(truth).max())
    batch = bs.solve(np.stack([A.toarray(), KERNEL(4).A.toarray()]), np.stack([p.b, p.b])[..., None], method="cg", M=M)
    np.testing.assert_allclose(batch[0, :, 0], truth, rtol=1e-5, atol=1e-6 * np.abs(truth).max())


def test_adversarial_parameters_are_refused_or_harmless():
    p = KERNEL(0)
    truth = np.linalg.solve(p.A.toarray(), p.b)
    for outliers in ("small", "large"):
        for size in (1e2, 1e8, 1e300):
            module = scattered(learn.LowRankDiagonal(60, 5, outliers), size)
            sol = bs.solve_with_info(p.A, p.b, method="cg", M=module, on_failure="return", rtol=1e-10)
            assert not sol.converged or np.abs(sol.x - truth).max() < 1e-5 * np.abs(truth).max()
        for name in ("g", "U"):
            module = scattered(learn.LowRankDiagonal(60, 5, outliers), 1.0)
            with torch.no_grad():
                getattr(module, name)[0] = float("nan")
            with pytest.raises(ValueError, match=f"parameters must be finite; {name} is not: train again"):
                bs.solve(p.A, p.b, method="cg", M=module)
    wide = learn.ScaledLowRank(np.geomspace(1, 1e9, 60), np.zeros((60, 1)))
    with pytest.raises(ValueError, match=r"eigenvalues that span 1e\+09, more than float32 resolves"):
        bs.solve(p.A.toarray().astype(np.float32), p.b.astype(np.float32), method="cg", M=wide)


def test_what_does_not_fit_is_refused():
    p = KERNEL(0)
    low = learn.LowRankDiagonal
    for make, sentence in (
        (lambda: low(5, 6), "rank must be at most n = 5; got 6"),
        (lambda: low(0), "n must be an integer of at least 1; got 0"),
        (lambda: low(5, 2, "both"), "outliers must be 'small' or 'large'; got 'both'"),
        (lambda: low(5, 2, loss="l2"), "loss must be 'kaporin' or 'condition'; got 'l2'"),
        (lambda: low(5, 4).set_spectral([gallery.Kernel(n=5)(0)]), "needs a rank of at most n - 2 = 3"),
        (lambda: low(7, 2).batch([p]) and low(7, 2).loss(low(7, 2).batch([p])), "A must have 7 unknowns; it has 60"),
        (lambda: bs.solve(p.A, p.b, method="cg", M=low(7, 2)), "is for 7 unknowns, but A has 60"),
        (lambda: learn.ScaledLowRank(np.ones(3), np.ones(3)), r"c must have shape \(n,\) and U \(n, m\)"),
        (lambda: learn.ScaledLowRank(-np.ones(3), np.ones((3, 1))), "c must be positive and finite"),
        (lambda: learn.ScaledLowRank(np.ones(3), np.full((3, 1), np.nan)), "U must be finite"),
        (lambda: learn.Deflation(np.ones(3)), r"V must be finite numbers \(n, m\)"),
        (lambda: learn.Deflation.pod([p], 2), "rank must be between 1 and 1"),
        (lambda: learn.DifferentiablePreconditioner(learn.UnrolledCG()), "UnrolledCG is not: train it by itself"),
        (lambda: learn.DifferentiablePreconditioner(), "give either inner, a module, or n"),
        (lambda: learn.DifferentiablePreconditioner(n=3, loss="l2"), "loss must be one of 'steps'"),
        (lambda: learn.DifferentiablePreconditioner(n=3, rank=2, steps=0), "steps must be an integer"),
        (lambda: learn.condition_loss(low(60, 2), p.A), "A must be a square scipy.sparse array"),
        (lambda: learn.condition_loss(low(60, 2), matrix(p), tol=2), "tol must be a float between 0 and 1"),
        (lambda: learn.kaporin_loss(torch.eye(2), matrix(p)), r"M must be a tensor of shape \(60, 60\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()
    with pytest.raises(TypeError, match=r"M must be a torch.nn.Module \(A, r\) -> M r, or a tensor"):
        learn.kaporin_loss("ic0", matrix(p))
    with pytest.raises(TypeError, match=r"inner must be a torch\.nn\.Module; got 'ic0'"):
        learn.DifferentiablePreconditioner("ic0")
