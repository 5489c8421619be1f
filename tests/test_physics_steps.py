"""Implicit steps for stiff systems, in torch: orders, derivatives, stiff problems, memory, failures."""

import gc

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from test_physics import Saved, relative

import backsolve as bs
from backsolve.physics import bdf2, implicit_euler, integrate, rosenbrock
from backsolve.physics.coloring import row_colours

METHODS = ["implicit_euler", "bdf2", "rosenbrock"]
Y0 = torch.tensor([[1.0, 0.5], [0.3, -0.4]], dtype=torch.float64)
A = torch.tensor(1.3, dtype=torch.float64)
FULL = bs.coo(np.ones(4), ([0, 0, 1, 1], [0, 1, 0, 1]), (2, 2)).pattern


def mixed(t, y, a):
    """Nonlinear, and driven by time."""
    u, v = y[..., 0], y[..., 1]
    return torch.stack([-a * u * v + torch.cos(t), -v + u**2 - torch.sin(3 * t)], dim=-1)


def robertson(t, y, k):
    """Chemical kinetics with rate constants k over nine decades (Robertson 1966)."""
    first, second, third = k[0] * y[..., 0], k[1] * y[..., 1] ** 2, k[2] * y[..., 1] * y[..., 2]
    return torch.stack([third - first, first - second - third, second], dim=-1)


K = torch.tensor([0.04, 3e7, 1e4], dtype=torch.float64)
MASS = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

M = 200
LINE = np.arange(M)
BAND = bs.coo(np.ones(3 * M - 2), (np.r_[LINE, LINE[1:], LINE[:-1]], np.r_[LINE, LINE[:-1], LINE[1:]]), (M, M)).pattern


def front(t, u, d):
    """u' = d u_xx + 50 u (1 - u) on a line of M cells, with no flux at its ends."""
    flux = torch.nn.functional.pad(d * M**2 * u.diff(), (1, 1))
    return flux.diff() + 50 * u * (1 - u)


U0 = torch.from_numpy(np.exp(-50 * (LINE / M) ** 2))
D = torch.tensor(1.0, dtype=torch.float64)


def exact(rates, y0, end, method="Radau"):
    """The state at the end, by SciPy at a tight tolerance."""
    return solve_ivp(rates, (0, end), y0.numpy(), method, rtol=1e-10, atol=1e-13).y[:, -1]


def kinetics(k):
    """Robertson's rates in NumPy, for SciPy."""

    def rates(t, y):
        first, second, third = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return np.array([third - first, first - second - third, second])

    return rates


@pytest.mark.parametrize("method, order", [("implicit_euler", 1), ("bdf2", 2), ("rosenbrock", 3)])
def test_order_of_convergence(method, order):
    truth = exact(lambda t, y: mixed(torch.tensor(t), torch.from_numpy(y), A).numpy(), Y0[0], 1.0, "DOP853")
    errors = []
    for steps in (10, 20, 40):
        path = integrate(mixed, Y0[0], [0, 0.3, 1], params=(A,), method=method, steps=steps)
        errors.append(np.abs(path.y[-1].numpy() - truth).max())
        assert len(path.times) == 2 * steps + 1 and path.times[steps] == 0.3
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(slopes - order) < 0.3).all(), slopes


@pytest.mark.parametrize("step", [implicit_euler, rosenbrock])
def test_steps_damp_what_is_infinitely_stiff(step):
    """L-stability: y' = λ y with h λ to -∞ goes to zero in one step, however long."""
    one = torch.ones(1, dtype=torch.float64)
    for lam in (-1e4, -1e8):
        assert abs(step(lambda t, y, lam=lam: lam * y, 0.0, one, 1.0).y.item()) < 10 / abs(lam)


@pytest.mark.parametrize(
    "method, adjoint", [("implicit_euler", True), ("bdf2", True), ("rosenbrock", True), ("rosenbrock", False)]
)
def test_derivatives_of_a_trajectory(method, adjoint):
    """First and second ones, for a batch: of the discrete steps, so equal to differences to their rounding."""

    def final(y, a):
        return integrate(mixed, y, [0.0, 0.3, 0.7], params=(a,), method=method, steps=1, adjoint=adjoint).y[1:]

    inputs = (Y0[:1].clone().requires_grad_(), A.clone().requires_grad_())
    assert torch.autograd.gradcheck(final, inputs)
    assert torch.autograd.gradgradcheck(final, inputs)


