"""Matrices that are sound by construction, and A(y) dy/dt = f(t, y) in torch and JAX."""

import copy
import gc
import pickle
import sys
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import backsolve as bs
from backsolve.pattern import canonical_pattern
from backsolve.physics import LinearlyImplicitODE, dominant, laplacian, positive_definite

N = 4
ROWS, COLS = np.array([0, 0, 1, 2, 3, 3]), np.array([1, 3, 2, 0, 2, 1])
PAIR = [0, 1], [1, 0]
EDGES = np.array([0, 1, 2, 0]), np.array([1, 2, 3, 2])


def numbers(count, dtype, largest):
    """Numbers of every size that the dtype has: zero, subnormal, tiny, and up to `largest`."""
    width = np.dtype(dtype).itemsize * 8
    extreme = st.sampled_from([0.0, -0.0, float(np.finfo(dtype).smallest_subnormal), float(np.finfo(dtype).tiny)])
    largest = float(np.dtype(dtype).type(largest))
    any_size = st.floats(-largest, largest, width=width, allow_nan=False)
    return st.lists(st.one_of(extreme, any_size), min_size=count, max_size=count).map(lambda v: np.array(v, dtype))


def exactly_dominant(matrix):
    """Strict row dominance of the stored numbers, in exact arithmetic."""
    exact = [[Fraction(float(v)) for v in row] for row in np.asarray(matrix)]
    return all(row[i] > sum(abs(v) for j, v in enumerate(row) if j != i) for i, row in enumerate(exact))


def exactly_definite(matrix):
    """Whether elimination without rounding meets positive pivots only."""
    A = [[Fraction(float(v)) for v in row] for row in np.asarray(matrix)]
    for k in range(len(A)):
        if A[k][k] <= 0:
            return False
        for i in range(k + 1, len(A)):
            factor = A[i][k] / A[k][k]
            A[i] = [a - factor * b for a, b in zip(A[i], A[k], strict=True)]
    return True


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_dominant_is_dominant_as_stored(dtype, data):
    """For numbers of any size: also where softplus(m) is zero, or is absorbed by the row sum."""
    largest = float(np.finfo(dtype).max) / 8
    off = data.draw(numbers(len(ROWS), dtype, largest))
    margin = data.draw(numbers(N, dtype, largest))
    for A in (
        dominant(off, margin, (ROWS, COLS)),
        dominant(np.resize(off, (N, N)), margin),
        dominant(off[:4], margin, EDGES, symmetric=True),
        laplacian(off[:4] / 4, margin, EDGES),
    ):
        matrix = A.toarray()
        assert matrix.dtype == dtype and exactly_dominant(matrix)
        assert A.assumed != "spd" or (matrix == matrix.T).all()


