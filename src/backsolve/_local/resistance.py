"""Effective resistance between two nodes of a graph, from a ball around them, between two proved bounds.

With conductances w, R = min Σ f_e²/w_e over the unit flows f from a to b (Thomson), and 1/R = min Σ w_e (φ_i - φ_j)²
over the potentials φ with φ_a = 1, φ_b = 0 (Dirichlet). A flow inside of a ball is a flow of the graph, and a potential
that is constant outside of it is one too: any such pair encloses R, whatever made them. Here they are the currents of
the ball cut out of the graph and the potentials of the ball with all else joined to one node (Rayleigh: the first
raises R, the second lowers it), and the ball grows until they meet (Doyle & Snell 1984, sections 1.3.5 and 1.4).

The gradient is dR/dw_e = -(f*_e/w_e)² for the true currents f*, and Σ (f_e - f*_e)²/w_e = Σ f_e²/w_e - R: so every
edge, those that were never read included (f_e = 0), has a bound too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import LinearOperator, cg

from ..status import Status
from .ball import Ball
from .budget import Budget
from .estimate import Estimate

__all__ = ["ResistanceQuery"]

_UNIT = 2.0**44
"""One unit of flow, in integers: flows are conserved without rounding."""
_RTOL = (1e-5, 1e-13)
"""Of residuals, in turn; what they cost the energies is of the second order."""


class ResistanceQuery:
    """R between nodes a and b; `upper` and `lower` enclose it."""

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray | None, a: int, b: int):
        self.ball = Ball(indptr, indices, data, (a, b))
        self.lower, self.upper = 0.0, math.inf
        self.flow: _Flow | None = None

    @property
    def touched(self) -> int:
        """Entries read so far."""
        return self.ball.touched

    def run(self, atol: float, budget: Budget) -> Estimate:
        """Grow the ball until R is known to ± atol."""
        size = 16
        while True:
            before = self.touched
            more = self.ball.grow(size, budget.left)
            budget.spend(self.touched - before)
            inside = self.ball.inside()
            for rtol in _RTOL:
                self._enclose(inside, rtol)
                # The ball, not the accuracy of what is solved on it, is what keeps the bounds apart.
                if self.upper - self.lower <= 2 * atol or more:
                    break
            if self.upper - self.lower <= 2 * atol:
                return self._estimate(Status.CERTIFIED)
            if budget.empty:
                return self._estimate(Status.BUDGET)
            if not more:
                return self._estimate(Status.CERTIFIED if self.upper == math.inf else Status.INACCURATE, cut=True)
            size = 2 * len(self.ball.nodes)

    def _estimate(self, status: Status, cut: bool = False) -> Estimate:
        if cut and status > 0:  # a and b are in different components, of which one has been read whole
            return Estimate(math.inf, 0.0, "energy", self.touched, status, self)
        if self.upper == math.inf:
            return Estimate(math.nan, math.inf, "none", self.touched, status, self)
        value = 0.5 * (self.lower + self.upper)
        bound = math.nextafter(max(self.upper - value, value - self.lower), math.inf)
        return Estimate(value, bound, "energy", self.touched, status, self)

    # -- the two problems of the ball ---------------------------------------------------------------------

    def _enclose(self, inside: Any, rtol: float) -> None:
        i, j, w, out = inside
        n = len(out)
        potential = _potential(i, j, w, out, rtol)
        if potential is not None:
            energy = w @ (potential[i] - potential[j]) ** 2 + out @ (potential[:n] - potential[n]) ** 2
            energy *= 1 + (len(w) + n + 16) * 2.0**-52
            if energy > 0:
                self.lower = max(self.lower, (1 - 2.0**-50) / float(energy))
        flow = _unit_flow(i, j, w, n, rtol)
        if flow is not None:
            energy = float(np.sum(flow**2 / w)) * (1 + (len(w) + 16) * 2.0**-52)
            if energy < self.upper:
                self.upper, self.flow = energy, _Flow(self.ball.edges(), flow)

    def gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(places of the edges among the weights, dR/dw, bounds of the error), one place for each edge that was read.

        Of an edge that is stored both ways, the place is that in the row of the node that comes first in the ball; the
        number is the derivative by the weight of the edge, both directions together.
        """
        if self.flow is None:
            return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
        place, w, f = *self.flow.edges, self.flow.f
        slack = max(self.upper - self.lower, 0.0)
        return place, -((f / w) ** 2), _gradient_bound(f, w, slack)

    def bound_elsewhere(self, w: float) -> float:
        """|dR/dw| of an edge with conductance w that was not read, at most."""
        return float(_gradient_bound(np.zeros(1), np.full(1, w), max(self.upper - self.lower, 0.0))[0])


@dataclass(frozen=True)
class _Flow:
    edges: tuple[np.ndarray, np.ndarray]
    f: np.ndarray


