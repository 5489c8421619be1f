"""Edge models of JAX: values and gradients against dense inverses, and how many programs are compiled for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax_cases import wide  # noqa: F401

from backsolve import local
from backsolve._local.modelled import Structure
from backsolve.frontends.jax_batches import Weighing

N = 40
B, T = ([3, 20], [1.0, -0.5]), ([5], [2.0])


def problem():
    """A structure with its diagonal, not symmetric, and features of its entries."""
    rng = np.random.default_rng(0)
    near = (np.arange(N)[:, None] + rng.integers(1, 8, (N, 3))) % N
    A = sp.coo_array((np.ones(3 * N), (np.repeat(np.arange(N), 3), near.ravel())), shape=(N, N)) + sp.eye_array(N)
    A = sp.csr_array(A)
    A.sort_indices()
    return A, np.repeat(np.arange(N), np.diff(A.indptr)), rng.standard_normal((A.nnz, 2))


A, ROWS, FEATURES = problem()
COLUMNS = A.indices.astype(np.int64)
DIAGONAL = ROWS == COLUMNS
THETA = np.array([0.7, -0.4])
PROGRAMS = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: PROGRAMS.append(event) if event.endswith("backend_compile_duration") else None
)


@pytest.fixture(scope="module")
def entry_weight():
    """Off the diagonal in (-1, 1); on it 12, more than the sum of the moduli in any row or column."""
    with jax.enable_x64(True):
        features, on = jnp.asarray(FEATURES), jnp.asarray(DIAGONAL)

    def weight(theta, k):
        return jnp.where(on[k], 12.0, jnp.tanh(features[k] @ theta["w"]))

    return weight


def dense(theta=THETA):
    """(the matrix, values of entries by theta: (nnz, 2))"""
    values = np.where(DIAGONAL, 12.0, np.tanh(FEATURES @ theta))
    M = np.zeros((N, N))
    M[ROWS, COLUMNS] = values
    return M, np.where(DIAGONAL[:, None], 0.0, (1 - values**2)[:, None] * FEATURES)


def spread(vector):
    out = np.zeros(N)
    np.add.at(out, *vector)
    return out


def model_of(entry_weight, promise="both", theta=THETA, margin=0.5):
    return local.EdgeModel(A, entry_weight, {"w": jnp.asarray(theta)}, promise=promise, margin=margin)


def check_gradient(g, x, lam, slopes):
    """Each entry within its bound, those that are not listed too; and what theta gets of them."""
    truth, listed = -lam[ROWS] * x[COLUMNS], np.zeros(A.nnz)
    places, rows, columns, values, bounds = (
        np.asarray(part) for part in (g.A.places, g.A.rows, g.A.columns, g.A.values, g.A.bounds)
    )
    assert np.all(np.diff(places) > 0)
    assert np.array_equal(rows, ROWS[places]) and np.array_equal(columns, COLUMNS[places])
    assert np.all(np.abs(values - truth[places]) <= bounds)
    listed[places] = values
    assert np.all(np.abs(listed - truth) <= g.A.bound_at(ROWS, COLUMNS))
    assert np.all(np.abs(np.asarray(g.b.values) - lam[np.asarray(g.b.indices)]) <= np.asarray(g.b.bounds))
    error = np.abs(np.asarray(g.theta["w"]) - slopes.T @ truth)
    assert np.all(error <= np.abs(slopes).T @ g.A.bound_at(ROWS, COLUMNS) + 1e-14)


@pytest.mark.parametrize("promise", ["rows", "columns", "both"])
def test_values_and_gradients_are_within_their_bounds(entry_weight, promise):
    M, slopes = dense()
    b, t = spread(B), spread(T)
    x, lam = np.linalg.solve(M, b), np.linalg.solve(M.T, t)
    for gradient_atol in (1e-2, 1e-9):
        est, g = local.value_and_grad(model_of(entry_weight, promise), B, T, 1e-3, gradient_atol=gradient_atol)
        assert isinstance(est.value, float) and abs(est.value - t @ x) <= est.bound
        assert isinstance(g.A.values, jax.Array) and g.A.bound <= gradient_atol
        check_gradient(g, x, lam, slopes)
    np.testing.assert_allclose(g.theta["w"], slopes.T @ (-lam[ROWS] * x[COLUMNS]), atol=1e-7)
    direction = (g.A.places, jnp.asarray(slopes[np.asarray(g.A.places), 0]))
    along, bound = g.directional(tuple(map(np.asarray, direction)))
    assert abs(along - float(g.theta["w"][0])) <= 1e-14 and bound <= 1e-7
    finer = est.refine(1e-12)
    assert abs(finer.value - t @ x) <= finer.bound + 1e-15 <= 1e-12 + 1e-15


@pytest.mark.parametrize("promise", ["rows", "columns"])
def test_solutions_and_entries(entry_weight, promise):
    M, slopes = dense()
    x, g = np.linalg.solve(M, spread(B)), np.linspace(-1, 1, N)
    model = model_of(entry_weight, promise)
    est = local.solve(model, (B[0], jnp.asarray(B[1])), 1e-10)
    assert est.value.shape == (N, 1) and np.abs(est.value.toarray()[:, 0] - x).max() <= est.bound <= 1e-10
    check_gradient(est.vjp(jnp.asarray(g), atol=1e-10), x, np.linalg.solve(M.T, g), slopes)
    one = local.entry(model, B, 5, 1e-9)
    assert abs(one.value - x[5]) <= one.bound
    whole = local.entry(model, jnp.asarray(spread(B)), 5, 1e-9)
    assert abs(whole.value - x[5]) <= whole.bound
    check_gradient(whole.gradient(), x, np.linalg.solve(M.T, np.eye(N)[5]), slopes)


def test_an_estimate_keeps_the_theta_it_was_made_with(entry_weight):
    model = model_of(entry_weight)
    est = local.functional(model, B, T, 1e-2)
    other = THETA + 0.5
    model.theta["w"] = jnp.asarray(other)
    for theta, answer in ((THETA, est), (other, local.functional(model, B, T, 1e-2))):
        M, slopes = dense(theta)
        x, lam = np.linalg.solve(M, spread(B)), np.linalg.solve(M.T, spread(T))
        finer = answer.refine(1e-10)
        assert abs(finer.value - spread(T) @ x) <= finer.bound <= 1e-10
        check_gradient(finer.gradient(), x, lam, slopes)
    with pytest.raises(ValueError, match=r"set model.theta, and ask again"):
        answer.update(dA=([0], [0.1]))


class Computed:
    """An index array that nobody keeps: a function of the place."""

    def __init__(self, length, at):
        self.length, self.at = length, at

    def __len__(self):
        return self.length

    def __getitem__(self, places):
        return self.at(np.asarray(places, np.int64))


def ring(n):
    """Row i has entries at i - 1, i, i + 1, which lie at 3i, 3i + 1 and 3i + 2; 1.5e8 of them for n = 5e7."""
    near = Computed(3 * n, lambda k: (k // 3 + k % 3 - 1) % n)
    pointers = Computed(n + 1, lambda i: 3 * i)
    slots = Computed(3 * n, lambda k: 3 * ((k // 3 + k % 3 - 1) % n) + 2 - k % 3)
    return Structure(n, pointers, near, pointers, near, slots)


def test_training_on_150_million_entries_evaluates_thousands_and_compiles_few_programs():
    counts = []
    for n in (10_000, 50_000_000):
        traced = []

        def values(theta, k, traced=traced, n=n):
            traced.append(k.shape[0])
            return jnp.where(k % 3 == 1, 3.0, -theta - 0.1 * jnp.sin((k // 3 - n // 2).astype(float)))

        model = local.EdgeModel(A, values, np.float64(0.8), promise="both", framework="jax")
        model.structure = ring(n)
        evaluated, compiled = [], []
        for width in (1, 70, 200, 30, 150, 180, 1, 60):  # right-hand sides of many sizes, and so are their frontiers
            before, nodes = len(PROGRAMS), n // 2 + 7 * np.arange(width)
            est, g = local.value_and_grad(model, (nodes, np.ones(width)), (nodes + 1, np.ones(width)), 1e-6)
            model.theta = model.theta - 0.2 * np.asarray(g.theta) / width
            evaluated.append(len(est._session.known.places))
            compiled.append(len(PROGRAMS) - before)
        assert sorted(traced) == [256, 512, 1024, 2048, 4096, 8192], "traced once for each size"
        assert sum(compiled) <= 2 * len(traced) and compiled[-2:] == [0, 0], "values and pullback, of each size"
        assert evaluated[0] < 200 and max(evaluated) < 6000
        counts.append((evaluated, compiled))
        before = est.value
        assert local.functional(model, ([n // 2], [1.0]), ([n // 2 + 1], [1.0]), 1e-9).value < before
    assert counts[0] == counts[1], "whatever the size of the matrix"


def test_entries_agree_in_rows_and_columns_though_rounding_depends_on_the_batch():
    """An entry is met twice, in batches of two sizes; kernels want the same number."""
    n, nodes = 3000, 1000 + 5 * np.arange(100)
    sizes = set()

    def values(theta, k):
        sizes.add(k.shape[0])
        return jnp.where(k % 3 == 1, 3.0, -theta - 1e-13 * k.shape[0])

    model = local.EdgeModel(A, values, jnp.asarray(0.8), promise="both", margin=0.5)
    model.structure = ring(n)
    est, g = local.value_and_grad(model, (nodes, np.ones(100)), ([1001], [1.0]), 1e-9, gradient_atol=1e-9)
    assert len(sizes) > 1
    beside = np.full(n - 1, -0.8)
    M = sp.diags_array([beside, np.full(n, 3.0), beside], offsets=[-1, 0, 1], format="csc")
    b = np.zeros(n)
    b[nodes] = 1
    x, lam = sp.linalg.spsolve(M, b), sp.linalg.spsolve(M, np.eye(1, n, 1001)[0])
    assert abs(est.value - x[1001]) <= est.bound + 1e-9
    assert abs(float(g.theta) - (lam[1:] @ x[:-1] + lam[:-1] @ x[1:])) < 1e-6


def test_padding_never_leaves_the_batch():
    """The slope of entry 0 is not finite, and zero times it is NaN: whoever does not touch it must not see it."""
    weighing = Weighing(lambda theta, k: jnp.sqrt(theta * k), 0.5)
    again, bar = weighing.pull(np.array([2, 8]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(again, [1.0, 2.0])
    np.testing.assert_allclose(bar, (np.sqrt(2) + np.sqrt(8)) / (2 * np.sqrt(0.5)))


def test_what_is_closed_over_is_an_argument_and_no_constant():
    features = jnp.arange(100_003.0)
    for f in (lambda theta, k: theta * features[k], jax.jit(lambda theta, k: theta * features[k])):
        program, padded = Weighing(f, 2.0)._program(np.array([100_002]))
        assert len(program.held) == 1 and len(padded) == 256
        assert (
            "constant"
            not in program.values.lower(program.held, [jnp.asarray(2.0)], padded).as_text().split("100003")[0]
        )
        np.testing.assert_allclose(Weighing(f, 2.0).evaluate(np.array([100_002, 1])), [200_004.0, 2.0])


def test_single_precision_is_certified_for_its_own_numbers(entry_weight):
    with jax.enable_x64(False):
        features = jnp.asarray(FEATURES, jnp.float32)
        weight = lambda theta, k: jnp.where(jnp.asarray(DIAGONAL)[k], 12.0, jnp.tanh(features[k] @ theta))  # noqa: E731
        model = local.EdgeModel(A, weight, jnp.asarray(THETA), promise="rows")
        est, g = local.value_and_grad(model, B, T, 1e-9)
        M = np.zeros((N, N))
        M[ROWS, COLUMNS] = est._session.known.at(np.arange(A.nnz))
    x, lam = np.linalg.solve(M, spread(B)), np.linalg.solve(M.T, spread(T))
    places = np.asarray(g.A.places)
    assert abs(est.value - spread(T) @ x) <= est.bound <= 1e-9 and g.A.values.dtype == g.theta.dtype == np.float32
    truth, values = -(lam[ROWS] * x[COLUMNS])[places], np.asarray(g.A.values, float)
    assert np.all(np.abs(values - truth) <= np.asarray(g.A.bounds, float))


@pytest.mark.parametrize(
    "f, error, says",
    [
        (lambda t, k: jnp.ones(k.shape), ValueError, r"row \d+ is not dominant: its margin, .* is -\d"),
        (
            lambda t, k: jnp.full(k.shape, jnp.nan),
            ValueError,
            r"row \d+ has the value nan at \d+; values must be finite",
        ),
        (lambda t, k: t, ValueError, r"one float for each of the 256 places that it was given; got"),
        (lambda t, k: k, ValueError, r"one float for each of the 256 places"),
        (lambda t, k: 3.0, ValueError, r"one float for each of the 256 places that it was given; got 3.0"),
        (lambda t, k: jnp.ones((k.shape[0], 1)), ValueError, r"one float for each of the 256 places"),
    ],
)
def test_what_edge_weight_returns_is_checked(f, error, says):
    # As many numbers as the first batch has entries: cut to these, they would do.
    model = local.EdgeModel(A, f, jnp.ones(4))
    with pytest.raises(error, match=says):
        local.entry(model, ([3], [1.0]), 3, 1e-6)


def test_what_cannot_be_is_refused_in_one_sentence(entry_weight):
    model = model_of(entry_weight)

    def value(theta):
        return local.functional(local.EdgeModel(A, entry_weight, theta, promise="both"), B, T, 1e-6).value

    for call in (lambda: jax.grad(value)({"w": jnp.asarray(THETA)}), lambda: jax.jit(value)({"w": jnp.asarray(THETA)})):
        with pytest.raises(TypeError, match=r"cannot be traced by jax.jit, .*local.value_and_grad"):
            call()
    with pytest.raises(TypeError, match=r"theta must be a pytree of arrays and numbers; .*'relu'"):
        local.functional(local.EdgeModel(A, entry_weight, {"w": jnp.ones(2), "f": "relu"}), B, T, 1e-6)

    class Unhashable:
        __hash__ = None

        def __call__(self, theta, k):
            return theta

    with pytest.raises(TypeError, match="edge_weight must be hashable, as its programs are kept for it; got"):
        local.functional(local.EdgeModel(A, Unhashable(), jnp.ones(2)), B, T, 1e-6)
    with pytest.raises(TypeError, match=r"only an EdgeModel of JAX is pulled back by name: in torch call backward"):
        _ = local.value_and_grad(dense()[0], B, T, 1e-6)[1].theta
    with pytest.raises(ValueError, match="framework must be one of 'numpy', 'torch', 'jax', 'tensorflow'; got 'mxnet'"):
        local.EdgeModel(A, entry_weight, 1.0, framework="mxnet")
    with jax.enable_x64(False), pytest.raises(OverflowError, match="beyond 2\\^31 need 64-bit integers"):
        Weighing(lambda theta, k: theta * k, 1.0).evaluate(np.array([2**31]))
    assert repr(model).startswith("EdgeModel(40x40") and local.predict_cost(model, B, T, 1e-6).entries > 0


def test_walks_check_what_comes_before_it_is_cut():
    graph = local.Graph(([0, 1, 2, 3], [1, 2, 3, 0]), directed=False)
    with pytest.raises(ValueError, match=r"one float for each of the 256 places"):
        local.LearnedWalk(graph, lambda theta, k: theta)(jnp.ones(300), 0, atol=1e-3)
    noise = local.LearnedWalk(graph, lambda theta, k: jnp.exp(theta * k))
    with pytest.raises(TypeError, match=r"cannot be traced by jax\.jit"):
        jax.grad(lambda theta: noise(theta, 0, at=[1], atol=1e-3).value[0])(0.1)


@pytest.mark.parametrize("kind", ["pagerank", "katz"])
def test_scores_of_graphs_have_explicit_gradients(kind):
    """Weights, seeds, the factor and cotangents of JAX are taken as numbers, and gradients named by positions."""
    start, end, n = np.array([0, 0, 1, 2, 3]), np.array([1, 2, 3, 0, 0]), 4
    w, goal = jnp.array([1.0, 2.0, 0.5, 3.0, 1.0]), jnp.linspace(-1.0, 2.0, n)
    graph, seeds = local.Graph((start, end), w), (np.array([0, 3]), jnp.array([0.4, 0.6]))
    factor = {"alpha": 0.8} if kind == "pagerank" else {"beta": jnp.asarray(0.1)}
    ranks = getattr(local, kind)(graph, seeds, atol=1e-12, **factor)
    g = jax.grad(lambda x: (goal[ranks.indices] * x).sum())(jnp.asarray(ranks.values))
    found = ranks.gradient(g)

    def loss(w, s, f):
        W = jnp.zeros((n, n)).at[start, end].add(w)
        P, keep = (W / W.sum(1, keepdims=True), 1 - f) if kind == "pagerank" else (W, 1.0)
        b = jnp.zeros(n).at[seeds[0]].set(s)
        return goal @ jnp.linalg.solve(jnp.eye(n) - f * P.T, keep * b)

    by_weights, by_seeds, by_factor = jax.grad(loss, (0, 1, 2))(w, seeds[1], float(next(iter(factor.values()))))
    np.testing.assert_allclose(found.values, by_weights[graph.edges[found.positions]], atol=1e-10)
    np.testing.assert_allclose(found.seeds, by_seeds, atol=1e-10)
    assert abs(found.alpha - float(by_factor)) < 1e-10 and found.errors.max() < 1e-9
