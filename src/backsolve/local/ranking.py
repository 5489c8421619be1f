"""Scores of nodes by walks from seeds: personalised PageRank and Katz."""

from __future__ import annotations

import math
from typing import Any

from .._local.graph import Graph
from .._local.pagerank import katz as katz_scores
from .._local.pagerank import pagerank as pagerank_scores
from .._local.pagerank import pagerank_problem
from .._local.ranks import Ranks
from .._local.seeds import seeds_of
from .._local.walks import BEST, LARGEST, SCALE, SUM, Stop
from ..eager import eager
from ..errors import describe
from .weights import apart, plain, recorded

__all__ = ["katz", "pagerank"]

_POLICIES = ("seeds", "self", "uniform", "absorb")


@eager("backsolve.local.pagerank")
def pagerank(
    graph: Any,
    seeds: Any = None,
    *,
    alpha: float = 0.85,
    eps: float | None = None,
    atol: float | None = None,
    norm: str = "sum",
    topk: int | None = None,
    ordered: bool = False,
    dangling: str = "seeds",
    budget: int | None = None,
    grad: str = "sparse",
) -> Ranks:
    """Personalised PageRank of any graph, touching the neighbourhood of the seeds only.

    x = (1 - α) s + α Pᵀ x, with P = D⁻¹ W and D the strengths (sums of rows of W), by pushes along the edges of nodes
    whose residual is large (Andersen, Chung, Lang 2006), at thresholds that fall geometrically. What an answer costs
    depends on its accuracy and not on the size of the graph; what remains is proved, rounding included. Queries of a
    batch run in threads and do not depend on their number.

    Parameters
    ----------
    graph : Graph, or what makes one
        Make a `Graph` once for many queries.
    seeds : int, ints, dict, (nodes, weights), list of these, sparse matrix, or None
        s. One int, one dict {node: weight} or one pair is one query. Several ints are a query each, so are a list of
        dicts or pairs, and the rows of a sparse matrix (queries, n). None: all nodes alike. Weights ≥ 0 are divided by
        their sum.
    alpha : float in [0, 1), or a torch scalar, default 0.85
        THE DAMPING FACTOR, the chance that the walk goes on: the `alpha` of networkx. It is NOT the chance to restart,
        1 - alpha here, which Andersen, Chung and Lang, PyTorch Geometric, networkit and others call alpha.
    eps : float > 0, optional
        Stop with residuals |r_v| ≤ (1 - alpha) eps d_v, d the strengths: for undirected graphs |x_v - x̂_v| ≤ eps d_v
        is proved. Cost: at most 1 / ((1 - alpha) eps) edges for graphs without weights.
    atol : float > 0, optional
        Stop when the error is proved to be at most atol in `norm`. With topk: scores so close count as tied.
        Default there 1e-8.
    norm : "sum" or "max", default "sum"
        Σ_v |x_v - x̂_v|, or max_v |x_v - x̂_v|. On graphs with hubs the sum needs nearly the whole graph, the largest
        error does not. For directed graphs "max" and `topk` pass over the graph once, to compute a barrier.
    topk : int, optional
        Stop when the bounds prove which nodes have the k largest scores; the k are returned, best first.
    ordered : bool, default False
        With topk: their order has to be proved as well.
    dangling : "seeds", "self", "uniform" or "absorb", default "seeds"
        Where a walk goes on from a node without edges: to the seeds (as in networkx), it stays, to any node (a dense
        answer), or nowhere (scores then sum to less than 1).
    budget : int, optional
        Edges that a query may read.
    grad : "sparse" or "dense", default "sparse"
        Layout of the gradient by weights of the graph that are a torch tensor: sparse ones have the edges of listed
        nodes only.

    Returns
    -------
    Ranks
        Its `scores` carry gradients in torch, by the weights of the graph, by weights of seeds given as (nodes,
        weights), and by alpha.

    Raises
    ------
    ValueError
        If an option is out of range, seeds are negative, sum to zero or are no nodes, weights are negative, NaN, or
        were changed in place since the strengths were summed, or index arrays are damaged.

    Notes
    -----
    `Ranks.gradient` gives derivatives by edge weights, seeds and alpha, with bounds of their errors; `scores.backward`
    is it by its default method, where torch's weights are.

    References
    ----------
    Andersen, Chung, Lang, Local graph partitioning using PageRank vectors, FOCS 2006, 10.1109/FOCS.2006.44.

    Examples
    --------
    >>> import backsolve.local as local
    >>> graph = local.Graph(([0, 1, 2, 2], [1, 2, 3, 0]), directed=False)
    >>> local.pagerank(graph, 0, atol=1e-12).toarray().round(4)
    array([0.3436, 0.2383, 0.3258, 0.0923])
    >>> best = local.pagerank(graph, 0, topk=2)
    >>> best.indices, best.certified
    (array([0, 2]), True)
    """
    graph, damping = _graph(graph), _fraction("pagerank", "alpha", plain(alpha))
    _check_grad("pagerank", grad)
    if dangling not in _POLICIES:
        raise ValueError(
            f"pagerank: dangling must be one of {', '.join(map(repr, _POLICIES))}; got {describe(dangling)}."
        )
    if dangling == "uniform" and topk is not None:
        raise ValueError("pagerank: topk needs dangling='seeds', 'self' or 'absorb'; got 'uniform': take atol instead.")
    stop = _stop("pagerank", graph, eps, atol, norm, topk, ordered, budget)
    numbers, tensors = apart(seeds)
    problem = pagerank_problem(
        graph,
        seeds_of(numbers, graph.n, normal=True),
        damping,
        dangling,
        best=stop.goal == BEST,
        use_barrier=stop.goal in (LARGEST, BEST),
    )
    return recorded(pagerank_scores(problem, stop), alpha, tensors, grad)


