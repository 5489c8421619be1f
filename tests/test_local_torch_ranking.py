"""PageRank of torch: gradients of weights, seeds and alpha against the dense formula, and steps in place."""

import numpy as np
import pytest
import torch

import backsolve as bs
from backsolve import local

# Node 4 is dangling where edges lead one way; an edge is given twice, one is a loop.
START = np.array([0, 0, 1, 2, 3, 1, 0, 2, 3])
END = np.array([1, 2, 3, 0, 1, 4, 1, 2, 0])
N = 6
GOAL = torch.linspace(-1.0, 2.0, N, dtype=torch.float64)


def weights(dtype=torch.float64):
    return torch.tensor(np.random.default_rng(3).uniform(0.5, 3, len(START)), dtype=dtype, requires_grad=True)


def truth(w, s, alpha, directed=True, dangling="seeds"):
    """x = (1 - α) (I - α P~ᵀ)⁻¹ s, densely."""
    w, s = w.double(), s / s.sum()
    W = torch.zeros(N, N, dtype=torch.float64).index_put((torch.tensor(START), torch.tensor(END)), w, accumulate=True)
    if not directed:
        W = W + W.T - torch.diag(W.diagonal())
    d = W.sum(1, keepdim=True)
    own = {"seeds": s.expand(N, N), "self": torch.eye(N).double(), "absorb": torch.zeros(N, N).double()}[dangling]
    P = torch.where(d > 0, W / torch.where(d > 0, d, 1.0), own)
    return (1 - alpha) * torch.linalg.solve(torch.eye(N).double() - alpha * P.T, s)


def loss(ranks):
    """Σ goal x, over all queries."""
    return (GOAL[torch.from_numpy(ranks.indices)] * ranks.scores).sum()


def seeds_at(nodes, numbers):
    return torch.zeros(N, dtype=torch.float64).index_put((torch.tensor(nodes),), numbers.double())


@pytest.mark.parametrize("grad", ["sparse", "dense"])
@pytest.mark.parametrize("dangling", ["seeds", "self", "absorb"])
@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_those_of_the_dense_formula(dtype, directed, dangling, grad):
    w, s = weights(dtype), torch.tensor([2.0, 1.0], dtype=dtype, requires_grad=True)
    alpha = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    graph = local.Graph((START, END), w, n=N, directed=directed)
    ranks = local.pagerank(graph, ([0, 3], s), alpha=alpha, atol=1e-13, dangling=dangling, grad=grad)
    assert ranks.certified and ranks.scores.dtype == torch.float64
    loss(ranks).backward()
    copies = [v.detach().clone().requires_grad_() for v in (w, s, alpha)]
    x = truth(copies[0], seeds_at([0, 3], copies[1]), copies[2], directed, dangling)
    np.testing.assert_allclose(ranks.toarray(), x.detach(), atol=1e-12)
    (GOAL @ x).backward()
    assert w.grad.layout == (torch.sparse_coo if grad == "sparse" else torch.strided) and w.grad.dtype == dtype
    for got, of in zip((w.grad, s.grad, alpha.grad), copies, strict=True):
        got = got.to_dense() if got.layout != torch.strided else got
        torch.testing.assert_close(got, of.grad, atol=1e-11 if dtype == torch.float64 else 1e-6, rtol=0)


@pytest.mark.parametrize("directed", [True, False])
def test_gradients_are_finite_differences(directed):
    def value(w):
        return loss(local.pagerank(local.Graph((START, END), w, n=N, directed=directed), 0, atol=1e-14))

    w = weights()
    (slope,) = torch.autograd.grad(value(w), w)
    for k, step in enumerate(1e-5 * torch.eye(len(w), dtype=torch.float64)):
        up, down = value((w + step).detach()), value((w - step).detach())
        assert abs((up - down) / 2e-5 - slope.to_dense()[k]) < 1e-8


