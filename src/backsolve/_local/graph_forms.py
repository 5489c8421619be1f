"""CSR arrays of a graph, out of the forms in which people hold one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from ..indices import integers
from .given import TAKE, Given
from .places import Places

__all__ = ["Form", "check_given", "form_of"]


class Form(NamedTuple):
    """What `Graph` keeps of a source."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray | None
    directed: bool
    labels: list | None = None
    edges: np.ndarray | None = None
    given: Given | None = None


def form_of(source: Any, weights: Any, n: int | None, directed: bool | None) -> Form:
    """Arrays of a source in any of the forms that `Graph` documents."""
    if isinstance(source, tuple | list) and len(source) == 2:
        given = None if weights is None else TAKE["weights"](weights)
        form = _of_edges(source, given.array if given else weights, n, directed is None or bool(directed))
        return form._replace(given=replace(given, edges=form.edges)) if given else form
    if weights is not None or n is not None:
        raise ValueError(
            f"Graph: weights and n belong to a source (from_nodes, to_nodes); got {describe(source)}: leave them out."
        )
    if hasattr(source, "adj") and hasattr(source, "is_directed"):
        return _of_networkx(source, directed)
    given = TAKE["weights"](source)
    return _of_matrix(source, directed) if given is None else _of_given(given, directed)


def check_given(directed: bool | None) -> None:
    """Raise where a step along a gradient would make an undirected graph directed."""
    if directed is False:
        raise ValueError(
            "Graph: a matrix with tensor values must be directed, as its entries (i, j) and (j, i) can change apart: "
            "give (from_nodes, to_nodes) with each edge once, weights, and directed=False."
        )


def _of_given(given: Given, directed: bool | None) -> Form:
    check_given(directed)
    A = given.source
    if A.shape[0] != A.shape[1] or given.array.ndim != 1:
        raise ValueError(f"Graph: the matrix must be square, and one; got {A!r}.")
    if A.slots is None:
        return Form(A.pattern.indptr, A.pattern.indices, given.array, True, given=given)
    given = replace(given, places=Places(None, A.slots))  # type: ignore[arg-type]
    data = np.zeros(A.pattern.nnz)
    given.write(data)
    return Form(A.pattern.indptr, A.pattern.indices, data, True, given=given)


def _of_edges(pair: Any, weights: Any, n: int | None, directed: bool) -> Form:
    start, end = integers("Graph: from_nodes", pair[0]), integers("Graph: to_nodes", pair[1])
    given = start.shape
    if start.shape != end.shape:
        raise ValueError(f"Graph: from_nodes and to_nodes must have one length; got {start.size} and {end.size}.")
    largest = int(max(start.max(), end.max())) if start.size else -1
    least = int(min(start.min(), end.min())) if start.size else 0
    n = largest + 1 if n is None else int(n)
    if least < 0 or largest >= n:
        raise ValueError(f"Graph: nodes must lie in [0, {n}); got {least} to {largest}: give n, or mend the edges.")
    which = np.arange(start.size)
    if not directed:
        other = start != end
        start, end = np.r_[start, end[other]], np.r_[end, start[other]]
        which = np.r_[which, which[other]]
    order = np.argsort(start, kind="stable")
    kind = np.int32 if max(n, start.size) < np.iinfo(np.int32).max else np.int64
    indptr = np.zeros(n + 1, kind)
    np.cumsum(np.bincount(start, minlength=n), out=indptr[1:])
    which = which[order]
    if weights is not None:
        weights = np.asarray(weights)
        if weights.shape != given:
            raise ValueError(f"Graph: weights must be one number for each edge; got {describe(weights)}.")
        weights = weights[which]
    return Form(indptr, end[order].astype(kind), weights, directed, edges=which)


def _of_networkx(source: Any, directed: bool | None) -> Form:
    if directed is not None and directed != source.is_directed():
        raise ValueError(
            f"Graph: the networkx graph is {'' if source.is_directed() else 'un'}directed; got directed={directed}: "
            "leave it out, or call to_directed() or to_undirected() of the graph."
        )
    labels = list(source)
    number = {label: k for k, label in enumerate(labels)}
    start, end, weights = [], [], []
    for u, neighbours in source.adj.items():
        for v, attributes in neighbours.items():
            for edge in attributes.values() if source.is_multigraph() else (attributes,):
                start.append(number[u])
                end.append(number[v])
                weights.append(edge.get("weight", 1))
    values = None if all(w == 1 for w in weights) else np.array(weights, np.float64)
    # Its adjacency has both directions of an undirected edge already.
    form = _of_edges((np.array(start, np.int64), np.array(end, np.int64)), values, len(labels), True)
    return form._replace(directed=source.is_directed(), labels=labels, edges=None)


def _of_matrix(source: Any, directed: bool | None) -> Form:
    pattern: Any = getattr(source, "structure", None)
    if hasattr(pattern, "indptr") and hasattr(source, "slots"):
        values = np.asarray(source.data)
        if values.ndim != 1:
            raise ValueError(f"Graph: the CSR must hold one matrix; got values of shape {values.shape}: take one.")
        if source.slots is not None:
            values = np.bincount(source.slots, values, minlength=len(pattern.indices))
        source = sp.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)
    if not sp.issparse(source):
        dense = np.asarray(source)
        if dense.ndim != 2 or dense.dtype.kind not in "fiub":
            raise TypeError(
                f"Graph: expected a matrix, a networkx graph, or (from_nodes, to_nodes); got {describe(source)}."
            )
        source = sp.csr_array(dense)
    if source.ndim != 2 or source.shape[0] != source.shape[1] or source.dtype.kind not in "fiub":
        raise ValueError(f"Graph: the matrix must be square and real; got {describe(source)}.")
    A = sp.csr_array(source)
    symmetric = directed is not True and (A != A.T).nnz == 0
    if directed is False and not symmetric:
        raise ValueError("Graph: the matrix of an undirected graph must be symmetric: give A + A.T, or directed=True.")
    return Form(A.indptr, A.indices, None if np.all(A.data == 1) else A.data, not symmetric)
