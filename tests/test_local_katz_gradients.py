"""Gradients of Katz scores: bounds against exact rationals, torch against dense autograd."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from test_local_pagerank import dense, exact_matrix, solved

from backsolve import local


def random_question(seed):
    """A graph with loops, repeats, nodes without edges and edges of weight 0; beta on either side of 1 / strength."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    i, j = rng.integers(0, n, (2, int(rng.integers(1, 3 * n))))
    w = 10.0 ** rng.uniform(-2, 2, len(i)) * (rng.random(len(i)) > 0.15)
    graph = local.Graph((i, j), None if seed % 5 == 0 else w, n=n, directed=bool(seed % 2))
    W = dense(graph)
    largest, radius = W.sum(1).max(), np.abs(np.linalg.eigvals(W)).max()
    beta = rng.uniform(0, 0.95) / largest if largest else 0.5
    if seed % 3 == 0 and 0.9 * largest > radius:
        beta = rng.uniform(1.0 / largest, 0.9 / radius) if radius > 1e-6 * largest else 2.0 / largest
    nodes = rng.choice(n, int(rng.integers(1, n + 1)), replace=False)
    return rng, graph, float(beta), (nodes, rng.random(len(nodes)))


@pytest.mark.parametrize("seed", range(60))
def test_no_bound_is_violated(seed):
    rng, graph, beta, (nodes, weights) = random_question(seed)
    n, a, W = graph.n, Fraction(beta), exact_matrix(graph)
    atol = float(10 ** rng.uniform(-12, -1))
    ranks = local.katz(graph, (nodes, weights), beta=beta, atol=atol)
    g = rng.standard_normal(len(ranks.values))
    b, whole = [Fraction(0)] * n, [Fraction(0)] * n
    for v, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        b[v] += Fraction(weight)
    for v, slope in zip(ranks.indices.tolist(), g.tolist(), strict=True):
        whole[v] += Fraction(slope)
    x = solved([[(i == j) - a * W[j][i] for j in range(n)] for i in range(n)], b)
    lam = solved([[(i == j) - a * W[i][j] for j in range(n)] for i in range(n)], whole)
    by_beta = sum(x[i] * W[i][j] * lam[j] for i in range(n) for j in range(n))
    for method in ("rows", "in-edges"):
        found = ranks.gradient(g, method=method, tol=atol)
        listed = {}
        for i, j, value, error in zip(
            found.rows.tolist(), found.columns.tolist(), found.values, found.errors, strict=True
        ):
            assert abs(Fraction(value) - a * x[i] * lam[j]) <= Fraction(error)
            listed[i, j] = value
        assert {(i, j) for i, j in zip(found.rows, found.columns, strict=True)} == {
            (i, j) for i in np.union1d(ranks.indices, nodes) for j in graph.edges_of(np.array([i]))[1]
        }
        i, j = np.divmod(np.arange(n * n), n)
        for p, q, error in zip(i.tolist(), j.tolist(), found.bound(i, j), strict=True):
            assert abs(Fraction(listed.get((p, q), 0.0)) - a * x[p] * lam[q]) <= Fraction(error)
        for v, value, error in zip(nodes, found.seeds, found.seeds_errors, strict=True):
            assert abs(Fraction(value) - lam[v]) <= Fraction(error)
        assert abs(Fraction(found.alpha) - by_beta) <= Fraction(found.alpha_error)
        if atol < 1e-6 and method == "in-edges":
            assert found.errors.max(initial=0) < 1e-2 * max(1.0, float(max(map(abs, lam))))


def test_a_barrier_bounds_gradients_beyond_the_largest_strength():
    """Cases of the kind that the random ones must contain, or half of the derivation were not looked at."""
    beyond = [seed for seed in range(60) if beta_times_strength(seed) > 1]
    assert len(beyond) >= 5


def beta_times_strength(seed):
    _, graph, beta, _ = random_question(seed)
    return beta * dense(graph).sum(1).max()


START, END, N = np.array([0, 0, 1, 2, 3, 1, 0, 2, 3]), np.array([1, 2, 3, 0, 1, 4, 1, 2, 0]), 6
GOAL = torch.linspace(-1.0, 2.0, N, dtype=torch.float64)


def parameters(dtype=torch.float64):
    w = torch.tensor(np.random.default_rng(3).uniform(0.5, 3, len(START)), dtype=dtype, requires_grad=True)
    return w, torch.tensor([2.0, 1.0], dtype=dtype, requires_grad=True), torch.tensor(0.1, requires_grad=True).double()


def loss(ranks):
    return (GOAL[torch.from_numpy(ranks.indices)] * ranks.scores).sum()


def truth(w, s, beta, directed):
    W = torch.zeros(N, N, dtype=torch.float64).index_put(
        (torch.tensor(START), torch.tensor(END)), w.double(), accumulate=True
    )
    W = W if directed else W + W.T - torch.diag(W.diagonal())
    b = torch.zeros(N, dtype=torch.float64).index_put((torch.tensor([0, 3]),), s.double())
    return GOAL @ torch.linalg.solve(torch.eye(N, dtype=torch.float64) - beta * W.T, b)


@pytest.mark.parametrize("grad", ["sparse", "dense"])
@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_backward_is_that_of_the_dense_formula(dtype, directed, grad):
    w, s, _ = parameters(dtype)
    beta = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    graph = local.Graph((START, END), w, n=N, directed=directed)
    found = loss(local.katz(graph, ([0, 3], s), beta=beta, atol=1e-13, grad=grad))
    copies = [v.detach().clone().requires_grad_() for v in (w, s, beta)]
    want = truth(*copies, directed)
    torch.testing.assert_close(found, want, atol=1e-11, rtol=0)
    got = torch.autograd.grad(found, (w, s, beta))
    assert got[0].layout == (torch.sparse_coo if grad == "sparse" else torch.strided)
    for bar, of in zip(got, torch.autograd.grad(want, copies), strict=True):
        bar = bar.to_dense() if bar.layout != torch.strided else bar
        torch.testing.assert_close(bar, of.to(bar.dtype), atol=1e-11 if bar.dtype == torch.float64 else 1e-5, rtol=0)


def test_gradients_are_finite_differences_and_steps_in_place_are_followed():
    w, s, _ = parameters()
    graph = local.Graph((START, END), w, n=N)
    optimizer, losses = torch.optim.SGD([w], lr=0.05), []
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(local.katz(graph, ([0, 3], s.detach()), beta=0.07, atol=1e-13))
        value.backward()
        losses.append(value.item())
        slope = w.grad.to_dense()
        for k in (0, 4, 8):
            with torch.no_grad():
                step = torch.zeros_like(w)
                step[k] = 1e-5
                up, down = (truth(w + c * step, s, 0.07, True) for c in (1, -1))
            assert abs((up - down) / 2e-5 - slope[k]) < 1e-8
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    ranks = local.katz(graph, 0, beta=0.07, atol=1e-9)
    with torch.no_grad():
        w.mul_(1.1)
    with pytest.raises(ValueError, match="weights of the graph have changed since these scores"):
        ranks.gradient(np.ones(len(ranks.values)))
    with pytest.raises(ValueError, match=r"katz: grad must be 'sparse' or 'dense'; got 'both'"):
        local.katz(graph, 0, beta=0.05, atol=1e-3, grad="both")