@pytest.mark.parametrize("method", ["implicit_euler", "rosenbrock"])
def test_every_way_to_the_jacobian_is_the_same_step(method):
    made = []
    for jacobian in ("dense", FULL, "products"):
        y, a = Y0.clone().requires_grad_(), A.clone().requires_grad_()
        path = integrate(mixed, y, [0.0, 0.2], params=(a,), method=method, steps=1, jacobian=jacobian, rtol=1e-9)
        made.append((path.y[-1], *torch.autograd.grad(path.y[-1].square().sum(), (y, a))))
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("jacobian", ["dense", FULL])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_a_loop(method, jacobian):
    def last(y):
        return integrate(mixed, y, [0.0, 1.0], params=(A,), method=method, steps=4, jacobian=jacobian).y[-1]

    batch = last(Y0)
    for y, one in zip(Y0, batch, strict=True):
        torch.testing.assert_close(last(y), one, rtol=1e-10, atol=1e-12)  # of Newton's method
    assert torch.equal(last(Y0[None])[0], batch)


def test_steps_are_functions_too():
    """Alone they are what integrate takes; unequal steps of bdf2 keep order 2: exact for parabolas."""
    for step, name in ((implicit_euler, "implicit_euler"), (rosenbrock, "rosenbrock")):
        path = integrate(mixed, Y0, [0.5, 0.7], params=(A,), method=name, steps=1)
        assert torch.equal(step(mixed, 0.5, Y0, 0.7 - 0.5, params=(A,)).y, path.y[-1])
    parabola = bdf2(
        lambda t, y: y * 0 + 2 * t,
        1.0,
        torch.tensor([1.0], dtype=torch.float64),
        torch.tensor([0.81], dtype=torch.float64),
        0.2,
        h_before=0.1,
    )
    assert abs(parabola.y.item() - 1.44) < 1e-14 and parabola.error is None and parabola.iterations >= 1


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 2).double()

    def forward(self, t, y):
        return torch.tanh(self.inner(y)) - y


def test_parameters_of_a_module_are_found():
    torch.manual_seed(0)
    net = Network()
    grads = []
    for adjoint in (True, False):
        net.zero_grad()
        integrate(net, Y0, [0.0, 0.5], method="bdf2", steps=4, adjoint=adjoint).y[-1].square().sum().backward()
        grads.append(net.inner.weight.grad.clone())
    assert grads[0].norm() > 0 and relative(grads[0], grads[1]) < 1e-12


# -- stiff problems -------------------------------------------------------------------------------------------


def test_robertson_where_explicit_steps_fail():
    t, k = [0.0, 4.0, 400.0], K.clone().requires_grad_()
    path = integrate(robertson, MASS, t, params=(k,), rtol=1e-5, atol=1e-9)
    truth = exact(kinetics(K.numpy()), MASS, t[-1])
    assert bool((path.status > 0).all())
    assert np.abs(path.y[-1].detach().numpy() / truth - 1).max() < 1e-3
    assert abs(path.y[-1].detach().sum().item() - 1) < 1e-9  # mass is conserved

    # classical Runge-Kutta with as many evaluations
    y, n, rates = MASS.numpy(), path.evaluations // 4, kinetics(K.numpy())
    h = t[-1] / n
    with np.errstate(all="ignore"):
        for _ in range(n):
            k1 = rates(0, y)
            k2 = rates(0, y + h / 2 * k1)
            k3 = rates(0, y + h / 2 * k2)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + rates(0, y + h * k3))
    assert not np.isfinite(y).all()
    # an adaptive explicit one that may take ten times as many does not arrive
    calls, reached = 0, 0.0

    class EnoughError(Exception):
        pass

    def counted(t, y):
        nonlocal calls, reached
        calls, reached = calls + 1, t
        if calls > 10 * path.evaluations:
            raise EnoughError
        return rates(t, y)

    with pytest.raises(EnoughError):
        solve_ivp(counted, (0, t[-1]), MASS.numpy(), method="RK45", rtol=1e-5, atol=1e-9)
    assert reached < t[-1] / 2

    # the gradient by rate constants, beside differences of the tight reference
    path.y[-1, 0].backward()
    for i in range(3):
        change = np.array([1e-3 * (j == i) for j in range(3)])
        ends = [exact(kinetics(K.numpy() * (1 + s * change)), MASS, t[-1])[0] for s in (1, -1)]
        assert abs(k.grad[i].item() * 2e-3 * K[i].item() / (ends[0] - ends[1]) - 1) < 1e-3


