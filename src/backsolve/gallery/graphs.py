"""Families of grounded graph Laplacians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from .families import Family, at_least, between, scattered_field
from .problems import _LAPLACE

__all__ = ["GeometricGraph", "GraphLaplacian"]


def _grounded(n: int, i: np.ndarray, j: np.ndarray, w: np.ndarray, ground: float) -> sp.csr_array:
    """The Laplacian of edges (i, j) of conductance w, with `ground` times the mean degree on the diagonal."""
    degree = np.bincount(i, w, n) + np.bincount(j, w, n)
    every = np.arange(n)
    diagonal = degree + ground * max(float(degree.mean()), np.finfo(float).tiny)
    A = sp.csr_array(
        (np.concatenate([-w, -w, diagonal]), (np.concatenate([i, j, every]), np.concatenate([j, i, every]))),
        shape=(n, n),
    )
    A.sum_duplicates()
    A.sort_indices()
    A.indices, A.indptr = A.indices.astype(np.int32), A.indptr.astype(np.int32)
    return A


@dataclass(frozen=True)
class GeometricGraph(Family):
    """Laplacians of random geometric graphs: points at random, joined where they are near; every seed has its own.

    Conductances are exp(sigma g), g a Gaussian field at the middle of an edge; every node is joined to the ground.

    Parameters
    ----------
    n : int
        Nodes.
    degree : float
        Neighbours of a node away from the boundary, on average.
    dims : {2, 3}
    sigma, correlation : float
        Of log conductances, as for `Diffusion`.
    ground : float
        Conductance to the ground, relative to the mean degree.
    """

    n: int = 1024
    degree: float = 10.0
    dims: int = 2
    sigma: float = 1.0
    correlation: float = 0.1
    ground: float = 1e-3

    name: ClassVar[str] = "geometric_graph"
    words: ClassVar[str] = _LAPLACE

    def __post_init__(self):
        at_least(self, 2, n=self.n, dims=self.dims)
        between(self, 2, 3, dims=self.dims)
        between(self, 0.1, 1e4, degree=self.degree)
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-6, 1e3, correlation=self.correlation)
        between(self, 1e-12, 1e3, ground=self.ground)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        from scipy.spatial import KDTree

        points = rng.random((self.n, self.dims))
        ball = np.pi if self.dims == 2 else 4 * np.pi / 3
        pairs = KDTree(points).query_pairs((self.degree / (self.n * ball)) ** (1 / self.dims), output_type="ndarray")
        i, j = pairs[:, 0], pairs[:, 1]
        w = np.exp(self.sigma * scattered_field((points[i] + points[j]) / 2, self.correlation, rng))
        return _grounded(self.n, i, j, w, self.ground)


@dataclass(frozen=True, eq=False)
class GraphLaplacian(Family):
    """Laplacians of one graph, such as a real network, with random conductances.

    Parameters
    ----------
    graph : scipy.sparse array (n, n)
        Entries off the diagonal are edges, in either direction; their values are not used.
    sigma : float
        Standard deviation of log conductances, which are independent.
    ground : float
        Conductance of every node to the ground, relative to the mean degree.

    Raises
    ------
    TypeError, ValueError
        If the graph is not sparse, not square, or without an edge.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from backsolve import gallery
    >>> path = sp.diags_array([1.0, 1.0], offsets=[0, 1], shape=(4, 4))
    >>> gallery.GraphLaplacian(path, sigma=0.0, ground=0.5)(seed=0).toarray()[0].tolist()
    [1.75, -1.0, 0.0, 0.0]
    """

    graph: Any
    sigma: float = 1.0
    ground: float = 1e-3

    name: ClassVar[str] = "graph_laplacian"
    words: ClassVar[str] = _LAPLACE

    def __post_init__(self):
        if not sp.issparse(self.graph):
            raise TypeError(f"GraphLaplacian: graph must be a scipy.sparse array; got {describe(self.graph)}.")
        edges = sp.triu(self.graph + self.graph.T, 1) if self.graph.shape[0] == self.graph.shape[1] else None
        if edges is None or not edges.nnz:
            raise ValueError(f"GraphLaplacian: graph must be square, with edges; got {describe(self.graph)}.")
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-12, 1e3, ground=self.ground)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        pattern = abs(sp.csr_array(self.graph)).astype(bool).astype(float)
        i, j = sp.triu(pattern + pattern.T, 1).nonzero()
        return _grounded(pattern.shape[0], i, j, np.exp(self.sigma * rng.standard_normal(len(i))), self.ground)
