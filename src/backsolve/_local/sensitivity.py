"""Derivatives of PageRank scores by edge weights, seeds and alpha, each with a bound of its error.

For L = gᵀx, M~ x = (1 - α) s with M~ = I - α P~ᵀ and M~ᵀ λ = g, where P~ is P and the rows of dangling nodes:

    ∂L/∂w_ij = α x_i / d_i (λ_j - Λ_i),   Λ_i = Σ_k P_ik λ_k
    ∂L/∂s_v  = (1 - α + α δ) λ_v          δ = Σ x over dangling nodes if they lead to the seeds, else 0
    ∂L/∂α    = Σ_i x_i (P~ λ)_i - sᵀλ

At a dangling node λ_i is g_i + α φ, φ = sᵀλ = gᵀx / (1 - α), if it leads to the seeds; g_i / (1 - α) if walks stay;
g_i if they end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import describe
from .adjoint import Adjoint, Region, by_in_edges, by_rows, plus, region
from .katz_gradient import KatzPart, katz_part

__all__ = ["Sensitivity", "sensitivity"]

_UNIT = 2.0**-53


@dataclass(frozen=True, repr=False, eq=False)
class Sensitivity:
    """Gradient of Σ g x̂ over all queries of a batch.

    Attributes
    ----------
    positions : int64 array of shape (m,)
        Edges, as positions in the arrays of the graph, sorted; other edges have the gradient 0 within `bound`.
    rows, columns : int64 arrays of shape (m,)
        Nodes that these lead from and to.
    values, errors : float64 arrays of shape (m,)
        ∂L/∂w of each, and how far it can be from the derivative of the exact scores.
    seeds, seeds_errors : float64 arrays
        ∂L/∂s for each seed of each query, s being the normalised weights (of Katz scores those that were given), in the
        order in which seeds were given.
    alpha, alpha_error : float
        ∂L/∂α, of Katz scores ∂L/∂β: the sum over all queries.
    """

    positions: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    seeds: np.ndarray
    seeds_errors: np.ndarray
    alpha: float
    alpha_error: float
    _parts: tuple[_Part | KatzPart, ...] = field(repr=False)

    def bound(self, rows: Any, columns: Any) -> np.ndarray:
        """How far the gradient by any edges can be from the truth, those that are not listed (their gradient is 0) too.

        Parameters
        ----------
        rows, columns : int or arrays of ints of shape (m,)
            Nodes; between nodes without an edge it is about the derivative by a new one, of weight 0.

        Returns
        -------
        float64 array of shape (m,)
            Infinite where the edge would be the first of a dangling node.
        """
        rows, columns = np.broadcast_arrays(np.atleast_1d(rows), np.atleast_1d(columns))
        return np.sum([part.bound(rows, columns) for part in self._parts], axis=0)

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.values)} edges, errors <= {self.errors.max(initial=0.0):.3g})"


@dataclass(frozen=True, eq=False)
class _Part:
    """One query: its region, adjoint and scores."""

    ranks: Any
    query: int
    here: Region
    dual: Adjoint
    x: np.ndarray
    """x̂ at the rows of the region."""
    inner: np.ndarray
    """Λ of the rows, and its error."""
    inner_error: np.ndarray
    alpha: float

    def at_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient by each edge of the region, and its error."""
        row, end = self.here.owner, self.here.end
        return self._pairs(row, self.dual.lam[end], self.dual.error[end])

    def _pairs(self, row: np.ndarray, lam: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        slope = self.alpha / self.here.strength[row]
        gap, gap_error = lam - self.inner[row], error + self.inner_error[row]
        off = self.ranks.bound(self.here.nodes[self.here.rows], self.query)[row]
        value = slope * self.x[row] * gap
        wrong = self.x[row] * gap_error + off * (np.abs(gap) + gap_error)
        rounding = 16 * _UNIT * self.x[row] * (np.abs(lam) + np.abs(self.inner[row]))
        return value, slope * (wrong + rounding) * (1 + 1e-12)

    def bound(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        at, inside = self.here.place(rows)
        inside &= self.here.inside[at] if len(at) else inside
        to, known = self.here.place(columns)
        middle, half = (self.dual.low + self.dual.high) / 2, (self.dual.high - self.dual.low) / 2
        lam = np.where(known, self.dual.lam[to] if len(self.dual.lam) else 0.0, middle)
        error = np.where(known, self.dual.error[to] if len(self.dual.lam) else 0.0, half)
        lowest = min(self.dual.low, np.min(self.dual.lam - self.dual.error, initial=0.0))
        highest = max(self.dual.high, np.max(self.dual.lam + self.dual.error, initial=0.0))
        graph = self.here.graph
        strength = graph.strength_of(rows)
        some = strength > 0
        slope = np.divide(self.alpha, strength, out=np.zeros(len(rows)), where=some)
        far = np.where(some, self.ranks.bound(rows, self.query) * slope * (highest - lowest), np.inf)
        if not inside.any():
            return far * (1 + 1e-12)
        row = np.searchsorted(self.here.rows, at[inside])
        value, near = self._pairs(row, lam[inside], error[inside])
        # Pairs that are no edges have the gradient 0 here: the value is part of what is missing.
        listed = np.isin(rows[inside] * graph.n + columns[inside], self._edge_keys())
        far[inside] = near + np.where(listed, 0.0, np.abs(value))
        return far * (1 + 1e-12)

    def _edge_keys(self) -> np.ndarray:
        return self.here.nodes[self.here.rows][self.here.owner] * self.here.graph.n + self.here.nodes[self.here.end]

    def by_seeds(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By each seed, and its error."""
        at, _ = self.here.place(ids)
        lam, error = self.dual.lam[at], self.dual.error[at]
        lost = lost_error = 0.0
        if self.ranks._problem.dangling == "seeds":
            lost, lost_error = float(self.ranks._answers.lost[self.query]), float(self.ranks.sum_bound[self.query])
            lost_error = lost_error if self.here.graph.has_dangling() else 0.0
        factor = 1 - self.alpha + self.alpha * lost
        wrong = factor * error + self.alpha * lost_error * (np.abs(lam) + error) + 16 * _UNIT * np.abs(lam) * factor
        return factor * lam, wrong * (1 + 1e-12)

    def by_factor(self, ids: np.ndarray, s: np.ndarray) -> tuple[float, float]:
        """By alpha, and its error."""
        here, dual, policy = self.here, self.dual, self.ranks._problem.dangling
        at, _ = here.place(ids)
        own = slice(self.ranks.indptr[self.query], self.ranks.indptr[self.query + 1])
        nodes, x = self.ranks.indices[own], self.ranks.values[own]
        ends, _ = here.place(nodes)
        ends, weight = ends[here.dangling[ends]], x[here.dangling[ends]]
        stay, stay_error = np.zeros(len(ends)), np.zeros(len(ends))
        if policy == "self":
            stay, stay_error = dual.lam[ends], dual.error[ends]
        elif policy == "seeds":
            stay = np.full(len(ends), float(s @ dual.lam[at]))
            stay_error = np.full(len(ends), float(s @ dual.error[at]))
        terms = np.concatenate([self.x * self.inner, weight * stay, -s * dual.lam[at]])
        errors = self.x @ self.inner_error + weight @ stay_error + s @ dual.error[at]
        highest = max(np.abs(dual.lam).max(initial=0.0) + dual.error.max(initial=0.0), abs(dual.low), abs(dual.high))
        errors += self.ranks.sum_bound[self.query] * highest
        return float(terms.sum()), float(errors + (len(terms) + 16) * _UNIT * np.abs(terms).sum()) * (1 + 1e-9)


def sensitivity(ranks: Any, g: Any, method: str, tol: float | None) -> Sensitivity:
    """Gradient of Σ g x̂; see `Ranks.gradient`."""
    g = np.asarray(g)
    if g.shape != ranks.values.shape or g.dtype.kind not in "fiub" or not np.all(np.isfinite(g)):
        raise ValueError(
            f"gradient: g must be {len(ranks.values)} finite real numbers, one for each of ranks.values; "
            f"got {describe(g)}."
        )
    if method not in ("rows", "in-edges"):
        raise ValueError(f"gradient: method must be 'rows' or 'in-edges'; got {describe(method)}.")
    if tol is not None and not tol > 0:
        raise ValueError(f"gradient: tol must be a positive float; got {describe(tol)}.")
    seeds, part_of = ranks._problem.seeds, _part if ranks._problem.rule.by_strength else katz_part
    parts, by_seed, alpha, alpha_error = [], [], 0.0, 0.0
    for q in range(len(ranks.status)):
        part = part_of(ranks, g.astype(np.float64), q, method, tol)
        parts.append(part)
        ids, s = (array[seeds.first[q] : seeds.first[q + 1]] for array in (seeds.ids, seeds.weights))
        by_seed.append(part.by_seeds(ids))
        slope, slope_error = part.by_factor(ids, s)
        alpha, alpha_error = alpha + slope, alpha_error + slope_error
    edges = [part.at_edges() for part in parts]
    positions, group = np.unique(np.concatenate([part.here.positions for part in parts]), return_inverse=True)
    values, errors, size = (
        np.bincount(group, np.concatenate(rows), minlength=len(positions))
        for rows in ([v for v, _ in edges], [e for _, e in edges], [np.abs(v) for v, _ in edges])
    )
    columns, rows = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
    rows[group] = np.concatenate([part.here.nodes[part.here.rows][part.here.owner] for part in parts])
    columns[group] = np.concatenate([part.here.nodes[part.here.end] for part in parts])
    errors = errors * (1 + 1e-12) + 2 * _UNIT * len(parts) * size
    by, by_errors = (np.concatenate(arrays) for arrays in zip(*by_seed, strict=True))
    return Sensitivity(positions, rows, columns, values, errors, by, by_errors, alpha, alpha_error, tuple(parts))


def _part(ranks: Any, g: np.ndarray, q: int, method: str, tol: float | None) -> _Part:
    """Solve the adjoint of one query."""
    problem, mine = ranks._problem, slice(ranks.indptr[q], ranks.indptr[q + 1])
    graph, alpha = problem.graph, problem.rule.factor
    ids, x, g = ranks.indices[mine], ranks.values[mine], g[mine]
    seeds = problem.seeds.ids[problem.seeds.first[q] : problem.seeds.first[q + 1]]
    here = region(graph, np.concatenate([ids, seeds]))
    at, _ = here.place(ids)
    f, score = np.zeros(len(here.nodes)), np.zeros(len(here.nodes))
    f[at], score[at] = g, x
    # gᵀx / (1 - α), and its error: that of x where g is, or all of it
    off = min(np.abs(g) @ ranks.bound(ids, q), np.abs(g).max(initial=0.0) * ranks.sum_bound[q]) if len(ids) else 0.0
    size = np.abs(g) @ x
    phi = float(g @ x) / (1 - alpha)
    phi_error = float(off + (len(g) + 8) * _UNIT * size) / (1 - alpha) * (1 + 1e-12)
    low, high = (np.min(g, initial=0.0) / (1 - alpha) * (1 + 1e-12), np.max(g, initial=0.0) / (1 - alpha) * (1 + 1e-12))
    stays, returns = problem.dangling == "self", problem.dangling == "seeds"
    if method == "rows":
        known = f / (1 - alpha) if stays else f + alpha * phi if returns else f
        slack = (
            alpha * phi_error + 8 * _UNIT * np.abs(known[here.dangling]).max(initial=0.0) if returns or stays else 0.0
        )
        dual = by_rows(here, alpha, np.where(here.dangling, known, f), low, high, slack, alpha * phi * returns)
    else:
        dual = by_in_edges(here, alpha, f, tol or 1e-10 * np.abs(g).max(initial=0.0) or 1.0, stays)
        if returns and graph.has_dangling():
            # λ = λ0 + α φ h, h = dang + α P h: the chance to end in a dangling node
            h = by_rows(here, alpha, here.dangling.astype(float), 0.0, 1.0, 0.0, 1.0)
            dual = plus(dual, h, alpha * phi)
            extra = alpha * phi_error * (1 + 1e-12)
            dual = Adjoint(dual.lam, dual.error + extra, dual.low - extra, dual.high + extra)
    inner = here.steps @ dual.lam
    count = np.diff(here.steps.indptr)
    inner_error = (here.steps @ dual.error) * here.inflate + (count + 8) * _UNIT * (here.steps @ np.abs(dual.lam))
    return _Part(ranks, q, here, dual, score[here.rows], inner, inner_error, alpha)
