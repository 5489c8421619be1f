"""A message-passing network on the graph of a matrix, with given weights: plain arrays.

Features of an edge (i, j) are â_ij and â_ji, â = D^-½ A D^-½ with D = |diag A|; of a node, the residual r and z = M r
in the scaled unknowns. Each layer adds to its node vectors H

    tanh(H W_own + Σ_k S_k H W_k),    S_k the sparse matrix of entries φ_k(â_ij, â_ji),

φ_k(e) = u_k·e + v_k·tanh(e T_k + t_k). There is no constant anywhere but in φ, and tanh is odd, so the network is odd
in (r, z); both are divided by their size before, so it does not see their scale, nor that of A; nodes have no names, so
a permutation of the unknowns permutes its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["Layer", "Network", "OnMatrix", "edge_features", "scales"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Weights of one layer, for k edge functions with h hidden units and c channels."""

    u: np.ndarray
    """(k, 2)."""
    T: np.ndarray
    """(k, 2, h)."""
    t: np.ndarray
    """(k, h)."""
    v: np.ndarray
    """(k, h)."""
    W: np.ndarray
    """(k, c, c)."""
    W_own: np.ndarray
    """(c, c)."""


@dataclass(frozen=True, eq=False)
class Network:
    """Weights: what a trained `NeuralDirections` is exported to.

    Attributes
    ----------
    lift : (2, c)
        From r and z to channels.
    layers : tuple of Layer
    out : (c,)
        From channels to a direction.
    """

    lift: np.ndarray
    layers: tuple[Layer, ...]
    out: np.ndarray

    def on(self, pattern: Any, values: np.ndarray) -> OnMatrix:
        """The network for one matrix: edge functions are evaluated once."""
        return OnMatrix(self, pattern, values)


class OnMatrix:
    """A network for one matrix: (r, z) -> a direction, all (n,)."""

    def __init__(self, network: Network, pattern: Any, values: np.ndarray):
        self.network, n = network, pattern.shape[0]
        self.scale, edges = edge_features(pattern, values)
        index = np.array(pattern.indices), np.array(pattern.indptr)
        self.S = []
        with np.errstate(all="ignore"):
            for layer in network.layers:
                hidden = np.tanh(np.einsum("ef,kfh->ekh", edges, layer.T) + layer.t)
                phi = edges @ layer.u.T + np.einsum("ekh,kh->ek", hidden, layer.v)
                self.S.append(
                    [sp.csr_array((np.ascontiguousarray(phi[:, k]), *index), shape=(n, n)) for k in range(len(layer.u))]
                )

    def __call__(self, r: np.ndarray, z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            H = scales([r * self.scale, z / self.scale]) @ self.network.lift
            for layer, matrices in zip(self.network.layers, self.S, strict=True):
                total = H @ layer.W_own
                for S, W in zip(matrices, layer.W, strict=True):
                    total += S @ (H @ W)
                H = H + np.tanh(total)
            return (H @ self.network.out) * self.scale


def scales(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(n, columns), each divided by its root mean square; zero where that is zero."""
    X = np.stack(columns, axis=1)
    largest = np.abs(X).max(axis=0, initial=0.0)
    X = X / np.where(largest > 0, largest, 1)
    size = np.sqrt(np.mean(X * X, axis=0)) if len(X) else np.ones(X.shape[1])
    return X / np.where(size > 0, size, 1)


def edge_features(pattern: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D^-½ (n,), and (â_ij, â_ji) of every stored place (nnz, 2); places whose mirror is not stored have 0 for it.

    Where a diagonal entry is zero the largest of its row stands for it.
    """
    A = sp.csr_array((values, np.array(pattern.indices), np.array(pattern.indptr)), shape=pattern.shape)
    d = np.abs(A.diagonal())
    largest = np.asarray(abs(A).max(axis=1).toarray()).ravel() if A.nnz else np.zeros(len(d))
    d = np.where(d > 0, d, np.where(largest > 0, largest, 1))
    scale = 1 / np.sqrt(d)
    rows = pattern.rows
    here = values * scale[rows] * scale[pattern.indices]
    if pattern.symmetry == 1:
        return scale, np.stack([here, here[pattern.t_slot]], axis=1)
    n = np.int64(pattern.shape[1])
    keys, mirrored = rows * n + pattern.indices, pattern.indices * n + rows
    at = np.minimum(np.searchsorted(keys, mirrored), len(keys) - 1)
    return scale, np.stack([here, np.where(keys[at] == mirrored, here[at], 0.0)], axis=1)
