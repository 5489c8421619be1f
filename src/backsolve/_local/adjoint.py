"""The adjoint of PageRank near the nodes that a query has reached: λ = f + α P λ, with bounds for every node.

M^T = I - α P has rows with the margin 1 - α, so |λ - λ^| ≤ max |residual| / (1 - α), and λ lies between
min(0, f) / (1 - α) and max(0, f) / (1 - α) everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from .graph import Graph
from .seeds import Seeds
from .walks import SCALE, Rule, Stop, push

__all__ = ["Adjoint", "Region", "by_in_edges", "by_rows", "plus", "region"]

_UNIT = 2.0**-53
_SWEEPS = 20000


@dataclass(frozen=True, eq=False)
class Region:
    """The nodes that a query has listed, those that edges lead to from there, and these edges."""

    graph: Graph
    nodes: np.ndarray
    """All of them, sorted."""
    inside: np.ndarray
    """Whether a node is listed (or a seed) and has edges, so that its row is here: (nodes,)."""
    dangling: np.ndarray
    rows: np.ndarray
    """Number of each row among `nodes`."""
    steps: sp.csr_array
    """P: (rows, nodes)."""
    owner: np.ndarray
    """For each edge: which of the rows, the neighbour among `nodes`, position of the weight."""
    end: np.ndarray
    positions: np.ndarray
    strength: np.ndarray
    """Of each row."""
    inflate: float
    """A sum over a row of P, of positive terms, is below this times what is computed."""

    def place(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of some nodes, and whether they are here at all."""
        if not len(self.nodes):
            return np.zeros(len(nodes), np.int64), np.zeros(len(nodes), bool)
        at = np.minimum(np.searchsorted(self.nodes, nodes), len(self.nodes) - 1)
        return at, self.nodes[at] == nodes


@dataclass(frozen=True, eq=False)
class Adjoint:
    """λ at the nodes of a region, how far each is from the truth, and what holds for all other nodes."""

    lam: np.ndarray
    error: np.ndarray
    low: float
    high: float
    """Every node that is not in the region has λ between these."""


def region(graph: Graph, listed: np.ndarray) -> Region:
    """Gather the rows of the nodes that are listed."""
    strength = graph.strength_of(listed)
    rows = np.unique(listed[strength > 0])
    owner, end, positions = graph.edges_of(rows)
    nodes = np.unique(np.concatenate([listed, end]))
    strength = graph.strength_of(rows)
    end = np.searchsorted(nodes, end)
    steps = sp.csr_array((graph.weights_at(positions) / strength[owner], (owner, end)), shape=(len(rows), len(nodes)))
    at = np.searchsorted(nodes, rows)
    inside = np.zeros(len(nodes), bool)
    inside[at] = True
    longest = int(np.diff(steps.indptr).max(initial=0))
    inflate = 1 + (longest + 16) * _UNIT * 1.01
    dangling = graph.strength_of(nodes) == 0
    return Region(graph, nodes, inside, dangling, at, steps, owner, end, positions, strength, inflate)


def by_rows(
    here: Region, alpha: float, f: np.ndarray, low: float, high: float, slack: float = 0.0, settled: float = 0.0
) -> Adjoint:
    """Solve on the rows of the region alone; where they end, λ is only known to lie in an interval.

    Parameters
    ----------
    f : (nodes,)
        At dangling nodes λ itself, which is known. Nodes outside of the region have 0, or dangle.
    low, high : float
        Between which λ lies everywhere.
    slack : float
        How far λ at dangling nodes can be from what f says.
    settled : float
        λ at dangling nodes outside of the region.
    """
    edge = ~here.inside & ~here.dangling
    a, b = (min(alpha * low, 0.0), max(alpha * high, 0.0))
    lam = np.where(here.dangling, f, np.where(edge, (a + b) / 2, 0.0))
    error = np.where(here.dangling, slack, (b - a) / 2)
    own = f[here.rows]
    steps = alpha * here.steps
    # From above: λ differs from any number of the interval by b - a at most, and each sweep keeps that true.
    error[here.rows] = max(high, 0.0) - min(low, 0.0) + slack
    for _ in range(_SWEEPS):
        last = lam[here.rows]
        lam[here.rows] = own + steps @ lam
        error[here.rows] = np.minimum(error[here.rows], (steps @ error) * here.inflate)
        if np.max(np.abs(lam[here.rows] - last), initial=0.0) <= 2 * _UNIT * np.max(np.abs(lam), initial=0.0):
            break
    rest = _residual_bound(here, alpha, own, lam)
    error[here.rows] += rest / (1 - alpha) * (1 + 1e-12)
    inward = np.concatenate([[0.0, settled - slack, settled + slack], [a, b]])
    return Adjoint(lam, error, float(inward.min()), float(inward.max()))


