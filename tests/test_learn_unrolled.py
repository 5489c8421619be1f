"""Steps that learn their coefficients: Chebyshev's, CG's, and what lies between CG and MINRES."""

import jax
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import gallery, learn
from backsolve.learn.steps import chebyshev_coefficients, conjugate_steps, factor_range, momentum_steps
from backsolve.learn.torch_steps import squared_energy

FAMILY = gallery.Diffusion(side=16)
QUICK = {"train": 6, "batch": 6, "held_out": 2, "every": 25}


def system(p):
    A = sp.csr_array((p.A.data, (p.rows, p.cols)), shape=p.A.shape)
    return A, p.b, np.linalg.solve(A.toarray(), p.b)


def energy(A, x, at):
    e = x - at
    return np.sqrt(e @ (A @ e) / (x @ (A @ x)))


def textbook_cg(A, b, steps, inverse):
    """Iterates of preconditioned CG."""
    x, r = np.zeros_like(b), b.copy()
    z = inverse * r
    p, rz = z, r @ z
    found = []
    for _ in range(steps):
        q = A @ p
        alpha = rz / (p @ q)
        x, r = x + alpha * p, r - alpha * q
        z = inverse * r
        p, rz = z + (r @ z) / rz * p, r @ z
        found.append(x)
    return found


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_chebyshev_coefficients_give_the_polynomial_of_chebyshev(steps):
    low, high, t = 0.1, 2.0, np.linspace(0.01, 2.3, 50)
    alphas, betas = chebyshev_coefficients(steps, low, high)
    p = momentum_steps(lambda d: t * d, 1.0, np.ones_like(t), alphas, betas)
    T = np.polynomial.chebyshev.Chebyshev([0] * steps + [1])
    center, radius = (low + high) / 2, (high - low) / 2
    residual = T((center - t) / radius) / T(center / radius)
    np.testing.assert_allclose(1 - t * p, residual, rtol=1e-11, atol=1e-11)


def test_extreme_values_of_a_polynomial_are_found():
    rng, t = np.random.default_rng(0), np.linspace(0, 2, 20001)
    for _ in range(100):
        steps = int(rng.integers(1, 9))
        alphas, betas = np.exp(rng.standard_normal((2, steps)))
        values = momentum_steps(lambda d: t * d, 1.0, np.ones_like(t), alphas, betas)
        least, largest = factor_range(alphas, betas)
        size = np.abs(values).max()
        assert least <= values.min() + 1e-9 * size and largest >= size * (1 - 1e-9)
        assert least >= values.min() - 1e-5 * size and largest <= size * (1 + 1e-5)  # of a grid of 20,001 points


def test_a_thousand_random_settings_are_definite():
    rng = np.random.default_rng(1)
    path = sp.diags_array([np.ones(15), 2 * np.ones(16), np.ones(15)], offsets=[-1, 0, 1]).tocsr()  # D⁻¹A up to 1.98
    matrices = [path, gallery.Anisotropic(side=5, epsilon=0.01, theta=0.5)(0).A, gallery.Diffusion(side=4)(0).A]
    module = learn.LearnedChebyshev(steps=5)
    lifted = 0
    for setting in range(1000):
        with torch.no_grad():
            for parameter in (module.a, module.b):
                parameter.copy_(torch.from_numpy(rng.standard_normal(5) * 10 ** rng.uniform(-1, 3)))
        M = module.export()
        lifted += M.lift > 0
        found = learn.examine(M, matrices[setting % 3], samples=2)
        assert found.passed, (module.a, module.b, found)
    assert 100 < lifted < 1000


