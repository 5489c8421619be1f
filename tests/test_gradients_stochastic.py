"""Samples of losses, entries and walks: each estimator is unbiased by a z-test that sees a bias where there is one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax_cases import wide  # noqa: F401

import backsolve as bs
from backsolve import gradients, local
from backsolve.gradients.dominance import dense
from backsolve.gradients.estimate import Cost, StochasticEstimate
from backsolve.gradients.visits import path_gradient
from backsolve.gradients.walking import Rows, walk

N, LIMIT = 40, 4.0
SPARSE = np.array([3, 9, 20]), np.array([1.0, -2.0, 1.0])


def z_of(samples, truth):
    """How many standard errors the mean of independent samples is off."""
    samples = np.asarray(samples)
    return (samples.mean() - truth) / (samples.std(ddof=1) / np.sqrt(len(samples)))


class System:
    """A small matrix of random signs, dominant by rows and columns, with the dense truth."""

    def __init__(self, seed=3, n=N, margin=1.4):
        rng = np.random.default_rng(seed)
        M = rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.15)
        np.fill_diagonal(M, 0)
        size = margin * np.maximum(np.abs(M).sum(0), np.abs(M).sum(1)) + 0.1
        M += np.diag(size * rng.choice([-1, 1], n))
        self.dense, self.A, self.n = M, sp.csr_array(M), n
        self.b, self.t = rng.standard_normal(n), np.zeros(n)
        self.t[[3, 7, 11]] = 1, -2, 0.5
        self.x, self.lam = np.linalg.solve(M, self.b), np.linalg.solve(M.T, self.t)
        self.value = self.t @ self.x
        i, j = self.A.nonzero()
        self.gradient = -self.lam[i] * self.x[j]
        self.direction = rng.standard_normal(len(i)) * np.abs(M[i, j])


@pytest.fixture(scope="module")
def system():
    return System()


WALKS = {
    "collision": lambda s, seed: gradients.collision_walk(s.A, s.b, s.t, rng=seed, walks=500),
    "product": lambda s, seed: gradients.product_walk(s.A, s.b, s.t, rng=seed, walks=500),
    "pushed product": lambda s, seed: gradients.product_walk(s.A, s.b, s.t, 1.0, rng=seed, walks=500),
    "residual": lambda s, seed: gradients.residual_walk(s.A, s.b, s.t, 3.0, rng=seed, walks=500),
    "roulette": lambda s, seed: gradients.roulette_neumann(s.A, s.b, s.t, rng=seed, samples=8),
    "cotangent": lambda s, seed: gradients.sampled_cotangent(s.A, SPARSE, s.t + 0.1, 1e-9, rng=seed, samples=8),
}


@pytest.mark.parametrize("name", WALKS)
def test_unbiased_by_a_z_test(system, name):
    made = [WALKS[name](system, seed) for seed in range(50)]
    truth, gradient = system.value, system.gradient
    if name == "cotangent":
        g = system.t + 0.1
        lam, x = np.linalg.solve(system.dense.T, g), np.linalg.solve(system.dense, dense("b", SPARSE, N))
        i, j = system.A.nonzero()
        truth, gradient = g @ x, -lam[i] * x[j]
    assert abs(z_of([est.value for est in made], truth)) < LIMIT
    said = np.sqrt(np.mean([est.standard_error**2 for est in made]))
    assert said == pytest.approx(np.std([est.value for est in made], ddof=1), rel=0.35)
    if name != "residual":
        along = [est.gradient @ system.direction for est in made]
        assert abs(z_of(along, gradient @ system.direction)) < LIMIT
        assert est_counts(made)


def est_counts(made):
    """Whether work was counted, and shown."""
    return all(max(est.cost) > 0 and "variance x cost" in repr(est) for est in made)


def test_the_z_test_sees_the_weight_after_a_step(system):
    """Path gradients with W_{k+1} in place of W_k are biased in every off-diagonal entry."""
    M = Rows(local.DiagonallyDominant(system.A).system.access)
    M.read(np.arange(N))
    right, left = dense("b", system.b, N), dense("t", system.t, N)
    with_before, with_after = [], []
    for seed in range(50):
        paths = walk(M, left, 500, np.random.default_rng(seed), 10_000)
        suffixes = paths.suffixes(M, right / M.diagonal)
        after = [w * paths.signs(M, k) for k, w in enumerate(paths.weights)]
        for weights, kept in ((paths.weights, with_before), (after, with_after)):
            g = path_gradient(M, paths, suffixes, len(M.indices), weights)[0]
            kept.append(g @ system.direction)
    truth = system.gradient @ system.direction
    assert abs(z_of(with_before, truth)) < LIMIT
    assert abs(z_of(with_after, truth)) > LIMIT


def test_the_z_test_sees_that_submatrices_are_wrong():
    """Rows and columns of a random half, solved for and doubled, as one might believe to be right."""
    n = 30  # a path: its inverse has long tails, which no half of it has
    P = 2.05 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    truth, made = np.linalg.solve(P, np.ones(n)).sum(), []
    for seed in range(50):
        S = np.random.default_rng(seed).choice(n, n // 2, replace=False)
        made.append(2 * np.linalg.solve(P[np.ix_(S, S)], np.ones(n // 2)).sum())
    assert abs(z_of(made, truth)) > LIMIT
    assert abs(np.mean(made) / truth - 1) > 0.5
    right = [gradients.collision_walk(P, np.ones(n), np.ones(n), rng=seed, walks=100).value for seed in range(30)]
    assert abs(z_of(right, truth)) < LIMIT


@pytest.mark.parametrize("name", ["collision", "product", "roulette"])
def test_entries_of_gradients_are_within_their_standard_errors(system, name):
    est = {
        "collision": lambda: gradients.collision_walk(system.A, system.b, system.t, rng=1, walks=40_000),
        "product": lambda: gradients.product_walk(system.A, system.b, system.t, rng=1, walks=40_000),
        "roulette": lambda: gradients.roulette_neumann(system.A, system.b, system.t, rng=1, samples=500),
    }[name]()
    met = np.isfinite(est.gradient_error) & (est.gradient_error > 0)
    z = ((est.gradient - system.gradient) / est.gradient_error)[met]
    assert met.mean() > 0.9 and np.abs(z).max() < 5 and np.sqrt(np.mean(z**2)) < 1.4
    assert np.all(est.gradient[np.isinf(est.gradient_error)] == 0)


def test_variances_are_within_what_theory_bounds(system):
    margin = Rows(local.DiagonallyDominant(system.A).system.access).margins(np.arange(N))
    assert np.array_equal(margin > 0, np.ones(N, bool))
    d = np.abs(np.diag(system.dense))
    delta, size = (margin / d).min(), np.abs(system.t).sum()
    est = gradients.collision_walk(system.A, system.b, system.t, rng=0, walks=20_000)
    assert np.var(est.draws) <= size**2 * (np.abs(system.b) / d).max() ** 2 * (2 - delta) / delta**2
    assert est.cost.steps <= 20_000 / delta * 1.1
    rho = (np.abs(system.b) / margin).max() * (1 + 1e-12)
    est = gradients.residual_walk(system.A, system.b, system.t, 1e3, rng=0, walks=20_000)
    assert np.var(est.draws) <= size**2 * rho**2
    assert np.abs(est.draws - est.draws.mean()).max() <= 2 * size * rho


def test_pushes_before_walks_make_the_sure_interval_short(system):
    rough, fine = (
        gradients.residual_walk(system.A, system.b, system.t, atol, rng=0, walks=1000) for atol in (10.0, 1e-3)
    )
    for est in (rough, fine):
        assert abs(est.value - system.value) <= est.surely
        assert est.half_width <= est.surely
    assert fine.surely <= 1e-3 < rough.surely


def test_pushes_before_walks_make_gradients_better(system):
    plain, pushed = (gradients.product_walk(system.A, system.b, system.t, atol, rng=0) for atol in (None, 1e-3))
    off, less = (np.linalg.norm(est.gradient - system.gradient) for est in (plain, pushed))
    assert less < off / 5 and pushed.standard_error < plain.standard_error / 10
    exact = gradients.product_walk(np.diag([2.0, -4.0]), [1.0, 1.0], [1.0, 0.0], 1e-3, rng=0)
    assert (exact.value, exact.standard_error) == (0.5, 0.0) and exact.gradient[1] == 0.0  # pushes have found all of λ
    assert abs(exact.gradient[0] + 0.25) <= 5 * exact.gradient_error[0] < 1e-2


def test_rows_that_no_walk_meets_are_not_read():
    n = 3000
    A = sp.diags_array([-np.ones(n - 1), np.full(n, 3.0), -np.ones(n - 1)], offsets=[-1, 0, 1]).tocsr()
    M = Rows(local.DiagonallyDominant(A).system.access)
    t = dense("t", ([1500], [1.0]), n)
    paths = walk(M, t, 1000, np.random.default_rng(0), 10_000)
    met = np.unique(np.concatenate(paths.nodes))
    assert np.array_equal(np.flatnonzero(M.own >= 0), met) and len(met) < 50


def test_long_walks_of_a_stored_transpose_and_of_repeated_values():
    """Values in the order of the user, where several make one entry: each has the gradient of the entry."""
    s = System(5)
    i, j = s.A.nonzero()
    shuffle = np.random.default_rng(0).permutation(len(i))
    rows, cols = np.tile(i[shuffle], 2), np.tile(j[shuffle], 2)
    values = np.tile(s.A.data[shuffle] / 2, 2)
    for make in (gradients.collision_walk, gradients.product_walk):
        want = make(s.A, s.b, s.t, rng=3, walks=300)
        got = make(bs.coo(values, (rows, cols), s.A.shape), s.b, s.t, rng=3, walks=300)
        assert got.value == pytest.approx(want.value, rel=1e-12)
        assert got.gradient == pytest.approx(np.tile(want.gradient[shuffle], 2), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", ["collision", "product", "roulette", "cotangent"])
def test_torch_has_the_gradient_of_numpy(system, name):
    w = torch.tensor(system.A.data, requires_grad=True)
    A = bs.CSR(w, system.A.indices, system.A.indptr, system.A.shape)
    call = {
        "collision": lambda M: gradients.collision_walk(M, system.b, system.t, rng=0, walks=200),
        "product": lambda M: gradients.product_walk(M, system.b, system.t, rng=0, walks=200),
        "roulette": lambda M: gradients.roulette_neumann(M, system.b, system.t, rng=0),
        "cotangent": lambda M: gradients.sampled_cotangent(M, SPARSE, np.ones(N), 1e-9, rng=0),
    }[name]
    est, want = call(A), call(system.A)
    (2 * est.value).backward()
    grad = w.grad.to_dense() if w.grad.is_sparse else w.grad
    assert est.value.item() == pytest.approx(want.value, rel=1e-10)
    assert grad.numpy() == pytest.approx(2 * want.gradient, rel=1e-7, abs=1e-8)


def test_roulette_needs_to_know_that_its_variance_is_finite(system):
    ring = sp.csr_array(np.eye(4) + 0.9 * np.roll(np.eye(4), 1, axis=1) + 0.9 * np.roll(np.eye(4), 2, axis=1))
    with pytest.raises(ValueError, match=r"must be diagonally dominant .* the variance may be infinite: give radius"):
        gradients.roulette_neumann(ring, np.ones(4), np.ones(4), rng=0)
    gap = local.DiagonallyDominant(system.A).gap
    with pytest.raises(ValueError, match=r"q must exceed radius² = "):
        gradients.roulette_neumann(system.A, system.b, system.t, rng=0, q=float((1 - gap) ** 2) * 0.99)
    with pytest.raises(ValueError, match="max_terms must cover the lengths drawn"):
        gradients.roulette_neumann(system.A, system.b, system.t, rng=0, q=0.95, max_terms=3)
    # Not dominant, but with a radius that is known: nilpotent off its diagonal.
    upper = sp.csr_array(np.array([[1.0, 5.0], [0.0, 1.0]]))
    made = [gradients.roulette_neumann(upper, [1.0, 1.0], [1.0, 0.0], rng=k, radius=0.0, q=0.5) for k in range(50)]
    assert abs(z_of([est.value for est in made], -4.0)) < LIMIT


def test_truncation_is_more_accurate_at_equal_work():
    """What the documentation says of roulette: its error far exceeds that of as many terms, summed."""
    s = System(3, margin=1.05)
    made = [gradients.roulette_neumann(s.A, s.b, s.t, rng=seed, samples=2) for seed in range(40)]
    terms = int(np.mean([est.cost.matvecs for est in made]))
    sol = bs.solve_with_info(s.A, s.b, method=bs.Neumann(maxiter=terms), on_failure="return")
    typical = np.sqrt(np.mean([(est.value - s.value) ** 2 for est in made]))
    assert abs(s.t @ sol.x - s.value) < typical / 100


# -- sums -----------------------------------------------------------------------------------------------------


def test_sampled_losses_and_their_gradients_are_unbiased():
    s = System(1, n=20)
    rng = np.random.default_rng(0)
    B = rng.standard_normal((20, 30)) * np.geomspace(0.1, 3, 30)
    target = 0.01 * rng.standard_normal((20, 30))
    direction = torch.tensor(s.direction)
    w = torch.tensor(s.A.data, requires_grad=True)
    A = bs.CSR(w, s.A.indices, s.A.indptr, s.A.shape)

    def loss(X, k):
        return ((X - torch.tensor(target[:, k])) ** 2).sum(0)

    full = loss(bs.solve(A, torch.tensor(B)), np.arange(30)).sum()
    (G,) = torch.autograd.grad(full, w)
    sizes = (B**2).sum(0)
    spreads = []
    for p in (None, sizes):
        values, along = [], []
        for seed in range(50):
            est = gradients.sample_losses(A, torch.tensor(B), loss, 6, rng=seed, probabilities=p)
            values.append(est.value.item())
            along.append((torch.autograd.grad(est.value, w)[0] @ direction).item())
            assert est.cost.solves <= 6
        assert abs(z_of(values, full.item())) < LIMIT
        assert abs(z_of(along, (G @ direction).item())) < LIMIT
        spreads.append(np.std(values))
    assert spreads[1] < spreads[0] / 2  # importance pays
    unweighted = [30 / 6 * loss(bs.solve(A, torch.tensor(B[:, k])), k).sum().item() for k in draws_of(sizes)]
    assert abs(z_of(unweighted, full.item())) > LIMIT  # and without weights it is wrong


def draws_of(sizes):
    """Indices drawn with unequal chances, whose weights are then left out."""
    return [gradients.draw(len(sizes), 6, rng=seed, probabilities=sizes).indices for seed in range(50)]


def test_sampled_losses_in_jax_and_numpy():
    s = System(1, n=20)
    B = np.random.default_rng(0).standard_normal((20, 10))
    operator = bs.CSR(s.A.data, s.A.indices, s.A.indptr, s.A.shape)

    def value(w):
        return gradients.sample_losses(
            operator.with_data(w), jnp.asarray(B), lambda X, k: (X**2).sum(0), 4, rng=0
        ).value

    w = torch.tensor(s.A.data, requires_grad=True)
    A = operator.with_data(w)
    est = gradients.sample_losses(A, torch.tensor(B), lambda X, k: (X**2).sum(0), 4, rng=0)
    est.value.backward()
    got, g = jax.jit(jax.value_and_grad(value))(jnp.asarray(s.A.data))
    plain = gradients.sample_losses(s.A, B, lambda X, k: (X**2).sum(0), 4, rng=0)
    assert float(got) == pytest.approx(est.value.item(), rel=1e-12)
    assert plain.value == pytest.approx(est.value.item(), rel=1e-12)
    assert np.asarray(g) == pytest.approx(w.grad.numpy(), rel=1e-9, abs=1e-13)


def test_sampled_entries_are_unbiased_and_their_error_is_told(system):
    count = system.A.nnz
    made = [gradients.sample_entries(system.A, system.lam, system.x, 50, rng=seed) for seed in range(80)]
    full = [np.bincount(places, values, count) for places, values, _ in made]
    along = [g @ system.direction for g in full]
    assert abs(z_of(along, system.gradient @ system.direction)) < LIMIT
    even = [g @ system.direction * 1.5 + 1 for g in full]
    assert abs(z_of(even, system.gradient @ system.direction)) > LIMIT
    seen = np.sqrt(np.mean([((g - system.gradient) ** 2).sum() for g in full]))
    told = np.sqrt(np.mean([sample.error**2 for sample in made]))
    assert told == pytest.approx(seen, rel=0.2)


def test_sampled_entries_train_what_the_values_are_made_of(system):
    """Only sampled values are computed: the surrogate has the gradient of the loss by θ, in the mean."""
    rows, cols = (torch.tensor(v) for v in system.A.nonzero())
    theta = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    base = torch.tensor(system.A.data)

    def values(theta, k):
        return base[k] * torch.exp(theta[0] * torch.sin(rows[k].double()) + theta[1] * torch.cos(cols[k].double()))

    every = torch.arange(len(base))
    A = bs.CSR(values(theta, every), system.A.indices, system.A.indptr, system.A.shape)
    x = bs.solve(A, torch.tensor(system.b))
    (truth,) = torch.autograd.grad(x @ torch.tensor(system.t), theta, retain_graph=True)
    plain = bs.factorize(bs.CSR(A.data.detach(), system.A.indices, system.A.indptr, system.A.shape))
    lam = plain.adjoint.solve(torch.tensor(system.t))
    made = []
    for seed in range(60):
        places, weights, _ = gradients.sample_entries(A, lam, x, 40, rng=seed)
        surrogate = (torch.tensor(weights) * values(theta, torch.tensor(places))).sum()
        made.append(torch.autograd.grad(surrogate, theta)[0].numpy())
    for k in range(2):
        assert abs(z_of(np.array(made)[:, k], truth[k].item())) < LIMIT


def test_repeated_values_are_sampled_together():
    A = bs.coo(np.array([1.0, 1.0, 3.0]), ([0, 0, 1], [0, 0, 1]), (2, 2))
    sample = gradients.sample_entries(A, np.ones(2), np.ones(2), 4000, rng=0)
    g = np.bincount(sample.places, sample.values, 3)
    assert g[0] == g[1] and np.abs(g + 1).max() < 0.1


# -- estimates ------------------------------------------------------------------------------------------------


def test_an_estimate_shows_its_interval_and_what_it_cost():
    draws = np.array([1.0, 2.0, 3.0, 4.0])
    est = StochasticEstimate(2.5, draws, Cost(solves=4), 0.95)
    error = np.sqrt(5 / 3 / 4)
    assert est.standard_error == pytest.approx(error)
    assert est.interval == pytest.approx((2.5 - 3.182446 * error, 2.5 + 3.182446 * error))  # Student's t, 3 degrees
    assert est.variance_cost == pytest.approx(error**2 * 4)
    assert "2.5 ± 0.65 (4 samples); 95% interval [0.4457" in repr(est) and "4 solves; variance x cost 1.67" in repr(est)
    assert StochasticEstimate(2.5, draws, Cost(), 0.95, surely=0.1, excess=0.2).half_width == pytest.approx(0.3)
    assert StochasticEstimate(2.5, draws[:1], Cost()).standard_error == np.inf


def test_the_same_seed_gives_the_same_bits(system):
    for name in WALKS:
        one, two = WALKS[name](system, 9), WALKS[name](system, 9)
        assert one.value == two.value and WALKS[name](system, 10).value != one.value
    given = np.random.default_rng(0)
    first = gradients.draw(100, 5, rng=given).indices
    assert not np.array_equal(first, gradients.draw(100, 5, rng=given).indices)


def test_bad_arguments_get_a_sentence(system):
    s = system
    column_only = sp.csr_array(np.array([[1.0, 3.0], [0.0, 4.0]]))
    with pytest.raises(ValueError, match=r"must be diagonally dominant by rows; row 0 has the margin -2"):
        gradients.collision_walk(column_only, np.ones(2), np.ones(2), rng=0)
    with pytest.raises(ValueError, match="dominant by columns; column 0 has the margin -2"):
        gradients.product_walk(column_only.T.tocsr(), np.ones(2), np.ones(2), rng=0)
    with pytest.raises(ValueError, match="max_steps must let every walk stop"):
        gradients.collision_walk(s.A, s.b, s.t, rng=0, max_steps=2)
    with pytest.raises(ValueError, match="t must have an entry other than zero"):
        gradients.collision_walk(s.A, s.b, np.zeros(N), rng=0)
    with pytest.raises(ValueError, match="b must be a 1-D array of 40"):
        gradients.collision_walk(s.A, s.b[:-1], s.t, rng=0)
    with pytest.raises(TypeError, match="b is a constant here, and the tensor given requires a gradient"):
        gradients.collision_walk(s.A, torch.ones(N, requires_grad=True), s.t, rng=0)
    values = torch.tensor(s.A.data, requires_grad=True)
    with pytest.raises(TypeError, match="residual_walk has no gradient, and A asks for one"):
        gradients.residual_walk(bs.CSR(values, s.A.indices, s.A.indptr, s.A.shape), s.b, s.t, 1.0, rng=0)
    with pytest.raises(ValueError, match="walks must be an integer of at least 2"):
        gradients.product_walk(s.A, s.b, s.t, rng=0, walks=1.5)
    with pytest.raises(ValueError, match="atol must be a positive number; got -1"):
        gradients.residual_walk(s.A, s.b, s.t, -1, rng=0)
    with pytest.raises(ValueError, match="g must be 40 finite numbers, not all of them zero"):
        gradients.sampled_cotangent(s.A, ([0], [1.0]), np.zeros(N), 1e-3, rng=0)
    with pytest.raises(ValueError, match="probabilities must be 3 finite numbers, none negative"):
        gradients.draw(3, 2, rng=0, probabilities=[1, -1, 1])
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator or an integer seed; got -1"):
        gradients.draw(3, 2, rng=-1)
    with pytest.raises(ValueError, match="B must have shape"):
        gradients.sample_losses(s.A, s.b, lambda X, k: X.sum(0), 2, rng=0)
    with pytest.raises(ValueError, match="loss must return 1 numbers, one for each column; got"):
        gradients.sample_losses(s.A, s.b[:, None], lambda X, k: X.sum(), 2, rng=0)
    with pytest.raises(ValueError, match="adjoint must not be zero in every row"):
        gradients.sample_entries(s.A, np.zeros(N), s.x, 2, rng=0)
    with pytest.raises(ValueError, match="x must be 40 finite numbers"):
        gradients.sample_entries(s.A, s.lam, s.x * np.nan, 2, rng=0)
