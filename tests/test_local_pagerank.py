"""Personalised PageRank and Katz: against networkx and published answers, and bounds against exact rationals."""

import itertools
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

import backsolve as bs
import backsolve.local as local
from backsolve.status import Status

# networkx tests/test_pagerank.py (BSD-3); the first from Langville and Meyer's survey. Digits beyond theirs: solved
# densely.
SURVEY = (
    [(1, 2), (1, 3), (3, 1), (3, 2), (3, 5), (4, 5), (4, 6), (5, 4), (5, 6), (6, 4)],
    [0.037211965078002, 0.053957349363102904, 0.041505653356233005, 0.3750808151098346, 0.20599833187742755,
     0.28624588521540006],
)  # fmt: skip
K4_SEEDS, K4 = [0.1, 0.1, 0.4, 0.4], [0.2324675324675324, 0.2324675324675324, 0.26753246753246746, 0.26753246753246746]


def random_graph(rng, n, kind, spread=3.0):
    """Edges with loops and repeats, nodes without edges, weights over `spread` magnitudes each way."""
    m = int(rng.integers(0, 3 * n + 1))
    i, j = rng.integers(0, n, m), rng.integers(0, n, m)
    weights = None if kind % 2 else 10.0 ** rng.uniform(-spread, spread, m)
    return local.Graph((i, j), weights, n=n, directed=kind < 2)


def dense(graph):
    W = sp.csr_array(
        (graph.weights_at(np.arange(len(graph.indices))), graph.indices, graph.indptr), shape=(graph.n,) * 2
    )
    return W.toarray()


def exact_matrix(graph):
    W = [[Fraction(0)] * graph.n for _ in range(graph.n)]
    owner, end, positions = graph.edges_of(np.arange(graph.n))
    for i, j, w in zip(owner.tolist(), end.tolist(), graph.weights_at(positions).tolist(), strict=True):
        W[i][j] += Fraction(w)
    return W


def exact_steps(graph, alpha, s, dangling):
    """Rows of P~, exactly."""
    P = exact_matrix(graph)
    for i, row in enumerate(P):
        d = sum(row)
        if d:
            P[i] = [w / d for w in row]
        elif dangling == "self":
            row[i] = Fraction(1)
        elif dangling != "absorb":
            P[i] = list(s) if dangling == "seeds" else [Fraction(1, graph.n)] * graph.n
    return P