def test_the_best_coefficients_are_those_of_cg_for_all_systems():
    problems = [FAMILY(seed) for seed in range(5)]
    module = learn.LearnedChebyshev(steps=6).set_optimal(problems)
    systems, inverse = module.batch(problems)
    alphas, betas = module.coefficients()
    x = momentum_steps(systems.A, inverse, systems.b, list(alphas), list(betas))
    mean = squared_energy(systems, x).mean()
    gradients = torch.autograd.grad(mean, [module.a, module.b])
    assert max(float(g.abs().max()) for g in gradients) < 1e-9 * float(mean.detach())
    start = learn.LearnedChebyshev(steps=6)
    assert float(module.loss((systems, inverse)).detach()) < float(start.loss((systems, inverse)).detach())


def test_learned_steps_are_near_to_cg_where_the_true_interval_is_far():
    module = learn.LearnedChebyshev(steps=6)
    found = learn.fit(module, FAMILY, steps=100, **QUICK)
    assert found.best < found.validations[0][1]
    M, ratios = module.export(), []
    for seed in (90, 91, 92):
        A, b, x = system(FAMILY(seed))
        d = A.diagonal()
        cg = energy(A, x, textbook_cg(A, b, 6, 1 / d)[-1])
        values = np.linalg.eigvalsh(A.toarray() / np.sqrt(d[:, None] * d[None]))
        alphas, betas = chebyshev_coefficients(6, values[0], values[-1])
        interval = energy(A, x, momentum_steps(A.__matmul__, 1 / d, b, alphas, betas))
        learned = energy(A, x, learn.propose(M, A, b))
        assert cg <= learned < interval
        ratios.append((interval - learned) / (interval - cg))
    assert min(ratios) > 0.6


@pytest.mark.parametrize("scaled", [False, True])
def test_factors_of_one_are_cg_beyond_the_trained_depth_too(scaled):
    A, b, _ = system(FAMILY(0))
    inverse = 1 / A.diagonal() if scaled else np.ones(len(b))
    truth = textbook_cg(A, b, 9, inverse)[-1]
    M = learn.UnrolledCG(steps=4, scaled=scaled).export(steps=9)
    np.testing.assert_allclose(learn.propose(M, A, b), truth, rtol=1e-9, atol=1e-9 * np.abs(truth).max())
    changed = learn.ConjugateSteps((1.2, 0.8), (1.1, 0.9), steps=5)
    assert changed.factors() == ([1.2, 0.8, 1, 1, 1], [1.1, 0.9, 1, 1, 1])


def test_unrolled_cg_beats_cg_in_the_residual_and_never_minres():
    module = learn.UnrolledCG(steps=5, norm="residual", scaled=False)
    learn.fit(module, FAMILY, steps=150, **QUICK)
    M = module.export()
    for seed in (90, 91, 92):
        A, b, _ = system(FAMILY(seed))
        cg = np.linalg.norm(b - A @ textbook_cg(A, b, 5, np.ones(len(b)))[-1])
        least = bs.solve_with_info(A, b, method=bs.MINRES(maxiter=5), on_failure="return").x
        learned = np.linalg.norm(b - A @ learn.propose(M, A, b))
        assert np.linalg.norm(b - A @ least) <= learned < 0.7 * cg


def test_unrolled_cg_learns_cg_where_nothing_is_better():
    module = learn.UnrolledCG(steps=4, norm="energy")
    with torch.no_grad():
        module.a.copy_(torch.tensor([0.2, -0.1, 0.1, 0.1]))
        module.b.copy_(torch.tensor([-0.1, 0.2, 0.1, 0.0]))
    learn.fit(module, FAMILY, steps=200, patience=20, **QUICK)
    M = module.export()
    for seed in (90, 91):
        A, b, x = system(FAMILY(seed))
        cg = energy(A, x, textbook_cg(A, b, 4, 1 / A.diagonal())[-1])
        assert cg * (1 - 1e-12) <= energy(A, x, learn.propose(M, A, b)) < cg * 1.001


