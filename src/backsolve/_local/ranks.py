"""What a query on a graph returns: sparse scores, and how far from the truth each can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from ..status import Status
from .graph import Graph
from .sensitivity import Sensitivity, sensitivity
from .walks import Answers

__all__ = ["Ranks"]

_STATUS = {0: Status.CERTIFIED, 1: Status.INACCURATE, 2: Status.BUDGET}


@dataclass(frozen=True, repr=False, eq=False)
class Ranks:
    """Scores of the nodes that queries have reached, with bounds that rounding cannot break.

    A node that is not listed has the score 0, and the bounds hold for it as well.

    Attributes
    ----------
    indptr, indices, values : arrays
        CSR arrays, one row for each query: nodes ``indices[indptr[q]:indptr[q + 1]]`` have these `values`. Nodes are in
        the order in which they were reached; of the k best, the best is first.
    single : bool
        Whether one query was asked, and not a batch of them.
    sum_bound : float64 array of shape (queries,)
        Bounds of Σ |x - x̂|.
    max_bound : float64 array of shape (queries,)
        Bounds of |x_v - x̂_v| for every node v. `bound` has closer ones for single nodes.
    touched, edges, pushes : int64 arrays of shape (queries,)
        Work: nodes reached, edges read (repeatedly where a node was pushed repeatedly), pushes.
    proved : int64 array of shape (queries,)
        For the k best: how many of those listed are surely among them.
    status : tuple of Status
        For each query. CERTIFIED: what was asked for is proved. INACCURATE: rounding, or a tie, forbids; BUDGET: the
        budget ended it; bounds hold all the same.
    scores : float64 array or tensor of the shape of `values`
        `values`; as a torch tensor that gradients flow through if weights, seeds or alpha are of torch.

    Examples
    --------
    >>> import backsolve.local as local
    >>> ranks = local.pagerank(local.Graph(([0, 1, 2], [1, 2, 3]), directed=False), [0, 3], atol=1e-12)
    >>> ranks.toarray().round(3)
    array([[0.302, 0.358, 0.238, 0.101],
           [0.101, 0.238, 0.358, 0.302]])
    >>> ranks
    Ranks(2 queries, 8 scores, max_bound <= 6.55e-13, CERTIFIED)
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    single: bool
    sum_bound: np.ndarray
    max_bound: np.ndarray
    touched: np.ndarray
    edges: np.ndarray
    pushes: np.ndarray
    proved: np.ndarray
    status: tuple[Status, ...]
    scores: Any
    _problem: Any = field(repr=False)
    _answers: Answers = field(repr=False)

    @property
    def certified(self) -> bool:
        """Whether what was asked for is proved in every query."""
        return all(status > 0 for status in self.status)

    def tocsr(self) -> sp.csr_array:
        """Scores as a sparse matrix of shape (queries, n), which shares the arrays."""
        return sp.csr_array((self.values, self.indices, self.indptr), shape=(len(self.status), self._graph.n))

    def toarray(self) -> np.ndarray:
        """Scores as a dense array: (n,) of a single query, else (queries, n)."""
        dense = self.tocsr().toarray()
        return dense[0] if self.single else dense

    def interval(self, nodes: Any, query: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Between which numbers the scores of some nodes lie, surely.

        Parameters
        ----------
        nodes : int or array of ints of shape (m,)
            Also ones that are not listed.
        query : int, default 0

        Returns
        -------
        lower, upper : float64 arrays of shape (m,)
        """
        below, above = self._sides(nodes, query)
        x = self._score(nodes, query)
        return np.maximum(x - below, 0.0), x + above

    def bound(self, nodes: Any, query: int = 0) -> np.ndarray:
        """How far the scores of some nodes can be from the truth: float64, (m,); parameters as of `interval`."""
        return np.maximum(*self._sides(nodes, query))

    def gradient(self, g: Any, *, method: str = "rows", tol: float | None = None) -> Sensitivity:
        """Derivatives of L = Σ g x by edge weights, seeds and alpha (of Katz scores beta), with bounds of their errors.

        g is dL/dx at the scores that are listed; L must not depend on others. The adjoint, λ = g + α P λ or g + β W λ,
        is needed at the listed nodes and their neighbours alone.

        Parameters
        ----------
        g : float array of the shape of `values`
        method : "rows" or "in-edges", default "rows"
            "rows" reads the edges of listed nodes and no others (which is all that a graph without transpose, or
            weights that come out of a model, allow): where they end λ is known as an interval, which bounds the
            errors from below. "in-edges" pushes against the edges, to any accuracy, and transposes a directed graph
            once.
        tol : float > 0, optional
            For "in-edges": residual of the adjoint; λ is off by tol / (1 - alpha) at most (of Katz scores, by tol over
            the margin of I - β W). Default 1e-10 max |g|.

        Returns
        -------
        Sensitivity

        Raises
        ------
        ValueError
            If g has another shape or is not finite; if the graph was refreshed since; for the k best, and
            dangling="uniform".

        Examples
        --------
        >>> import numpy as np, backsolve.local as local
        >>> graph = local.Graph(([0, 0, 1, 2], [1, 2, 0, 0]), [1.0, 2.0, 1.0, 1.0])
        >>> ranks = local.pagerank(graph, 0, atol=1e-13)
        >>> found = ranks.gradient(np.where(ranks.indices == 1, 1.0, 0.0))
        >>> for i, j, slope in zip(found.rows, found.columns, found.values.round(4)):
        ...     print(i, j, slope)
        0 1 0.1021
        0 2 -0.0511
        1 0 0.0
        2 0 0.0
        """
        if self._problem.dangling == "uniform" or self._problem.best:
            raise ValueError(
                "gradient: only of pagerank by eps or atol, with dangling='seeds', 'self' or 'absorb': ask again so."
            )
        if self._graph.changed() or self._graph.age != self._problem.age:
            raise ValueError("gradient: weights of the graph have changed since these scores were found: ask anew.")
        return sensitivity(self, g, method, tol)

    def __repr__(self) -> str:
        worst = min(self.status, key=lambda status: (status > 0, status))
        queries = "1 query" if len(self.status) == 1 else f"{len(self.status)} queries"
        return (
            f"Ranks({queries}, {len(self.values)} scores, max_bound <= {self.max_bound.max(initial=0):.3g}, "
            f"{worst.name})"
        )

    @property
    def _graph(self) -> Graph:
        return self._problem.graph

    def _nodes(self, nodes: Any) -> np.ndarray:
        nodes = np.atleast_1d(nodes)
        if nodes.dtype.kind not in "iu" or (nodes.size and (nodes.min() < 0 or nodes.max() >= self._graph.n)):
            raise ValueError(f"nodes must be integers in [0, {self._graph.n}); got {describe(nodes)}.")
        return nodes

    def _score(self, nodes: Any, query: int) -> np.ndarray:
        row = self.tocsr()[[query]].tocoo()
        dense = dict(zip(row.col.tolist(), row.data.tolist(), strict=True))
        return np.array([dense.get(node, 0.0) for node in self._nodes(nodes).tolist()])

    def _sides(self, nodes: Any, query: int) -> tuple[np.ndarray, np.ndarray]:
        a, w = self._answers, self._problem.scale_of(self._nodes(nodes))
        with np.errstate(invalid="ignore", over="ignore"):
            above = np.fmin(a.up[query], (a.up_scale[query] * w) * (1 + 1e-14) + a.offset[query])
            below = np.fmin(a.down[query], (a.down_scale[query] * w) * (1 + 1e-14) + a.offset[query])
        return below, above


def ranks_of(problem: Any, answers: Answers, single: bool) -> Ranks:
    """`Ranks` of what the kernel found for `problem`, which knows its graph and the weights of its bounds."""
    a, largest = answers, problem.largest_scale()
    with np.errstate(invalid="ignore", over="ignore"):
        above = np.fmin(a.up, a.up_scale * largest + a.offset)
        below = np.fmin(a.down, a.down_scale * largest + a.offset)
    return Ranks(
        a.first,
        a.ids,
        a.values,
        single,
        a.sums,
        np.maximum(above, below) * (1 + 1e-14),
        a.touched,
        a.edges,
        a.pushes,
        a.proved,
        tuple(_STATUS[int(v)] for v in a.verdict),
        a.values,
        problem,
        a,
    )