def solved(A, b):
    """x = A⁻¹ b in rationals."""
    n = len(b)
    rows = [[*row, b[i]] for i, row in enumerate(A)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(n):
            if i != k and rows[i][k]:
                f = rows[i][k] / rows[k][k]
                rows[i] = [a - f * c for a, c in zip(rows[i], rows[k], strict=True)]
    return [rows[k][n] / rows[k][k] for k in range(n)]


def exact_scores(graph, alpha, weights, dangling):
    """(x, s, P~) for seeds of these weights."""
    total = sum(Fraction(w) for w in weights)
    s = [Fraction(w) / total for w in weights]
    P, a = exact_steps(graph, alpha, s, dangling), Fraction(alpha)
    M = [[(i == j) - a * P[j][i] for j in range(graph.n)] for i in range(graph.n)]
    return solved(M, [(1 - a) * v for v in s]), s, P


def assert_bounds_hold(ranks, x):
    """All bounds of a single query, exactly."""
    found = [Fraction(v) for v in ranks.toarray()]
    off = [abs(a - b) for a, b in zip(found, x, strict=True)]
    lower, upper = ranks.interval(np.arange(len(x)))
    assert all(Fraction(a) <= b <= Fraction(c) for a, b, c in zip(lower, x, upper, strict=True))
    assert all(a <= Fraction(b) for a, b in zip(off, ranks.bound(np.arange(len(x))), strict=True) if np.isfinite(b))
    assert sum(off) <= Fraction(ranks.sum_bound[0])
    assert max(off) <= Fraction(ranks.max_bound[0])


def random_question(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    graph = random_graph(rng, n, seed % 4, spread=(0.5, 3.0, 30.0)[seed % 3])
    weights = np.where(rng.random(n) < 0.5, rng.random(n), 0.0)
    weights[rng.integers(n)] = 1.0
    alpha = float(rng.choice([0.0, 0.3, 0.85, 0.99]))
    seeds = (np.flatnonzero(weights), weights[weights > 0])
    return rng, graph, alpha, weights.tolist(), seeds, ("seeds", "self", "uniform", "absorb")[rng.integers(4)]


@pytest.mark.parametrize("seed", range(400))
def test_no_bound_is_violated(seed):
    rng, graph, alpha, weights, seeds, dangling = random_question(seed)
    x, _, _ = exact_scores(graph, alpha, weights, dangling)
    tol = float(10 ** rng.uniform(-15, -1))
    for norm in ("sum", "max"):
        ranks = local.pagerank(graph, seeds, alpha=alpha, atol=tol, norm=norm, dangling=dangling)
        assert_bounds_hold(ranks, x)
        if ranks.certified:
            assert (ranks.sum_bound if norm == "sum" else ranks.max_bound)[0] <= tol
        else:
            assert ranks.status == (Status.INACCURATE,)
            assert tol < 1e-11
    ranks = local.pagerank(graph, seeds, alpha=alpha, eps=tol, dangling=dangling)
    assert_bounds_hold(ranks, x)
    largest, least = graph.extent()
    assert ranks.certified or largest > 1e38 * least
    if not graph.directed and dangling != "uniform" and ranks.certified:
        assert np.all(ranks.bound(np.arange(graph.n)) <= tol * graph.degrees() * (1 + 1e-9) + ranks._answers.offset[0])
        assert ranks._answers.offset[0] < 1e-9


@pytest.mark.parametrize("seed", range(200))
def test_the_best_are_proved_to_be_the_best(seed):
    rng, graph, alpha, weights, seeds, dangling = random_question(seed)
    dangling = "seeds" if dangling == "uniform" else dangling
    k, ordered = int(rng.integers(1, graph.n + 1)), bool(seed % 2)
    x, _, _ = exact_scores(graph, alpha, weights, dangling)
    ranks = local.pagerank(graph, seeds, alpha=alpha, topk=k, ordered=ordered, dangling=dangling)
    listed = ranks.indices.tolist()
    rest = max((x[v] for v in range(graph.n) if v not in listed), default=Fraction(0))
    if ranks.certified:
        assert len(listed) == k
        assert ranks.proved[0] == k
        assert all(x[v] >= rest for v in listed)
        if ordered:
            assert all(x[a] >= x[b] for a, b in itertools.pairwise(listed))
    else:  # a tie within 1e-8, at the border or, where the order was asked for, among the best
        kth = sorted(x, reverse=True)
        gaps = (
            [kth[q] - kth[q + 1] for q in range(len(kth) - 1)]
            if ordered
            else kth[k - 1 : k] and [kth[k - 1] - (kth[k] if k < len(kth) else 0)]
        )
        assert min(gaps, default=Fraction(0)) <= Fraction(3e-8) or min(x) == 0


def test_a_tie_is_said():
    star = local.Graph(([0, 0, 0, 0], [1, 2, 3, 4]), directed=False)
    ranks = local.pagerank(star, 0, topk=3)
    assert ranks.status == (Status.INACCURATE,)
    assert ranks.indices[0] == 0
    assert ranks.proved[0] == 1
    assert local.pagerank(star, 0, topk=1).certified


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_networkx(kind, weighted):
    rng = np.random.default_rng(7)
    G = kind()
    G.add_nodes_from(f"node {v}" for v in range(300))
    labels = list(G)
    for u, v in rng.integers(0, 300, (900, 2)):
        attributes = {"weight": float(10 ** rng.uniform(-2, 2))} if weighted else {}
        G.add_edge(labels[u], labels[v], **attributes)
    graph = local.Graph(G)
    assert graph.labels == labels
    assert graph.directed == G.is_directed()
    for chosen in (None, {3: 1.0}, {5: 0.3, 8: 2.0, 9: 0.1}):
        named = None if chosen is None else {labels[v]: w for v, w in chosen.items()}
        for dangling, theirs in (("seeds", None), ("uniform", dict.fromkeys(labels, 1))):
            expected = nx.pagerank(
                G, personalization=named, dangling=theirs, tol=1e-13, max_iter=1000
            )  # it stops at n tol
            found = local.pagerank(graph, chosen, atol=1e-11, dangling=dangling)
            assert found.certified
            assert np.abs(found.toarray() - [expected[label] for label in labels]).max() < 1e-10


def test_scores_are_the_published_ones():
    edges, expected = SURVEY
    graph = local.Graph(tuple(np.array(edges).T - 1))
    assert np.abs(local.pagerank(graph, alpha=0.9, atol=1e-14, dangling="seeds").toarray() - expected).max() < 1e-14
    assert np.abs(local.pagerank(graph, alpha=0.9, atol=1e-13, dangling="uniform").toarray() - expected).max() < 1e-13
    ranks = local.pagerank(np.ones((4, 4)) - np.eye(4), dict(enumerate(K4_SEEDS)), atol=1e-14)
    assert np.abs(ranks.toarray() - K4).max() < 1e-14


def test_a_batch_is_its_queries_bit_for_bit_for_every_number_of_threads(monkeypatch):
    rng = np.random.default_rng(3)
    graph = random_graph(rng, 500, 2)
    seeds = rng.integers(0, 500, 200)
    whole = local.pagerank(graph, seeds, eps=1e-6)
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("BACKSOLVE_NUM_THREADS", threads)
        again = local.pagerank(graph, seeds, eps=1e-6)
        for name in ("indptr", "indices", "values", "sum_bound", "max_bound", "edges", "pushes"):
            assert np.array_equal(getattr(again, name), getattr(whole, name))
    for q in (0, 77, 199):
        one = local.pagerank(graph, int(seeds[q]), eps=1e-6)
        mine = slice(whole.indptr[q], whole.indptr[q + 1])
        assert np.array_equal(one.indices, whole.indices[mine])
        assert np.array_equal(one.values, whole.values[mine])
        assert one.sum_bound[0] == whole.sum_bound[q]


def test_forms_of_seeds_mean_the_same():
    graph = local.Graph(([0, 1, 2], [1, 2, 0]), directed=False)
    rows = sp.csr_array(np.array([[1.0, 0, 3.0], [0, 2.0, 0]]))
    whole = local.pagerank(graph, rows, atol=1e-12).toarray()
    listed = local.pagerank(graph, [{0: 1, 2: 3}, ([1], [5.0])], atol=1e-12).toarray()
    assert np.array_equal(whole, listed)
    assert np.array_equal(whole[1], local.pagerank(graph, 1, atol=1e-12).toarray())
    assert np.array_equal(whole[1], local.pagerank(graph, [1], atol=1e-12).toarray()[0])
    # Repeated seeds add up.
    twice = local.pagerank(graph, ([0, 2, 2], [1.0, 1.0, 2.0]), atol=1e-12).toarray()
    assert np.abs(twice - whole[0]).max() < 1e-12


def torus(side):
    v = np.arange(side * side)
    x, y = v % side, v // side
    return local.Graph((np.r_[v, v], np.r_[(x + 1) % side + side * y, x + side * ((y + 1) % side)]), directed=False)


def test_work_does_not_depend_on_the_size_of_the_graph():
    counts = set()
    for side in (100, 300, 1000):
        ranks = local.pagerank(torus(side), side * side // 2 + side // 2, eps=1e-5)
        counts.add((int(ranks.touched[0]), int(ranks.edges[0]), int(ranks.pushes[0])))
    assert len(counts) == 1
    assert counts.pop()[0] < 3000


def test_forms_of_graphs_mean_the_same(tmp_path):
    rng = np.random.default_rng(5)
    A = sp.random_array((40, 40), density=0.1, rng=rng, format="csr")
    A = A + A.T
    expected = local.pagerank(A, 3, atol=1e-12).toarray()
    assert not local.Graph(A).directed
    i, j = A.tocoo().coords
    repeated = bs.coo(np.r_[A.data, A.data] / 2, (np.r_[i, i], np.r_[j, j]), A.shape)
    for form in (A.tocoo(), A.toarray(), repeated, nx.from_scipy_sparse_array(A)):
        assert np.abs(local.pagerank(form, 3, atol=1e-12).toarray() - expected).max() < 2e-12
    for name, array in (("indptr", A.indptr.astype(np.int64)), ("indices", A.indices), ("data", A.data)):
        np.save(tmp_path / name, array)
    maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices", "data")]
    assert np.abs(local.pagerank(local.Graph.from_arrays(*maps), 3, atol=1e-12).toarray() - expected).max() < 2e-12
    single = local.Graph.from_arrays(A.indptr, A.indices, A.data.astype(np.float32), directed=True)
    assert np.abs(local.pagerank(single, 3, atol=1e-12).toarray() - expected).max() < 1e-6
    i, j = sp.triu(A).tocoo().coords
    ones = local.Graph((i, j), directed=False)
    assert ones.data is None
    assert np.array_equal(dense(ones), dense(local.Graph((A != 0).astype(float))))


@pytest.mark.parametrize("directed", [False, True])
def test_katz_is_the_inverse(directed):
    rng = np.random.default_rng(11)
    graph = local.Graph(tuple(rng.integers(0, 30, (2, 90))), 10 ** rng.uniform(-1, 1, 90), n=30, directed=directed)
    W, b = dense(graph), rng.random(30)
    near = 0.95 / np.abs(np.linalg.eigvals(W)).max()
    for beta in (0.5 / W.sum(1).max(), near):
        expected = np.linalg.solve(np.eye(30) - beta * W.T, b)
        ranks = local.katz(graph, (np.arange(30), b), beta=beta, atol=1e-7)
        assert ranks.certified
        assert np.abs(ranks.toarray() - expected).max() < 1e-7
    assert near * W.sum(1).max() > 1
    with pytest.raises(ValueError, match=r"norm='sum' needs beta below 1 / \(largest strength\) = .*; got"):
        local.katz(graph, beta=near, atol=1e-6, norm="sum")
    with pytest.raises(ValueError, match=r"beta must be below .*; got .* take at most"):
        local.katz(graph, beta=1.2 / np.abs(np.linalg.eigvals(W)).max(), atol=1e-6)


def exact_gradient(graph, alpha, x, s, P, g, dangling):
    """(∂L/∂w as a matrix, ∂L/∂s, ∂L/∂alpha), exactly."""
    n, a = graph.n, Fraction(alpha)
    M = [[(i == j) - a * P[i][j] for j in range(n)] for i in range(n)]
    lam = solved(M, g)
    W = exact_matrix(graph)
    moved = [sum(P[i][k] * lam[k] for k in range(n)) for i in range(n)]
    slopes = [[a * x[i] / sum(W[i]) * (lam[j] - moved[i]) if sum(W[i]) else None for j in range(n)] for i in range(n)]
    lost = sum(x[i] for i in range(n) if not sum(W[i])) if dangling == "seeds" else 0
    by_alpha = sum(x[i] * moved[i] for i in range(n)) - sum(s[v] * lam[v] for v in range(n))
    return slopes, [(1 - a + a * lost) * v for v in lam], by_alpha


@pytest.mark.parametrize("seed", range(200))
def test_no_bound_of_a_gradient_is_violated(seed):
    rng, graph, alpha, weights, seeds, dangling = random_question(seed)
    dangling = "absorb" if dangling == "uniform" else dangling
    x, s, P = exact_scores(graph, alpha, weights, dangling)
    tol = float(10 ** rng.uniform(-12, -1))
    ranks = local.pagerank(graph, seeds, alpha=alpha, atol=tol, dangling=dangling)
    g = rng.standard_normal(len(ranks.values))
    whole = [Fraction(0)] * graph.n
    for v, slope in zip(ranks.indices.tolist(), g.tolist(), strict=True):
        whole[v] += Fraction(slope)
    slopes, by_seed, by_alpha = exact_gradient(graph, alpha, x, s, P, whole, dangling)
    for method in ("rows", "in-edges"):
        found = ranks.gradient(g, method=method, tol=tol)
        for i, j, value, error in zip(found.rows, found.columns, found.values, found.errors, strict=True):
            assert abs(Fraction(value) - slopes[i][j]) <= Fraction(error)
        pairs = zip(found.rows.tolist(), found.columns.tolist(), strict=True)
        listed = dict(zip(pairs, found.values, strict=True))
        i, j = np.divmod(np.arange(graph.n**2), graph.n)
        for a, b, error in zip(i.tolist(), j.tolist(), found.bound(i, j), strict=True):
            if slopes[a][b] is None:
                assert np.isinf(error)
            else:
                assert abs(Fraction(listed.get((a, b), 0.0)) - slopes[a][b]) <= Fraction(error)
        for v, value, error in zip(seeds[0], found.seeds, found.seeds_errors, strict=True):
            assert abs(Fraction(value) - by_seed[v]) <= Fraction(error)
        assert abs(Fraction(found.alpha) - by_alpha) <= Fraction(found.alpha_error)


@pytest.mark.parametrize("method", ["rows", "in-edges"])
@pytest.mark.parametrize("dangling", ["seeds", "self", "absorb"])
def test_gradients_of_a_batch_agree_with_finite_differences(method, dangling):
    rng = np.random.default_rng(2)
    n, m = 30, 90
    i, j, w = rng.integers(0, n - 3, m), rng.integers(0, n, m), rng.random(m) + 0.1
    seeds = [{0: 1.0, 4: 2.0}, {7: 1.0}]
    G = rng.standard_normal((2, n))

    def loss(w, alpha=0.85):
        scores = local.pagerank(local.Graph((i, j), w, n=n), seeds, alpha=alpha, atol=1e-14, dangling=dangling)
        return np.sum(G * scores.toarray())

    graph = local.Graph((i, j), w, n=n)
    ranks = local.pagerank(graph, seeds, atol=1e-13, dangling=dangling)
    query = np.repeat(np.arange(2), np.diff(ranks.indptr))
    # Scores that are exactly 0 are not listed, and stay 0.
    found = ranks.gradient(G[query, ranks.indices], method=method)
    by_edge = np.zeros(m)
    by_edge[graph.edges[found.positions]] = found.values
    h = 1e-5
    for e in rng.choice(m, 25, replace=False):
        step = h * (np.arange(m) == e)
        assert abs((loss(w + step) - loss(w - step)) / (2 * h) - by_edge[e]) < 1e-7
    assert abs((loss(w, 0.85 + h) - loss(w, 0.85 - h)) / (2 * h) - found.alpha) < 1e-7


def test_the_rows_of_a_far_region_leave_an_error_that_is_said():
    graph = torus(60)
    ranks = local.pagerank(graph, 1830, eps=1e-4)
    g = np.ones(len(ranks.values))
    rows, edges = ranks.gradient(g), ranks.gradient(g, method="in-edges", tol=1e-12)
    assert len(rows.values) < len(graph.indices) / 10
    assert np.all(np.abs(rows.values - edges.values) <= rows.errors + edges.errors)
    assert edges.errors.max() < rows.errors.max() < 0.1


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1, 2, 3], [1, 9, 0], r"row 1 has the index 9 \(position 1\); indices must lie in \[0, 3\)"),
        ([0, 1, 2, 3], [1, -4, 0], r"row 1 has the index -4 \(position 1\)"),
        ([0, 1, 0, 3], [1, 2, 0], r"the positions of row 1 run from 1 to 0"),
        ([0, 1, 99, 3], [1, 2, 0], r"the positions of row 1 run from 1 to 99"),
    ],
)
def test_damaged_index_arrays_are_named(indptr, indices, message):
    graph = local.Graph.from_arrays(np.array(indptr), np.array(indices))
    for seeds in (0, [0, 1, 2]):
        with pytest.raises(ValueError, match=message):
            local.pagerank(graph, seeds, atol=1e-6)
    weighted = local.Graph.from_arrays(np.array([0, 1, 2]), np.array([1, 0]), np.ones(2))
    assert local.pagerank(weighted, 0, atol=1e-6).certified


