"""Gradients of learned walks by the weights of edges, out of rows alone, each with a bound.

With M = I - αPᵀ, P_ij = w_ij/d_i and the cotangent g of x, λ = M⁻ᵀg solves λ_i = g_i + α Σ_j P_ij λ_j, and

    ∂(g·x)/∂w_ij = α x_i/d_i (λ_j - Σ_k P_ik λ_k).

x̂ is zero outside of S, so only rows of S matter, all of which have been evaluated. On S, λ̂ solves the system in which
λ_j is replaced by g_j for j outside. There |λ_j - g_j| = α |Σ P_jk λ_k| <= L with L = α sup|λ|, and on S the error of
λ̂ is at most h L, where h_i = α Σ_{j in S} P_ij h_j + α Σ_{j outside} P_ij <= α. So sup|λ| <= max(Λ_S + L max h,
Λ_out + L) with Λ_S = max|λ̂|, Λ_out = max|g| outside, and L = α sup|λ| gives

    L <= α max(Λ_S/(1 - α max h), Λ_out/(1 - α)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from .entry_errors import TINY, lookup
from .learned import U, WalkAnswer
from .system import Vector

__all__ = ["WalkGradient", "touched_edges", "walk_gradient"]

_UP = 1 + 2.0**-40
_STEPS = 100_000


@dataclass(frozen=True, eq=False)
class WalkGradient:
    """Gradient of g·x by the weights of edges, the cotangent g held fixed.

    Attributes
    ----------
    edges : (k,) int64
        Places of edges among the stored ones, ascending.
    values : (k,) float64
        Zero, within `elsewhere`, for all other edges.
    bounds : (k,) float64
        Of the error of each value, rounding included.
    elsewhere : float
        A bound of Σ |w_e ∂/∂w_e| over all edges that are not in `edges`.
    """

    edges: np.ndarray
    values: np.ndarray
    bounds: np.ndarray
    elsewhere: float

    def directional(self, direction: np.ndarray, relative: float = 0.0) -> tuple[float, float]:
        """(derivative, bound of its error) along changes dw of the weights.

        Parameters
        ----------
        direction : (k,) floats
            dw at `edges`.
        relative : float
            A bound of |dw_e|/w_e at all other edges.
        """
        direction = np.asarray(direction, np.float64)
        terms = direction * self.values
        rounding = 2 * (len(terms) + 2) * U * float(np.sum(np.abs(terms)))
        bound = float(np.sum(np.abs(direction) * self.bounds)) + abs(relative) * self.elsewhere
        return float(np.sum(terms)), (bound + rounding) * (1 + 4 * (len(terms) + 8) * U) + TINY


def touched_edges(found: WalkAnswer) -> np.ndarray:
    """Places of the edges that lead from nodes with x̂ > 0 in any query, ascending."""
    return _rows(found)[1]


def _rows(found: WalkAnswer) -> tuple[np.ndarray, np.ndarray]:
    """(number of the node among all that were touched, place) of each edge that leads from one of them."""
    nodes = np.unique(np.concatenate(found.nodes)) if found.nodes else np.zeros(0, np.int64)
    owner, _, places = found.graph.edges_of(nodes)
    return owner, places


def walk_gradient(found: WalkAnswer, edges: np.ndarray, weights: np.ndarray, g: list[Vector]) -> WalkGradient:
    """Of Σ_q g_q·x_q.

    Parameters
    ----------
    edges, weights
        `touched_edges`, and their weights once more, float64.
    g : one (nodes, values) for each query
        Ascending nodes.
    """
    values, bounds, elsewhere = np.zeros(len(edges)), np.zeros(len(edges)), 0.0
    owner = _rows(found)[0]
    strength = np.bincount(owner, weights)[owner] if len(owner) else np.zeros(0)
    for q, cotangent in enumerate(g):
        at, value, bound, rest = _one(found, q, edges, weights, cotangent)
        error = rest / strength * _UP  # of edges that this query has not touched
        error[at] = bound
        values[at] += value
        bounds += error
        bounds[at] += 4 * U * (np.abs(values[at]) + np.abs(value))
        elsewhere += rest
    return WalkGradient(edges, values, bounds * (1 + 4 * (len(g) + 4) * U), elsewhere * _UP)


def _one(found: WalkAnswer, q: int, edges: np.ndarray, weights: np.ndarray, g: Vector):
    alpha, S, x = found.alpha, found.nodes[q], found.values[q]
    owner, neighbour, places = found.graph.edges_of(S)
    at = np.searchsorted(edges, places)
    w = weights[at]
    d = np.bincount(owner, w, minlength=len(S))
    P = w / d[owner]
    _check_unchanged(found, q, owner, neighbour, P)
    place = np.minimum(np.searchsorted(S, neighbour), max(len(S) - 1, 0))
    inside = S[place] == neighbour if len(S) else np.zeros(0, bool)
    N = sp.csr_array((P[inside], (owner[inside], place[inside])), shape=(len(S), len(S)))
    outside_g = np.where(inside, 0.0, lookup(g, neighbour))
    mine = lookup(g, S)
    # Rounding of P, of sums over a row and of right-hand sides, all relative.
    rough = 4 * (int(np.bincount(owner).max(initial=0)) + 8) * U
    scale = float(np.max(np.abs(g[1]), initial=0.0))
    enough = 1e-3 * found.sum_bounds[q]  # the error of x̂ weighs more
    b = mine + alpha * np.bincount(owner, P * outside_g, minlength=len(S))
    lam, e = _fixed_point(N, b, alpha, rough, scale, enough)
    b = alpha * np.bincount(owner, np.where(inside, 0.0, P), minlength=len(S))
    h, e_h = _fixed_point(N, b, alpha, rough, 1.0, enough)
    h = np.minimum(h + e_h, alpha)
    out = float(np.max(np.abs(g[1][~np.isin(g[0], S)]), initial=0.0))
    largest = float(np.max(np.abs(lam), initial=0.0)) + e
    L = alpha * max(largest / (1 - alpha * float(np.max(h, initial=0.0))), out / (1 - alpha)) * _UP
    e_lam = h * L * _UP + e
    sup = max(largest + float(np.max(h, initial=0.0)) * L, out + L)

    far = outside_g if not len(S) else np.where(inside, lam[place], outside_g)
    e_far = L if not len(S) else np.where(inside, e_lam[place], L)
    mean = np.bincount(owner, P * far, minlength=len(S))
    e_mean = np.bincount(owner, P * e_far, minlength=len(S)) + rough * sup
    difference = far - mean[owner]
    e_difference = e_far + e_mean[owner] + 2 * U * sup
    value = alpha * x[owner] / d[owner] * difference
    E = found.sum_bounds[q]
    bound = alpha / d[owner] * (x[owner] * e_difference + E * (np.abs(difference) + e_difference))
    return at, value, bound * _UP + rough * np.abs(value) + TINY, 2 * alpha * E * sup


def _fixed_point(N, b: np.ndarray, alpha: float, rough: float, scale: float, enough: float) -> tuple[np.ndarray, float]:
    """(y, bound of the error everywhere) for y = b + alpha N y, N >= 0 with row sums of at most 1.

    Iteration contracts by alpha; it ends where a step changes less than `enough`, relative to max|y|, or rounding is
    all that is left. y is off by at most max|b + alpha N y - y| over 1 - alpha; `rough` is what rounding does, relative
    to max|y| and to the `scale` of what b was made of.
    """
    y = b
    for _ in range(_STEPS):
        new = b + alpha * (N @ y)
        change = float(np.max(np.abs(new - y), initial=0.0))
        y = new
        if change <= max(rough * scale, max(rough, enough) * float(np.max(np.abs(y), initial=0.0))):
            break
    left = float(np.max(np.abs(b + alpha * (N @ y) - y), initial=0.0))
    rounding = rough * (float(np.max(np.abs(y), initial=0.0)) + scale) + TINY
    return y, (left + rounding) / (1 - alpha) * _UP


def _check_unchanged(found: WalkAnswer, q: int, owner: np.ndarray, neighbour: np.ndarray, P: np.ndarray) -> None:
    """Weights evaluated twice must be the same: x̂ leaves with them what it was certified to leave."""
    S, x, (start, b) = found.nodes[q], found.values[q], found.starts[q]
    every, place = np.unique(np.concatenate([start, S, neighbour]), return_inverse=True)
    r = np.bincount(place, np.concatenate([b, -x, found.alpha * P * x[owner]]), minlength=len(every))
    if float(np.sum(np.abs(r))) > 1.01 * (1 - found.alpha) * found.sum_bounds[q] + 1e-12 * float(np.sum(b)):
        raise ValueError(
            "edge_weight gave other weights when it was called again for the gradient: it must be deterministic "
            "(no dropout; model.eval())."
        )
