"""Certificates of gradients: never wrong, refused in sentences, and tolerances that keep what they promise."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax_cases import wide  # noqa: F401  (a fixture: double precision)

import backsolve as bs
from backsolve import gallery, gradients
from backsolve.gradients.energy import energy_norm
from backsolve.gradients.forms import Pieces
from backsolve.gradients.spectrum import proven_mu

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
from gradient_bounds import KINDS, Tally, trial  # noqa: E402

sys.path.remove(BENCHMARKS)


def diffusion(m, sigma=1.0, seed=0):
    """-div(k grad) on an m x m grid with Dirichlet boundary; k log-normal, one for each face."""
    one = sp.vstack([sp.eye_array(m), sp.csr_array((1, m))]) - sp.vstack([sp.csr_array((1, m)), sp.eye_array(m)])
    G = sp.vstack([sp.kron(one, sp.eye_array(m)), sp.kron(sp.eye_array(m), one)])
    return gradients.IncidenceForm(G, np.exp(sigma * np.random.default_rng(seed).standard_normal(G.shape[0])))


def vectors(n, seed=0):
    return np.random.default_rng(seed).standard_normal((2, n))


def true_gradient(A, b, t):
    """In extended precision, by refinement of the solutions."""
    full, long = A.matrix.toarray(), np.longdouble
    G, D, k = A.G.toarray().astype(long), A.D.toarray().astype(long), A.k[A.element].astype(long)

    def solve(right):
        x = np.zeros(len(right), long)
        for _ in range(4):
            x = x + np.linalg.solve(full, (right - (G.T @ (k * (G @ x)) + D @ x)).astype(float))
        return x

    return -((G @ solve(b)) * (G @ solve(t)))


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_against_exact_integers(kind):
    """The quick part of benchmarks/gradient_bounds.py."""
    tally = Tally()
    for at in range(33):
        trial(np.random.default_rng((99, at)), kind, tally, f"seed (99, {at})")
    assert not tally.violations and not tally.refused
    assert sum(map(len, tally.ratios.values())) == 3 * 33


@pytest.mark.parametrize("rtol", [1e-2, 1e-5, 1e-9])
def test_the_bound_is_near_the_error_on_diffusion(rtol):
    """Within the factor of Cauchy and Schwarz at every tolerance; residuals alone would lose the condition number."""
    A, (b, t) = diffusion(16), vectors(256)
    x, lam = (bs.solve(A.matrix, v, method="cg", M="jacobi", rtol=rtol) for v in (b, t))
    c = gradients.certify(A, b, t, x=x, adjoint=lam)
    change = np.abs(c.gradient - true_gradient(A, b, t))
    assert c.certified and c.kind == "energy" and not c.failed
    assert A.k @ change <= c.log_bound <= 5 * (A.k @ change)
    assert change.sum() <= c.bound <= 20 * change.sum()
    by_entries = gradients.certify(A.matrix, b, t, x=x, adjoint=lam)
    assert by_entries.certified and by_entries.kind == "residual"
    assert by_entries.failed == ("A is not given as a sum of positive semidefinite pieces: see IncidenceForm",)


def test_the_gradient_is_that_of_backward():
    A, (b, t) = diffusion(6), vectors(36)
    c = gradients.certify(A, b, t, rtol=1e-12)
    k = torch.from_numpy(A.k.copy()).requires_grad_()
    G = torch.from_numpy(A.G.toarray())
    (torch.from_numpy(t) @ bs.solve((G.T * k) @ G, torch.from_numpy(b))).backward()
    assert np.abs(c.gradient - k.grad.numpy()).max() <= 1e-10 * np.abs(c.gradient).max()


def test_energy_norms_are_bounded_from_both_sides():
    """Gauss and Gauss-Radau in exact arithmetic, here on well-conditioned matrices, and the bound with rounding."""
    for seed in range(20):
        A = diffusion(5, seed=seed)
        form, m = Pieces(A), A.matrix.diagonal()
        truth = np.linalg.eigvalsh(A.matrix.toarray() / np.sqrt(np.outer(m, m)))[0]
        mu = proven_mu(form, m)
        assert 0.9 * truth <= mu <= truth  # A is an M-matrix, so inverse iteration finds λ_min
        r, _ = vectors(25, seed)
        for bound in (mu, mu / 100):
            found = energy_norm(form, m, bound, r, np.zeros(25))
            e = np.linalg.solve(A.matrix.toarray(), r)
            size = np.sqrt(e @ r)
            assert found.lower * (1 - 1e-12) <= size <= found.radau * (1 + 1e-12) and size <= found.upper
            assert found.upper <= 1.01 * size and np.linalg.norm(e) <= found.plain <= 3 * np.linalg.norm(e)
            assert not found.mu_too_large and found.iterations <= 25


@pytest.mark.parametrize("factor", [1.5, 10, 1e4])
def test_a_mu_that_is_too_large_is_found_out(factor):
    A, (b, t) = diffusion(8), vectors(64)
    m = A.matrix.diagonal()
    mu = np.linalg.eigvalsh(A.matrix.toarray() / np.sqrt(np.outer(m, m)))[0]
    x, lam = (bs.solve(A.matrix, v, method="cg", rtol=1e-4) for v in (b, t))
    good = gradients.certify(A, b, t, x=x, adjoint=lam, mu=mu * (1 - 1e-9))
    assert good.certified and good.kind == "energy"
    bad = gradients.certify(A, b, t, x=x, adjoint=lam, mu=mu * factor)
    assert not bad.certified and "is too large: A has a Ritz value below it" in str(bad)
    assert str(bad).startswith("Gradient error, 1-norm: estimate, not a bound")
    assert A.k @ np.abs(bad.gradient - true_gradient(A, b, t)) <= bad.log_bound


def test_a_cotangent_made_from_x_counts():
    """Half a sum of squares: a λ̃ that is exact for ḡ(x̃) is still wrong for ḡ(x)."""
    A, (b, t) = diffusion(8), vectors(64)
    x = bs.solve(A.matrix, b, method="cg", rtol=1e-3)
    lam = bs.solve(A.matrix, x - t)
    c = gradients.certify(A, b, lambda x: x - t, x=x, adjoint=lam, lipschitz=1.0)
    frozen = gradients.certify(A, b, x - t, x=x, adjoint=lam)
    error = A.k @ np.abs(c.gradient - true_gradient(A, b, bs.solve(A.matrix, b) - t))
    assert frozen.log_bound < error <= c.log_bound <= 100 * error
    assert "Lipschitz in x with the constant 1, as given" in str(c)


def test_conditions_are_sentences():
    A, (b, t) = diffusion(4), vectors(16)
    assert [c.holds for c in gradients.certify(A, b, t).conditions] == [True, True, None]
    skew = sp.csr_array(A.matrix + sp.diags_array(np.ones(15), offsets=1, shape=(16, 16)))
    estimate = gradients.certify(skew, b, t)
    assert not estimate.certified and len(estimate.failed) == 3 and "not real and symmetric" in estimate.failed[0]
    assert "was estimated" in estimate.failed[2]
    indefinite = gradients.IncidenceForm(A.G, A.k, -1e3 * np.ones(16))
    negative = gradients.certify(indefinite, b, t)
    assert negative.certified and negative.kind == "residual"  # by dominance, which knows no sign
    assert "diagonal entry that is not positive" in negative.failed[0]
    elements = np.array([[1.0, -2, 1], [0, 1, 1]])  # a positive off-diagonal entry, so no dominance
    unsure = gradients.certify(gradients.IncidenceForm(elements, [1.0, 1], [0.1, 0.1, 0.1]), np.ones(3), np.ones(3))
    assert not unsure.certified and "give mu" in unsure.failed[0]


@pytest.mark.parametrize("name", ["convection", "indefinite"])
def test_estimates_hang_little_on_the_norm_that_was_estimated(name):
    problem = gallery.problem(name, 16)
    full, (b, t) = problem.toarray(), vectors(problem.n)
    x, lam = np.linalg.solve(full, b), np.linalg.solve(full.T, t)
    noise = 1 + 1e-4 * vectors(problem.n, 7)
    c = gradients.certify(full, b, t, x=x * noise[0], adjoint=lam * noise[1])
    rows, columns = np.nonzero(full)
    error = np.abs(c.gradient + lam[rows] * x[columns]).sum()
    assert not c.certified and error <= c.bound <= 10 * error


@pytest.mark.parametrize("logarithmic", [True, False])
def test_suggested_tolerances_meet_their_target(logarithmic):
    """By solves at these tolerances, with whatever method: proved for diffusion, cautious by √κ at most."""
    for seed in range(6):
        A, (b, t) = diffusion(8, seed=seed), vectors(64, seed)
        size = np.abs(A.k**logarithmic * true_gradient(A, b, t)).sum()
        for relative in (1e-2, 1e-6):
            target = relative * float(size)
            tolerance = gradients.suggest_tolerance(A, b, t, target, logarithmic=logarithmic)
            assert tolerance.certified and tolerance.target == target and "(proved)" in str(tolerance)
            for method in ("cg", "minres"):
                x = bs.solve(A.matrix, b, method=method, rtol=tolerance.rtol)
                lam = bs.solve(A.matrix, t, method=method, rtol=tolerance.adjoint_rtol)
                change = -(A.G @ x) * (A.G @ lam) - true_gradient(A, b, t)
                error = float(np.abs(A.k**logarithmic * change).sum())
                assert 1e-4 * target <= error <= target


def test_a_suggested_tolerance_goes_into_a_solve_with_its_adjoint():
    """For a loss of x, in torch: the gradient by log k of half a sum of squares."""
    A, (b, y) = diffusion(6), vectors(36)
    exact = bs.solve(A.matrix, b)
    truth = A.k * true_gradient(A, b, exact - y)
    target = 1e-3 * float(np.abs(truth).sum())
    tolerance = gradients.suggest_tolerance(A, b, lambda x: x - y, target, lipschitz=1.0)
    logs = torch.from_numpy(np.log(A.k)).requires_grad_()
    G = torch.from_numpy(A.G.toarray())
    matrix = (G.T * torch.exp(logs)) @ G
    x = bs.solve(matrix, torch.from_numpy(b), method="cg", assume="spd", **tolerance.options)
    ((x - torch.from_numpy(y)).square().sum() / 2).backward()
    assert np.abs(logs.grad.numpy() - truth).sum() <= target


def test_targets_below_rounding_are_refused():
    A, (b, t) = diffusion(6), vectors(36)
    with pytest.raises(ValueError, match=r"double precision gets to about .*: ask for .* or more"):
        gradients.suggest_tolerance(A, b, t, 1e-18)
    loose = gradients.suggest_tolerance(A, b, t, 1e6)
    assert loose.rtol == 0.1


# -- functionals --------------------------------------------------------------------------------------------------


def test_functionals_have_quadratic_accuracy():
    """The error falls as the square of the tolerance, and the bound with it."""
    A, (b, t) = diffusion(16), vectors(256)
    truth = float(t @ bs.solve(A.matrix, b))
    plain, corrected = [], []
    for rtol in (1e-2, 1e-4, 1e-6):
        J = gradients.functional(A, b, t, rtol=rtol, method="cg")
        assert J.certified and abs(J.value - truth) <= J.bound + 1e-12 * abs(truth)
        plain.append(abs(J.uncorrected - truth))
        corrected.append(J.bound)
    size = abs(truth)
    assert plain[1] > 1e-6 * size and corrected[1] < 1e-7 * size and corrected[2] < 1e-10 * size


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_functionals_of_every_framework(name, kind):
    convert = {"numpy": np.asarray, "torch": torch.from_numpy, "jax": jnp.asarray}[name]
    rng = np.random.default_rng(0)
    full = 8 * np.eye(12) + rng.standard_normal((12, 12))
    b, t = vectors(12)
    if kind == "complex128":
        full, b, t = full + 1j * rng.standard_normal((12, 12)), b + 1j * t, t - 2j * b
    x, lam = np.linalg.solve(full, b) * (1 + 1e-3 * b), np.linalg.solve(full.conj().T, t) * (1 + 1e-3 * t)
    given = {} if name == "numpy" else {"x": convert(x), "adjoint": convert(lam)}
    J = gradients.functional(convert(full), convert(b), convert(t), rtol=1e-3, method="gmres", **given)
    truth = np.vdot(t, np.linalg.solve(full, b))
    error = abs(complex(J.value) - truth)
    assert type(J.value).__module__.split(".")[0] == ("jaxlib" if name == "jax" else name)
    assert error <= J.bound < 1e-4 * abs(truth) and abs(complex(J.uncorrected) - truth) > 10 * error
    assert not J.certified and "estimated" in J.conditions[-1].sentence


def test_functionals_factor_once_and_take_given_solutions():
    A, (b, t) = diffusion(5), vectors(25)
    x, lam = (bs.solve(A.matrix, v, method="cg", rtol=1e-2) for v in (b, t))
    J = gradients.functional(A, b, t, x=x, adjoint=lam)
    truth = t @ bs.solve(A.matrix, b)
    assert J.x is x and abs(J.value - truth) <= J.bound < abs(J.uncorrected - truth)


def test_functionals_of_functions_have_no_bound():
    M = bs.MatrixFree(lambda d, v: d * v, np.arange(1.0, 6.0), (5, 5), adjoint=lambda d, v: d * v)
    J = gradients.functional(M, np.ones(5), np.ones(5), method="cg", rtol=1e-10)
    assert abs(J.value - (1 / np.arange(1.0, 6.0)).sum()) < 1e-12
    assert np.isnan(J.bound) and not J.certified and "has no entries" in J.conditions[0].sentence


def test_gradients_of_functionals_are_of_second_order_too():
    """At a tolerance of 1e-3, where the gradient of tᵀx̃ has an error of the first order."""
    A, (b, t) = diffusion(4), vectors(16)
    full = A.matrix.toarray()
    x, lam = np.linalg.solve(full, b), np.linalg.solve(full, t)
    options = {"method": "cg", "assume": "spd", "rtol": 1e-3}
    M = torch.from_numpy(full).requires_grad_()
    gradients.functional(M, torch.from_numpy(b), torch.from_numpy(t), **options).value.backward()
    corrected = M.grad.clone()
    M.grad = None
    (torch.from_numpy(t) @ bs.solve(M, torch.from_numpy(b), **options)).backward()
    truth = -np.outer(lam, x)
    errors = [np.abs(np.asarray(g) - truth).max() for g in (corrected, M.grad)]
    assert errors[0] < 1e-2 * errors[1]


def test_gradients_of_functionals_in_jax():
    A, (b, t) = diffusion(3), map(jnp.asarray, vectors(9))
    full = jnp.asarray(A.matrix.toarray())
    found = []

    def value(M):
        found.append(gradients.functional(M, b, t))
        return found[-1].value

    truth = -jnp.outer(jnp.linalg.solve(full, t), jnp.linalg.solve(full, b))
    assert jnp.abs(jax.grad(value)(full) - truth).max() <= 1e-10 * jnp.abs(truth).max()
    assert np.isnan(found[0].bound) and "traced" in found[0].conditions[0].sentence


# -- arguments ----------------------------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    A, (b, t) = diffusion(3), vectors(9)
    form, certify = gradients.IncidenceForm, gradients.certify
    G = np.eye(3)
    for error, message, call in (
        (ValueError, "b must have shape", lambda: certify(A, b[:3], t)),
        (ValueError, "cotangent must be finite", lambda: certify(A, b, t * np.nan)),
        (ValueError, "x must be finite", lambda: certify(A, b, t, x=b * np.inf)),
        (ValueError, "lipschitz must be given", lambda: certify(A, b, lambda x: x)),
        (ValueError, "lipschitz must be a number", lambda: certify(A, b, lambda x: x, lipschitz=-1.0)),
        (ValueError, "mu must be a positive number", lambda: certify(A, b, t, mu=0.0)),
        (TypeError, "A must be real", lambda: certify(A.matrix * 1j, b, t)),
        (TypeError, "adjoint must be real", lambda: certify(A, b, t, adjoint=t * 1j)),
        (TypeError, "b must not be traced", lambda: jax.jit(lambda b: certify(A, b, t).bound)(jnp.asarray(b))),
        (ValueError, "A must be one square matrix", lambda: certify(np.ones((2, 3)), b, t)),
        (ValueError, "k must be positive", lambda: form(G, [1.0, 0, 1])),
        (ValueError, "element must have one entry", lambda: form(G, [1.0, 1, 1], element=[0, 1])),
        (ValueError, "element must name one of", lambda: form(G, [1.0, 1], element=[0, 1, 2])),
        (ValueError, "element must name one of", lambda: form(G, [1.0, 1])),
        (ValueError, "D must be a vector", lambda: form(G, [1.0, 1, 1], np.triu(np.ones((3, 3))))),
        (ValueError, "G must be finite", lambda: form(G * np.nan, [1.0, 1, 1])),
        (ValueError, "target must be a positive", lambda: gradients.suggest_tolerance(A, b, t, 0.0)),
        (ValueError, "t must have shape", lambda: gradients.functional(A, b, t[:2])),
        (ValueError, "x and adjoint must be given together", lambda: gradients.functional(A, b, t, x=b)),
    ):
        with pytest.raises(error, match=message):
            call()


def test_overflow_proves_nothing():
    A, (b, t) = diffusion(3), vectors(9)
    huge = gradients.certify(A, b, t, x=5e307 * b / np.abs(b).max(), adjoint=5e307 * t / np.abs(t).max())
    assert not huge.certified and huge.bound == huge.log_bound == np.inf and "overflow" in huge.failed[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        J = gradients.functional(A, b, t, x=5e307 * b / np.abs(b).max(), adjoint=5e307 * t / np.abs(t).max())
    assert not J.certified


def test_empty_and_zero():
    A, b = diffusion(3), np.zeros(9)
    c = gradients.certify(A, b, b)
    assert c.certified and c.bound < 1e-300 and not c.gradient.any()
    J = gradients.functional(A, b, b)
    assert J.value == 0 and J.bound < 1e-300