@pytest.mark.parametrize("kind", ["momentum", "conjugate"])
def test_nothing_depends_on_scale(kind):
    A, b, _ = system(FAMILY(0))
    M = (
        learn.MomentumSteps.chebyshev(5)
        if kind == "momentum"
        else learn.ConjugateSteps((0.9, 1.1), (1.1, 1.2), steps=5)
    )
    x = learn.propose(M, A, b)
    for s, t in ((2.0**-600, 1.0), (2.0**600, 1.0), (1.0, 2.0**-300), (2.0**-100, 2.0**300)):
        np.testing.assert_allclose(learn.propose(M, t * A, s * b), x * (s / t), rtol=1e-12)
    assert (learn.propose(M, A, 0 * b) == 0).all()


def test_converged_columns_stay_and_have_a_gradient():
    A = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    for b in ([1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1e-200, 1e-200, 0.0]):
        b = torch.tensor(b, dtype=torch.float64, requires_grad=True)
        factors = torch.ones(2, 8, dtype=torch.float64, requires_grad=True)
        x = conjugate_steps(
            torch, A.__matmul__, lambda u, v: (u * v).sum(), 1.0, b, list(factors[0]), list(factors[1]), 2.0**-52
        )
        gradients = torch.autograd.grad(x.sum(), [b, factors])
        assert all(bool(torch.isfinite(g).all()) for g in gradients)
        if float(b.detach().norm()) > 1e-100:
            torch.testing.assert_close(A @ x, b)


def test_steps_serve_in_every_frontend():
    A, b, x = system(FAMILY(3))
    momentum, conjugate = learn.LearnedChebyshev(steps=4), learn.ConjugateSteps((1.0,), (1.0,), steps=4)

    def count(asarray, method, M):
        operator = bs.CSR(asarray(A.data), A.indices, A.indptr, A.shape)
        sol = bs.solve_with_info(operator, asarray(b), method=method, M=M, rtol=1e-10)
        np.testing.assert_allclose(np.asarray(sol.x), x, rtol=1e-7)
        return int(sol.stats.iterations)

    with jax.enable_x64(True):
        for asarray in (torch.tensor, jax.numpy.asarray):
            assert count(asarray, "cg", momentum.export()) == count(np.asarray, "cg", momentum)
            assert count(asarray, "fcg", conjugate) == count(np.asarray, "fcg", conjugate)
    dense = bs.solve_with_info(A.toarray(), b, method="cg", M=momentum, rtol=1e-10)
    assert int(dense.stats.iterations) == count(np.asarray, "cg", momentum)
    single = bs.solve_with_info(A.astype(np.float32), b.astype(np.float32), method="cg", M=momentum.export())
    assert single.converged and single.x.dtype == np.float32


def test_unrolled_cg_needs_products_alone():
    A, b, x = system(FAMILY(1))
    free = bs.MatrixFree(lambda values, v: bs.CSR(values, A.indices, A.indptr, A.shape) @ v, A.data, A.shape).assume(
        "spd"
    )
    M = learn.UnrolledCG(steps=5, scaled=False)
    np.testing.assert_allclose(bs.solve(free, b, method="fcg", M=M, rtol=1e-10), x, rtol=1e-7, atol=1e-8)
    for other in (learn.UnrolledCG(steps=5), learn.MomentumSteps.chebyshev(3)):
        with pytest.raises(ValueError, match="needs the entries of A"):
            bs.solve(free, b, method="fcg", M=other)


def test_batches_are_solved_as_their_items():
    problems = [FAMILY(seed) for seed in range(3)]
    A = problems[0].A
    batch = bs.CSR(np.stack([p.A.data for p in problems]), A.structure.indices, A.structure.indptr, A.shape)
    b = np.stack([p.b for p in problems])[..., None]
    for M, method in ((learn.MomentumSteps.chebyshev(4), "cg"), (learn.ConjugateSteps((1.1,), (0.9,), 3), "fcg")):
        sol = bs.solve_with_info(batch, b, method=method, M=M)
        each = [bs.solve_with_info(p.A, p.b, method=method, M=M) for p in problems]
        assert [int(c) for c in sol.stats.iterations] == [int(s.stats.iterations) for s in each]
        np.testing.assert_allclose(sol.x[..., 0], np.stack([s.x for s in each]), rtol=1e-9)


