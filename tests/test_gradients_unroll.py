"""Unrolled iterations: right for the program, safe at every scale, with the memory that checkpoints promise."""

import numpy as np
import pytest
import torch

import backsolve as bs
from backsolve import gallery, gradients
from backsolve.gradients.tally import Tally
from backsolve.gradients.torch_memory import peak_bytes

WAYS = {
    "cg": {"method": "cg"},
    "cg, jacobi": {"method": "cg", "M": "jacobi"},
    "chebyshev": {"method": "chebyshev", "M": "jacobi", "bounds": (0.05, 2.0)},
    "jacobi": {"method": "jacobi"},
    "richardson": {"method": "richardson", "omega": 0.02},
}


def poisson(n=25, dtype=torch.float64, scale=1.0):
    """A with values that require gradients, and b; the condition number is about 30 at n = 25."""
    p = gallery.problem("poisson2d", n)
    w = torch.tensor(p.A.data, dtype=dtype, requires_grad=True)
    b = torch.tensor(scale * p.b, dtype=dtype, requires_grad=True)
    return p.A.with_data(w), w, b


def places(A):
    return torch.tensor(np.array(A.pattern.rows)), torch.tensor(np.array(A.pattern.indices))


def gradient(x, *wrt, weights=None):
    weights = torch.linspace(1, 2, x.numel(), dtype=x.dtype).reshape(x.shape) if weights is None else weights
    return torch.autograd.grad((weights * x).sum(), wrt)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("checkpoint", [None, 3])
def test_the_gradient_is_that_of_the_program(name, checkpoint):
    """Long before convergence, by central differences of the program itself."""
    p = gallery.problem("poisson2d", 9)
    w = torch.tensor(p.A.data, requires_grad=True)
    b = torch.tensor(p.b, requires_grad=True)

    def program(w, b):
        return gradients.unroll(p.A.with_data(w), b, iterations=3, checkpoint=checkpoint, **WAYS[name])

    torch.autograd.gradcheck(program, (w, b))


@pytest.mark.parametrize("name", ["cg, jacobi", "chebyshev", "jacobi"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-13, 1e-30])
def test_converged_programs_have_the_gradient_of_the_solution_at_every_scale(name, dtype, scale):
    A, w, b = poisson(dtype=dtype, scale=scale)
    eps = torch.finfo(dtype).eps
    truth = gradient(bs.solve(A, b), w, b)
    found = gradient(gradients.unroll(A, b, iterations=400, **WAYS[name]), w, b)
    for g, right in zip(found, truth, strict=True):
        assert g.dtype == dtype
        assert (g - right).norm() <= 1e3 * eps * right.norm()


@pytest.mark.parametrize("name", ["cg, jacobi", "chebyshev", "jacobi"])
def test_a_zero_right_hand_side_has_zero_for_x_and_the_inverse_for_a_derivative(name):
    """Of two columns one is zero: that of CG ends before it begins, and its derivative goes on."""
    A, w, b = poisson()
    b = torch.stack([b.detach(), torch.zeros_like(b)], 1).requires_grad_()
    x = gradients.unroll(A, b, iterations=400, **WAYS[name])
    assert not x[:, 1].any()
    (b_bar,) = gradient(x, b)
    (truth,) = gradient(bs.solve(A, b), b)
    assert (b_bar - truth).norm() <= 1e-10 * truth.norm()
    assert gradient(gradients.unroll(A, torch.zeros(25, dtype=torch.float64), iterations=9), w)[0].norm() == 0


def test_an_eigenvector_ends_cg_after_one_step_and_the_derivative_goes_on():
    A, w, _ = poisson()
    b = torch.linalg.eigh(A.toarray().detach()).eigenvectors[:, 3].clone().requires_grad_()
    short, long = (gradient(gradients.unroll(A, b, iterations=k, bounds=(0.2, 8.0)), w, b) for k in (1, 200))
    truth = gradient(bs.solve(A, b), w, b)
    for one, many, right in zip(short, long, truth, strict=True):
        assert (one - right).norm() > 0.1 * right.norm()
        assert (many - right).norm() <= 1e-10 * right.norm()


