"""NumPy's vjp and jvp: against torch, against complex steps, and against each other."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import gallery

DTYPES = ["float32", "float64", "complex64", "complex128"]
ROWS = np.array([4, 0, 0, 1, 1, 2, 2, 3, 3, 4, 1, 0])
COLS = np.array([4, 0, 3, 1, 0, 2, 1, 3, 4, 1, 1, 0])
N = 5
SHAPES = [((), (N,)), ((), (N, 2)), ((3,), (N,)), ((3,), (3, N, 2)), ((), (3, N, 2)), ((1,), (3, N, 2))]
SHAPES += [((2, 3), (3, N, 1)), ((3,), (2, 1, N, 2)), ((2, 1), (1, 3, N, 2)), ((), (N, 0))]


def random(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def operator(kind, batch, dtype):
    """Sparse with repeats, or dense, with a condition number of a few units."""
    values = random((*batch, ROWS.size), dtype, 1) / 2
    values[..., ROWS == COLS] += 3
    A = bs.coo(values, (ROWS, COLS), (N, N))
    return A if kind == "sparse" else bs.Dense(A.toarray())


def bound_of(A, power=1):
    dense = A.toarray()
    kappa = np.linalg.cond(dense.astype(np.result_type(dense, np.float64))).max()
    return 10 * kappa**power * np.finfo(dense.dtype).eps


def inner(u, v):
    return np.vdot(u, v).real


def assert_close(x, truth, bound):
    assert x.shape == truth.shape and x.dtype == truth.dtype
    assert np.abs(x - truth).max(initial=0) <= bound * np.abs(truth).max(initial=0)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "b_shape"), SHAPES, ids=str)
def test_vjp_equals_torch(batch, b_shape, dtype, kind):
    A, b = operator(kind, batch, dtype), random(b_shape, dtype, 2)
    sol, pullback = bs.vjp(A, b)
    g = random(sol.x.shape, dtype, 3)
    data_bar, b_bar, adjoint = pullback(g)
    v, c = (torch.from_numpy(t).requires_grad_() for t in (A.data, b))
    x = bs.solve(A.with_data(v), c)
    x.backward(torch.from_numpy(g))
    bound = bound_of(A)
    for ours, theirs in ((sol.x, x.detach()), (data_bar, v.grad), (b_bar, c.grad)):
        assert_close(ours, theirs.numpy(), bound)
    assert adjoint.converged and adjoint.x.shape == sol.x.shape
    assert int(np.max(adjoint.stats.factorizations, initial=0)) == 0


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "b_shape"), SHAPES, ids=str)
def test_vjp_is_the_transpose_of_jvp(batch, b_shape, dtype, kind):
    """Re⟨g, ẋ⟩ = Re⟨θ̄, θ̇⟩ + Re⟨b̄, ḃ⟩."""
    A, b = operator(kind, batch, dtype), random(b_shape, dtype, 2)
    data_dot, b_dot = random(A.data.shape, dtype, 4), random(b_shape, dtype, 5)
    sol, sol_dot = bs.jvp(A, b, data_dot, b_dot)
    g = random(sol.x.shape, dtype, 3)
    data_bar, b_bar, _ = bs.vjp(A, b)[1](g)
    size = sum(np.linalg.norm(u) * np.linalg.norm(v) for u, v in ((g, sol_dot.x), (data_bar, data_dot), (b_bar, b_dot)))
    assert abs(inner(g, sol_dot.x) - inner(data_bar, data_dot) - inner(b_bar, b_dot)) <= bound_of(A) * size
    for only in ({"data_dot": data_dot}, {"b_dot": b_dot}):
        assert bs.jvp(A, b, **only)[1].x.shape == sol.x.shape
    parts = bs.jvp(A, b, data_dot=data_dot)[1].x + bs.jvp(A, b, b_dot=b_dot)[1].x
    assert np.abs(parts - sol_dot.x).max(initial=0) <= bound_of(A) * np.abs(sol_dot.x).max(initial=0)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize(("batch", "b_shape"), SHAPES[:-1], ids=str)
def test_jvp_equals_the_complex_step(batch, b_shape, kind):
    """Im x(θ + ihθ̇, b + ihḃ) / h has no cancellation, so h is as small as can be."""
    A, b = operator(kind, batch, "float64"), random(b_shape, "float64", 2)
    data_dot, b_dot, h = random(A.data.shape, "float64", 4), random(b_shape, "float64", 5), 1e-100
    stepped = bs.solve(A.with_data(A.data + 1j * h * data_dot), b + 1j * h * b_dot)
    truth = np.linalg.solve(
        A.with_data(A.data + 1j * h * data_dot).toarray(), (b + 1j * h * b_dot)[..., *((None,) if b.ndim == 1 else ())]
    ).imag
    truth = truth[..., 0] if b.ndim == 1 else truth
    assert_close(bs.jvp(A, b, data_dot, b_dot)[1].x, truth / h, bound_of(A, 2))
    assert_close(stepped.imag / h, truth / h, bound_of(A, 2))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", ["convection", "saddle", "duplicates", "unsorted", "diffusion"])
def test_directional_derivative_of_a_functional(name, dtype):
    """Central differences of Re⟨c, x⟩, at their best step, on strongly non-symmetric and indefinite matrices."""
    problem = gallery.problem(name, 16)
    A = problem.A.with_data(problem.A.data.astype(dtype))
    b, c = problem.b.astype(dtype), random(problem.n, dtype, 1)
    data_dot = random(A.data.shape, dtype, 2) * np.abs(A.data)
    data_bar, _, _ = bs.vjp(A, b)[1](c)
    h = np.finfo(float).eps ** (1 / 3)
    plus, minus = (inner(c, bs.solve(A.with_data(A.data + s * h * data_dot), b)) for s in (1, -1))
    kappa = np.linalg.cond(problem.toarray())
    size = np.linalg.norm(c) * np.linalg.norm(bs.solve(A, b))
    assert abs((plus - minus) / (2 * h) - inner(data_bar, data_dot)) <= 10 * kappa**3 * h**2 * size


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_mixed_dtypes_return_in_their_own(kind):
    for data_dtype in DTYPES:
        for b_dtype in DTYPES:
            A, b = operator(kind, (2,), data_dtype), random((N, 2), b_dtype, 2)
            sol, pullback = bs.vjp(A, b)
            assert sol.x.dtype == np.result_type(data_dtype, b_dtype)
            data_bar, b_bar, _ = pullback(random(sol.x.shape, sol.x.dtype, 3))
            assert data_bar.dtype == data_dtype and b_bar.dtype == b_dtype


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("scale", [0.0, 1e-13, 1e-200, 1e-310, 1e250])
def test_cotangents_of_every_size(scale, kind):
    A, b = operator(kind, (), "float64"), random((N, 2), "float64", 2)
    g = random((N, 2), "float64", 3) * scale
    pullback = bs.vjp(A, b)[1]
    if scale == 0:
        assert not any(bar.any() for bar in pullback(g)[:2])
        return
    power = 2.0 ** int(np.log2(scale))
    floor = 100 * np.finfo(float).smallest_subnormal / power
    for tiny, usual in zip(pullback(g)[:2], pullback(g / power)[:2], strict=True):
        assert np.abs(tiny / power - usual).max() <= bound_of(A) * np.abs(usual).max() + floor


def test_degenerate_shapes():
    A = bs.CSR(np.zeros(0), [], [0], (0, 0))
    for shape in ((0,), (0, 3)):
        sol, pullback = bs.vjp(A, np.zeros(shape))
        data_bar, b_bar, _ = pullback(np.zeros(shape))
        assert sol.x.shape == b_bar.shape == shape and data_bar.shape == (0,)
    for one in (np.array([[4.0]]), sp.csr_array([[4.0]])):
        data_bar, b_bar, _ = bs.vjp(one, np.array([2.0]))[1](np.array([1.0]))
        assert data_bar.reshape(-1).tolist() == [-0.125] and b_bar.tolist() == [0.25]


def test_second_pullback_makes_no_second_factorization():
    A, b = operator("sparse", (), "float64"), random((N,), "float64", 2)
    sol, pullback = bs.vjp(A, b)
    assert int(sol.stats.factorizations) == 1
    assert [int(pullback(b)[2].stats.factorizations) for _ in range(2)] == [0, 0]


def test_gradients_of_failed_items_are_nan_and_the_others_right():
    good = operator("dense", (), "float64").toarray()
    stack = np.stack([good, np.zeros((N, N)), good])
    for A in (stack, bs.CSR(stack.reshape(3, -1), np.tile(np.arange(N), N), np.arange(N + 1) * N, (N, N))):
        sol, pullback = bs.vjp(A, np.ones(N), on_failure="return")
        data_bar, b_bar, _ = pullback(np.ones((3, N)))
        assert np.isnan(data_bar[1]).all() and np.isnan(b_bar).all()
        assert np.isfinite(data_bar[[0, 2]]).all() and sol.status.tolist() == [2, -1, 2]
        b_bar = bs.vjp(A, np.ones((3, N, 1)), on_failure="return")[1](np.ones((3, N, 1)))[1]
        assert np.isnan(b_bar[1]).all() and np.isfinite(b_bar[[0, 2]]).all()


def test_wrong_arguments_are_named():
    A, b = operator("sparse", (), "float64"), np.ones(N)
    for message, call in (
        ("g must have the shape of x", lambda: bs.vjp(A, b)[1](np.ones(N + 1))),
        ("data_dot must have the shape", lambda: bs.jvp(A, b, data_dot=np.ones(N))),
        ("b_dot must have the shape", lambda: bs.jvp(A, b, b_dot=np.ones((N, 1)))),
        ("needs a tangent", lambda: bs.jvp(A, b)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="takes the options"):
        bs.vjp(A, b, methd="lu")
    with pytest.raises(TypeError, match=r"differentiate backsolve\.solve itself"):
        bs.vjp(A, torch.ones(N, dtype=torch.float64))