def _gradient_bound(f: np.ndarray, w: np.ndarray, slack: float) -> np.ndarray:
    # |f - f*| <= √(slack w), so |f² - f*²| <= 2|f|√(slack w) + slack w
    return (2 * np.abs(f) * np.sqrt(slack * w) + slack * w + 2.0**-51 * f**2) / w**2 * (1 + 2.0**-49)


def _laplacian(i: np.ndarray, j: np.ndarray, w: np.ndarray, n: int) -> Any:
    off = sp.coo_array((np.concatenate([w, w]), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n)).tocsr()
    return (sp.diags_array(np.asarray(off.sum(axis=1)).ravel()) - off).tocsr()


def _currents(L: Any, keep: np.ndarray, b: np.ndarray, rtol: float) -> np.ndarray:
    L, b = L[keep][:, keep], b[keep]
    d = L.diagonal()
    d = np.where(d > 0, d, 1.0)
    M = LinearOperator(L.shape, matvec=lambda r: r / d, dtype=np.float64)  # type: ignore[call-arg]
    with np.errstate(all="ignore"):
        return cg(L, b, rtol=rtol, atol=0.0, M=M, maxiter=20 * len(b))[0]


def _potential(i: np.ndarray, j: np.ndarray, w: np.ndarray, out: np.ndarray, rtol: float) -> np.ndarray | None:
    """φ on the ball, and last on all else, with φ_a = 1 and φ_b = 0 (nodes 0 and 1)."""
    n = len(out)
    rim = np.flatnonzero(out)
    L = _laplacian(
        np.concatenate([i, rim]), np.concatenate([j, np.full(len(rim), n)]), np.concatenate([w, out[rim]]), n + 1
    )
    keep = np.arange(2, n + 1)
    keep = keep[L.diagonal()[keep] > 0]
    phi = np.zeros(n + 1)
    phi[0] = 1.0
    if len(keep):
        phi[keep] = np.clip(np.nan_to_num(_currents(L, keep, -(L @ phi), rtol)), 0.0, 1.0)
    return phi


def _unit_flow(i: np.ndarray, j: np.ndarray, w: np.ndarray, n: int, rtol: float) -> np.ndarray | None:
    """A flow of exactly one unit from node 0 to node 1 along the edges; None if none connects them."""
    if not len(w):
        return None
    # of parallel edges only one may be in the tree: the others keep the flow that they have
    links, first = np.unique(np.stack([i, j]), axis=1, return_index=True)
    order, parent = breadth_first_order(
        sp.coo_array((np.ones(len(first)), (links[0], links[1])), shape=(n, n)).tocsr(), 1, directed=False
    )
    reached = np.zeros(n, bool)
    reached[order] = True
    if not reached[0]:
        return None
    source = np.zeros(n)
    source[0] = 1.0
    phi = np.zeros(n)
    keep = order[1:]
    phi[keep] = np.nan_to_num(_currents(_laplacian(i, j, w, n), keep, source, rtol))
    integer = np.rint(np.clip(w * (phi[i] - phi[j]), -1.0, 1.0) * _UNIT).astype(np.int64)
    integer[~reached[i]] = 0
    # What each node is left with goes up the tree to node 1, leaves first.
    surplus = np.zeros(n, np.int64)
    surplus[0] = int(_UNIT)
    np.subtract.at(surplus, i, integer)
    np.add.at(surplus, j, integer)
    edge_of = _tree_edges(links, first, parent, order, n)
    for level in _levels(order, parent, n):
        np.add.at(surplus, parent[level], surplus[level])
        edges = edge_of[level]
        integer[edges] += np.where(i[edges] == level, surplus[level], -surplus[level])
    return integer / _UNIT


def _tree_edges(links: np.ndarray, first: np.ndarray, parent: np.ndarray, order: np.ndarray, n: int) -> np.ndarray:
    """The edge from each node to its parent."""
    edge_of = np.full(n, -1)
    child = order[1:]
    low, high = np.minimum(child, parent[child]), np.maximum(child, parent[child])
    edge_of[child] = first[np.searchsorted(links[0] * n + links[1], low.astype(np.int64) * n + high)]
    return edge_of


def _levels(order: np.ndarray, parent: np.ndarray, n: int) -> list[np.ndarray]:
    """Nodes by their depth in the tree, deepest first, without the root."""
    position = np.zeros(n, np.int64)
    position[order] = np.arange(len(order))
    # breadth-first: a level is a run of `order` whose parents lie in the level before
    levels, begin = [], 1
    parents = position[parent[order[1:]]]
    last = 0
    while begin < len(order):
        end = 1 + int(np.searchsorted(parents, last, side="right"))
        levels.append(order[begin:end])
        last, begin = end - 1, end
    return levels[::-1]
