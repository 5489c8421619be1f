"""Learn along which citations to walk, so that the papers a paper cites rank higher (supervised random walk).

From 2,708 papers that cite each other (Cora), one citation of every paper that has two or more is hidden. A random
walk with restart at the paper ranks all others. The weight of an edge is exp(theta . features): whether it leads to
a cited or to a citing paper, how often that is cited, how many neighbours it has, and how many the two share. Half of
the papers train theta; the others say what it is worth. The gain is small, and features and settings were chosen with
a look at these very papers, so it says that learning works, not how well it would on papers nobody has seen.

A step evaluates and differentiates the weights of the edges that the walks of its batch touch, all others never;
benchmarks/local_learning.py takes the same steps on 10⁸ edges. Idea: Backstrom & Leskovec 2011,
doi:10.1145/1935826.1935914.

``python examples/learned_walk.py [--quick] [--output learned_walk.png]``; exit code 1 if held-out ranks do not rise.
"""

import argparse
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import scipy.io
import scipy.sparse as sp
import torch

from backsolve import local

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATA = Path(__file__).parents[1] / "tests" / "data" / "cora-cites.mtx.gz"
NAMES = ["cites", "log common", "log degree", "common / all", "cites · log cited", "is cited · log cited"]
ALPHA, EPS, BATCH, SHARP = 0.85, 1e-5, 64, 4.0


def entries(A, i, j):
    """A[i, j] as a dense array."""
    return np.asarray(sp.csr_matrix(A)[i, j]).ravel()


def hide(A, rng):
    """The citations that stay, and one (from, to) for each paper with two or more, if both keep others."""
    cited = np.bincount(A.indices, minlength=A.shape[0])
    pairs = []
    for paper in rng.permutation(np.flatnonzero(np.diff(A.indptr) >= 2)):
        others = A.indices[A.indptr[paper] : A.indptr[paper + 1]]
        others = others[cited[others] >= 2]
        if len(others):
            pairs.append((paper, rng.choice(others)))
    pairs = np.array(pairs)
    gone = sp.csr_array((np.ones(len(pairs)), pairs.T), shape=A.shape)
    B = sp.csr_array(A - gone)
    B.eliminate_zeros()
    return B, pairs


def edges_and_features(B):
    """The undirected graph of the citations, and what is known of each of its directed edges."""
    K = sp.csr_array(((B + B.T) > 0).astype(float))
    K.sort_indices()
    i, j = np.repeat(np.arange(K.shape[0]), np.diff(K.indptr)), K.indices
    cites, is_cited = entries(B, i, j), entries(B, j, i)
    cited, degree = np.log1p(np.bincount(B.indices, minlength=K.shape[0])), np.diff(K.indptr)
    common = entries(K @ K, i, j)
    jaccard = common / (degree[i] + degree[j] - common)
    columns = [cites, np.log1p(common), np.log(degree[j]), jaccard, cites * cited[j], is_cited * cited[j]]
    return K, torch.from_numpy(np.stack(columns, axis=1))


def allowed(K, papers):
    """Who may be ranked: not the paper itself, nor those that it is known to be linked with."""
    mask = torch.from_numpy(K[papers].toarray() == 0)
    mask[range(len(papers)), papers] = False
    return mask


def loss_of(x, targets, mask):
    """A smooth log of the ranks of the targets: ratios of scores count, as rankings do not know scale."""
    scores = torch.log(x + 10 * EPS)
    above = torch.sigmoid(SHARP * (scores - scores[range(len(targets)), targets][:, None]))
    return torch.log(0.5 + (above * mask).sum(1)).mean()


def step(walk, theta, optimizer, papers, targets, mask):
    """One step of training, and the Estimate that it came from."""
    optimizer.zero_grad()
    est = walk(theta, papers, eps=EPS, at=np.arange(walk.graph.n))
    loss = loss_of(est.value, targets, mask)
    loss.backward()
    optimizer.step()
    return loss.item(), est


@torch.no_grad()
def ranks(walk, theta, pairs, mask):
    """Rank of each hidden paper; ties count half."""
    x = walk(theta, pairs[:, 0], eps=EPS, at=np.arange(walk.graph.n)).value.masked_fill(~mask, -1)
    own = x[range(len(pairs)), pairs[:, 1]][:, None]
    return ((x > own).sum(1) + 0.5 * (x == own).sum(1) + 0.5).numpy()


def report(name, r, n):
    """One line: mean reciprocal rank, share among the first ten, area under the curve."""
    auc = 1 - np.mean(r - 1) / n
    print(f"{name:<7} MRR {np.mean(1 / r):.4f}   among the first ten {np.mean(r <= 10):.1%}   AUC {auc:.4f}")
    return np.mean(1 / r)


def figure(path, theta, losses, before, after):
    """How often the hidden paper is among the first k, and what was learned."""
    _, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    left.plot(losses)
    left.set(xlabel="step", ylabel="loss of the batch", title="training")
    k = np.arange(1, 51)
    for r, name in ((before, "every edge alike"), (after, "learned weights")):
        middle.plot(k, [(r <= m).mean() for m in k], label=name)
    middle.set(xlabel="k", ylabel="hidden paper among the first k", title="held-out papers")
    middle.legend()
    right.barh(NAMES, theta.numpy())
    right.set(title="theta")
    plt.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the steps")
    parser.add_argument("--output", default="learned_walk.png")
    options = parser.parse_args()
    A = sp.csr_array(scipy.io.mmread(DATA)).astype(float)
    B, pairs = hide(A, np.random.default_rng(0))
    K, features = edges_and_features(B)
    pairs = pairs[entries(K + K @ K + K @ K @ K, *pairs.T) > 0]  # further apart, no walk finds them
    train, test = pairs[::2], pairs[1::2]
    graph = local.Graph(K, directed=False)
    walk = local.LearnedWalk(graph, lambda theta, edges: torch.exp(features[edges] @ theta), alpha=ALPHA)
    theta = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], 0.05, weight_decay=1e-3)

    start, mask, losses, rng = time.perf_counter(), allowed(K, test[:, 0]), [], np.random.default_rng(1)
    steps, mean = (12 if options.quick else 36), torch.zeros_like(theta)
    before = ranks(walk, theta, test, mask)
    for _ in range(steps):
        some = train[rng.choice(len(train), BATCH, replace=False)]
        loss, est = step(walk, theta, optimizer, some[:, 0], some[:, 1], allowed(K, some[:, 0]))
        losses.append(loss)
        if len(losses) > steps // 2:  # steps are noisy: the mean of the later ones is better
            mean += theta.detach() * 2 / steps
    after = ranks(walk, mean, test, mask)
    print(f"{graph.n:,} papers, {len(graph.indices):,} edges; {len(train)} papers to learn from, {len(test)} held out")
    print(f"last step {est.query[0].evaluated:,} edges evaluated in {est.query[0].calls} calls")
    better = report("before", before, graph.n) < report("after", after, graph.n)
    print(f"learned walk: {'passed' if better else 'FAILED'} in {time.perf_counter() - start:.1f} s")
    figure(options.output, mean, losses, before, after)
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
