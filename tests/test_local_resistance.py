"""Effective resistance: enclosed by energies, for any graph; the gradient too."""

import math

import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from backsolve import local
from backsolve.status import Status


def grid(m):
    path = sp.diags_array([np.ones(m - 1), np.ones(m - 1)], offsets=[-1, 1])
    return (sp.kron(path, sp.eye_array(m)) + sp.kron(sp.eye_array(m), path)).tocsr()


def truth(W, a, b):
    """Potentials of a unit current from a to b, in 50 digits, on the component of a."""
    n, label = W.shape[0], connected_components(W)[1]
    keep = [i for i in range(n) if label[i] == label[a] and i != b]
    dense = W.toarray()
    with mp.workdps(50):
        L, current = mp.matrix(len(keep)), mp.matrix(len(keep), 1)
        for x, i in enumerate(keep):
            for y, j in enumerate(keep):
                L[x, y] = -mp.mpf(dense[i, j])
            L[x, x] = mp.fsum(mp.mpf(dense[i, j]) for j in range(n) if j != i)
        current[keep.index(a)] = 1
        phi = mp.lu_solve(L, current)
        return {b: mp.mpf(0)} | dict(zip(keep, phi, strict=True))


@pytest.mark.parametrize(("steps", "exact"), [((1, 0), 1 / 2), ((1, 1), 2 / math.pi), ((2, 1), 4 / math.pi - 1 / 2)])
def test_the_infinite_grid(steps, exact):
    m = 401
    graph = local.Graph(grid(m))
    centre = (m // 2) * m + m // 2
    for atol in (1e-2, 1e-3):
        est = local.effective_resistance(graph, centre, centre + steps[0] * m + steps[1], atol)
        assert est.status == Status.CERTIFIED and est.bound <= atol
        assert abs(est.value - exact) <= est.bound
        assert est.touched < 20_000 < graph.indices.size


def test_bounds_hold_on_random_graphs():
    rng = np.random.default_rng(0)
    tight = 0
    for _ in range(60):
        n = int(rng.integers(3, 20))
        W = sp.random_array((n, n), density=0.3, rng=rng).tocsr()
        W.data = 10 ** rng.uniform(-5, 5, W.nnz)
        W = (W + W.T).tocsr()
        a, b = map(int, rng.choice(n, 2, replace=False))
        est = local.effective_resistance(local.Graph(W, directed=False), a, b, 10 ** rng.uniform(-8, 0))
        label = connected_components(W)[1]
        if label[a] != label[b]:
            assert est.value == math.inf and est.bound == 0
            continue
        phi = truth(W, a, b)
        assert abs(mp.mpf(est.value) - phi[a]) <= est.bound
        tight += est.certified
        places, g, bounds = est.query.gradient()
        rows = np.repeat(np.arange(n), np.diff(est.query.ball.indptr))
        for p, value, bound in zip(places, g, bounds, strict=True):
            assert abs(-((phi[rows[p]] - phi[int(est.query.ball.indices[p])]) ** 2) - value) <= bound
    assert tight > 20


def test_the_gradient_of_edges_that_were_not_read_is_bounded():
    m = 31
    W = grid(m)
    a = (m // 2) * m + m // 2
    est = local.effective_resistance(local.Graph(W), a, a + 1, 1e-1)
    exact = local.effective_resistance(local.Graph(W), a, a + 1, 1e-9)
    assert est.touched < exact.touched
    places, g, bounds = exact.query.gradient()
    read = set(est.query.gradient()[0].tolist())
    elsewhere = [k for k, p in enumerate(places.tolist()) if p not in read]
    assert len(elsewhere) > 100
    assert np.all(np.abs(g[elsewhere]) <= est.query.bound_elsewhere(1.0) + bounds[elsewhere])


def test_a_budget_ends_with_what_is_known():
    m = 101
    graph = local.Graph(grid(m))
    a = (m // 2) * m + m // 2
    few = local.effective_resistance(graph, a, a + 1, 1e-9, max_touched=500)
    assert few.status == Status.BUDGET and few.touched <= 500 and abs(few.value - 0.5) <= few.bound < 0.01
    none = local.effective_resistance(graph, a, a + 1, 1e-9, max_touched=0)
    assert none.status == Status.BUDGET and math.isnan(none.value) and none.bound == math.inf


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, 1e-3), "a and b must differ"),
        ((0, 9, 1e-3), r"b must be an integer in \[0, 9\)"),
        ((0, 1, -1.0), "atol must be a float"),
    ],
)
def test_mistakes_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        local.effective_resistance(local.Graph(grid(3)), *arguments)


def test_a_graph_that_is_not_symmetric_is_named():
    W = grid(5).tolil()
    W[3, 4] = 2.0
    W = W.tocsr()
    graph = local.Graph.from_arrays(W.indptr, W.indices, W.data, directed=False)
    with pytest.raises(ValueError, match="another weight one way than the other"):
        local.effective_resistance(graph, 0, 1, 1e-9)
    with pytest.raises(ValueError, match="undirected"):
        local.effective_resistance(local.Graph(([0], [1]), directed=True), 0, 1, 1e-9)
