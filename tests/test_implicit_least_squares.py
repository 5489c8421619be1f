"""Nonlinear least squares: certified values, and derivatives against the dense Hessian of the sum of squares.

The truth for derivatives is the implicit function theorem written out, with H = JᵀJ + Σ rᵢ∇²rᵢ; residuals are large, so
that the second term counts.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax_cases import wide  # noqa: F401

import backsolve as bs
from backsolve import implicit

TIMES = np.linspace(0, 2, 7)
DATA = np.array([3.5, 2.1, 2.2, 0.7, 1.3, 0.4, 0.9])  # far from every decay
START = np.array([1.0, 1.0, 0.1])
SEED = np.array([0.7, -1.1, 0.4])
X = [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0]
Y = [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78]
"""Misra1a of NIST's Statistical Reference Datasets (monomolecular adsorption): y = b1 (1 - exp(-b2 x))."""


def tensor(v, grad=False):
    return torch.tensor(v, dtype=torch.float64, requires_grad=grad)


def decay(xp, times):
    """An exponential with an offset, 7 residuals and 3 unknowns; y is the data."""
    return lambda z, y: z[0] * xp.exp(-z[1] * times) + z[2] - y


def misra(z, x, y):
    return z[0] * (1 - torch.exp(-z[1] * x)) - y


FIT = decay(torch, tensor(TIMES))


def layer(y, **options):
    return implicit.least_squares(FIT, tensor(START), (y,), **options)


def dense_truth():
    """The minimum to rounding by Newton's method for the gradient, and its first and second derivatives by the data.

    Newton steps that are recorded, from a minimum that is right to rounding, have the right derivatives: one step for
    each order.
    """

    def slope(z, y):
        return torch.func.grad(lambda z: FIT(z, y).square().sum() / 2)(z)

    def newton(z, y):
        return z - torch.linalg.solve(torch.func.jacrev(slope)(z, y), slope(z, y))

    y, z = tensor(DATA), layer(tensor(DATA)).detach()
    for _ in range(5):
        z = newton(z, y)
    first = -torch.linalg.solve(torch.func.jacrev(slope)(z, y), torch.func.jacrev(slope, 1)(z, y))
    second = torch.func.hessian(lambda y: newton(newton(z, y), y) @ tensor(SEED))(y)
    return z, first, second


def test_certified_values_from_both_starts_of_nist():
    """The parameters and the sum of squares have 11 certified digits."""
    x, y = tensor(X), tensor(Y, grad=True)
    for start in ([500.0, 0.0001], [250.0, 0.0005]):
        sol = implicit.least_squares_with_info(misra, tensor(start), (x, y))
        b1, b2 = sol.z.tolist()
        assert b1 == pytest.approx(2.3894212918e2, rel=5e-11)
        assert b2 == pytest.approx(5.5015643181e-4, rel=5e-11)
        assert float(sol.residual.detach().square().sum()) == pytest.approx(1.2455138894e-1, rel=5e-11)
    assert sol.converged
    assert "CONVERGED_RESIDUAL: gradient norm" in repr(sol)
    covariance = torch.autograd.functional.jacobian(
        lambda y: implicit.least_squares(misra, tensor([250.0, 0.0005]), (x, y)), y.detach()
    )
    deviations = (1.2455138894e-1 / 12) ** 0.5 * covariance.norm(dim=1)  # certified ones leave out the curvature
    assert deviations.tolist() == pytest.approx([2.7070075241, 7.2668688436e-6], rel=1e-2)