def test_they_smooth():
    A, b, x = system(FAMILY(0))
    M = learn.MomentumSteps.chebyshev(4)
    sol = bs.solve_with_info(A, b, method=bs.Richardson(M=M, maxiter=500), rtol=1e-6)
    assert sol.converged
    twice = learn.propose(M, A, b, times=2)
    np.testing.assert_allclose(twice, learn.propose(M, A, b, x0=learn.propose(M, A, b)), rtol=1e-13)
    assert energy(A, x, twice) < energy(A, x, learn.propose(M, A, b))


def test_adversarial_parameters_are_refused_or_harmless():
    A, b, x = system(FAMILY(0))
    for module in (learn.LearnedChebyshev(steps=8), learn.UnrolledCG(steps=8)):
        method = "fcg" if module.varying else "cg"
        for size in (1e3, -1e300, 30.0):
            with torch.no_grad():
                module.a.copy_(size * torch.cos(torch.arange(8.0, dtype=torch.float64)))
                module.b.fill_(-size)
            sol = bs.solve_with_info(A, b, method=method, M=module.export(), on_failure="return")
            if sol.converged:
                np.testing.assert_allclose(sol.x, x, rtol=1e-4, atol=1e-6 * np.abs(x).max())
            else:
                assert method == "fcg"  # which a varying M may stop, with a status
        with torch.no_grad():
            module.b[2] = float("nan")
        sentence = "parameters must be finite; b is not: train again"
        with pytest.raises(ValueError, match=sentence):
            module.export()
        with pytest.raises(ValueError, match=sentence):
            bs.solve(A, b, method=method, M=module)


def test_what_does_not_fit_is_refused():
    A, b, _ = system(FAMILY(0))
    for make, sentence in (
        (lambda: learn.LearnedChebyshev(steps=0), "steps must be an integer of at least 1; got 0"),
        (lambda: learn.LearnedChebyshev(ratio=1), "ratio must be a float above 1; got 1"),
        (lambda: learn.UnrolledCG(norm="max"), "norm must be 'residual' or 'energy'; got 'max'"),
        (lambda: learn.MomentumSteps((1.0,), (0.0, 1.0)), "alphas and betas must have as many numbers"),
        (lambda: learn.MomentumSteps((np.inf,), (0.0,)), "alphas must be finite; step 0 has inf"),
        (lambda: learn.MomentumSteps((0.0,), (0.0,)), "a polynomial of moderate size"),
        (lambda: learn.MomentumSteps((1e200,), (0.0,)), "a polynomial of moderate size"),
        (lambda: learn.ConjugateSteps("ab", (1.0,)), "alphas must be numbers, one for each step"),
        (lambda: learn.ConjugateSteps((1.0,), (1.0,), steps=0), "steps must be an integer of at least 1"),
        (lambda: learn.propose("ic0", A, b[:3]), r"b must have shape \(256,\)"),
        (lambda: learn.propose("ic0", A, b, b[:3]), r"x0 must have the shape of b"),
        (lambda: learn.propose("ic0", A, b, times=0), "times must be an integer of at least 1"),
        (lambda: bs.solve(A * 1j, b, method="fcg", M=learn.ConjugateSteps((1.0,), (1.0,))), "is for real A"),
        (lambda: bs.solve(A, b, method="cg", M=learn.ConjugateSteps((1.0,), (1.0,))), "takes a fixed M"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()


@pytest.mark.parametrize("module", [learn.LearnedChebyshev(5, 20.0), learn.UnrolledCG(3, "energy", False)], ids=str)
def test_checkpoints_bring_back_the_steps(module, tmp_path):
    with torch.no_grad():
        module.a.normal_()
    learn.save(module, tmp_path / "steps.pt")
    assert learn.load(tmp_path / "steps.pt").export() == module.export()