def test_dominance_of_repeated_places_and_long_rows():
    """In single precision 1e-12 is nothing beside 1; the rounding of 3,000 terms is not."""
    rng = np.random.default_rng(0)
    n = 3000
    cols = np.r_[1:n, 1:n]
    off = rng.uniform(0.5, 1.0, len(cols)).astype(np.float32)
    A = dominant(off, np.full(n, -200, np.float32), (np.zeros(len(cols), int), cols))
    row = A.data[A.pattern.rows == 0].astype(float)
    assert len(row) == n and 2 * row[0] > float(np.abs(row).sum())
    assert (A.diagonal()[1:] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_product_of_cholesky_factors_is_definite_as_stored(dtype, data):
    largest = float(np.finfo(dtype).max) ** 0.5 / 64
    lower = data.draw(numbers(N * N, dtype, largest)).reshape(N, N)
    A = positive_definite(lower)
    matrix = A.toarray()
    assert A.assumed == "spd" and (matrix == matrix.T).all() and exactly_definite(matrix)


def test_a_pattern_is_worked_through_once():
    pattern, _ = canonical_pattern(ROWS, COLS, (N, N))
    off, margin = np.arange(1.0, 7.0), np.zeros(N)
    A, B = dominant(off, margin, pattern), dominant(2 * off, margin, pattern)
    assert A.pattern is B.pattern
    order = np.lexsort((COLS, ROWS))
    assert (A.toarray() == dominant(off, margin, (ROWS[order], COLS[order])).toarray()).all()
    with_diagonal = dominant(off, margin, A.pattern)  # its diagonal is passed over
    assert (with_diagonal.toarray() == A.toarray()).all()
    upper, _ = canonical_pattern(*EDGES, (N, N))
    order = np.lexsort((EDGES[1], EDGES[0]))
    S, R = (dominant(off[:4], margin, p, symmetric=True) for p in (upper, (EDGES[0][order], EDGES[1][order])))
    assert (S.toarray() == R.toarray()).all()


def test_constructions_are_differentiable_twice():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    off, margin, square = draw(2, 6), draw(1, N), draw(N, N)
    for function, inputs in (
        (lambda o, m: dominant(o, m, (ROWS, COLS)).toarray(), (off, margin)),
        (lambda o, m: dominant(o, m).toarray(), (square, margin)),
        (lambda o, m: dominant(o, m, EDGES, symmetric=True).toarray(), (off[:, :4], margin)),
        (lambda w, g: laplacian(w, g, EDGES).toarray(), (off[:, :4], margin)),
        (lambda s: positive_definite(s).toarray(), (square,)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (
            lambda: dominant(np.array([1.0, np.nan]), np.zeros(2), PAIR),
            "off_diagonal must be finite; got nan at .1,.",
        ),
        (lambda: dominant(np.full(2, 1e308), np.zeros(3), ([0, 0], [1, 2])), "must be finite; got inf"),
        (
            lambda: dominant(np.ones(2), np.array([0, np.inf]), PAIR),
            "margin must be finite; got inf at .1,.",
        ),
        (lambda: dominant(np.ones(3), np.zeros(2), PAIR), r"shape \(..., 2\), one value for each place"),
        (lambda: dominant(np.ones(1), np.zeros(2), ([1], [1])), "beside the diagonal, which is made here"),
        (lambda: dominant(np.ones(1), np.zeros(2), 7), "must be a Pattern or a pair"),
        (lambda: dominant(np.ones(1), np.zeros(2), ([0], [2])), r"cols must lie in \[0, 2\)"),
        (lambda: dominant(np.ones(2), np.zeros(2)), r"shape \(..., n, n\) with n of margin, 2"),
        (lambda: dominant(np.ones(6), np.zeros(3), canonical_pattern(ROWS, COLS, (N, N))[0]), r"shape \(3, 3\)"),
        (lambda: dominant(np.ones(2, np.float32), np.zeros(2), PAIR), "all float32 or all float64"),
        (lambda: dominant(np.ones(2, complex), np.zeros(2), PAIR), "all float32 or all float64"),
        (lambda: laplacian(np.ones(1), np.float64(1.0), ([0], [1])), "ground must have at least one axis"),
        (lambda: positive_definite(np.ones((2, 3))), r"shape \(..., n, n\)"),
        (lambda: positive_definite(np.full((2, 2), 1e200)), "must be finite; got inf"),
    ],
)
def test_bad_input_gets_a_sentence(call, sentence):
    with np.errstate(over="ignore"), pytest.raises((ValueError, TypeError), match=sentence):
        call()


# -- the ODE in torch -----------------------------------------------------------------------------------------


class Mass(torch.nn.Module):
    """A(y), row dominant and not symmetric; a smooth function of y, since no off-diagonal entry meets zero."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(0.4 * torch.randn(N, 6 + N, generator=generator, dtype=torch.float64))

    def forward(self, y):
        out = torch.tanh(y @ self.weight)
        return dominant(torch.tensor([-1.0, 1, -1, 1, 1, -1]) * (1.5 + out[..., :6]), out[..., 6:], (ROWS, COLS))


def decay(t, y):
    return -(y**3) + torch.sin(t)


Y0 = torch.tensor([[0.5, -1.0, 0.3, 0.8], [1.0, 0.2, -0.4, 0.1], [-0.7, 0.9, 0.6, -0.2]], dtype=torch.float64)
T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


def loss(ode, y0=Y0, **options):
    return ode.trajectory(y0, T, **options).square().sum()


def gradients(ode, **options):
    y0 = Y0.clone().requires_grad_()
    return torch.autograd.grad(loss(ode, y0, **options), (ode.A.weight, y0))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_rates_and_their_derivatives_are_those_of_the_dense_solve():
    mass = Mass()
    ode = LinearlyImplicitODE(mass, decay)
    dense = torch.linalg.solve(mass(Y0).toarray(), decay(T[1], Y0)[..., None])[..., 0]
    torch.testing.assert_close(ode(T[1], Y0), dense, rtol=1e-13, atol=1e-14)
    y = Y0.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y, t: ode(t, y), (y, T[1].clone().requires_grad_()))
    assert torch.autograd.gradgradcheck(lambda y: ode(T[1], y), (y[:1],))


@pytest.mark.package("torchdiffeq")
def test_gradients_through_a_trajectory():
    """Direct ones equal finite differences to 1e-6, adjoint ones a tight direct backpropagation."""
    ode = LinearlyImplicitODE(Mass(), decay)
    steps = {"method": "rk4", "options": {"step_size": 0.05}}
    direct = gradients(ode, **steps)
    h = 1e-5
    for bar, tensor in zip(direct, (ode.A.weight, Y0), strict=True):
        v = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2), dtype=tensor.dtype)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                tensor += sign * h * v
                values.append(loss(ode, **steps))
                tensor -= sign * h * v
        difference = (values[0] - values[1]) / (2 * h)
        assert abs(difference / (bar * v).sum() - 1) < 1e-6
    tight = gradients(LinearlyImplicitODE(ode.A, decay, rtol=1e-10, atol=1e-12), method="dopri5")
    adjoint = gradients(LinearlyImplicitODE(ode.A, decay, rtol=1e-8, atol=1e-10), method="dopri5", adjoint=True)
    for one, other in zip(tight, adjoint, strict=True):
        assert relative(other, one) < 1e-6


@pytest.mark.package("torchdiffeq")
def test_second_derivatives_through_a_trajectory():
    ode = LinearlyImplicitODE(Mass(), decay)
    y0 = Y0[:1].clone().requires_grad_()
    steps = {"method": "rk4", "options": {"step_size": 0.5}}
    assert torch.autograd.gradgradcheck(lambda y: ode.trajectory(y, T, **steps)[-1], (y0,))


@pytest.mark.package("torchdiffeq")
def test_a_batch_is_a_loop():
    ode = LinearlyImplicitODE(Mass(), decay)
    steps = {"method": "rk4", "options": {"step_size": 0.1}}
    batch = ode.trajectory(Y0, T, **steps)
    for i, y0 in enumerate(Y0):
        torch.testing.assert_close(batch[:, i], ode.trajectory(y0, T, **steps), rtol=1e-13, atol=1e-14)
    nested = ode.trajectory(Y0[None], T, **steps)
    torch.testing.assert_close(nested[:, 0], batch, rtol=0, atol=0)
    assert ode(T[0], Y0[:0]).shape == (0, N)


@pytest.mark.package("torchdiffeq")
def test_a_constant_matrix_is_factored_once():
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    A = laplacian(weights, torch.zeros(N, dtype=torch.float64), EDGES)
    ode = LinearlyImplicitODE(A, decay)
    loss(ode).backward()
    assert ode.factorizations == 1 and weights.grad is not None
    learned = LinearlyImplicitODE(lambda y: laplacian(weights, torch.zeros(N, dtype=torch.float64), EDGES), decay)
    loss(learned, adjoint=True, adjoint_params=(weights,)).backward()
    assert learned.factorizations == 1
    with torch.no_grad():
        weights += 1.0  # an optimizer's step, in place
    dense = torch.linalg.solve(learned.A(Y0).toarray(), decay(T[1], Y0)[..., None])[..., 0]
    torch.testing.assert_close(learned(T[1], Y0), dense, rtol=1e-12, atol=1e-13)
    assert learned.factorizations == 2


def test_values_that_change_in_place_are_factored_anew():
    data = torch.tensor([2.0, 4.0], dtype=torch.float64)
    ode = LinearlyImplicitODE(bs.coo(data, ([0, 1], [0, 1]), (2, 2)), lambda t, y: y)
    y = torch.ones(2, dtype=torch.float64)
    assert ode(0.0, y).tolist() == [0.5, 0.25]
    data *= 2
    assert ode(0.0, y).tolist() == [0.25, 0.125] and ode.factorizations == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda ode: pickle.loads(pickle.dumps(ode))])
def test_a_module_with_factors_is_copied(copied):
    ode = LinearlyImplicitODE(Mass(), decay)
    rates = ode(T[0], Y0)
    assert torch.equal(copied(ode)(T[0], Y0), rates)


@pytest.mark.package("torchdiffeq")
def test_iterative_solves_follow_the_tolerance_of_the_ode():
    """Their true residuals stay below a tenth of it, forward and backward, and so the trajectory is as exact."""
    mass = Mass()
    exact = LinearlyImplicitODE(mass, decay, rtol=1e-10, atol=1e-12).trajectory(Y0, T)
    for rtol in (1e-4, 1e-7):
        ode = LinearlyImplicitODE(mass, decay, rtol=rtol, atol=rtol, method="gmres", M="jacobi")
        assert ode.options["rtol"] == ode.options["adjoint"].rtol == 0.1 * rtol
        y = Y0.clone().requires_grad_()
        v = ode(T[1], y)
        b = decay(T[1], Y0)
        residual = (b[..., None] - mass(Y0) @ v.detach()[..., None])[..., 0]
        assert bool((residual.norm(dim=1) <= 0.1 * rtol * b.norm(dim=1)).all())
        direct = LinearlyImplicitODE(mass, decay, rtol=rtol, atol=rtol).trajectory(Y0, T)
        errors = [relative(y.detach(), exact.detach()) for y in (ode.trajectory(Y0, T), direct)]
        assert 0 < errors[0] < 1.5 * errors[1]
    with pytest.raises(ValueError, match=r"inner_rtol must be at most 0.1 rtol = 1e-05"):
        LinearlyImplicitODE(mass, decay, rtol=1e-4, method="gmres", inner_rtol=1e-4)
    with pytest.raises(ValueError, match="follows that of the ODE"):
        LinearlyImplicitODE(mass, decay, method=bs.GMRES(rtol=1e-3))


@pytest.mark.package("torchdiffeq")
def test_failed_solves_are_never_silent():
    def mass(y):  # singular where the first component is not positive
        return torch.diag_embed(torch.cat([y[..., :1].clamp(min=0), torch.ones_like(y[..., 1:])], dim=-1))

    steps = {"method": "rk4", "options": {"step_size": 0.5}}
    with pytest.raises(bs.SolveError, match="SINGULAR"):
        LinearlyImplicitODE(mass, decay).trajectory(Y0, T, **steps)
    ode = LinearlyImplicitODE(mass, decay, on_failure="return")
    y0 = Y0.clone().requires_grad_()
    y = ode.trajectory(y0, T, **steps)
    assert bool(y[1:, 2].isnan().all()) and bool(y[:, :2].isfinite().all())
    (bar,) = torch.autograd.grad(y[-1].sum(), y0)
    assert bool(bar[2].isnan().any()) and bool(bar[:2].isfinite().all())
    with pytest.warns(bs.SolveWarning, match="SINGULAR"):
        LinearlyImplicitODE(mass, decay, on_failure="warn")(T[0], Y0)


class Held(list):
    """A list to which there can be weak references."""


class Saved:
    """Bytes of the tensors that autograd keeps, now and at most."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        size = tensor.nbytes
        holder = Held([tensor.detach()])  # an output with its graph would hold itself
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(holder, self.release, size)
        return holder

    def release(self, size):
        self.now -= size

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda holder: holder[0])