def test_first_and_second_derivatives_are_those_of_the_dense_hessian():
    z, first, second = dense_truth()
    y = tensor(DATA)
    assert (layer(y) - z).abs().max() < 1e-10
    for derivative in (torch.func.jacrev, torch.func.jacfwd):
        assert (derivative(layer)(y) - first).abs().max() < 1e-9 * first.abs().max()
    of = lambda y: layer(y) @ tensor(SEED)  # noqa: E731
    for hessian in (torch.func.hessian, lambda f: lambda y: torch.autograd.functional.hessian(f, y)):
        assert (hessian(of)(y) - second).abs().max() < 1e-8 * second.abs().max()
    J = torch.func.jacrev(FIT)(z, y)
    without = torch.linalg.solve(J.T @ J, J.T)  # what Gauss and Newton's matrix would give
    assert (without - first).abs().max() > 0.03 * first.abs().max(), "the test needs curved residuals"


def test_residuals_are_differentiable_and_the_backward_solve_is_told():
    y = tensor(DATA, grad=True)
    sol = implicit.least_squares_with_info(FIT, tensor(START), (y,))
    assert (sol.residual - FIT(sol.z, y)).abs().max() < 1e-14
    (slope,) = torch.autograd.grad(sol.residual.square().sum() / 2, y)
    assert (slope + sol.residual).abs().max() < 1e-10, "the envelope theorem: -r"
    assert sol.adjoint.converged


def test_jax_agrees_compiled_to_second_order():
    z, first, second = (v.numpy() for v in dense_truth())
    f, direction = decay(jnp, jnp.asarray(TIMES)), np.linspace(-1, 1, 7)

    def value(y):
        z = implicit.least_squares(lambda z: f(z, y), jnp.asarray(START))
        return z @ SEED, z

    both = jax.jit(lambda y, v: jax.jvp(jax.grad(value, has_aux=True), (y,), (v,)))
    (slope, found), (curved, found_dot) = both(jnp.asarray(DATA), jnp.asarray(direction))
    assert np.abs(found - z).max() < 1e-10
    assert np.abs(slope - SEED @ first).max() < 1e-9
    assert np.abs(found_dot - first @ direction).max() < 1e-9
    assert np.abs(curved - second @ direction).max() < 1e-8
    log = implicit.least_squares_with_info(jnp.log, -jnp.ones(2), on_failure="return")
    assert bs.Status(int(log.status)) is bs.Status.NONFINITE


def test_torch_maps_one_after_the_other():
    y = torch.stack([tensor(DATA), tensor(DATA) + 0.01])
    assert (torch.func.vmap(layer)(y)[1] - layer(y[1])).abs().max() < 1e-10