def test_a_sparse_front_where_explicit_steps_fail():
    """Three colours for any M; the derivative by d is that of differences of the discrete trajectory."""
    assert row_colours(BAND).max() == 2
    t = [0.0, 0.05, 0.1]
    d = D.clone().requires_grad_()
    path = integrate(front, U0, t, params=(d,), jacobian=BAND, rtol=1e-6, atol=1e-8)
    truth = exact(lambda t, u: front(t, torch.from_numpy(u), D).numpy(), U0, 0.1)
    assert np.abs(path.y[-1].detach().numpy() - truth).max() < 1e-5
    u, n = U0, path.evaluations
    for _ in range(n):
        u = u + t[-1] / n * front(0, u, D)
    assert not bool((u.abs() < 10).all())  # Euler's explicit method, with as many evaluations

    def value(d, adjoint=True):
        path = integrate(front, U0, t, params=(d,), jacobian=BAND, method="bdf2", steps=4, adjoint=adjoint)
        return path.y[-1, 100]

    (bar,) = torch.autograd.grad(value(d), d)
    (direct,) = torch.autograd.grad(value(d, False), d)
    h = 1e-4
    difference = (value(D + h) - value(D - h)) / (2 * h)
    assert abs(bar / difference - 1) < 1e-6 and abs(direct / bar - 1) < 1e-9


def test_memory_of_the_adjoint_is_that_of_one_step():
    """Beside the states, which are kept: n numbers for each step."""
    most = {}
    for adjoint in (True, False):
        for steps in (4, 40):
            gc.collect()
            saved, d = Saved(), D.clone().requires_grad_()
            with saved.hooks():
                path = integrate(front, U0, [0.0, 0.01], params=(d,), jacobian=BAND, steps=steps, adjoint=adjoint)
                path.y[-1].sum().backward()
            most[adjoint, steps] = saved.most - (steps + 1) * U0.nbytes
    assert most[True, 40] <= most[True, 4] + U0.nbytes
    assert most[False, 40] > 8 * most[False, 4]


def test_a_linear_system_takes_one_factorization_for_a_step():
    k = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for method, each in (("implicit_euler", 1), ("bdf2", 1), ("rosenbrock", 1)):
        path = integrate(lambda t, y, k: -k * y, Y0, [0.0, 1.0], params=(k,), method=method, steps=5)
        assert path.factorizations == 5 * each
    still = integrate(lambda t, y: 0 * y, Y0, [0.0, 1.0], method="bdf2", steps=2)
    torch.testing.assert_close(still.y[-1], Y0, rtol=1e-15, atol=0)


# -- failures -------------------------------------------------------------------------------------------------


def explosive(t, y):
    """z - h f = 1 has no root where h z² outgrows z."""
    return y**2


@pytest.mark.parametrize("method", ["implicit_euler", "bdf2"])
def test_newton_that_does_not_converge_is_told(method):
    y0 = torch.tensor([[0.1], [10.0]], dtype=torch.float64, requires_grad=True)
    options = {"method": method, "steps": 2}
    with pytest.raises(bs.SolveError, match=r"the step at t = 0 failed with MAXITER \(1 of 2 states\): Newton's"):
        integrate(explosive, y0, [0.0, 1.0], **options)
    path = integrate(explosive, y0, [0.0, 1.0], on_failure="return", **options)
    assert path.status.tolist() == [bs.Status.CONVERGED_RESIDUAL, bs.Status.MAXITER]
    assert bool(path.y[1:, 1].isnan().all()) and bool(path.y[:, 0].isfinite().all())
    (bar,) = torch.autograd.grad(path.y[-1].sum(), y0)
    assert bool(bar[1].isnan()) and bool(bar[0].isfinite())
    with pytest.warns(bs.SolveWarning, match="MAXITER"):
        integrate(explosive, y0, [0.0, 1.0], on_failure="warn", **options)