@pytest.mark.package("torchdiffeq")
def test_memory_of_the_adjoint_does_not_grow_with_the_steps():
    mass, most = Mass(), {}
    for adjoint in (True, False):
        for step in (0.25, 0.025):
            gc.collect()
            saved = Saved()
            ode = LinearlyImplicitODE(mass, decay)
            with saved.hooks():
                loss(ode, adjoint=adjoint, method="rk4", options={"step_size": step}).backward()
            most[adjoint, step] = saved.most
    assert most[True, 0.025] == most[True, 0.25]
    assert most[False, 0.025] > 5 * most[False, 0.25]


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: LinearlyImplicitODE(torch.eye(N), 3), "f must be a function"),
        (lambda: LinearlyImplicitODE(torch.eye(N), decay, rtol=None), "rtol must be a float; got None"),
        (lambda: LinearlyImplicitODE(torch.eye(N), decay, rtol=2), r"rtol must be a float in \[0, 1\)"),
        (lambda: LinearlyImplicitODE(torch.eye(3), decay)(T[0], Y0), r"A must be 4 x 4 for y of shape \(3, 4\)"),
        (lambda: LinearlyImplicitODE(torch.eye(N), decay)(T[0], Y0), "must have one dtype; A is torch.float32"),
        (lambda: LinearlyImplicitODE(torch.eye(N), lambda t, y: y[0])(0.0, Y0), r"the shape of y, \(3, 4\)"),
        (
            lambda: LinearlyImplicitODE(torch.eye(N).expand(2, N, N), lambda t, y: y)(0.0, Y0.float()),
            r"y has leading axes \(3,\) and A \(2,\)",
        ),
    ],
)
def test_arguments_that_do_not_fit(make, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        make()


def test_without_an_integrator_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"pip install 'backsolve\[ode\]'"):
        LinearlyImplicitODE(Mass(), decay).trajectory(Y0, T)
    monkeypatch.setitem(sys.modules, "diffrax", None)
    from backsolve.physics import LinearlyImplicitField

    with pytest.raises(ImportError, match=r"pip install 'backsolve\[diffrax\]'"):
        LinearlyImplicitField(np.eye(2), lambda t, y, args: y).trajectory(np.ones(2), np.array([0.0, 1.0]))


def test_names_that_need_a_framework_say_so(monkeypatch):
    import backsolve.physics as physics

    monkeypatch.delitem(sys.modules, "backsolve.physics.jax_ode", raising=False)
    monkeypatch.setitem(physics._LATER, "LinearlyImplicitField", "missing_framework")

    def fail(name, package):
        raise ModuleNotFoundError("No module named 'jax'", name="jax")

    monkeypatch.setattr(physics, "import_module", fail)
    with pytest.raises(ImportError, match=r"needs jax: pip install 'backsolve\[jax\]'"):
        physics.LinearlyImplicitField  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        physics.absent  # noqa: B018