def test_normal_equations_are_never_formed():
    """A condition of 1e9 costs nine digits; that of JᵀJ would leave none."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((size, 6)))[0] for size in (12, 6))
    A = (U * np.logspace(0, -9, 6)) @ V.T
    truth = (V * np.logspace(0, 9, 6)) @ U.T
    z = np.ones(6)
    y = tensor(A @ z, grad=True)
    out = implicit.least_squares(lambda z, A, y: A @ z - y, torch.zeros(6).double(), (tensor(A), y))
    assert np.abs(out.detach().numpy() - z).max() < 10 * 1e9 * 2.2e-16
    seed = V[:, -1]
    out.backward(tensor(seed))
    error = np.abs(y.grad.numpy() - seed @ truth).max() / np.abs(seed @ truth).max()
    assert error < 10 * 1e9 * 2.2e-16
    normal = seed @ np.linalg.solve(A.T @ A, A.T)
    assert np.abs(normal - seed @ truth).max() > 1e-2 * np.abs(seed @ truth).max()


def test_units_do_not_matter():
    """Other units of the unknowns and of the residuals: the same steps."""
    scale = tensor([1e6, 1e-4, 1e2])
    y = tensor(DATA)
    one = implicit.least_squares_with_info(FIT, tensor(START), (y,))
    scaled = implicit.least_squares_with_info(lambda z, y: 1e5 * FIT(z / scale, y), tensor(START) * scale, (y,))
    assert int(one.iterations) == int(scaled.iterations)
    assert (scaled.z / scale - one.z).abs().max() < 1e-9


def test_a_step_out_of_the_domain_is_shortened():
    """From 50 the step of Gauss and Newton for log z = y is -145, where log is NaN."""
    y = tensor([1.0], grad=True)
    sol = implicit.least_squares_with_info(lambda z, y: torch.log(z) - y, tensor([50.0]), (y,))
    assert abs(float(sol.z.detach()) - np.e) < 1e-12
    assert int(sol.evaluations) > int(sol.iterations) + 1, "the test needs a step that is refused"
    sol.z.sum().backward()
    assert abs(float(y.grad) - np.e) < 1e-12


def test_single_precision_stays_single():
    z = implicit.least_squares(decay(torch, tensor(TIMES).float()), tensor(START).float(), (tensor(DATA).float(),))
    assert z.dtype == torch.float32
    assert (z.double() - layer(tensor(DATA))).abs().max() < 1e-3


SHORT = implicit.LevenbergMarquardt(maxiter=2)
FAILURES = {
    "MAXITER": (
        lambda z: FIT(z, tensor(DATA)),
        START,
        {"solver": SHORT},
        "begin near",
    ),
    "STAGNATION": (lambda z: torch.where(z < 1, z + 5, z), np.array([1.0]), {}, "a jump or a corner"),
    "BREAKDOWN": (lambda z: misra(z, tensor(X), tensor(Y)), np.ones(2), {}, "no longer depend on it"),
    "NONFINITE": (torch.log, -np.ones(2), {}, "NaN or an infinity"),
}


@pytest.mark.parametrize("status", FAILURES)
def test_every_failure_has_its_status_and_its_remedy(status):
    f, start, options, remedy = FAILURES[status]
    with pytest.raises(bs.SolveError, match=f"least_squares failed: {status}.*{remedy}") as caught:
        implicit.least_squares(f, tensor(start), **options)
    assert bs.Status(int(caught.value.solution.status)).name == status
    with pytest.warns(bs.SolveWarning, match=status):
        z = implicit.least_squares(f, tensor(start), on_failure="warn", **options)
    assert torch.isnan(z).all()
    y = tensor(1.0, grad=True)
    scaled = lambda z, y: y * f(z)  # noqa: E731
    sol = implicit.least_squares_with_info(scaled, tensor(start), (y,), on_failure="return", **options)
    assert not sol.converged
    sol.z.sum().backward()
    assert torch.isnan(y.grad)


def test_a_line_of_minima_has_no_derivative():
    y = tensor([1.0, 1.0], grad=True)
    z = implicit.least_squares(lambda z, y: z.sum() - y, torch.zeros(2).double(), (y,))
    assert abs(float(z.detach().sum()) - 1) < 1e-12
    with pytest.raises(bs.SolveError, match=r"least_squares: the derivative failed.*SINGULAR"):
        z[0].backward()


def test_arguments_that_do_not_fit():
    z0 = torch.zeros(2).double()
    w = tensor(2.0, grad=True)
    for match, call in {
        "must be an array of torch or JAX": lambda: implicit.least_squares(lambda z: z, np.zeros(2)),
        "of at least as many numbers, 2": lambda: implicit.least_squares(lambda z: z[:1], z0),
        "of the dtype of z0": lambda: implicit.least_squares(lambda z: z.float(), z0),
        "solver must be a LevenbergMarquardt": lambda: implicit.least_squares(lambda z: z, z0, solver="newton"),
        "rtol must be": lambda: implicit.least_squares(lambda z: z, z0, rtol=2.0),
        "adjoint must be": lambda: implicit.least_squares(lambda z: z, z0, adjoint=1e-3),
        "closes over 'w'": lambda: implicit.least_squares(lambda z: z - w, z0),
        "damping must be": lambda: implicit.LevenbergMarquardt(damping=0.0),
        "trials must be": lambda: implicit.LevenbergMarquardt(trials=0),
        "must be a function": lambda: implicit.least_squares(3, z0),
    }.items():
        with pytest.raises((TypeError, ValueError), match=match):
            call()
