"""Determinants and traces: selected inverses against dense ones, probes by z-tests, and a real Gaussian process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax_cases import wide  # noqa: F401
from sklearn.datasets import load_diabetes
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import backsolve as bs
from backsolve import gallery, gradients
from backsolve.gradients.fronts import fronts_of
from backsolve.gradients.inversion import HostFactors
from backsolve.gradients.probes import Probes

SOLVABLE = [name for name in gallery.names() if gallery.problem(name, 30).solvable]


def inverse_on(p):
    """A⁻ᴴ at the place of each given value, by dense elimination."""
    return np.linalg.inv(p.toarray()).conj().T[p.rows, p.cols]


def z_of(samples, truth):
    """How many standard errors the mean of independent samples is off."""
    samples = np.asarray(samples)
    return (samples.mean() - truth) / (samples.std(ddof=1) / np.sqrt(len(samples)))


# -- selected inversion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLVABLE)
def test_selected_inverse_is_the_dense_inverse_on_the_pattern(name):
    p = gallery.problem(name, 60)
    want, dense = inverse_on(p), p.toarray()
    scale = np.abs(np.linalg.inv(dense)).max()
    # An inverse entry is as exact as the condition, after the best scaling of rows by powers of two, allows.
    rows = np.abs(dense).max(axis=1, keepdims=True)
    kappa = np.linalg.cond(dense / rows)
    got = gradients.selected_inverse(p.A)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert np.abs(got - want).max() <= 10 * kappa * np.finfo(want.dtype).eps * scale


@pytest.mark.parametrize("name", ["poisson2d", "convection", "complex_contraction"])
def test_selected_inverse_of_larger_systems_takes_no_solve(name):
    p = gallery.problem(name, 900)
    host = HostFactors(p.A.structure, np.bincount(p.A.slots, p.A.data) if p.A.slots is not None else p.A.data)
    entries, truth = host.inverse_entries(), np.linalg.inv(p.toarray()).conj().T
    want = truth[p.A.structure.rows, p.A.structure.indices]
    assert host.solves == 0
    assert np.abs(entries - want).max() <= 1e-10 * np.abs(want).max()


def test_selected_inverse_of_rows_in_any_order(monkeypatch):
    """Pivots are found off the diagonal; where fronts would cost too much, solves give the same numbers."""
    n = 300
    band = sp.diags_array([np.ones(n - 1), np.full(n, 4.0), np.ones(n - 2)], offsets=[-1, 0, 2]).tocsr()
    A = sp.csr_array(band[np.random.default_rng(0).permutation(n)])
    want = np.linalg.inv(A.toarray()).T[A.nonzero()]
    bound = 10 * np.linalg.cond(A.toarray()) * np.finfo(float).eps * np.abs(want).max()
    host = HostFactors(bs.aslinearoperator(A).structure, A.data)
    assert np.abs(host.inverse_entries() - want).max() <= bound
    assert host.solves == 0
    monkeypatch.setattr("backsolve.gradients.takahashi._FILL", 0.1)
    host = HostFactors(bs.aslinearoperator(A).structure, A.data)
    assert np.abs(host.inverse_entries() - want).max() <= bound
    assert host.solves == n


def test_selected_inverse_is_judged(monkeypatch):
    """Factors of another matrix are seen by the diagonals of A A⁻¹ and A⁻¹ A, and solves take over."""
    p = gallery.problem("poisson2d", 100)
    host = HostFactors(p.A.structure, p.A.data)
    worse = p.A.data * (1 + 1e-9 * np.random.default_rng(0).standard_normal(len(p.A.data)))
    host._factors = HostFactors(p.A.structure, worse)._factors
    monkeypatch.setattr(HostFactors, "_factor", staticmethod(lambda batch: host._factors))
    monkeypatch.setattr(type(host._factors), "strengthen", lambda self, item: False)
    assert np.abs(host.inverse_entries() - inverse_on(p)).max() <= 1e-13
    assert host.solves == 100


def test_fronts_hold_the_rows_of_their_children():
    p = gallery.problem("poisson2d", 400)
    rows, columns = p.A.structure.rows, p.A.structure.indices
    number, fronts = fronts_of(rows, columns, 400, np.inf)
    assert np.array_equal(np.sort(number), np.arange(400)) and len(fronts) < 200
    assert [front.start for front in fronts] == [0, *(front.stop for front in fronts[:-1])] and fronts[-1].stop == 400
    for front in fronts:
        if front.parent >= 0:
            assert set(front.rows) <= set(fronts[front.parent].unknowns)
    # The factor in the new order has no entry outside of the fronts: its first unknown holds all that it meets.
    held = np.zeros((400, 400), bool)
    for front in fronts:
        held[np.ix_(front.unknowns, front.unknowns[: front.stop - front.start])] = True
    dense = np.zeros((400, 400))
    dense[number[rows], number[columns]] = p.A.data
    assert not np.abs(np.linalg.cholesky(dense)[~held]).max() > 0
    assert fronts_of(rows, columns, 400, 500) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_logdet_of_every_dtype(dtype):
    p = gallery.problem("complex_contraction" if np.dtype(dtype).kind == "c" else "convection", 60)
    w = torch.tensor(p.A.data.astype(dtype), requires_grad=True)
    est = gradients.logdet(p.A.with_data(w))
    est.value.backward()
    want = np.linalg.slogdet(p.toarray())[1]
    eps = np.finfo(dtype).eps
    bound = 10 * np.linalg.cond(p.toarray()) * eps
    assert est.value.dtype == w.real.dtype and w.grad.dtype == w.dtype
    assert abs(est.value.item() - want) <= bound * max(abs(want), 1)
    assert np.abs(w.grad.numpy() - inverse_on(p)).max() <= bound * np.abs(inverse_on(p)).max()


@pytest.mark.parametrize("name", ["poisson2d", "convection", "duplicates", "complex_symmetric"])
def test_logdet_gradient_is_that_of_slogdet(name):
    p = gallery.problem(name, 60)
    got, want = (torch.tensor(p.A.data, requires_grad=True) for _ in range(2))
    value = gradients.logdet(p.A.with_data(got)).value
    truth = bs.slogdet(p.A.with_data(want))[1]
    (3 * value).backward()
    (3 * truth).backward()
    assert abs(value.item() - truth.item()) <= 1e-12 * abs(truth.item())
    assert (got.grad - want.grad).abs().max() <= 1e-10 * want.grad.abs().max()
    explicit = gradients.logdet(p.A)
    assert np.abs(3 * explicit.gradient - got.grad.numpy()).max() <= 1e-12 * want.grad.abs().max()
    assert explicit.standard_error == 0 and explicit.interval == (explicit.value, explicit.value)


def test_logdet_of_a_dense_matrix():
    rng = np.random.default_rng(1)
    D = rng.standard_normal((8, 8))
    est = gradients.logdet(D)
    assert est.gradient == pytest.approx(np.linalg.inv(D).T, rel=1e-10)
    T = torch.tensor(D, requires_grad=True)
    gradients.logdet(T).value.backward()
    assert T.grad.numpy() == pytest.approx(np.linalg.inv(D).T, rel=1e-10)


@pytest.mark.parametrize("name", ["duplicates", "complex_contraction"])
def test_logdet_in_jax(name):
    p = gallery.problem(name, 30)
    w, truth = jnp.asarray(p.A.data), np.linalg.slogdet(p.toarray())[1]

    def value(w):
        return 2 * gradients.logdet(p.A.with_data(w)).value

    program = jax.jit(jax.value_and_grad(value))
    for got, g in (jax.value_and_grad(value)(w), program(w)):
        assert float(got) == pytest.approx(2 * truth, rel=1e-12)
        assert np.asarray(g) == pytest.approx(2 * inverse_on(p).conj(), rel=1e-9, abs=1e-12)
    if name == "duplicates":
        batch = jax.vmap(jax.grad(value))(jnp.stack([w, 2 * w]))
        assert np.asarray(batch[1]) == pytest.approx(inverse_on(p), rel=1e-9, abs=1e-12)
        singular = jnp.zeros_like(w)
        assert np.isnan(program(singular)[0])
        with pytest.raises(bs.SolveError, match="must be nonsingular"):
            value(singular)
        with pytest.raises(TypeError, match="method 'slq' is for NumPy and torch; A is of jax"):
            gradients.logdet(p.A.with_data(w), method="slq", rng=0)


def test_factors_are_differentiable_once_and_say_so():
    p = gallery.problem("poisson2d", 16)
    w = torch.tensor(p.A.data, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"differentiable once: for second derivatives use backsolve\.slogdet"):
        torch.autograd.grad(gradients.logdet(p.A.with_data(w)).value, w, create_graph=True)


def test_values_changed_in_place_before_backward_are_noticed():
    p = gallery.problem("poisson2d", 16)
    w = torch.tensor(p.A.data, requires_grad=True)
    v = w * 1.0
    value = gradients.logdet(p.A.with_data(v)).value
    with torch.no_grad():
        v.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


# -- Lanczos quadrature and probes ----------------------------------------------------------------------------


def spd(n=100):
    return gallery.problem("poisson2d", n)


@pytest.mark.parametrize("rank", [0, 12])
def test_sampled_logdet_and_gradient_are_unbiased(rank):
    p = spd()
    truth, G = np.linalg.slogdet(p.toarray())[1], inverse_on(p)
    direction = np.random.default_rng(7).standard_normal(len(G))
    made = [
        gradients.logdet(p.A, method="slq", rng=seed, probes=4, rank=rank, rtol=1e-8, solve={"method": "superlu"})
        for seed in range(40)
    ]
    assert abs(z_of([est.value for est in made], truth)) < 4
    assert abs(z_of([est.gradient @ direction for est in made], G @ direction)) < 4


def test_probes_are_unbiased_and_those_that_are_not_are_found_out():
    """The basis and probes that are not projected away from it count its space twice; the z-test sees that."""
    M = np.linalg.inv(spd().toarray())
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((100, 10)))[0]
    right, wrong = [], []
    for seed in range(60):
        V = Probes(100, np.float64, 4, np.random.default_rng(seed), basis)
        forms = np.einsum("ij,ij->j", V.vectors, M @ V.vectors)
        right.append((V.draws(forms).mean(), V.levelled(forms).mean()))
        Z = Probes(100, np.float64, 4, np.random.default_rng(seed)).vectors
        wrong.append(np.trace(basis.T @ M @ basis) + np.trace(Z.T @ M @ Z))
    plain, levelled = np.transpose(right)
    assert abs(z_of(plain, np.trace(M))) < 4
    assert abs(z_of(levelled, np.trace(M))) < 4
    assert abs(z_of(wrong, np.trace(M))) > 4


def test_intervals_hold_as_often_as_they_say():
    p = spd(64)
    truth, held = np.linalg.slogdet(p.toarray())[1], 0
    for seed in range(200):
        low, high = gradients.logdet(p.A, method="slq", rng=seed, probes=8, gradient=False).interval
        held += low <= truth <= high
    assert 180 <= held <= 199  # 190 expected, standard deviation 3


def test_standard_errors_of_the_gradient_are_those_seen():
    p = spd(36)
    made = [gradients.logdet(p.A, method="slq", rng=seed, probes=16) for seed in range(60)]
    seen = np.std([est.gradient for est in made], axis=0, ddof=1)
    said = np.sqrt(np.mean([est.gradient_error**2 for est in made], axis=0))
    some = seen > 1e-12
    assert np.median(said[some] / seen[some]) == pytest.approx(1, abs=0.15)


def test_quadrature_alone_is_exact_in_the_end():
    """With a basis of the whole space nothing is sampled: what is left is the error of Lanczos."""
    p = spd(49)
    est = gradients.logdet(p.A, method="slq", rng=0, rank=49, rtol=1e-12)
    assert est.value == pytest.approx(np.linalg.slogdet(p.toarray())[1], rel=1e-9)
    assert est.gradient == pytest.approx(inverse_on(p), rel=1e-9)
    coarse = gradients.logdet(p.A, method="slq", rng=0, rank=49, rtol=1e-12, steps=4, gradient=False)
    assert est.value < coarse.value <= est.value + 10 * coarse.excess  # Gauss quadrature lies above
    assert coarse.excess > est.excess


def test_backward_of_a_sampled_logdet_honours_the_options_of_its_solves():
    p = spd()
    w = torch.tensor(p.A.data, requires_grad=True)
    A = p.A.with_data(w)
    with pytest.raises(bs.SolveError, match="MAXITER"):
        gradients.logdet(A, method="slq", rng=0, solve={"method": bs.CG(maxiter=2)}).value.backward()
    assert w.grad is None
    value = gradients.logdet(A, method="slq", rng=0, solve={"method": "cg", "rtol": 1e-12}).value
    value.backward()
    explicit = gradients.logdet(p.A, method="slq", rng=0)
    assert np.abs(w.grad.numpy() - explicit.gradient).max() <= 1e-9 * np.abs(explicit.gradient).max()


def test_sampled_hessian_is_unbiased():
    """d²log det/dw² = -tr(A⁻¹ E_i A⁻¹ E_j): the derivative of the estimator of the gradient, probes fixed."""
    p = spd(9)
    inverse = np.linalg.inv(p.toarray())
    u, v = np.random.default_rng(3).standard_normal((2, len(p.rows)))
    U, V = (np.zeros((9, 9)) for _ in range(2))
    np.add.at(U, (p.rows, p.cols), u)
    np.add.at(V, (p.rows, p.cols), v)
    truth = -np.trace(inverse @ U @ inverse @ V)
    made = []
    for seed in range(60):
        w = torch.tensor(p.A.data, requires_grad=True)
        value = gradients.logdet(p.A.with_data(w), method="slq", rng=seed, probes=4).value
        (g,) = torch.autograd.grad(value, w, create_graph=True)
        made.append((torch.autograd.grad(g @ torch.tensor(u), w)[0] @ torch.tensor(v)).item())
    assert abs(z_of(made, truth)) < 4


@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("rank", [0, 15])
def test_traces_and_their_gradients_are_unbiased(rank, complex_values):
    p = gallery.problem("complex_contraction" if complex_values else "convection", 49)
    inverse = np.linalg.inv(p.toarray())
    B = np.diag(np.arange(1.0, p.n + 1)).astype(inverse.dtype)
    truth = np.trace(inverse @ B).real
    G = -(inverse @ B @ inverse).conj().T[p.rows, p.cols]
    direction = np.random.default_rng(5).standard_normal(len(G))
    made = [gradients.trace_inverse(p.A, B, rng=seed, rank=rank, probes=4) for seed in range(40)]
    assert abs(z_of([est.value for est in made], truth)) < 4
    assert abs(z_of([(est.gradient @ direction).real for est in made], (G @ direction).real)) < 4


def test_trace_of_torch_and_jax_is_that_of_numpy_with_its_gradient():
    p = gallery.problem("convection", 49)
    B = np.diag(np.arange(1.0, p.n + 1))
    for rank in (0, 8):
        est = gradients.trace_inverse(p.A, B, rng=0, rank=rank)
        w = torch.tensor(p.A.data, requires_grad=True)
        T = torch.tensor(B, requires_grad=True)
        other = gradients.trace_inverse(p.A.with_data(w), T, rng=0, rank=rank)
        other.value.backward()
        assert other.interval == pytest.approx(est.interval) and other.cost.solves < est.cost.solves
        assert w.grad.numpy() == pytest.approx(est.gradient, rel=1e-9, abs=1e-12)
        assert T.grad.shape == (49, 49)

        def value(w, rank=rank):
            return gradients.trace_inverse(p.A.with_data(w), jnp.asarray(B), rng=0, rank=rank).value

        got, g = jax.jit(jax.value_and_grad(value))(jnp.asarray(p.A.data))
        assert float(got) == pytest.approx(est.value, rel=1e-12)
        assert np.asarray(g) == pytest.approx(est.gradient, rel=1e-9, abs=1e-12)


def test_a_basis_pays_where_the_inverse_has_large_singular_values():
    """Variance times cost: A⁻¹ of low rank but for 1 % is what Hutch++ is for, a flat spectrum is not."""
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    A = Q @ np.diag(np.r_[np.full(6, 0.01), np.full(54, 1.0)]) @ Q.T
    plain, better = (
        np.mean([gradients.trace_inverse(A, rng=s, rank=r, gradient=False).variance_cost for s in range(10)])
        for r in (0, 10)
    )
    assert better < plain / 100


# -- what is refused ------------------------------------------------------------------------------------------


def test_bad_arguments_get_a_sentence():
    p = spd(16)
    skew = gallery.problem("convection", 16)
    indefinite = bs.coo(np.array([1.0, 2.0, 2.0, 1.0]), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2))
    singular = bs.coo(np.array([1.0, 1.0, 1.0, 1.0]), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2))
    with pytest.raises(ValueError, match="method must be 'factor' or 'slq'; got 'lu'"):
        gradients.logdet(p.A, method="lu")
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator or an integer seed; got None"):
        gradients.logdet(p.A, method="slq")
    with pytest.raises(ValueError, match="probes must be an integer of at least 2; got 1"):
        gradients.logdet(p.A, method="slq", rng=0, probes=1)
    with pytest.raises(ValueError, match="confidence must be a float in"):
        gradients.logdet(p.A, confidence=95)
    with pytest.raises(ValueError, match=r"needs a Hermitian A; .* use method='factor'"):
        gradients.logdet(skew.A, method="slq", rng=0)
    with pytest.raises(bs.SolveError, match="positive definite A; Lanczos met the Ritz value"):
        gradients.logdet(indefinite, method="slq", rng=0)
    with pytest.raises(bs.SolveError, match=r"positive definite A; A\[0, 0\] is -"):
        gradients.logdet(-p.A, method="slq", rng=0)
    with pytest.raises(bs.SolveError, match="must be nonsingular"):
        gradients.logdet(singular)
    with pytest.raises(bs.SolveError, match="NaN or an infinity"):
        gradients.logdet(p.A.with_data(p.A.data * np.nan))
    with pytest.raises(ValueError, match="takes one matrix"):
        gradients.logdet(p.A.with_data(np.stack([p.A.data] * 2)))
    with pytest.raises(ValueError, match="needs the entries of A"):
        gradients.logdet(bs.MatrixFree(lambda q, v: q * v, np.ones(2), (2, 2)))
    with pytest.raises(TypeError, match="A must be sparse"):
        gradients.selected_inverse(np.eye(3))
    with pytest.raises(ValueError, match="B must have the shape of A"):
        gradients.trace_inverse(p.A, np.eye(3), rng=0)


# -- a Gaussian process on real data --------------------------------------------------------------------------


def test_marginal_likelihood_of_a_gaussian_process_is_that_of_scikit_learn():
    """442 patients, ten features: value and gradient by factorization, and by sampling within the interval."""
    X, y = load_diabetes(return_X_y=True)
    X, y = X / X.std(0), (y - y.mean()) / y.std()
    theta = torch.tensor(np.log([0.8, 6.0, 0.5]), requires_grad=True)
    kernel = ConstantKernel(0.8) * RBF(6.0) + WhiteKernel(0.5)
    model = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(X, y)
    want, want_gradient = model.log_marginal_likelihood(theta.detach().numpy(), eval_gradient=True)

    points, target = torch.tensor(X), torch.tensor(y)

    def likelihood(**options):
        scale, length, noise = theta.exp()
        distances = (points[:, None] - points[None]).square().sum(-1)
        K = scale * torch.exp(-distances / (2 * length**2)) + noise * torch.eye(len(y), dtype=torch.float64)
        logdet = gradients.logdet(bs.aslinearoperator(K).assume("spd"), **options)
        fit = target @ bs.solve(K, target, assume="spd")
        return -0.5 * (fit + logdet.value + len(y) * np.log(2 * np.pi)), logdet

    value, _ = likelihood()
    (g,) = torch.autograd.grad(value, theta)
    assert abs(value.item() - want) <= 1e-6
    assert g.numpy() == pytest.approx(want_gradient, rel=1e-6)

    value, logdet = likelihood(method="slq", rng=0, probes=32, rank=60)
    (g,) = torch.autograd.grad(value, theta)
    assert abs(value.item() - want) <= 0.5 * logdet.half_width <= 0.02 * abs(want)
    assert g.numpy() == pytest.approx(want_gradient, rel=0.1, abs=2.0)
    plain = likelihood(method="slq", rng=0, probes=32)[1]
    assert logdet.variance_cost < plain.variance_cost
