"""Effective resistance between nodes of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._local.budget import Budget
from .._local.estimate import Estimate
from .._local.graph import Graph
from .._local.resistance import ResistanceQuery
from ..errors import describe
from ..options import check_tolerance

__all__ = ["effective_resistance"]


def effective_resistance(
    graph: Any, a: int, b: int, atol: float, *, max_touched: int | None = None, max_seconds: float | None = None
) -> Estimate:
    """Return the resistance between two nodes of an undirected graph whose weights are conductances.

    R_ab = (e_a - e_b)·L⁺(e_a - e_b) for the Laplacian L. A ball around both nodes grows until a current inside of it
    (Thomson's principle) and a potential that is constant outside of it (Dirichlet's) enclose R between them, rounding
    included: no dominance is needed, and on infinite graphs the answer is that of the infinite graph.

    Parameters
    ----------
    graph : Graph, or what it takes
        Undirected; weights >= 0.
    a, b : int
        Nodes.
    atol : float
        What the bound must come below.
    max_touched : int, optional
        Edges that may be read; then the status is BUDGET, and the bound is what it has come to.
    max_seconds : float, optional
        The same by the clock.

    Returns
    -------
    Estimate
        `value` in ohms where weights are in siemens; infinite between components. `kind` is "energy".
        ``estimate.query.gradient()`` gives (places of weights, dR/dw, bounds).

    Raises
    ------
    ValueError
        If the graph is directed, or a weight is negative or not finite.

    References
    ----------
    Doyle & Snell 1984, Random Walks and Electric Networks, sections 1.3.5 and 1.4.

    Examples
    --------
    >>> from backsolve import local
    >>> ladder = local.Graph(([0, 1, 2, 3], [1, 2, 3, 0]), directed=False)
    >>> est = local.effective_resistance(ladder, 0, 1, atol=1e-9)
    >>> round(est.value, 9), est.bound <= 1e-9
    (0.75, True)
    """
    graph = graph if isinstance(graph, Graph) else Graph(graph)
    graph.follow()
    if graph.directed:
        raise ValueError("effective_resistance: graph must be undirected; got a directed one: pass directed=False.")
    target = check_tolerance("effective_resistance", "atol", atol)
    if target is None:
        raise ValueError("effective_resistance: atol must be a float in [0, inf); got None.")
    nodes = []
    for name, node in (("a", a), ("b", b)):
        if not isinstance(node, (int, np.integer)) or isinstance(node, bool) or not 0 <= node < graph.n:
            raise ValueError(
                f"effective_resistance: {name} must be an integer in [0, {graph.n}); got {describe(node)}."
            )
        nodes.append(int(node))
    if nodes[0] == nodes[1]:
        raise ValueError(f"effective_resistance: a and b must differ; both are {nodes[0]}, where the resistance is 0.")
    query = ResistanceQuery(graph.indptr, graph.indices, graph.data, *nodes)
    return query.run(target, Budget(max_touched, max_seconds))
