"""Fixed points have the derivatives of (I - ∂f/∂z)⁻¹ ∂f/∂θ; series have those of their terms, within their bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax_cases import wide  # noqa: F401

import backsolve as bs
from backsolve import implicit

BATCH, N = 3, 4
RNG = np.random.default_rng(1)
W = 0.4 * RNG.standard_normal((N, N))
X = RNG.standard_normal((BATCH, N))
SEED = RNG.standard_normal((BATCH, N))


def f(xp):
    return lambda z, W, x: xp.tanh(z @ W + x)


def truth():
    """z, and the gradients of ⟨seed, z⟩ by W and x, from dense Jacobians of each sample."""
    z, w_bar, x_bar, lams, norms = np.zeros_like(X), np.zeros_like(W), np.zeros_like(X), [], []
    for _ in range(400):
        z = np.tanh(z @ W + X)
    for i in range(BATCH):
        d = 1 - z[i] ** 2
        J = d[:, None] * W.T  # ∂f/∂z of a sample, whose z is a row
        lam = np.linalg.solve((np.eye(N) - J).T, SEED[i])
        x_bar[i] = d * lam
        w_bar += np.outer(z[i], d * lam)
        lams.append(lam)
        norms.append(np.linalg.norm(J, 2))
    return z, w_bar, x_bar, np.array(lams), np.array(norms)


def leaves():
    return torch.tensor(W, requires_grad=True), torch.tensor(X, requires_grad=True)


@pytest.mark.parametrize("solver", ["anderson", "broyden", "picard", "newton"])
def test_gradients_are_those_of_the_dense_formula(solver):
    z, w_bar, x_bar, *_ = truth()
    w, x = leaves()
    z0 = torch.zeros(BATCH, N, dtype=torch.float64)
    sol = implicit.fixed_point_with_info(
        f(torch), z0, (w, x), solver=solver, batch_axes=1, rtol=1e-12, adjoint=bs.Adjoint(rtol=1e-12)
    )
    assert sol.status.shape == sol.residual_norm.shape == sol.iterations.shape == (BATCH,)
    assert np.abs(sol.z.detach().numpy() - z).max() < 1e-11
    sol.z.backward(torch.tensor(SEED))
    assert np.abs(w.grad.numpy() - w_bar).max() < 1e-10
    assert np.abs(x.grad.numpy() - x_bar).max() < 1e-10
    assert sol.adjoint.converged


def test_second_derivatives_and_forward_mode():
    w, x = leaves()

    def layer(w, x):
        return implicit.fixed_point(f(torch), torch.zeros(1, N, dtype=torch.float64), (w, x[:1]), rtol=1e-13)

    assert torch.autograd.gradgradcheck(layer, (w, x), atol=1e-5)
    forward, reverse = torch.func.jacfwd(layer)(w, x), torch.func.jacrev(layer)(w, x)
    assert (forward - reverse).abs().max() < 1e-10


def test_jax_agrees_compiled():
    z, w_bar, x_bar, *_ = truth()

    def loss(w, x):
        layer = implicit.fixed_point(
            f(jnp), jnp.zeros((BATCH, N)), (w, x), batch_axes=1, rtol=1e-12, adjoint=bs.Adjoint(rtol=1e-12)
        )
        return (layer * SEED).sum()

    value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(W, X)
    assert abs(value - (z * SEED).sum()) < 1e-10
    for got, expected in zip(slopes, (w_bar, x_bar), strict=True):
        assert np.abs(got - expected).max() < 1e-10


def test_samples_stop_by_themselves():
    """One sample contracts slowly: the others have stopped long before, and are what they are alone."""
    rates = torch.tensor([[0.1], [0.5], [0.99]], dtype=torch.float64)
    g = lambda z, rates: rates * z + 1  # noqa: E731
    sol = implicit.fixed_point_with_info(
        g, torch.zeros(3, 1, dtype=torch.float64), (rates,), solver=implicit.Picard(maxiter=5000), batch_axes=1
    )
    counts = sol.iterations.tolist()
    assert counts[0] < counts[1] < counts[2] / 10
    assert torch.allclose(sol.z, 1 / (1 - rates), rtol=1e-5)
    alone = implicit.fixed_point_with_info(g, torch.zeros(1, dtype=torch.float64), (rates[1],), solver="picard")
    assert int(alone.iterations) == counts[1]
    assert alone.z == sol.z[1]


def test_anderson_takes_fewer_steps_than_picard():
    A = 0.95 * np.linalg.qr(RNG.standard_normal((20, 20)))[0]
    A = (A + A.T) / 2
    g, z0 = (lambda z: A @ z + 1), np.zeros(20)
    counts = {}
    for solver in (
        implicit.Anderson(maxiter=1000, memory=20),
        implicit.Broyden(maxiter=1000),
        implicit.Picard(maxiter=1000),
    ):
        sol = implicit.fixed_point_with_info(g, z0, solver=solver)
        assert np.abs(sol.z - np.linalg.solve(np.eye(20) - A, np.ones(20))).max() < 1e-5
        counts[type(solver).__name__] = int(sol.iterations)
    assert counts["Anderson"] < counts["Picard"] / 4
    assert counts["Broyden"] < counts["Picard"] / 2


@pytest.mark.parametrize("terms", [1, 2, 6])
def test_series_are_their_terms_and_within_their_bound(terms):
    *_, lams, norms = truth()
    assert norms.max() < 1, "the test needs a contraction"
    w, x = leaves()
    sol = implicit.fixed_point_with_info(
        f(torch),
        torch.zeros(BATCH, N, dtype=torch.float64),
        (w, x),
        batch_axes=1,
        rtol=1e-12,
        gradient=implicit.Series(terms=terms, lipschitz=float(norms.max())),
    )
    sol.z.backward(torch.tensor(SEED))
    z = sol.z.detach().numpy()
    for i in range(BATCH):
        d = 1 - z[i] ** 2
        J = d[:, None] * W.T
        lam = sum(np.linalg.matrix_power(J.T, k) @ SEED[i] for k in range(terms))
        assert np.abs(x.grad[i].numpy() - d * lam).max() < 1e-10
        error = np.linalg.norm(lam - lams[i])
        assert error <= float(sol.adjoint.bound[i]) < 100 * error
    assert sol.adjoint.proved
    assert sol.adjoint.terms == terms


def test_one_step_and_neumann_by_name_and_estimates_are_marked():
    w, x = leaves()
    call = {"batch_axes": 1, "rtol": 1e-12}
    z0 = torch.zeros(BATCH, N, dtype=torch.float64)
    sol = implicit.fixed_point_with_info(f(torch), z0, (w, x), gradient="one-step", **call)
    (one,) = torch.autograd.grad(sol.z, x, torch.tensor(SEED))
    expected = (1 - sol.z.detach() ** 2) * torch.tensor(SEED)
    assert torch.allclose(one, expected)
    assert not sol.adjoint.proved
    assert torch.isnan(sol.adjoint.bound).all(), "one term tells nothing of the others"
    sol = implicit.fixed_point_with_info(f(torch), z0, (w, x), gradient="neumann", **call)
    sol.z.backward(torch.tensor(SEED))
    assert sol.adjoint.terms == 8
    assert not sol.adjoint.proved
    assert torch.isfinite(sol.adjoint.bound).all()
    assert (x.grad - one).norm() > 0.01
    slope = jax.grad(
        lambda x: (implicit.fixed_point(f(jnp), jnp.zeros((BATCH, N)), (W, x), gradient="neumann", **call) * SEED).sum()
    )(X)
    assert np.abs(slope - x.grad.numpy()).max() < 1e-10


def test_one_sample_that_fails_leaves_the_rest_right():
    rates = torch.tensor([[0.5], [3.0]], dtype=torch.float64, requires_grad=True)
    call = {"solver": "picard", "batch_axes": 1}
    g, z0 = (lambda z, rates: rates * z + 1), torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(bs.SolveError, match=r"BREAKDOWN \(1 of 2 samples, first 1\).*runs away"):
        implicit.fixed_point(g, z0, (rates,), **call)
    z = implicit.fixed_point(g, z0, (rates,), on_failure="return", **call)
    assert (z[0] - 2).abs() < 1e-7
    assert torch.isnan(z[1])
    z[0].sum().backward()
    assert abs(float(rates.grad[0]) - 4) < 1e-6
    assert torch.isnan(rates.grad[1]), "a sample without a fixed point has no derivative"


def test_the_adjoint_has_its_own_target_and_status():
    """GMRES with one step cannot solve the adjoint system: forward is right, backward says so."""
    w, x = leaves()
    call = {"batch_axes": 1, "method": bs.GMRES(maxiter=1)}
    sol = implicit.fixed_point_with_info(f(torch), torch.zeros(BATCH, N, dtype=torch.float64), (w, x), **call)
    assert sol.converged
    with pytest.raises(bs.SolveError, match=r"fixed_point: the derivative failed.*MAXITER"):
        sol.z.sum().backward()
    sol = implicit.fixed_point_with_info(
        f(torch), torch.zeros(BATCH, N, dtype=torch.float64), (w, x), adjoint=bs.Adjoint(rtol=0.5), **call
    )
    sol.z.sum().backward()
    assert 1e-3 < float(sol.adjoint.stats.relative_residual) <= 0.5


class Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(N, N).double()
        self.register_buffer("scale", torch.tensor(0.5, dtype=torch.float64))

    def forward(self, z, x):
        return self.scale * torch.tanh(self.inner(z)) + x


def test_deep_equilibrium_layer_trains_and_reports():
    torch.manual_seed(0)
    layer = implicit.DEQ(Cell(), rtol=1e-12, adjoint=bs.Adjoint(rtol=1e-12))
    x = torch.tensor(X, requires_grad=True)
    z = layer(x)
    assert torch.allclose(z, layer.f(z, x), rtol=1e-10)
    z.square().sum().backward()
    grads = [p.grad.clone() for p in (x, *layer.parameters())]
    assert layer.last.adjoint.converged
    assert layer.last.status.tolist() == [1] * BATCH
    assert not layer.last.z.requires_grad, "the report holds no graph"
    for p in (x, *layer.parameters()):
        p.grad = None
    z = torch.zeros_like(x)
    for _ in range(200):
        z = layer.f(z, x)
    z.square().sum().backward()  # the truth: a long recorded iteration, which contracts
    for got, p in zip(grads, (x, *layer.parameters()), strict=True):
        assert torch.allclose(got, p.grad, rtol=1e-9, atol=1e-12)
    layer.load_state_dict(layer.state_dict())
    assert "rtol=1e-12" in repr(layer)


def test_jacobian_penalty_estimates_the_frobenius_norm():
    torch.manual_seed(0)
    layer = implicit.DEQ(Cell())
    x = torch.tensor(X)
    z = layer(x).detach()
    J = torch.func.vmap(torch.func.jacrev(layer.f), (0, 0))(z, x)
    estimate = layer.jacobian_penalty(z, x, samples=500)
    truth = J.detach().square().sum() / z.numel()
    assert (estimate - truth).abs() < 0.2 * truth
    estimate.backward()
    assert layer.f.inner.weight.grad.norm() > 0


def test_layers_that_are_no_functions_are_refused():
    noisy = torch.nn.Module()
    noisy.drop = torch.nn.Dropout(0.5)
    noisy.forward = lambda z, x: noisy.drop(z) / 2 + x
    layer = implicit.DEQ(noisy)
    with pytest.raises(ValueError, match="'drop', Dropout, is in training mode"):
        layer(torch.ones(1, 1))
    assert layer.eval()(torch.ones(1, 1)) == pytest.approx(2.0)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        implicit.DEQ(lambda z, x: z)
    with pytest.raises(ValueError, match="gradient must be one of"):
        implicit.DEQ(Cell(), gradient="exact")
    with pytest.raises(ValueError, match="terms must be an integer"):
        implicit.Series(terms=0)
    with pytest.raises(ValueError, match=r"lipschitz must be a float in \[0, 1\)"):
        implicit.Series(lipschitz=1.5)
    with pytest.raises(ValueError, match="z0 must be given"):
        implicit.DEQ(Cell())((torch.ones(1, N), None))