def test_adaptive_steps_that_cannot_go_on_are_told():
    """y' = -1/(2√y) meets y = 0 at t = 4/3: steps shrink before it, until there is no smaller one."""

    def falling(t, y):
        return -0.5 / y.sqrt()

    y0, loose = torch.ones(1, dtype=torch.float64, requires_grad=True), {"rtol": 1e-3, "atol": 1e-3}
    with pytest.raises(bs.SolveError, match=r"rosenbrock: the step at t = 1\.3\d* failed with"):
        integrate(falling, y0, [0.0, 1.0, 2.0], **loose)
    path = integrate(falling, y0, [0.0, 1.0, 2.0], on_failure="return", **loose)
    assert int(path.status) < 0 and bool(path.y[2].isnan()) and abs(path.y[1].item() - 0.25 ** (2 / 3)) < 1e-2
    assert bool(torch.autograd.grad(path.y[1].sum(), y0)[0].isnan())
    with pytest.raises(bs.SolveError, match="BUDGET"):
        integrate(falling, y0, [0.0, 0.9], max_steps=3)


def test_a_singular_step_is_told():
    """I - h ∂f/∂y = 0 where f = y and h = 1."""
    for step in (implicit_euler, rosenbrock):
        with pytest.raises(bs.SolveError, match="SINGULAR"):
            step(lambda t, y: y, 0.0, Y0, 1.0 if step is implicit_euler else 2.0)


def test_a_pattern_that_misses_an_entry_is_told():
    diagonal = bs.coo(np.ones(2), ([0, 1], [0, 1]), (2, 2)).pattern
    with pytest.raises(ValueError, match=r"every entry of df/dy that is not zero; column \d has one outside"):
        integrate(mixed, Y0, [0.0, 1.0], params=(A,), jacobian=diagonal)


def test_a_gradient_that_would_get_lost_is_told():
    a = A.clone().requires_grad_()
    with pytest.raises(ValueError, match="every tensor that needs a gradient through params"):
        integrate(lambda t, y: -a * y, Y0, [0.0, 1.0])


@pytest.mark.parametrize(
    "changed, sentence",
    [
        ({"t": [0.0, 0.0]}, "t must be increasing floats"),
        ({"t": torch.tensor([0.0, 1.0], requires_grad=True)}, "not differentiated by time"),
        ({"y0": torch.ones(2, dtype=torch.int64)}, "y must be a float32 or float64 tensor"),
        ({"f": 3}, "f must be a function"),
        ({"f": lambda t, y: y[0]}, "f must return a tensor like y"),
        ({"params": 1.0}, "params must be a tuple of tensors"),
        ({"method": "rk4"}, "method must be one of 'implicit_euler', 'bdf2', 'rosenbrock'"),
        ({"method": "bdf2"}, "steps must be given for method='bdf2'"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"rtol": 1.5}, r"rtol must be a float in \[0, 1\)"),
        ({"atol": None}, "atol must be a float; got None"),
        ({"jacobian": "sparse"}, "jacobian must be 'dense', 'products' or a backsolve.Pattern"),
        ({"jacobian": BAND}, r"jacobian must be a Pattern of shape \(2, 2\)"),
        ({"on_failure": "ignore"}, "on_failure must be one of"),
    ],
)
def test_arguments_that_do_not_fit(changed, sentence):
    arguments = {"f": lambda t, y: -y, "y0": Y0, "t": [0.0, 1.0]} | changed
    with pytest.raises((TypeError, ValueError), match=sentence):
        integrate(**arguments)


def test_a_pole_is_stepped_over_or_said():
    """y' = y², y(0) = 1 ends at t = 1; what docs/physics.md says of it."""
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    over = integrate(lambda t, y: y * y, y0, t, rtol=1e-10, atol=1e-12)
    assert abs(float(over.y[-1, 0]) + 1) < 1e-9, "the other branch of 1 / (1 - t)"
    for method in ("implicit_euler", "bdf2"):
        with pytest.raises(bs.SolveError, match=f"{method}: the step at t = 0.*MAXITER"):
            integrate(lambda t, y: y * y, y0, t, method=method, steps=50)