@eager("backsolve.local.katz")
def katz(
    graph: Any,
    seeds: Any = None,
    *,
    beta: float,
    atol: float,
    norm: str = "max",
    budget: int | None = None,
    grad: str = "sparse",
) -> Ranks:
    """Katz scores of any graph: walks from the seeds along the edges, each step weighed by beta.

    x = Σ_k βᵏ (Wᵀ)ᵏ b, the solution of x = b + β Wᵀ x, by pushes as in `pagerank`. (Wᵀ because walks follow the edges,
    as in networkx; for Σ βᵏ Wᵏ b give the graph of the transposed matrix.)

    Parameters
    ----------
    graph : Graph, or what makes one
    seeds : as of `pagerank`
        b; weights are taken as they are. None: 1 for each node.
    beta : float ≥ 0
        Below 1 / (largest strength) it always converges. A larger one is taken if passes over the graph find a barrier
        that proves convergence, which they do up to nearly 1 / ρ(W).
    atol : float > 0
        Stop when the error is proved to be at most atol in `norm`.
    norm : "max" or "sum", default "max"
    budget : int, optional
        Edges that a query may read.
    grad : "sparse" or "dense", default "sparse"
        As of `pagerank`.

    Returns
    -------
    Ranks
        Its `scores` carry gradients in torch, by the weights of the graph, by weights of seeds and by beta;
        `Ranks.gradient` gives them by name, with bounds of their errors.

    Raises
    ------
    ValueError
        As `pagerank`; and if beta is too large: the sentence says how large it may be.

    Examples
    --------
    >>> import backsolve.local as local
    >>> local.katz(local.Graph(([0, 1], [1, 2])), 0, beta=0.5, atol=1e-12).toarray()
    array([1.  , 0.5 , 0.25])
    """
    graph, step = _graph(graph), plain(beta)
    if isinstance(step, bool) or not hasattr(step, "__float__") or not 0 <= float(step) < math.inf:
        raise ValueError(f"katz: beta must be a finite float >= 0; got {describe(step)}.")
    _check_grad("katz", grad)
    stop = _stop("katz", graph, None, atol, norm, None, False, budget)
    numbers, tensors = apart(seeds)
    ranks = katz_scores(graph, seeds_of(numbers, graph.n, normal=False), float(step), stop)
    return recorded(ranks, beta, tensors, grad)


def _graph(graph: Any) -> Graph:
    graph = graph if isinstance(graph, Graph) else Graph(graph)
    graph.follow()
    return graph


def _check_grad(owner: str, grad: Any) -> None:
    if grad not in ("sparse", "dense"):
        raise ValueError(f"{owner}: grad must be 'sparse' or 'dense'; got {describe(grad)}.")


def _fraction(owner: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__") or not 0 <= float(value) < 1:
        raise ValueError(f"{owner}: {name} must be a float in [0, 1); got {describe(value)}.")
    return float(value)


def _stop(owner: str, graph: Graph, eps: Any, atol: Any, norm: str, topk: Any, ordered: bool, budget: Any) -> Stop:
    """Which of the goals was asked for, and whether one was."""
    for name, value in (("eps", eps), ("atol", atol)):
        if value is not None and not (hasattr(value, "__float__") and 0 < float(value) < math.inf):
            raise ValueError(f"{owner}: {name} must be a positive float; got {describe(value)}.")
    if norm not in ("sum", "max"):
        raise ValueError(f"{owner}: norm must be 'sum' or 'max'; got {describe(norm)}.")
    for name, value in (("topk", topk), ("budget", budget)):
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < 1):
            raise ValueError(f"{owner}: {name} must be an integer of at least 1; got {describe(value)}.")
    if topk is not None and topk > graph.n:
        raise ValueError(f"{owner}: topk must be at most the number of nodes, {graph.n}; got {topk}.")
    if (eps is not None) + (atol is not None or topk is not None) != 1:
        raise ValueError(f"{owner}: one of eps, atol and topk must say how accurate; got {'all' if eps else 'none'}.")
    if topk is not None:
        return Stop(BEST, float(atol or 1e-8), int(topk), bool(ordered), budget)
    if eps is not None:
        return Stop(SCALE, float(eps), budget=budget)
    return Stop(SUM if norm == "sum" else LARGEST, float(atol or 0), budget=budget)
