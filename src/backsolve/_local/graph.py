"""Graphs as plain arrays: out of what people hold them in, checked, and with what pushes need to know of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _kernels
from ..errors import describe
from ..indices import integers

__all__ = ["Graph"]


class Graph:
    """A graph with edges of weight ≥ 0, whose row i lists the edges that lead from node i.

    Edges that are given twice add up; loops and nodes without edges are allowed. Construction reads the weights once
    (their sums of rows are the strengths); index arrays are checked where queries read them, so that a folder of
    memory-mapped arrays costs nothing to open when it has no weights.

    Parameters
    ----------
    source : Graph, sparse or dense matrix, CSR, networkx graph, or (from_nodes, to_nodes)
        A matrix has w_ij for the edge from i to j; one whose values are all 1 has no weights. Of a networkx graph the
        nodes are numbered in its own order (`labels`), weights are those of the attribute "weight", else 1.
    weights : array of shape (edges,), optional
        For (from_nodes, to_nodes): non-negative floats; left out, every edge has the weight 1.
    n : int, optional
        For (from_nodes, to_nodes): number of nodes; left out, the largest number + 1.
    directed : bool, optional
        False: every edge leads both ways. A pair of arrays then names each edge once, a matrix must be symmetric (it is
        looked at). Left out: a matrix is undirected if it is symmetric, a pair of arrays is directed.

    Raises
    ------
    ValueError
        If weights are negative or not finite, nodes out of range, sizes do not match, or a matrix declared undirected
        is not symmetric.
    TypeError
        If the source is nothing of the kind.

    Notes
    -----
    After weights were changed in place, call `refresh`: queries that read a row whose strength has changed raise.

    Examples
    --------
    >>> import backsolve.local as local
    >>> graph = local.Graph(([0, 1, 2], [1, 2, 0]), directed=False)
    >>> graph
    Graph(3 nodes, 6 edges, undirected, unweighted)
    """

    n: int
    """Number of nodes."""
    indptr: np.ndarray
    """Where the edges of each node begin: (n + 1,)."""
    indices: np.ndarray
    """To which node each edge leads: (edges,)."""
    data: np.ndarray | None
    """Weights: (edges,), or None where each is 1."""
    directed: bool
    """False if the matrix is symmetric."""
    strengths: np.ndarray | None
    """Sums of the rows: (n,), or None where these are the lengths of the rows."""
    labels: list | None
    """Nodes of the networkx graph that this was made of, in order."""
    edges: np.ndarray | None
    """For a pair of arrays: which of the given edges each stored one is, (edges,)."""

    def __init__(self, source: Any, weights: Any = None, *, n: int | None = None, directed: bool | None = None) -> None:
        self.labels = self.edges = None
        if isinstance(source, tuple | list) and len(source) == 2:
            self._from_edges(source, weights, n, bool(directed))
        elif weights is not None or n is not None:
            raise ValueError(
                "Graph: weights and n belong to a source (from_nodes, to_nodes); "
                f"got {describe(source)}: leave them out."
            )
        elif hasattr(source, "adj") and hasattr(source, "is_directed"):
            self._from_networkx(source, directed)
        else:
            self._from_matrix(source, directed)

    @classmethod
    def from_arrays(cls, indptr: Any, indices: Any, data: Any = None, *, directed: bool = True) -> Graph:
        """Use CSR arrays as they are, also memory-mapped ones: nothing is copied or sorted, nothing but sizes checked.

        Parameters
        ----------
        indptr, indices : arrays of shape (n + 1,) and (edges,)
            Both int32 or both int64, or int64 and int32.
        data : array of shape (edges,), float32 or float64, optional
            Weights, read once here.
        directed : bool, default True
            False promises that the matrix is symmetric; bounds by degree rest on that.

        Returns
        -------
        Graph

        Examples
        --------
        >>> import numpy as np, backsolve.local as local
        >>> local.Graph.from_arrays(np.array([0, 1, 2]), np.array([1, 0]), directed=False)
        Graph(2 nodes, 2 edges, undirected, unweighted)
        """
        graph = cls.__new__(cls)
        graph.labels = graph.edges = None
        graph._set(indptr, indices, data, directed)
        return graph

    def refresh(self) -> None:
        """Sum the weights anew, after they were changed in place.

        Raises
        ------
        ValueError
            If a weight is negative or not finite.
        """
        self._workers: dict[str, Any] = {}
        self._memo: dict[Any, Any] = {}
        self.strengths = None
        if self.data is not None:
            self.strengths = np.empty(self.n)
            _kernels.local_strengths(self.indptr, self.indices, self.data, self.strengths)

    def transposed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Edges by the node that they lead to: (indptr, indices, position of each among `indices`).

        Made once; of an undirected graph these are its own arrays and None.
        """
        if not self.directed:
            return self.indptr, self.indices, None
        if "transposed" not in self._memo:
            nnz = len(self.indices)
            self._check_all()
            kind = self.indptr.dtype
            whole = sp.csr_array((np.arange(nnz, dtype=kind), self.indices, self.indptr), shape=(self.n, self.n))
            turned = whole.tocsc()
            self._memo["transposed"] = (
                turned.indptr.astype(kind, copy=False),
                turned.indices.astype(self.indices.dtype, copy=False),
                turned.data,
            )
        return self._memo["transposed"]

    def degrees(self) -> np.ndarray:
        """Strengths, or lengths of rows where the graph has no weights: float64, (n,)."""
        if self.strengths is not None:
            return self.strengths
        if "degrees" not in self._memo:
            self._memo["degrees"] = np.diff(self.indptr).astype(np.float64)
        return self._memo["degrees"]

    def extent(self) -> tuple[float, float]:
        """Largest strength, and smallest one of a node with edges; (1, 1) where there is none."""
        if "extent" not in self._memo:
            d = self.degrees()
            some = d[d > 0]
            self._memo["extent"] = (float(some.max()), float(some.min())) if some.size else (1.0, 1.0)
        return self._memo["extent"]

    def workers(self, scale: str) -> Any:
        """Space of the kernels, kept from call to call, for one choice of the weights of thresholds."""
        if scale not in self._workers:
            self._workers[scale] = _kernels.LocalWorkers(self.n)
        return self._workers[scale]

    def __repr__(self) -> str:
        words = ("directed" if self.directed else "undirected", "unweighted" if self.data is None else "weighted")
        return f"Graph({self.n} nodes, {len(self.indices)} edges, {', '.join(words)})"

    def _set(self, indptr: Any, indices: Any, data: Any, directed: bool) -> None:
        ptr, idx = integers("Graph: indptr", indptr), integers("Graph: indices", indices)
        kinds = (ptr.dtype.name, idx.dtype.name)
        if kinds not in {("int32", "int32"), ("int64", "int64"), ("int64", "int32")}:
            raise ValueError(
                f"Graph: indptr and indices must be int32 or int64, indptr no narrower; got {kinds[0]} and {kinds[1]}: "
                "convert them with astype('int64')."
            )
        if len(ptr) == 0 or ptr[0] != 0 or ptr[-1] != len(idx):
            ends = "empty" if len(ptr) == 0 else f"{ptr[0]} ... {ptr[-1]}"
            raise ValueError(
                f"Graph: indptr must begin with 0 and end with the number of indices, {len(idx)}; got {ends}: "
                "pass indptr and indices of one CSR matrix, in this order."
            )
        if data is not None:
            data = np.asarray(data)
            if data.shape != (len(idx),) or data.dtype.kind not in "fiub":
                raise ValueError(
                    f"Graph: weights must be {len(idx)} real numbers, one for each edge; got {describe(data)}."
                )
            if data.dtype not in (np.float32, np.float64):
                data = data.astype(np.float64)
            data = np.ascontiguousarray(data)
        self.n, self.directed = len(ptr) - 1, bool(directed)
        self.indptr, self.indices, self.data = np.ascontiguousarray(ptr), np.ascontiguousarray(idx), data
        self.refresh()

    def _from_edges(self, pair: Any, weights: Any, n: int | None, directed: bool) -> None:
        start, end = (integers(f"Graph: {name}", nodes) for name, nodes in zip(("from_nodes", "to_nodes"), pair))
        if start.shape != end.shape:
            raise ValueError(f"Graph: from_nodes and to_nodes must have one length; got {start.size} and {end.size}.")
        largest = int(max(start.max(), end.max())) if start.size else -1
        n = largest + 1 if n is None else int(n)
        least = int(min(start.min(), end.min())) if start.size else 0
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
        self.edges = which[order]
        data = None
        if weights is not None:
            data = np.asarray(weights)
            if data.shape != pair_shape(pair):
                raise ValueError(f"Graph: weights must be one number for each edge; got {describe(data)}.")
            data = data[self.edges]
        self._set(indptr, end[order].astype(kind), data, directed)

    def _from_networkx(self, source: Any, directed: bool | None) -> None:
        if directed is not None and directed != source.is_directed():
            raise ValueError(
                f"Graph: the networkx graph is {'' if source.is_directed() else 'un'}directed; got directed={directed}: "
                "leave it out, or call to_directed() or to_undirected() of the graph."
            )
        labels = list(source)
        number = {label: k for k, label in enumerate(labels)}
        many = source.is_multigraph()
        start, end, weights = [], [], []
        for u, neighbours in source.adj.items():
            for v, attributes in neighbours.items():
                for edge in attributes.values() if many else (attributes,):
                    start.append(number[u])
                    end.append(number[v])
                    weights.append(edge.get("weight", 1))
        plain = all(w == 1 for w in weights)
        self._from_edges(
            (np.array(start, np.int64), np.array(end, np.int64)),
            None if plain else np.array(weights, np.float64),
            len(labels),
            True,
        )
        self.directed, self.labels, self.edges = source.is_directed(), labels, None

    def _from_matrix(self, source: Any, directed: bool | None) -> None:
        if isinstance(source, Graph):
            self.__dict__.update(source.__dict__)
            return
        if hasattr(source, "pattern") and hasattr(source, "data") and hasattr(source.pattern, "indptr"):
            values = np.asarray(source.on(source.data).data) if getattr(source, "slots", None) is None else None
            if values is None or values.ndim != 1:
                raise ValueError("Graph: a CSR must hold one matrix without repeats: give (rows, columns) and weights.")
            source = sp.csr_array((values, source.pattern.indices, source.pattern.indptr), shape=source.shape)
        if not sp.issparse(source):
            dense = np.asarray(source)
            if dense.ndim != 2 or dense.dtype.kind not in "fiub":
                raise TypeError(
                    f"Graph: expected a matrix, a networkx graph, or (from_nodes, to_nodes); got {describe(source)}."
                )
            source = sp.csr_array(dense)
        if source.shape[0] != source.shape[1] or source.dtype.kind not in "fiub":
            raise ValueError(f"Graph: the matrix must be square and real; got {describe(source)}.")
        A = sp.csr_array(source)
        symmetric = directed is not True and (A != A.T).nnz == 0
        if directed is False and not symmetric:
            raise ValueError(
                "Graph: the matrix of an undirected graph must be symmetric: give A + A.T, or directed=True."
            )
        plain = bool(np.all(A.data == 1))
        self._set(A.indptr, A.indices, None if plain else A.data, not symmetric)

    def _check_all(self) -> None:
        ptr, idx = self.indptr, self.indices
        if np.any(np.diff(ptr) < 0) or (idx.size and (idx.min() < 0 or idx.max() >= self.n)):
            raise ValueError(
                f"Graph: indptr must not fall and indices must lie in [0, {self.n}): the index arrays are damaged."
            )


def pair_shape(pair: Any) -> tuple[int, ...]:
    """Shape that the weights of a pair of index arrays have."""
    return np.asarray(pair[0]).shape