def test_columns_and_batches_are_independent_runs():
    p = gallery.problem("poisson2d", 16)
    values = torch.tensor(p.A.data) * torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None]
    b = torch.tensor(np.random.default_rng(0).standard_normal((2, 16, 3)))
    x = gradients.unroll(p.A.with_data(values), b, iterations=5)
    for item in range(2):
        for column in range(3):
            alone = gradients.unroll(p.A.with_data(values[item]), b[item, :, column], iterations=5)
            torch.testing.assert_close(x[item, :, column], alone)
    one = gradients.unroll(p.A.with_data(values), b[0, :, 0], iterations=5)
    torch.testing.assert_close(one, gradients.unroll(p.A.with_data(values), b[0, :, :1], iterations=5)[..., 0])


def test_dense_and_functions_run_the_same_program():
    A, _, b = poisson()
    full = A.toarray()
    free = bs.MatrixFree(lambda D, v: D @ v, full.detach(), full.shape)
    x, *others = (gradients.unroll(op, b, iterations=7) for op in (A, full, free))
    for other in others:
        torch.testing.assert_close(other, x)


def test_complex_hermitian():
    p = gallery.problem("hermitian", 25)
    w = torch.tensor(p.A.data, requires_grad=True)
    A, b = p.A.with_data(w), torch.tensor(p.b, requires_grad=True)
    x = gradients.unroll(A, b, iterations=200, method="chebyshev", M="jacobi")
    (truth,) = torch.autograd.grad(bs.solve(A, b).abs().square().sum(), b)
    (found,) = torch.autograd.grad(x.abs().square().sum(), b)
    assert (found - truth).norm() <= 1e-10 * truth.norm()


def test_truncation_records_the_last_iterations_only():
    """One recorded step of Jacobi's iteration from a converged x is one-step differentiation: b̄ = D⁻¹ g."""
    A, w, b = poisson()
    g = torch.linspace(1, 2, 25, dtype=torch.float64)
    x = gradients.unroll(A, b, method="jacobi", iterations=600, truncate=1)
    w_bar, b_bar = gradient(x, w, b, weights=g)
    lam = g / A.diagonal().detach()
    torch.testing.assert_close(b_bar, lam)
    rows, columns = places(A)
    solution = bs.solve(A, b).detach()
    torch.testing.assert_close(w_bar, -lam[rows] * solution[columns])
    whole = gradient(gradients.unroll(A, b, method="jacobi", iterations=40), w, b)
    all_of_it = gradient(gradients.unroll(A, b, method="jacobi", iterations=40, truncate=40), w, b)
    for same, g in zip(all_of_it, whole, strict=True):
        torch.testing.assert_close(same, g)
    short = gradients.unroll(A, b, iterations=12, truncate=2)
    torch.testing.assert_close(short, gradients.unroll(A, b, iterations=12), rtol=1e-10, atol=0)


def test_truncation_after_cg_has_converged_still_has_a_gradient():
    A, _, b = poisson()
    (truth,) = gradient(bs.solve(A, b), b)
    errors = []
    for last in (5, 20, 80):
        x = gradients.unroll(A, b, M="jacobi", iterations=200, truncate=last)
        errors.append(float((gradient(x, b)[0] - truth).norm() / truth.norm()))
    assert 0.9 > errors[0] > errors[1] > errors[2] < 1e-6


def test_products_are_counted_forward_backward_and_again_by_checkpoints():
    A, w, b = poisson()
    for options, expected in (({}, 20), ({"checkpoint": 5}, 30), ({"truncate": 4}, 10 + 1 + 5)):
        tally = Tally()
        program = gradients.program.Program("cg", 10, **options)
        gradient(program.run(A, b, tally), w)
        assert abs(tally.settle().matvecs - expected) <= 1, options


def test_checkpoints_save_memory():
    A, w, b = poisson(900)

    def run(**options):
        return lambda: gradient(gradients.unroll(A, b, method="jacobi", iterations=100, **options), w, b)

    for one in (run(), run(checkpoint=10)):
        one()
    plain, saved, short = (peak_bytes(run(**o)) for o in ({}, {"checkpoint": 10}, {"truncate": 5}))
    vector = 8 * 900
    assert plain > 100 * 2 * vector
    assert saved < plain / 2
    assert short < plain / 5


