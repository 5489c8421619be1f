"""Derivatives of Katz scores by edge weights, seeds and beta, each with a bound of its error.

For L = gᵀx, M x = b with M = I - β Wᵀ and Mᵀ λ = g, so that λ = g + β W λ:

    ∂L/∂w_ij = β x_i λ_j
    ∂L/∂b_v  = λ_v
    ∂L/∂β    = Σ_i x_i (W λ)_i

M⁻ᵀ ≥ 0. Where rows of β W sum to 1 - margin at most, max|M⁻ᵀf| ≤ max|f| / margin. Where weights w ≥ 1 have M w ≥ m w,
wᵀ M⁻ᵀ ≤ wᵀ / m, so that Σ w |M⁻ᵀf| ≤ Σ w|f| / m, which bounds the largest entry, too. λ lies between what the negative
and the positive part of g come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .adjoint import Adjoint, Region
from .graph import Graph
from .seeds import Seeds
from .walks import SCALE, Rule, Stop, push

__all__ = ["KatzPart", "katz_part"]

_UNIT = 2.0**-53
_UP = 1 + 1e-12
_SWEEPS = 20000


@dataclass(frozen=True, eq=False)
class KatzPart:
    """One query: its region, adjoint and scores."""

    ranks: Any
    query: int
    here: Region
    dual: Adjoint
    x: np.ndarray
    """x̂ at the rows of the region."""
    size: float
    """Σ w|g|, or max|g| where there is no barrier."""

    @property
    def beta(self) -> float:
        """The weight of a step."""
        return self.ranks._problem.rule.factor

    def at_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient by each edge of the region, and its error."""
        row, end = self.here.owner, self.here.end
        off = self.ranks.bound(self.here.nodes[self.here.rows], self.query)[row]
        return self._products(self.x[row], off, self.dual.lam[end], self.dual.error[end])

    def _products(self, x: np.ndarray, off: np.ndarray, lam: np.ndarray, error: np.ndarray) -> tuple:
        value = self.beta * x * lam
        wrong = self.beta * (x * error + off * (np.abs(lam) + error))
        return value, wrong * _UP + 4 * _UNIT * np.abs(value)

    def bound(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Of the error of the gradient by any edges, those that are not listed too."""
        here = self.here
        at, known = here.place(columns)
        middle, half = (self.dual.low + self.dual.high) / 2, (self.dual.high - self.dual.low) / 2
        lam = np.where(known, self.dual.lam[at], middle) if len(self.dual.lam) else np.full(len(columns), middle)
        error = np.where(known, self.dual.error[at], half) if len(self.dual.lam) else np.full(len(columns), half)
        x = self.ranks._score(rows, self.query)
        value, wrong = self._products(x, self.ranks.bound(rows, self.query), lam, error)
        edges = here.nodes[here.rows][here.owner] * here.graph.n + here.nodes[here.end]
        # Pairs that are no edges have the gradient 0 here: the value is part of what is missing.
        return wrong + np.where(np.isin(rows * here.graph.n + columns, edges), 0.0, np.abs(value))

    def by_seeds(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """λ where the query starts, and its error."""
        at, _ = self.here.place(ids)
        return self.dual.lam[at], self.dual.error[at]

    def by_factor(self, ids: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        """By beta, and its error.

        Σ_i |x_i - x̂_i| |(Wλ)_i| is part of it: at most Σ|x - x̂| times the largest strength times max|g| / margin.
        With a barrier |x_i - x̂_i| ≤ c w_i, and wᵀβW ≤ (1 - m) wᵀ, so it is at most c (1 - m) Σ w|g| / (m β).
        """
        here, rule = self.here, self.ranks._problem.rule
        W, count = here.steps, np.diff(here.steps.indptr)
        moved, size, off = W @ self.dual.lam, W @ np.abs(self.dual.lam), W @ self.dual.error
        answers, q = self.ranks._answers, self.query
        if rule.margin > 0:
            rest = float(self.ranks.sum_bound[q]) * here.graph.extent()[0] * self.size / rule.margin
        else:
            c = max(answers.up_scale[q], answers.down_scale[q]) * _UP + answers.offset[q]
            rest = float(c * (1 - rule.scale_margin) * self.size / (rule.scale_margin * rule.factor))
        rounding = float(self.x @ ((count + len(self.x) + 16) * _UNIT * size))
        return float(self.x @ moved), (float(self.x @ off) + rest + rounding) * _UP * _UP


def katz_part(ranks: Any, g: np.ndarray, q: int, method: str, tol: float | None) -> KatzPart:
    """Solve the adjoint of one query; g and the scores are those of all queries."""
    problem, mine = ranks._problem, slice(ranks.indptr[q], ranks.indptr[q + 1])
    graph, rule = problem.graph, problem.rule
    ids, x, g = ranks.indices[mine], ranks.values[mine], g[mine]
    seeds = problem.seeds.ids[problem.seeds.first[q] : problem.seeds.first[q + 1]]
    here = _region(graph, np.concatenate([ids, seeds]))
    at, _ = here.place(ids)
    f, score = np.zeros(len(here.nodes)), np.zeros(len(here.nodes))
    f[at], score[at] = g, x
    if method == "rows":
        low, high = -_largest(rule, ids, np.minimum(g, 0)), _largest(rule, ids, np.maximum(g, 0))
        dual = _by_rows(here, rule.factor, f, low, high)
    else:
        dual = _by_in_edges(here, rule, f, tol or 1e-10 * np.abs(g).max(initial=0.0) or 1.0)
    size = np.max(np.abs(g), initial=0.0) if rule.margin > 0 else np.sum(_weights(rule, ids) * np.abs(g))
    return KatzPart(ranks, q, here, dual, score[here.rows], float(size) * _UP)


def _weights(rule: Rule, nodes: np.ndarray) -> np.ndarray:
    assert rule.scale is not None, "scores without a margin rest on a barrier"
    return rule.scale[nodes]


def _largest(rule: Rule, nodes: np.ndarray, f: np.ndarray) -> float:
    """A bound of max|M⁻ᵀf| for f at some nodes."""
    if rule.margin > 0:
        return float(np.max(np.abs(f), initial=0.0)) / rule.margin * _UP
    return float(np.sum(_weights(rule, nodes) * np.abs(f))) / rule.scale_margin * _UP * (1 + 2 * len(f) * _UNIT)


def _region(graph: Graph, listed: np.ndarray) -> Region:
    """The rows of listed nodes with their weights as they are: edges of weight 0 have gradients, too."""
    listed = np.unique(listed)
    rows = listed[graph.indptr[listed + 1] > graph.indptr[listed]]
    owner, end, positions = graph.edges_of(rows)
    nodes = np.unique(np.concatenate([listed, end]))
    at, end = np.searchsorted(nodes, rows), np.searchsorted(nodes, end)
    W = sp.csr_array((graph.weights_at(positions), (owner, end)), shape=(len(rows), len(nodes)))
    inside = np.zeros(len(nodes), bool)
    inside[at] = True
    inflate = 1 + (int(np.diff(W.indptr).max(initial=0)) + 16) * _UNIT * 1.01
    dangling = graph.indptr[nodes + 1] == graph.indptr[nodes]
    return Region(graph, nodes, inside, dangling, at, W, owner, end, positions, np.ones(len(rows)), inflate)


def _by_rows(here: Region, beta: float, f: np.ndarray, low: float, high: float) -> Adjoint:
    """Sweeps on the rows of the region alone; where they end, λ is only known to lie in [low, high].

    λ - λ̂ of one sweep is β W times that of the last, and rounding; to bring λ̂ into the interval moves it towards λ. So
    each bound is one, wherever sweeps end: they do where none falls any more.
    """
    S, own, rows = beta * here.steps, f[here.rows], here.rows
    count = np.diff(here.steps.indptr)
    edge = ~here.inside & ~here.dangling
    lam = np.where(here.dangling, f, np.where(edge, (low + high) / 2, 0.0))
    error = np.where(here.dangling, 0.0, np.where(edge, (high - low) / 2 * _UP, high - low))
    for _ in range(_SWEEPS):
        rounding = (count + 12) * _UNIT * 1.01 * (np.abs(own) + S @ np.abs(lam))
        bound = np.minimum(high - low, (S @ error) * here.inflate + rounding)
        lam[rows] = np.clip(own + S @ lam, low, high)
        falls = np.any(bound < (1 - 1e-6) * error[rows])
        error[rows] = bound
        if not falls:
            break
    return Adjoint(lam, error, low, high)


def _by_in_edges(here: Region, rule: Rule, f: np.ndarray, tol: float) -> Adjoint:
    """Push against the edges until |residual| ≤ tol, and bound the error by the residual as it is.

    λ at nodes of strength 0, which kernels do not push, is f; what leads there is part of the right-hand side.
    """
    graph, beta = here.graph, rule.factor
    alone = graph.strength_of(here.nodes) == 0
    known, source = (np.flatnonzero(which & (f != 0)) for which in (alone, ~alone))
    owner, begin, positions = graph.edges_of(here.nodes[known], reverse=True)
    ids = np.concatenate([here.nodes[source], begin])
    b = np.concatenate([f[source], beta * graph.weights_at(positions) * f[known][owner]])
    backward = Rule(beta, 1.0, False, margin=0.0, scale_name="ones", scale_margin=max(rule.margin, 0.0), positive=False)
    found = push(graph, backward, Seeds(np.array([0, len(ids)]), ids, b, True), Stop(SCALE, tol), reverse=True)
    some = graph.strength_of(found.ids) > 0
    ids = np.concatenate([found.ids[some], here.nodes[known]])
    values = np.concatenate([found.values[some], f[known]])
    nodes, residual = _in_residual(graph, beta, ids, values, here.nodes[source], f[source])
    worst = _largest(rule, nodes, residual)
    lam = np.zeros(len(here.nodes))
    at, present = here.place(ids)
    lam[at[present]] = values[present]
    size = float(np.max(np.abs(values), initial=0.0))
    return Adjoint(lam, np.where(alone, 0.0, worst), -size - worst, size + worst)


def _in_residual(graph: Graph, beta: float, ids, values, source, own) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of |f + β W λ - λ| at all nodes where it can be other than zero, with what rounding may have hidden."""
    owner, begin, positions = graph.edges_of(ids, reverse=True)
    inner = graph.strength_of(ids) > 0  # λ at the others is exact
    nodes = np.concatenate([begin, ids[inner], source])
    terms = np.concatenate([beta * graph.weights_at(positions) * values[owner], -values[inner], own])
    kept, group = np.unique(nodes, return_inverse=True)
    count = np.bincount(group, minlength=len(kept))
    rest = np.abs(np.bincount(group, terms, minlength=len(kept)))
    return kept, rest + (count + 12) * _UNIT * 1.01 * np.bincount(group, np.abs(terms), minlength=len(kept))
