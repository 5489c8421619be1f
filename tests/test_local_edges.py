"""Walks whose edge weights are functions of parameters: values, gradients and their bounds against dense algebra."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import backsolve as bs
from backsolve import Status, local

N, SEEDS = 60, [2, 40, 11]


def problem():
    """A graph with a dangling node (11), loops and parallel edges, features of its edges, and nodes to look at."""
    rng = np.random.default_rng(0)
    start, end = rng.integers(0, N, 300), rng.integers(0, N, 300)
    start, end = np.r_[start[start != 11], 0, 0, 3], np.r_[end[start != 11], 0, 5, 7]
    graph = local.Graph((start, end), n=N)
    features = rng.standard_normal((len(graph.indices), 3))
    return graph, features, rng.integers(0, N, (3, 7)), rng.standard_normal((3, 7))


GRAPH, FEATURES, AT, C = problem()
ROW, COLUMN = np.repeat(np.arange(N), np.diff(GRAPH.indptr)), GRAPH.indices.astype(np.int64)
THETA = [0.3, -0.2, 0.5]
STOPS = [{"atol": 1e-1}, {"atol": 1e-3}, {"atol": 1e-6}, {"atol": 1e-12}, {"eps": 1e-2}, {"eps": 1e-3}, {"eps": 1e-5}]


def weight(theta, edges):
    return torch.exp(torch.from_numpy(FEATURES)[edges] @ theta)


def plain_weight(theta, edges):
    return np.exp(FEATURES[edges] @ np.asarray(theta))


def walk(alpha=0.85):
    return local.LearnedWalk(GRAPH, weight, alpha=alpha)


def parameters():
    return torch.tensor(THETA, dtype=torch.float64, requires_grad=True)


def dense(theta, alpha=0.85):
    """(x of the seeds, (3, N); weights) by dense algebra under autograd."""
    w = torch.exp(torch.from_numpy(FEATURES) @ theta)
    zero = torch.zeros(N, N, dtype=torch.float64)
    W = zero.index_put((torch.from_numpy(ROW), torch.from_numpy(COLUMN)), w, accumulate=True)
    d = W.sum(1)
    P = W / torch.where(d > 0, d, 1.0)[:, None]
    eye = torch.eye(N, dtype=torch.float64)
    return (1 - alpha) * torch.linalg.solve(eye - alpha * P.T, eye[:, SEEDS]).T, w


def looked_at(x):
    return torch.stack([x[q][AT[q]] for q in range(3)])


@pytest.mark.parametrize("stop", STOPS, ids=str)
@pytest.mark.parametrize("alpha", [0.5, 0.85, 0.99])
def test_values_and_gradients_are_within_their_bounds(stop, alpha):
    theta = parameters()
    est = walk(alpha)(theta, SEEDS, at=AT, **stop)
    x, w = dense(theta, alpha)
    errors = [float(np.abs(row - t).sum()) for row, t in zip(whole(est), x.detach().numpy(), strict=True)]
    assert max(errors) <= est.bound and (est.bound <= stop.get("atol", math.inf))
    assert est.status == Status.CERTIFIED
    (truth,) = torch.autograd.grad((looked_at(x) * torch.from_numpy(C)).sum(), w)
    g = walk(alpha).gradient(est, C)
    full = np.zeros(len(ROW))
    full[g.edges] = g.values
    error, inside = np.abs(full - truth.numpy()), np.isin(np.arange(len(ROW)), g.edges)
    assert np.all(error[inside] <= g.bounds)
    assert float(np.sum((w.detach().numpy() * error)[~inside])) <= g.elsewhere


def whole(est):
    found, _ = est.query
    out = np.zeros((3, N))
    for q, (nodes, x) in enumerate(zip(found.nodes, found.values, strict=True)):
        out[q, nodes] = x
    return out


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_derivatives_along_theta_are_within_their_bounds(stop):
    theta = parameters()
    est = walk()(theta, SEEDS, at=AT, **stop)
    x, w = dense(theta)
    (truth,) = torch.autograd.grad((looked_at(x) * torch.from_numpy(C)).sum(), theta)
    g = walk().gradient(est, C)
    for direction in np.eye(3):
        change = FEATURES @ direction
        value, bound = g.directional((w.detach().numpy() * change)[g.edges], np.abs(change).max())
        assert abs(value - float(truth @ torch.from_numpy(direction))) <= bound


def test_backward_gives_what_dense_autograd_and_finite_differences_give():
    theta, c = parameters(), torch.from_numpy(C)
    est = walk()(theta, SEEDS, at=AT, atol=1e-12)
    (est.value * c).sum().backward()
    x, _ = dense(other := parameters())
    (truth,) = torch.autograd.grad((looked_at(x) * c).sum(), other)
    assert torch.allclose(theta.grad, truth, rtol=0, atol=1e-11)
    step, plain = 1e-5, local.LearnedWalk(GRAPH, plain_weight)
    for k in range(3):
        ends = [
            float(np.sum(plain(np.array(THETA) + s * np.eye(3)[k], SEEDS, at=AT, atol=1e-13).value * C))
            for s in (step, -step)
        ]
        assert abs((ends[0] - ends[1]) / (2 * step) - float(truth[k])) <= 1e-7


def test_modules_containers_and_float32_serve_as_theta():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1), torch.nn.Softplus())
    features = torch.from_numpy(FEATURES).float()
    container = {"layers": [net[0].weight]}
    for theta, f in ((net, lambda t, e: t(features[e])[:, 0]), (container, lambda t, e: net(features[e])[:, 0])):
        net.zero_grad()
        est = local.LearnedWalk(GRAPH, f)(theta, 2, at=[1, 2, 3], atol=1e-5)
        assert est.value.dtype == torch.float32 and est.value.shape == (3,)
        est.value[0].backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_sparse_vector_carries_gradients_too():
    theta = parameters()
    est = walk()(theta, 2, atol=1e-10)
    assert est.value.shape == (N,) and est.value.is_sparse
    est.value.to_dense()[5].backward()
    x, _ = dense(other := parameters())
    (truth,) = torch.autograd.grad(x[0, 5], other)
    assert torch.allclose(theta.grad, truth, rtol=0, atol=1e-8)
    many = walk()(theta, SEEDS, atol=1e-10).value
    assert many.shape == (3, N) and float((many.to_dense() - x).detach().abs().max()) < 1e-9


def test_rows_of_all_queries_are_evaluated_together_and_once():
    calls = []

    def counted(theta, edges):
        calls.append(len(edges))
        return weight(theta, edges)

    graph, theta = local.LearnedWalk(GRAPH, counted), parameters()
    est = graph(theta, SEEDS, at=AT, atol=1e-8)
    found, _ = est.query
    assert len(calls) == found.calls + 1 and found.evaluated == sum(calls[:-1]) <= len(ROW)
    one = len(calls)
    calls.clear()
    graph(theta, list(range(20)), at=[0], atol=1e-8)
    assert len(calls) <= one + 2, "calls do not grow with the queries"
    calls.clear()
    est.value.sum().backward()
    assert not calls, "backward goes through the evaluation that is there"


def test_work_does_not_depend_on_the_size_of_the_graph():
    work, kinds = [], torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0], dtype=torch.float64)
    for n in (10**3, 10**4, 10**5):
        nodes = np.arange(n)
        end = np.concatenate([(nodes + k * k) % n for k in range(1, 6)])
        graph = local.Graph((np.tile(nodes, 5), end), n=n)
        shape = local.LearnedWalk(graph, lambda theta, e: kinds[e % 5] * torch.exp(theta))
        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        est = shape(theta, n // 2, at=[n // 2 + 1], eps=1e-4)
        est.value.sum().backward()
        work.append((est.touched, est.query[0].evaluated))
    assert np.ptp([w[0] for w in work]) <= 0.25 * work[0][0] and np.ptp([w[1] for w in work]) <= 0.25 * work[0][1]


def test_jax_gives_the_same_gradient_with_few_programs():
    jax = pytest.importorskip("jax")
    features, traced = jax.numpy.asarray(FEATURES), []

    def jax_weight(theta, edges):
        traced.append(edges.shape)
        return jax.numpy.exp(features[edges] @ theta["w"])

    graph = local.LearnedWalk(GRAPH, jax_weight)
    theta = {"w": jax.numpy.asarray(THETA)}
    for _ in range(2):
        value, g, est = graph.value_and_grad(lambda x: (x * C).sum(), theta, SEEDS, at=AT, atol=1e-6)
    x, _ = dense(other := parameters())
    (truth,) = torch.autograd.grad((looked_at(x) * torch.from_numpy(C)).sum(), other)
    assert np.allclose(g["w"], truth, rtol=0, atol=1e-5) and est.bound <= 1e-6
    assert abs(float(value) - float((looked_at(x).detach().numpy() * C).sum())) <= 1e-5
    assert len(traced) <= 4 and all(math.log2(shape[0]) % 1 == 0 for shape in traced)
    assert graph(theta, 2, atol=1e-3).value[1].dtype == jax.numpy.float32


def test_numpy_returns_arrays():
    graph = local.LearnedWalk(GRAPH, plain_weight)
    est = graph(np.array(THETA), SEEDS, atol=1e-10)
    x = dense(parameters())[0].detach().numpy()
    assert np.abs(est.value.toarray() - x).max() <= 1e-10
    assert np.abs(graph(np.array(THETA), 2, atol=1e-10).value.toarray()[:, 0] - x[0]).max() <= 1e-10


def test_a_folder_serves_as_the_graph(tmp_path):
    key = np.unique(ROW * N + COLUMN)
    local.save(tmp_path / "g", (None, key % N, np.r_[0, np.cumsum(np.bincount(key // N, minlength=N))]), kind="graph")
    folder = local.open(tmp_path / "g")
    est = local.LearnedWalk(folder, lambda theta, e: np.ones(len(e)))(np.zeros(1), 2, at=[2, 5], atol=1e-9)
    plain = local.pagerank(local.Graph.from_arrays(folder.indptr, folder.indices), 2, atol=1e-11, dangling="absorb")
    assert np.abs(est.value - plain.toarray()[[2, 5]]).max() <= 1e-9


def test_budgets_end_with_a_bound_that_holds():
    x = dense(parameters())[0].detach().numpy()
    for budget in (0, 50, 500):
        est = walk()(parameters(), SEEDS, at=AT, atol=1e-10, max_touched=budget)
        assert est.status == Status.BUDGET
        assert np.abs(whole(est) - x).sum(1).max() <= est.bound
    est.value.sum().backward()


def test_weights_that_change_between_calls_are_noticed():
    noise = iter(range(1000))
    graph = local.LearnedWalk(GRAPH, lambda theta, e: weight(theta, e) * (1 + 0.1 * torch.cos(e * next(noise))))
    est = graph(parameters(), SEEDS, at=AT, atol=1e-8)
    with pytest.raises(ValueError, match=r"edge_weight gave other weights.*deterministic"):
        est.value.sum().backward()


@pytest.mark.parametrize(
    "f, error, says",
    [
        (
            lambda t, e: weight(t, e) - 10,
            ValueError,
            r"gave -\d.* for edge \d+, from node 2 to node \d+; weights",
        ),
        (lambda t, e: weight(t, e) * math.nan, ValueError, r"edge_weight gave nan for edge"),
        (lambda t, e: weight(t, e) * math.inf, ValueError, r"edge_weight gave inf for edge"),
        (lambda t, e: weight(t, e) * 0, ValueError, r"edge_weight gave 0.0 for edge .* take exp or softplus"),
        (lambda t, e: weight(t, e)[:-1], ValueError, r"one float for each of the \d+ edges"),
        (lambda t, e: weight(t, e)[:, None], ValueError, r"one float for each of the \d+ edges"),
        (lambda t, e: e, ValueError, r"one float for each of the \d+ edges"),
        (lambda t, e: [1.0], TypeError, r"edge_weight must return a torch tensor"),
    ],
)
def test_what_edge_weight_returns_is_checked(f, error, says):
    with pytest.raises(error, match=says):
        local.LearnedWalk(GRAPH, f)(parameters(), 2, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({}, "give either atol or eps; got atol=None and eps=None"),
        ({"atol": 1e-3, "eps": 1e-3}, "give either atol or eps"),
        ({"atol": 0.0}, "atol must be a positive number; got 0.0"),
        ({"eps": math.nan}, "eps must be a positive number; got nan"),
        ({"eps": 1e-3, "at": [N]}, rf"at must lie in \[0, {N}\); got {N}"),
        ({"eps": 1e-3, "at": [0.5]}, r"at must be integers \(k,\)"),
        ({"eps": 1e-3, "at": [[1], [2]]}, r"or \(1, k\), nodes for each query"),
        ({"eps": 1e-3, "max_touched": -1}, "max_touched must be a number that is not negative"),
    ],
)
def test_arguments_of_queries_are_checked(arguments, says):
    with pytest.raises(ValueError, match=says):
        walk()(parameters(), 2, **arguments)


def test_arguments_of_the_model_are_checked():
    with pytest.raises(TypeError, match="edge_weight must be a function"):
        local.LearnedWalk(GRAPH, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"alpha must lie in \(0, 1\); got 1"):
        local.LearnedWalk(GRAPH, weight, alpha=1.0)
    with pytest.raises(ValueError, match="framework must be"):
        local.LearnedWalk(GRAPH, weight, framework="keras")
    with pytest.raises(TypeError, match="is for theta of JAX"):
        walk().value_and_grad(sum, parameters(), 2, at=[0], eps=1e-3)
    with pytest.raises(RuntimeError, match="first derivatives only: leave create_graph=True out"):
        theta = parameters()
        torch.autograd.grad(walk()(theta, 2, at=[3], atol=1e-6).value.sum(), theta, create_graph=True)
    assert repr(walk()).startswith("LearnedWalk(Graph(60 nodes") and bs.local is local


# -- matrices -------------------------------------------------------------------------------------------


def matrix(seed=0, n=40):
    """A structure with its diagonal, and features of its entries; not symmetric."""
    rng = np.random.default_rng(seed)
    near = (np.arange(n)[:, None] + rng.integers(1, 8, (n, 3))) % n
    A = sp.coo_array((np.ones(3 * n), (np.repeat(np.arange(n), 3), near.ravel())), shape=(n, n)) + sp.eye_array(n)
    A = sp.csr_array(A)
    A.sort_indices()
    row = np.repeat(np.arange(n), np.diff(A.indptr))
    return A, row, torch.from_numpy(rng.standard_normal((A.nnz, 2))), torch.from_numpy(A.indices == row)


A, ROWS, ENTRY_FEATURES, ON_DIAGONAL = matrix()


def entry_weight(theta, k):
    """Off the diagonal in (-1, 1); on it 12, more than the sum of the moduli in any row or column."""
    return torch.where(ON_DIAGONAL[k], 12.0, torch.tanh(ENTRY_FEATURES[k] @ theta))


def dense_matrix(theta):
    values = entry_weight(theta, torch.arange(A.nnz))
    place = torch.from_numpy(ROWS), torch.from_numpy(A.indices.astype(np.int64))
    return torch.zeros(40, 40, dtype=torch.float64).index_put(place, values)


def two_parameters():
    return torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("promise", ["rows", "columns", "both"])
def test_an_edge_model_serves_as_a_matrix(promise):
    theta, other = two_parameters(), two_parameters()
    model = local.EdgeModel(A, entry_weight, theta, promise=promise, margin=0.5)
    est = local.functional(model, ([3], [1.0]), ([5], [2.0]), 1e-9, gradient_atol=1e-9)
    truth = 2 * torch.linalg.inv(dense_matrix(other))[5, 3]
    assert abs(est.value.item() - truth.item()) <= est.bound <= 1e-9
    (3 * est.value).backward()
    (expected,) = torch.autograd.grad(3 * truth, other)
    assert torch.allclose(theta.grad, expected, rtol=0, atol=1e-7)
    found, theta.grad = local.solve(model, ([3], [1.0]), 1e-10), None
    c = torch.linspace(-1, 1, 40, dtype=torch.float64)
    (found.value.to_dense() * c).sum().backward()
    x = torch.linalg.inv(dense_matrix(other))[:, 3]
    (expected,) = torch.autograd.grad((x * c).sum(), other)
    assert torch.allclose(theta.grad, expected, rtol=0, atol=1e-7)
    assert float((found.value.to_dense() - x).detach().abs().max()) <= found.bound
    g = est.gradient()
    rows, columns = torch.from_numpy(ROWS), torch.from_numpy(A.indices.astype(np.int64))
    assert torch.equal(rows[g.A.places], g.A.rows) and torch.equal(columns[g.A.places], g.A.columns)
    slope, bound = g.directional(dA=(g.A.places[:2].numpy(), [1.0, 1.0]))
    assert abs(slope - float(g.A.values[:2].sum())) <= 1e-15 and bound <= 3e-9
    assert est.refine(1e-12).bound <= 1e-12


def test_an_edge_model_evaluates_what_is_touched(tmp_path):
    n, counts = 20_000, []
    big = sp.diags_array([np.ones(n - 1), np.ones(n), np.ones(n - 1)], offsets=[-1, 0, 1], format="csr")
    local.save(tmp_path / "chain", big)
    folder = local.open(tmp_path / "chain")
    on = torch.from_numpy(np.array(folder.indices == np.repeat(np.arange(n), np.diff(folder.indptr))))

    def values(theta, k):
        counts.append(len(k))
        return torch.where(on[k], 3.0, -theta)

    theta = torch.ones((), dtype=torch.float64, requires_grad=True)
    model = local.EdgeModel(folder, values, theta, promise="both")
    optimizer = torch.optim.SGD([theta], lr=0.1)
    for _ in range(3):
        before = theta.item()
        est = local.entry(model, ([n // 2], [1.0]), n // 2 + 1, 1e-8)
        est.value.backward()
        optimizer.step()
        q = (3 - math.sqrt(9 - 4 * before**2)) / (2 * before)  # x_k = q^|k| / sqrt(9 - 4 theta²)
        assert abs(est.value.item() - q / math.sqrt(9 - 4 * before**2)) <= est.bound + 1e-12
    assert sum(counts) < 3000 and theta.item() < 1
    with pytest.raises(RuntimeError, match="theta was changed in place since"):
        est.refine(1e-12)


def test_numpy_models_have_explicit_gradients():
    weights = entry_weight(torch.tensor([0.7, -0.4], dtype=torch.float64), torch.arange(A.nnz)).numpy()
    model = local.EdgeModel(A, lambda theta, k: weights[k] * theta, 1.0)
    est = local.functional(model, ([3], [1.0]), ([5], [1.0]), 1e-9)
    M = dense_matrix(two_parameters()).detach().numpy()
    x, lam = np.linalg.solve(M, np.eye(40)[3]), np.linalg.solve(M.T, np.eye(40)[5])
    g = est.gradient().A
    assert abs(est.value - x[5]) <= est.bound
    assert np.all(np.abs(g.values + lam[g.rows] * x[g.columns]) <= g.bounds)


def test_an_estimate_keeps_its_theta_and_wants_the_same_values_again():
    theta, other = two_parameters(), two_parameters() * 2
    model = local.EdgeModel(A, entry_weight, theta)
    est, model.theta = local.entry(model, ([3], [1.0]), 3, 1e-3), other
    assert abs(est.refine(1e-12).value.item() - torch.linalg.inv(dense_matrix(theta))[3, 3].item()) < 1e-11
    est.value.backward()
    (expected,) = torch.autograd.grad(torch.linalg.inv(dense_matrix(copy := two_parameters()))[3, 3], copy)
    assert torch.allclose(theta.grad, expected, rtol=0, atol=1e-7)
    noise = iter(range(1000))
    model = local.EdgeModel(
        A, lambda t, k: entry_weight(t * (1 + 1e-3 * next(noise)), k), theta, promise="both", margin=0.5
    )
    with pytest.raises(ValueError, match=r"edge_weight gave other values when it was called again.*deterministic"):
        local.entry(model, ([3], [1.0]), 3, 1e-9, gradient_atol=1e-6).value.backward()
    assert local.predict_cost(local.EdgeModel(A, entry_weight, theta), ([3], [1.0]), ([5], [1.0]), 1e-6).entries > 0


def test_edge_models_refuse_what_they_cannot_do(tmp_path):
    theta = two_parameters()
    with pytest.raises(ValueError, match=r"row \d+ is not dominant"):
        local.entry(local.EdgeModel(A, lambda t, k: torch.ones(len(k)), theta), ([3], [1.0]), 3, 1e-6)
    with pytest.raises(ValueError, match=r"row \d+ has the value nan"):
        local.entry(local.EdgeModel(A, lambda t, k: torch.full((len(k),), math.nan), theta), ([3], [1.0]), 3, 1e-6)
    with pytest.raises(ValueError, match="one float for each of"):
        local.entry(local.EdgeModel(A, lambda t, k: t, theta), ([3], [1.0]), 3, 1e-6)
    with pytest.raises(TypeError, match="must return a torch tensor"):
        local.entry(local.EdgeModel(A, lambda t, k: 3.0, theta), ([3], [1.0]), 3, 1e-6)
    with pytest.raises(ValueError, match="b must be a constant"):
        local.entry(local.EdgeModel(A, entry_weight, theta), ([3], theta[:1]), 3, 1e-6)
    with pytest.raises(ValueError, match="promise must be one of"):
        local.EdgeModel(A, entry_weight, theta, promise="diagonal")
    with pytest.raises(TypeError, match="structure must be sparse"):
        local.EdgeModel(np.eye(3), entry_weight, theta)
    local.save(tmp_path / "s", sp.csr_array(np.eye(3)), symmetric=True)
    with pytest.raises(ValueError, match=r"must have columns.*save it with symmetric=False"):
        local.EdgeModel(local.open(tmp_path / "s"), entry_weight, theta)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        value = local.entry(local.EdgeModel(A, entry_weight, theta), ([3], [1.0]), 3, 1e-6).value
        torch.autograd.grad(value, theta, create_graph=True)