def test_failures_are_told():
    p = gallery.problem("indefinite", 30)
    A = p.A.with_data(torch.tensor(p.A.data))
    b = torch.tensor(p.b)
    with pytest.raises(bs.SolveError, match=r"not positive definite.*method='jacobi'"):
        gradients.unroll(A, b, iterations=10)
    negative = bs.coo(-torch.ones(4, dtype=torch.float64), (range(4), range(4)), (4, 4))
    with pytest.raises(bs.SolveError, match="not positive definite"):
        gradients.unroll(negative, b[:4], method="chebyshev", iterations=10)
    with pytest.raises(bs.SolveError, match=r"diverges.*smaller omega"):
        gradients.unroll(A, b, method="richardson", iterations=3000)
    x = torch.func.vmap(lambda v: gradients.unroll(A, v, iterations=10))(b[None])
    assert x.isnan().all()
    b[3] = torch.nan
    with pytest.raises(bs.SolveError):
        gradients.unroll(A, b, method="jacobi", iterations=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gmres"}, "unroll: method must be one of 'cg'.*got 'gmres': others are differentiated implicitly"),
        ({"iterations": -1}, "unroll: iterations must be an integer of at least 0; got -1"),
        ({"truncate": 0}, "unroll: truncate must be an integer of at least 1; got 0"),
        ({"checkpoint": 1.5}, "unroll: checkpoint must be an integer of at least 1; got 1.5"),
        ({"M": "ic0"}, "unroll: M must be None, 'jacobi', or a function.*got 'ic0'"),
        ({"method": "jacobi", "M": abs}, "unroll: M of 'jacobi' is the inverse diagonal.*use 'richardson'"),
        ({"omega": 0}, "unroll: omega must be a positive float; got 0"),
        ({"bounds": (2.0, 1.0)}, "unroll: bounds must be a pair"),
    ],
)
def test_bad_options_get_one_sentence(options, message):
    A, _, b = poisson(4)
    with pytest.raises(ValueError, match=message):
        gradients.unroll(A, b, **{"iterations": 3} | options)


def test_bad_matrices_get_one_sentence():
    free = bs.MatrixFree(lambda p, v: p * v, torch.ones(2), (2, 2))
    with pytest.raises(ValueError, match=r"needs the diagonal of A.*method='richardson'"):
        gradients.unroll(free, torch.ones(2), iterations=1, method="jacobi")
    hollow = torch.tensor([[0.0, 1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="diagonal entry of row 0 is zero"):
        gradients.unroll(hollow, torch.ones(2), iterations=1, method="jacobi")
    with pytest.raises(TypeError, match=r"unroll is for arrays of torch and JAX, .* got those of numpy"):
        gradients.unroll(np.eye(2), np.ones(2), iterations=1)


def test_one_step_and_neumann_adjoints_are_the_first_terms_of_the_series():
    p = gallery.problem("contraction", 30)
    w = torch.tensor(p.A.data, requires_grad=True)
    A, b = p.A.with_data(w), torch.tensor(p.b, requires_grad=True)
    g = torch.linspace(1, 2, 30, dtype=torch.float64)
    full, d = A.toarray().detach(), A.diagonal().detach()
    rows, columns = places(A)
    N = torch.eye(30, dtype=torch.float64) - full.T / d[:, None]
    lam = torch.zeros(30, dtype=torch.float64)
    for terms in range(1, 5):
        lam = N @ lam + g / d
        x = gradients.neumann_adjoint(A, b, terms=terms)
        torch.testing.assert_close(x, bs.solve(A, b))
        w_bar, b_bar = gradient(x, w, b, weights=g)
        torch.testing.assert_close(b_bar, lam)
        torch.testing.assert_close(w_bar, -lam[rows] * x.detach()[columns])
    (first,) = torch.autograd.grad(gradients.neumann_adjoint(A, b).square().sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("dense", [False, True])
def test_the_bound_of_a_truncated_adjoint_holds(dense):
    """For columns that dominate, on random matrices; a hundred terms leave rounding, which is part of the bound."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = int(rng.integers(2, 12))
        A = rng.standard_normal((n, n))
        A += np.diag(np.abs(A).sum(axis=0) * rng.uniform(1.02, 2.0, n) * rng.choice((-1.0, 1.0), n))
        g = rng.standard_normal((n, 2))
        truth = np.linalg.solve(A.T.astype(np.longdouble).astype(float), g)
        D = np.diag(A)[:, None]
        for terms in (1, 4, 100):
            lam = np.zeros_like(g)
            for _ in range(terms):
                lam = lam + (g - A.T @ lam) / D
            bound = gradients.adjoint_bound(
                A if dense else bs.coo(A.reshape(-1), np.divmod(np.arange(n * n), n), (n, n)), g, terms=terms
            )
            assert np.abs(lam - truth).max() <= bound < np.inf
    assert gradients.adjoint_bound(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones(2), terms=3) == np.inf