def by_in_edges(here: Region, alpha: float, f: np.ndarray, tol: float, stays: bool) -> Adjoint:
    """Push against the edges until |residual| ≤ tol: the same error bound for all nodes, tol / (1 - α).

    With x = D λ this is the push of PageRank on in-edges. λ at dangling nodes is f (f / (1 - α) where walks stay);
    what leads there is part of the right-hand side.
    """
    graph = here.graph
    known = np.flatnonzero(here.dangling & (f != 0))
    at_known = f[known] / (1 - alpha) if stays else f[known]
    owner, begin, positions = graph.edges_of(here.nodes[known], reverse=True)
    source = np.flatnonzero(~here.dangling & (f != 0))
    ids = np.concatenate([here.nodes[source], begin])
    b = np.concatenate(
        [f[source] * graph.strength_of(here.nodes[source]), alpha * graph.weights_at(positions) * at_known[owner]]
    )
    seeds = Seeds(np.array([0, len(ids)]), ids, b, True)
    rule = Rule(alpha, 1.0, True, margin=0.0, scale_margin=1 - alpha, positive=False)
    found = push(graph, rule, seeds, Stop(SCALE, tol), reverse=True)
    d = graph.strength_of(found.ids)
    some = d > 0  # others are where nobody can come from, and have no λ of their own
    ids, values = found.ids[some], found.values[some] / d[some]
    ids, values = np.concatenate([ids, here.nodes[known]]), np.concatenate([values, at_known])
    worst = _in_residual(graph, alpha, ids, values, here.nodes[source], f[source]) / (1 - alpha) * (1 + 1e-12)
    lam = np.zeros(len(here.nodes))
    at, present = here.place(ids)
    lam[at[present]] = values[present]
    error = np.where(here.dangling, 8 * _UNIT * np.abs(lam), worst)
    size = np.abs(values).max(initial=0.0)
    return Adjoint(lam, error, -size - worst, size + worst)


def _residual_bound(here: Region, alpha: float, own: np.ndarray, lam: np.ndarray) -> float:
    """max |f + α P λ - λ| over the rows, with what rounding may have hidden."""
    count = np.diff(here.steps.indptr)
    moved, size = here.steps @ lam, here.steps @ np.abs(lam)
    rest = np.abs(own + alpha * moved - lam[here.rows])
    rounding = (count + 12) * _UNIT * 1.01 * (np.abs(own) + alpha * size + np.abs(lam[here.rows]))
    return float(np.max(rest + rounding, initial=0.0))


def _in_residual(graph: Graph, alpha: float, ids, values, source, own) -> float:
    """The same over all nodes from which an edge leads to one with λ ≠ 0, and those with f or λ ≠ 0."""
    owner, begin, positions = graph.edges_of(ids, reverse=True)
    d = graph.strength_of(begin)
    moved = np.divide(alpha * graph.weights_at(positions) * values[owner], d, out=np.zeros(len(d)), where=d > 0)
    inner = graph.strength_of(ids) > 0  # λ at dangling nodes is exact
    nodes = np.concatenate([begin, ids[inner], source])
    terms = np.concatenate([moved, -values[inner], own])
    kept, group = np.unique(nodes, return_inverse=True)
    count = np.bincount(group, minlength=len(kept))
    rest = np.abs(np.bincount(group, terms, minlength=len(kept)))
    rounding = (count + 12) * _UNIT * 1.01 * np.bincount(group, np.abs(terms), minlength=len(kept))
    return float(np.max(rest + rounding, initial=0.0))


def plus(first: Adjoint, second: Adjoint, factor: float) -> Adjoint:
    """first + factor second"""
    low, high = sorted((factor * second.low, factor * second.high))
    return replace(
        first,
        lam=first.lam + factor * second.lam,
        error=(first.error + abs(factor) * second.error) * (1 + 4 * _UNIT)
        + 2 * _UNIT * (np.abs(first.lam) + abs(factor) * np.abs(second.lam)),
        low=first.low + low,
        high=first.high + high,
    )
