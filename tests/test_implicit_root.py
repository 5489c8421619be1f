"""Roots are differentiated by the implicit function theorem, in torch and JAX, to second order, whatever finds them.

The truth is the dense formula, written out: ż = -J⁻¹ F_θ θ̇, and differences of it for what follows.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jax_cases import wide  # noqa: F401

import backsolve as bs
from backsolve import implicit

N = 5
RNG = np.random.default_rng(0)
W = 0.3 * RNG.standard_normal((N, N))
B = RNG.standard_normal(N)
SEED = RNG.standard_normal(N)
PATTERN = sp.csr_array(np.ones((N, N)))
TIGHT = bs.Adjoint(rtol=1e-13)


def residual(xp):
    """F(z, W, b), whose Jacobian is far from symmetric."""
    return lambda z, W, b: z + 0.3 * z**3 - xp.tanh(W @ z) - b


F = residual(torch)
EXACT = {
    "dense": "dense",
    "products": "products",
    "pattern": PATTERN,
    "given": lambda z, W, b: torch.diag(1 + 0.9 * z**2) - (1 - torch.tanh(W @ z) ** 2)[:, None] * W,
}


def tensors(grad=True):
    return torch.tensor(W, requires_grad=grad), torch.tensor(B, requires_grad=grad)


def dense_truth():
    """z, dz/db and dz/dW by NumPy, from a root that is right to rounding."""
    z = np.zeros(N)
    for _ in range(50):
        t = np.tanh(W @ z)
        J = np.diag(1 + 0.9 * z**2) - (1 - t**2)[:, None] * W
        z = z - np.linalg.solve(J, z + 0.3 * z**3 - t - B)
    t = np.tanh(W @ z)
    J = np.diag(1 + 0.9 * z**2) - (1 - t**2)[:, None] * W
    inverse = np.linalg.inv(J)
    dW = np.einsum("ai,i,j->aij", inverse, 1 - t**2, z)  # F_W Ẇ = -(1 - t²) Ẇ z
    return z, inverse, dW


@pytest.mark.parametrize("jacobian", EXACT.values(), ids=EXACT)
def test_root_has_the_derivatives_of_the_implicit_function_theorem(jacobian):
    z, db, dW = dense_truth()

    def solve(W, b):
        return implicit.root(F, torch.zeros(N, dtype=torch.float64), (W, b), jacobian=jacobian, adjoint=TIGHT)

    w, b = tensors()
    assert np.abs(solve(w, b).detach().numpy() - z).max() < 1e-10
    for derivative in (torch.func.jacrev, torch.func.jacfwd):
        got_w, got_b = derivative(solve, (0, 1))(w, b)
        assert np.abs(got_b.detach().numpy() - db).max() < 1e-9
        assert np.abs(got_w.detach().numpy() - dW).max() < 1e-9
    seed = torch.tensor(SEED)
    (slope,) = torch.autograd.grad(solve(w, b) @ seed, b)
    assert np.abs(slope.numpy() - SEED @ db).max() < 1e-9


def test_second_derivatives_are_those_of_a_newton_iteration_that_is_differentiated():
    """From a root that is right to rounding two recorded Newton steps have the right first three derivatives."""
    z0 = torch.tensor(dense_truth()[0])
    seed = torch.tensor(SEED)

    def recorded(b):
        z = z0
        for _ in range(2):
            z = z - torch.linalg.solve(torch.func.jacrev(F)(z, torch.tensor(W), b), F(z, torch.tensor(W), b))
        return (z @ seed).square()

    def layer(jacobian):
        return lambda b: (
            implicit.root(F, torch.zeros_like(b), (torch.tensor(W), b), jacobian=jacobian, adjoint=TIGHT) @ seed
        ).square()

    truth = torch.func.hessian(recorded)(torch.tensor(B))
    for jacobian in ("dense", "products", PATTERN):
        for hessian in (torch.func.hessian, lambda f: lambda b: torch.autograd.functional.hessian(f, b)):
            assert (hessian(layer(jacobian))(torch.tensor(B)) - truth).abs().max() < 1e-9 * truth.abs().max()
    w, b = tensors()
    assert torch.autograd.gradgradcheck(
        lambda w, b: implicit.root(F, torch.zeros(N, dtype=torch.float64), (w, b), atol=1e-13), (w, b)
    )


def test_jax_agrees_to_second_order_compiled_and_maps():
    z, db, dW = dense_truth()
    f = residual(jnp)

    def layer(W, b, jacobian):
        return implicit.root(f, jnp.zeros(N), (W, b), jacobian=jacobian, adjoint=TIGHT)

    def curved(b):
        return (layer(jnp.asarray(W), b, "dense") @ SEED) ** 2

    both = jax.jit(lambda W, b: (layer(W, b, "dense"), jax.jacrev(layer, (0, 1))(W, b, "dense")))
    value, (got_w, got_b) = both(W, B)
    assert np.abs(value - z).max() < 1e-10
    assert np.abs(got_b - db).max() < 1e-9
    assert np.abs(got_w - dW).max() < 1e-9
    mapped = jax.jit(jax.vmap(jax.hessian(curved)))(jnp.stack([B, B / 2]))

    def torch_curved(b):
        return (implicit.root(F, torch.zeros_like(b), (torch.tensor(W), b)) @ torch.tensor(SEED)).square()

    for got, at in zip(mapped, (B, B / 2), strict=True):
        truth = torch.func.hessian(torch_curved)(torch.tensor(at)).numpy()
        assert np.abs(got - truth).max() < 1e-9 * np.abs(truth).max()


@pytest.mark.parametrize("jacobian", ["products", PATTERN], ids=["products", "pattern"])
def test_jax_by_products_and_by_colours(jacobian):
    """Forward, and a cotangent; what F closes over is a parameter, too."""
    z, db, _ = dense_truth()
    f = residual(jnp)

    def loss(b):
        root = implicit.root(lambda z: f(z, jnp.asarray(W), b), jnp.zeros(N), jacobian=jacobian, adjoint=TIGHT)
        return root @ SEED

    value, slope = jax.jit(jax.value_and_grad(loss))(B)
    assert abs(value - z @ SEED) < 1e-9
    assert np.abs(slope - SEED @ db).max() < 1e-9


@pytest.mark.parametrize(
    "solver", ["newton", "anderson", "broyden", "picard", lambda F, z0: torch.tensor(dense_truth()[0])]
)
def test_every_solver_ends_at_the_same_root_with_the_same_gradient(solver):
    scaled = lambda z, W, b: F(z, W, b) / 3  # noqa: E731  (a contraction, for Picard)
    w, b = tensors()
    sol = implicit.root_with_info(scaled, torch.zeros(N, dtype=torch.float64), (w, b), solver=solver)
    z, db, _ = dense_truth()
    assert sol.converged
    assert float(sol.residual_norm) <= 1e-10
    assert np.abs(sol.z.detach().numpy() - z).max() < 1e-9
    sol.z.backward(torch.tensor(SEED))
    assert np.abs(b.grad.numpy() - SEED @ db).max() < 1e-9
    assert sol.adjoint.converged
    assert "CONVERGED_RESIDUAL" in repr(sol)


def test_colours_of_a_banded_matrix_are_as_many_as_its_diagonals():
    """A tridiagonal Jacobian of any size takes three products."""
    n, calls = 40, []

    def diffusion(z, k):
        calls.append(1)
        padded = torch.nn.functional.pad(z, (1, 1))
        return k * (2 * z - padded[:-2] - padded[2:]) + z**3 - 1

    pattern = sp.diags_array([np.ones(n - 1), np.ones(n), np.ones(n - 1)], offsets=[-1, 0, 1], format="csr")
    from backsolve.implicit.coloring import color
    from backsolve.implicit.setup import _jacobian

    assert len(_jacobian("root", pattern, n, 1, tuple).seeds) == 3
    assert len(color(bs.Pattern(np.arange(4) * 2, [0, 1, 1, 2, 0, 2], (3, 3))).seeds) == 3
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    z0 = torch.zeros(n, dtype=torch.float64)
    z = implicit.root(diffusion, z0, (k,), jacobian=pattern)
    z.sum().backward()
    other = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    implicit.root(diffusion, z0, (other,), jacobian="dense").sum().backward()
    assert abs(k.grad - other.grad) < 1e-10 * abs(other.grad)
    with pytest.raises(ValueError, match="an entry is missing"):
        implicit.root(diffusion, z0, (k,), jacobian=sp.eye_array(n, format="csr"))


def test_batches_parameters_in_nests_and_maps():
    A = torch.tensor([[1.0, 4.0], [9.0, 16.0], [25.0, 36.0]], dtype=torch.float64, requires_grad=True)
    params = ({"a": A, "unused": [torch.ones(3)], "power": 2},)
    f = lambda z, p: z ** p["power"] - p["a"]  # noqa: E731
    z = implicit.root(f, torch.ones_like(A), params)
    z.sum().backward()
    assert torch.allclose(A.grad, 0.5 / A.detach().sqrt(), rtol=1e-9)
    per_sample = torch.func.vmap(
        torch.func.grad(lambda a: implicit.root(lambda z, a: z * z - a, a * 0 + 1, (a,)).sum())
    )
    assert torch.allclose(per_sample(A.detach()), A.grad, rtol=1e-9)


def test_numpy_has_roots_without_gradients():
    for jacobian in ("dense", "products", PATTERN):
        z = implicit.root(residual(np), np.zeros(N), (W, B), jacobian=jacobian)
        assert np.abs(z - dense_truth()[0]).max() < 1e-9


def test_single_precision_stays_so():
    w, b = (t.float().detach().requires_grad_() for t in tensors())
    z = implicit.root(F, torch.zeros(N), (w, b))
    z.sum().backward()
    assert z.dtype == b.grad.dtype == torch.float32
    assert np.abs(b.grad.numpy() - dense_truth()[1].sum(0)).max() < 1e-4


FAILURES = {
    "MAXITER": (lambda z, a: z**3 - a, 1e6, implicit.Newton(maxiter=2), "raise maxiter"),
    "STAGNATION": (lambda z, a: (z + 1) ** 2 + a, 1.0, "newton", "local minimum"),
    "SINGULAR": (lambda z, a: 0 * z + a, 1.0, "newton", "Jacobian is singular"),
    "NONFINITE": (lambda z, a: torch.log(-z - 1) + a, 1.0, "newton", "NaN or an infinity"),
    "BREAKDOWN": (lambda z, a: -20 * z - a, 1.0, "picard", "runs away"),
    "INACCURATE": (lambda z, a: z - a, 3.0, lambda F, z0: z0, "evaluated anew"),
}


@pytest.mark.parametrize("status", FAILURES)
def test_every_failure_has_its_status_and_its_remedy(status):
    f, a, solver, remedy = FAILURES[status]
    a = torch.full((2,), a, dtype=torch.float64, requires_grad=True)
    z0 = torch.ones(2, dtype=torch.float64)
    with pytest.raises(bs.SolveError, match=remedy) as caught:
        implicit.root(f, z0, (a,), solver=solver)
    assert bs.Status(int(caught.value.solution.status)).name == status
    with pytest.warns(bs.SolveWarning, match=status):
        z = implicit.root(f, z0, (a,), solver=solver, on_failure="warn")
    assert torch.isnan(z).all()
    sol = implicit.root_with_info(f, z0, (a,), solver=solver, on_failure="return")
    assert not sol.converged
    sol.z.sum().backward()
    assert torch.isnan(a.grad).all(), "a gradient where there is no root"


def test_a_derivative_that_fails_says_so():
    """At z = 0 the root of z³ = a z has the Jacobian 0: found at once, but with no derivative."""
    a = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    z = implicit.root(lambda z, a: z**3 - a, torch.zeros(1, dtype=torch.float64), (a,))
    with pytest.raises(bs.SolveError, match=r"root: the derivative failed.*SINGULAR"):
        z.sum().backward()
    z = implicit.root(
        lambda z, a: z**3 - a,
        torch.zeros(1, dtype=torch.float64),
        (a,),
        adjoint=bs.Adjoint(on_failure="return"),
    )
    z.sum().backward()
    assert torch.isnan(a.grad).all()


def test_compiled_failures_are_nan_and_keep_their_status():
    def found(a):
        sol = implicit.root_with_info(lambda z: z * z + a, 2 * jnp.ones(1), on_failure="return")
        return sol.z.sum(), sol.status

    (_, status), slope = jax.jit(jax.value_and_grad(found, has_aux=True))(1.0)
    assert bs.Status(int(status)) is bs.Status.STAGNATION
    assert np.isnan(slope)
    with pytest.raises(bs.SolveError, match="STAGNATION"):
        implicit.root(lambda z: z * z + 1, 2 * jnp.ones(1))


def test_arguments_that_do_not_fit():
    z0, a = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64, requires_grad=True)
    f = lambda z, a: z - a  # noqa: E731
    for match, call in {
        "params must be a tuple": lambda: implicit.root(f, z0, a),
        "a function": lambda: implicit.root(1, z0),
        "shape and dtype of z0": lambda: implicit.root(lambda z: z[:1], z0),
        "float32 or float64": lambda: implicit.root(f, torch.ones(2, dtype=torch.complex128), (a,)),
        "solver must be one of": lambda: implicit.root(f, z0, (a,), solver="secant"),
        "jacobian must be 'auto'": lambda: implicit.root(f, z0, (a,), jacobian="sparse"),
        r"pattern of shape \(2, 2\)": lambda: implicit.root(f, z0, (a,), jacobian=PATTERN),
        "batch_axes must be": lambda: implicit.root(f, z0, (a,), batch_axes=2),
        "through params alone; it closes over 'a'": lambda: implicit.root(lambda z: z - a, z0),
        "maxiter must be an integer": lambda: implicit.Newton(maxiter=0),
        "mixing must be a float": lambda: implicit.Picard(mixing=-1.0),
        "matrix of shape": lambda: implicit.root(f, z0, (a,), jacobian=lambda z, a: torch.eye(3, dtype=z.dtype)),
        "shape of z0": lambda: implicit.root(f, z0, (a,), solver=lambda F, z0: z0[:1]),
    }.items():
        with pytest.raises((TypeError, ValueError), match=match):
            call()


def test_without_torch_the_package_loads_and_names_the_remedy():
    program = (
        "import sys, numpy as np\n"
        "sys.modules['torch'] = None\n"
        "from backsolve import implicit\n"
        "assert implicit.root(lambda z: z - 2, np.zeros(1)) == 2\n"
        "try:\n    implicit.DEQ\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'backsolve[torch]'" in done.stdout, done.stderr


def test_derivatives_stay_out_of_a_compiler_that_was_there_first():
    """Dynamo, and what keeps it out, are loaded before this package."""
    program = (
        "import torch, torch._dynamo, backsolve as bs\n"
        "w = torch.ones(2, dtype=torch.float64, requires_grad=True)\n"
        "bs.solve(bs.coo(w, ([0, 1], [0, 1]), (2, 2)), torch.ones(2, dtype=torch.float64)).sum().backward()\n"
        "from backsolve import implicit\n"
        "implicit.root(lambda z, w: z * z - w, torch.ones(2, dtype=torch.float64), (w,)).sum().backward()\n"
        "assert torch.allclose(w.grad, torch.tensor(-0.5).double())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