def test_weights_that_changed_in_place_are_noticed():
    w = np.array([1.0, 2.0, 3.0])
    graph = local.Graph.from_arrays(np.array([0, 2, 3]), np.array([0, 1, 0]), w)
    w[0] = 5.0
    with pytest.raises(ValueError, match=r"row 0 sum to 7\.0+, its strength is 3\.0+: .* call refresh\(\)"):
        local.pagerank(graph, 0, atol=1e-6)
    graph.refresh()
    expected = local.pagerank(np.array([[5.0, 2.0], [3.0, 0.0]]), 0, atol=1e-12).toarray()
    assert np.abs(local.pagerank(graph, 0, atol=1e-12).toarray() - expected).max() < 2e-12
    w[0] = np.nan
    with pytest.raises(ValueError, match="row 0 has an edge of weight nan; weights must be finite and not negative"):
        local.pagerank(graph, 0, atol=1e-6)
    with pytest.raises(ValueError, match="row 0 has an edge of weight nan"):
        graph.refresh()


RING = local.Graph(([0, 1, 2], [1, 2, 0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local.pagerank(RING, 3, eps=0.1), r"seeds: nodes must lie in \[0, 3\); got 3"),
        (lambda: local.pagerank(RING, {0: -1.0}, eps=0.1), r"seeds: weights must be finite and not negative; got -1.0"),
        (lambda: local.pagerank(RING, {0: 0.0}, eps=0.1), r"positive sum; query 0 has none"),
        (lambda: local.pagerank(RING, {0: np.nan}, eps=0.1), r"must be finite and not negative; got nan"),
        (lambda: local.pagerank(RING, 0.5, eps=0.1), r"seeds must be a 1-D array of integers"),
        (lambda: local.pagerank(RING, 0), r"one of eps, atol and topk must say how accurate; got none"),
        (lambda: local.pagerank(RING, 0, eps=0.1, atol=0.1), r"one of eps, atol and topk"),
        (lambda: local.pagerank(RING, 0, eps=0.0), r"eps must be a positive float; got 0.0"),
        (lambda: local.pagerank(RING, 0, eps=0.1, alpha=1.0), r"alpha must be a float in \[0, 1\); got 1.0"),
        (lambda: local.pagerank(RING, 0, topk=4), r"topk must be at most the number of nodes, 3; got 4"),
        (lambda: local.pagerank(RING, 0, topk=0), r"topk must be an integer of at least 1; got 0"),
        (lambda: local.pagerank(RING, 0, eps=0.1, norm="l1"), r"norm must be 'sum' or 'max'; got 'l1'"),
        (lambda: local.pagerank(RING, 0, eps=0.1, dangling="drop"), r"dangling must be one of .*; got 'drop'"),
        (lambda: local.pagerank(RING, 0, topk=1, dangling="uniform"), r"topk needs dangling="),
        (lambda: local.pagerank(RING, 0, eps=0.1, budget=0), r"budget must be an integer of at least 1; got 0"),
        (lambda: local.katz(RING, beta=-1.0, atol=0.1), r"beta must be a finite float >= 0; got -1.0"),
        (lambda: local.Graph(([0, 1], [1, 2]), n=2), r"nodes must lie in \[0, 2\); got 0 to 2"),
        (lambda: local.Graph(([0, 1], [1])), r"must have one length; got 2 and 1"),
        (lambda: local.Graph(([0], [1]), [-1.0]), r"row 0 has an edge of weight -1"),
        (lambda: local.Graph(([0], [1]), [1e200]), r"sums must be 0 or lie in \[2\^-500, 2\^500\]: scale the weights"),
        (lambda: local.Graph(np.triu(np.ones((2, 2))), directed=False), r"must be symmetric: give A \+ A.T"),
        (lambda: local.Graph(np.ones((2, 3))), r"must be square and real"),
        (lambda: local.Graph(nx.path_graph(3), directed=True), r"the networkx graph is undirected; got directed=True"),
        (lambda: local.Graph.from_arrays([0, 1], [0, 0]), r"begin with 0 and end with the number of indices, 2"),
        (lambda: local.pagerank(RING, 0, eps=0.1).gradient(np.ones(99)), r"gradient: g must be \d finite real numbers"),
        (lambda: local.pagerank(RING, 0, topk=1).gradient(np.ones(1)), r"only of pagerank by eps or atol"),
        (lambda: local.pagerank(RING, 0, eps=0.1).interval([5]), r"nodes must be integers in \[0, 3\)"),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert str(caught.value).count("\n") == 0


def test_a_budget_ends_with_bounds_that_hold():
    graph = torus(50)
    ranks = local.pagerank(graph, 0, atol=1e-10, budget=500)
    assert ranks.status == (Status.BUDGET,)
    assert not ranks.certified
    assert ranks.edges[0] < 600
    truth = local.pagerank(graph, 0, atol=1e-13).toarray()
    assert np.abs(ranks.toarray() - truth).sum() <= ranks.sum_bound[0] + 1e-12


def test_empty_and_isolated():
    alone = local.Graph(([], []), n=3)
    for dangling in ("seeds", "self"):
        found = local.pagerank(alone, 1, atol=1e-13, dangling=dangling)
        assert found.certified
        assert np.abs(found.toarray() - [0, 1, 0]).max() < 1e-15
    assert np.abs(local.pagerank(alone, 1, atol=1e-13, dangling="uniform").toarray().sum() - 1) < 1e-13
    assert np.array_equal(local.katz(alone, 1, beta=0.3, atol=1e-9).toarray(), [0, 1, 0])
    assert local.pagerank(alone, [], atol=1e-9).toarray().shape == (0, 3)