def test_a_batch_of_queries_with_and_without_tensors():
    w, s = weights(), torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    ranks = local.pagerank(local.Graph((START, END), w, n=N), [([1, 2], s), ([3], [2.0])], atol=1e-13)
    loss(ranks).backward()
    w2, s2 = w.detach().clone().requires_grad_(), s.detach().clone().requires_grad_()
    both = truth(w2, seeds_at([1, 2], s2), 0.85) + truth(w2, seeds_at([3], torch.ones(1)), 0.85)
    (GOAL @ both).backward()
    torch.testing.assert_close(w.grad.to_dense(), w2.grad, atol=1e-11, rtol=0)
    torch.testing.assert_close(s.grad, s2.grad, atol=1e-11, rtol=0)


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC) tensor support is in beta", "ignore:Sparse invariant checks")
@pytest.mark.parametrize("form", ["triplets", "CSR", "torch COO", "torch CSR"])
def test_values_of_matrices_get_theirs(form):
    w = weights()
    pair = torch.tensor(np.stack([START, END]))
    if form == "triplets":
        source, leaf = bs.coo(w, (START, END), (N, N)), w
    elif form == "CSR":
        A = bs.coo(w.detach(), (START, END), (N, N))
        leaf = w.detach().new_zeros(A.pattern.nnz).index_add(0, torch.from_numpy(A.slots), w.detach()).requires_grad_()
        source = bs.CSR(leaf, A.pattern.indices, A.pattern.indptr, (N, N))
    else:
        leaf = torch.sparse_coo_tensor(pair, w.detach(), (N, N)).coalesce()
        source = leaf = (leaf if form == "torch COO" else leaf.to_sparse_csr()).requires_grad_()
    graph = local.Graph(source)
    assert graph.directed
    loss(local.pagerank(graph, 0, atol=1e-13)).backward()
    w2 = w.detach().clone().requires_grad_()
    (GOAL @ truth(w2, seeds_at([0], torch.ones(1)), 0.85)).backward()
    by_entry = {(i, j): g for i, j, g in zip(START.tolist(), END.tolist(), w2.grad.tolist(), strict=True)}
    if form == "triplets":
        want = w2.grad
    elif form == "CSR":
        rows = np.repeat(np.arange(N), np.diff(A.pattern.indptr))
        places = zip(rows.tolist(), A.pattern.indices.tolist(), strict=True)
        want = torch.tensor([by_entry[place] for place in places], dtype=torch.float64)
    else:
        want = torch.zeros(N, N, dtype=torch.float64)
        for place, slope in by_entry.items():
            want[place] = slope
    torch.testing.assert_close(leaf.grad.to_dense(), want, atol=1e-11, rtol=0)
    if form.startswith("torch"):
        with torch.no_grad():
            leaf.mul_(2)
        with pytest.raises(ValueError, match="changed in place: make the Graph anew"):
            local.pagerank(graph, 0, atol=1e-8)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.SparseAdam])
