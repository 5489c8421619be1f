"""Random walks whose edge weights are learned."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from .. import dispatch
from .._local.estimate import Estimate
from .._local.folder import Folder
from .._local.graph import Graph
from .._local.learned import checked_weights
from .._local.learned_gradient import WalkGradient, touched_edges, walk_gradient
from .._local.walk_options import request
from .._local.walk_values import cotangents
from ..eager import eager
from ..errors import describe

__all__ = ["FRAMEWORKS", "LearnedWalk", "leaves_of"]

FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow")
"""In which edge_weight may be written."""


class LearnedWalk:
    """Random walk with restart on a graph whose edge weights are a function of parameters.

    x = (1 - alpha) s + alpha Pᵀ x, P_ij = w_ij / Σ_k w_ik, w = edge_weight(theta, edges) > 0. Queries evaluate the
    weights of the nodes that mass has come to, all nodes of a frontier in one call, so that a model on 10⁸ edges trains
    by evaluating thousands. Gradients need rows alone: with λ on the touched nodes S,
    ∂/∂w_ij = alpha x_i/d_i (λ_j - Σ_k P_ik λ_k), and outside of S all is bounded (`gradient`).

    Parameters
    ----------
    graph : Graph, Folder, or what makes a Graph
        Which edges there are; weights of the graph are not used. A node without edges absorbs what comes to it.
    edge_weight : (theta, edges) -> weights
        `edges` are places among the stored edges (``graph.indices``), int64 (k,), of the framework of theta: compute
        with features of these only. Returns k positive floats; must be deterministic. In JAX it is compiled, for k a
        power of two of at least 256 (padded with edges of the batch): define it once, outside of the training loop.
    alpha : float in (0, 1), default 0.85
        The chance that the walk goes on.
    framework : {"numpy", "torch", "jax", "tensorflow"}, optional
        That of theta, where its leaves do not tell.

    References
    ----------
    Backstrom & Leskovec 2011, doi:10.1145/1935826.1935914 (supervised random walks); Andersen, Chung & Lang 2006,
    doi:10.1109/FOCS.2006.44.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve import local
    >>> graph = local.Graph(([0, 1, 2, 3], [1, 2, 3, 0]), directed=False)
    >>> walk = local.LearnedWalk(graph, lambda theta, edges: np.exp(theta * graph.indices[edges]))
    >>> est = walk(np.float64(0.0), seeds=0, atol=1e-10, at=[0, 1, 2, 3])
    >>> est.value.round(4), est.bound <= 1e-10
    (array([0.3453, 0.2297, 0.1953, 0.2297]), True)
    """

    def __init__(
        self, graph: Any, edge_weight: Callable[[Any, Any], Any], *, alpha: float = 0.85, framework: str | None = None
    ):
        if isinstance(graph, Folder):
            graph = Graph.from_arrays(graph.indptr, graph.indices, directed=not graph.symmetric)
        self.graph = Graph(graph)
        if not callable(edge_weight):
            raise TypeError(f"LearnedWalk: edge_weight must be a function (theta, edges); got {describe(edge_weight)}.")
        if not isinstance(alpha, int | float) or not 0 < alpha < 1:
            raise ValueError(f"LearnedWalk: alpha must lie in (0, 1); got {describe(alpha)}.")
        if framework is not None and framework not in FRAMEWORKS:
            raise ValueError(
                f"LearnedWalk: framework must be one of {', '.join(map(repr, FRAMEWORKS))}; got {describe(framework)}."
            )
        self.edge_weight, self.alpha, self.framework = edge_weight, float(alpha), framework

    @eager("backsolve.local.LearnedWalk")
    def __call__(
        self,
        theta: Any,
        seeds: Any,
        *,
        atol: float | None = None,
        eps: float | None = None,
        at: Any = None,
        max_touched: int | None = None,
        max_seconds: float | None = None,
    ) -> Estimate:
        """Return x of each query, as far as it is asked for.

        Parameters
        ----------
        theta : anything
            Given to edge_weight: arrays, containers of them, a module.
        seeds
            s, in any form that `pagerank` takes: one node, several (a query each), dicts, pairs.
        atol : float, optional
            Stop at Σ|x - x̂| ≤ atol, proved. On graphs with hubs this needs much of the graph.
        eps : float, optional
            Instead: stop at residuals |r_v| ≤ (1 - alpha) eps for each edge of v; at most 1/((1 - alpha) eps) edges are
            read for a query, whatever the size of the graph. The bound says what is left.
        at : ints (k,) or (queries, k), optional
            Nodes whose x is returned, as a dense array; zero where x̂ has nothing. Without it all of x̂ is, sparse.
        max_touched, max_seconds : optional
            Edges that may be read, and time; then the status is BUDGET.

        Returns
        -------
        Estimate
            `value`: (k,), or (queries, k) for several seeds, in the dtype of the weights (NumPy: float64); without
            `at` a sparse tensor or array with n columns, in JAX (indices, values). In torch, and through tapes of
            TensorFlow, gradients flow to theta.
            `bound`: of Σ|x - x̂| of the worst query.

        Raises
        ------
        ValueError
            If weights are not positive, not finite, or not one for each edge.
        """
        asked = request(self.graph.n, seeds, at, atol, eps, max_touched, max_seconds)
        return self._frontend(theta).walk(self.graph, self.alpha, self.edge_weight, theta, asked)

    def value_and_grad(
        self,
        loss: Callable[[Any], Any],
        theta: Any,
        seeds: Any,
        *,
        at: Any,
        atol: float | None = None,
        eps: float | None = None,
        max_touched: int | None = None,
        max_seconds: float | None = None,
    ) -> tuple[Any, Any, Estimate]:
        """Return (loss(x at the nodes), its gradient by theta as a pytree, the Estimate), for theta of JAX.

        `loss` is a function of JAX of the array that calling gives; other arguments as there. Not to be traced: how
        many edges are touched is found out on the way.
        """
        frontend = self._frontend(theta)
        if not hasattr(frontend, "value_and_grad"):
            raise TypeError(
                "LearnedWalk.value_and_grad is for theta of JAX: in torch call backward, in TensorFlow use a "
                "GradientTape, in NumPy `gradient`."
            )
        asked = request(self.graph.n, seeds, at, atol, eps, max_touched, max_seconds)
        return frontend.value_and_grad(self.graph, self.alpha, self.edge_weight, theta, asked, loss)

    def gradient(self, estimate: Estimate, g: Any) -> WalkGradient:
        """Return the gradient of Σ g x by the weights of single edges, with a bound for each, dropped ones included.

        Parameters
        ----------
        estimate : Estimate
            Of this walk.
        g : array like `estimate.value`, or like its values where that is sparse
            NumPy; held fixed.

        Returns
        -------
        WalkGradient
            `edges`, `values`, `bounds`, `elsewhere`, and `directional` for derivatives along changes of theta.
        """
        found, asked = estimate.query
        edges = touched_edges(found)
        weights = checked_weights(self.graph, edges, np.asarray(found.evaluate(edges)))
        return walk_gradient(found, edges, weights, cotangents(found, asked, np.asarray(g)))

    def _frontend(self, theta: Any) -> Any:
        name = self.framework or dispatch.frontend_of(*leaves_of(theta)).name
        return import_module(f"..frontends.{name}_walk", __package__)

    def __repr__(self) -> str:
        return f"LearnedWalk({self.graph!r}, alpha={self.alpha:g})"


def leaves_of(theta: Any) -> list[Any]:
    """Arrays in theta, of containers and modules."""
    if isinstance(theta, dict):
        theta = list(theta.values())
    elif hasattr(theta, "parameters"):
        theta = list(theta.parameters())
    elif hasattr(theta, "trainable_variables"):
        theta = list(theta.trainable_variables)
    if isinstance(theta, list | tuple):
        return [leaf for part in theta for leaf in leaves_of(part)]
    return [theta]
