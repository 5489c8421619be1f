"""Graphs as plain arrays: out of what people hold them in, checked, and with what pushes need to know of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from .. import _kernels
from ..errors import describe
from ..indices import integers
from .given import TAKE
from .graph_forms import check_given, form_of

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
        For (from_nodes, to_nodes): non-negative floats; left out, every edge has the weight 1. Those of torch, here or
        as values of a matrix (CSR, coo, torch.sparse; it is then directed), get gradients from `pagerank` and `katz`.
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
    After weights were changed in place, call `refresh`: queries that read a row whose strength has changed raise. A
    torch tensor tells that it was changed: the next query sums anew, O(edges).

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
    age: int
    """How often `refresh` has been called."""

    def __init__(self, source: Any, weights: Any = None, *, n: int | None = None, directed: bool | None = None) -> None:
        if isinstance(source, Graph):
            self.__dict__.update(source.__dict__)
            return
        form = form_of(source, weights, n, directed)
        self.labels, self.edges, self._given = form.labels, form.edges, form.given
        self._set(form.indptr, form.indices, form.data, form.directed)

    @classmethod
    def from_arrays(cls, indptr: Any, indices: Any, data: Any = None, *, directed: bool = True) -> Graph:
        """Use CSR arrays as they are, also memory-mapped ones: nothing is copied or sorted, nothing but sizes checked.

        Parameters
        ----------
        indptr, indices : arrays of shape (n + 1,) and (edges,)
            Both int32 or both int64, or int64 and int32.
        data : array of shape (edges,), float32 or float64, optional
            Weights, read once here; also a torch tensor.
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
        graph._given = None if data is None else TAKE["weights"](data)
        if graph._given is not None:
            check_given(directed)
            data = graph._given.array
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
        self.age = getattr(self, "age", -1) + 1
        if self.data is not None:
            if self._given is not None:
                self._seen = self._given.stamp()
                self._given.write(self.data)
            self.strengths = np.empty(self.n)
            _kernels.local_strengths(self.indptr, self.indices, self.data, self.strengths)

    def follow(self) -> None:
        """`refresh` if weights that are a tensor have changed since."""
        if self._given is not None and (self._seen is None or self.changed()):
            self.refresh()

    def changed(self) -> bool:
        """Whether weights that are a tensor have surely changed since they were summed."""
        return self._given is not None and self._given.stamp() != self._seen

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

    def strength_of(self, nodes: np.ndarray) -> np.ndarray:
        """Strengths of some nodes, reading nothing else."""
        if self.strengths is not None:
            return self.strengths[nodes]
        return (self.indptr[nodes + 1] - self.indptr[nodes]).astype(np.float64)

    def edges_of(self, nodes: np.ndarray, *, reverse: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Edges of some nodes: which of the nodes, the neighbour, and the position of the weight.

        With ``reverse`` the edges that lead to them.
        """
        ptr, idx, slot = self.transposed() if reverse else (self.indptr, self.indices, None)
        start, count = ptr[nodes].astype(np.int64), (ptr[nodes + 1] - ptr[nodes]).astype(np.int64)
        if np.any(start < 0) or np.any(count < 0) or np.any(start + count > len(idx)):
            raise ValueError("Graph: indptr falls, or leaves the indices: the index arrays are damaged.")
        owner = np.repeat(np.arange(len(nodes)), count)
        positions = np.arange(len(owner)) + np.repeat(start - (np.cumsum(count) - count), count)
        neighbours = idx[positions].astype(np.int64)
        if neighbours.size and (neighbours.min() < 0 or neighbours.max() >= self.n):
            raise ValueError(f"Graph: indices must lie in [0, {self.n}): the index arrays are damaged.")
        return owner, neighbours, positions if slot is None else slot[positions].astype(np.int64)

    def weights_at(self, positions: np.ndarray) -> np.ndarray:
        """Weights of some edges."""
        return np.ones(len(positions)) if self.data is None else self.data[positions].astype(np.float64)

    def has_dangling(self) -> bool:
        """Whether there is a node from which no edge of positive weight leads on."""
        if "dangling" not in self._memo:
            self._memo["dangling"] = not bool(self.degrees().all())
        return self._memo["dangling"]

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
        idx = idx if idx.size else idx.astype(ptr.dtype)
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

    def _check_all(self) -> None:
        ptr, idx = self.indptr, self.indices
        if np.any(np.diff(ptr) < 0) or (idx.size and (idx.min() < 0 or idx.max() >= self.n)):
            raise ValueError(
                f"Graph: indptr must not fall and indices must lie in [0, {self.n}): the index arrays are damaged."
            )