@pytest.mark.parametrize("directed", [True, False])
def test_a_step_in_place_then_scores_are_right_and_proved(make, directed):
    w = weights()
    graph, optimizer = local.Graph((START, END), w, n=N, directed=directed), make([w], lr=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        found = loss(local.pagerank(graph, 0, atol=1e-12))
        found.backward()
        optimizer.step()
        losses.append(found.item())
    ranks = local.pagerank(graph, 0, atol=1e-12)
    assert ranks.certified and losses[-1] < losses[0]
    x = truth(w.detach(), seeds_at([0], torch.ones(1)), 0.85, directed)
    assert np.abs(ranks.toarray() - x.numpy()).sum() <= ranks.sum_bound[0] + 1e-14


def test_a_mapped_file_is_stepped_where_edges_were_touched(tmp_path):
    n = 5000
    data = np.memmap(tmp_path / "w", np.float32, "w+", shape=(2 * n,))
    data[:] = np.random.default_rng(0).uniform(1, 2, 2 * n)
    before = data.copy()
    nodes = np.arange(n)
    indices = np.stack([(nodes + 1) % n, (nodes + 2) % n], 1).ravel()
    w = torch.from_numpy(data).requires_grad_()
    graph = local.Graph.from_arrays(np.arange(0, 2 * n + 1, 2), indices, w)
    assert np.shares_memory(graph.data, data)
    ranks = local.pagerank(graph, 7, eps=1e-4)
    (w.grad,) = torch.autograd.grad(ranks.scores[torch.from_numpy(ranks.indices == 9)].sum(), w)
    index = w.grad.indices()[0].numpy()
    rows = np.unique(index // 2)
    assert w.grad.is_coalesced() and len(index) < 500 and set(rows) == set(ranks.indices)
    torch.optim.SGD([w], lr=1.0).step()
    changed = np.flatnonzero(data != before)
    assert 0 < len(changed) and set(changed) <= set(index)
    fresh = local.Graph.from_arrays(graph.indptr, graph.indices, data.copy())
    again = local.pagerank(graph, 7, eps=1e-4)
    assert again.certified
    np.testing.assert_array_equal(again.toarray(), local.pagerank(fresh, 7, eps=1e-4).toarray())


def test_elementwise_maps_pass_sparse_gradients_and_others_are_told():
    theta = torch.zeros(len(START), dtype=torch.float64, requires_grad=True)
    loss(local.pagerank(local.Graph((START, END), theta.exp(), n=N), 0, atol=1e-12)).backward()
    assert theta.grad.layout == torch.sparse_coo
    sparse, theta.grad = theta.grad.to_dense(), None
    graph = local.Graph((START, END), torch.nn.functional.softplus(theta) / np.log(2) * 2, n=N)
    with pytest.raises(TypeError, match="give grad='dense'"):
        local.pagerank(graph, 0, atol=1e-12)
    loss(local.pagerank(graph, 0, atol=1e-12, grad="dense")).backward()
    # softplus' = 1/2 at 0, times 2 / log 2 on weights of 2: scaling all weights divides the slope.
    torch.testing.assert_close(theta.grad, sparse / np.log(2) / 2, atol=1e-12, rtol=0)


def test_what_cannot_be_differentiated_is_told():
    w = weights()
    graph = local.Graph((START, END), w, n=N)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss(local.pagerank(graph, 0, atol=1e-9)), w, create_graph=True)
    with pytest.raises(ValueError, match="only of pagerank by eps or atol"):
        local.pagerank(graph, 0, topk=2).scores.sum().backward()
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss(local.katz(graph, 0, beta=0.01, atol=1e-9)), w, create_graph=True)
    ranks = local.pagerank(graph, 0, atol=1e-9)
    with torch.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(ranks).backward()
    with pytest.raises(ValueError, match="have changed since these scores"):
        ranks.gradient(ranks.values)
    with pytest.raises(ValueError, match="must be directed"):
        local.Graph(bs.coo(w, (START, END), (N, N)), directed=False)
    with pytest.raises(TypeError, match="must be sparse"):
        local.Graph(torch.eye(3))
    with pytest.raises(ValueError, match="grad must be"):
        local.pagerank(graph, 0, atol=1e-9, grad="both")
    with torch.no_grad():
        w[0] = -1
    with pytest.raises(ValueError, match="negative"):
        local.pagerank(graph, 0, atol=1e-9)


@pytest.mark.parametrize("seeds", [((0, 1), (1.0, 3.0)), [((0, 1), (1.0, 3.0)), {2: 1.0}], [1, 2]])
def test_plain_seeds_are_taken_beside_torch_weights(seeds):
    w = weights()
    ours = local.pagerank(local.Graph((START, END), w, n=N), seeds, atol=1e-12)
    plain = local.pagerank(local.Graph((START, END), w.detach().numpy(), n=N), seeds, atol=1e-12)
    np.testing.assert_array_equal(ours.toarray(), plain.toarray())
    assert ours.scores.requires_grad


def test_without_gradients_scores_are_plain():
    w = weights()
    graph = local.Graph((START, END), w, n=N)
    with torch.no_grad():
        assert not local.pagerank(graph, 0, atol=1e-9).scores.requires_grad
    ranks = local.pagerank(local.Graph((START, END)), 0, atol=1e-9)
    assert ranks.scores is ranks.values
