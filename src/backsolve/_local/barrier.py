"""Barriers: weights w > 0 with M w ≥ m w, m > 0, which bound each entry of an error where columns or degrees do not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .. import _kernels
from .graph import Graph

__all__ = ["Barrier", "barrier"]

_UNIT = 2.0**-53
_SWEEPS = 500


class Barrier(NamedTuple):
    """Weights of thresholds and bounds, and the space of kernels that remember them."""

    w: np.ndarray
    margin: float
    """M w ≥ margin w."""
    workers: Any


def barrier(graph: Graph, factor: float, *, by_strength: bool, stays: bool) -> Barrier:
    """Weights w ≥ 1 and m > 0 with (I - factor Pᵀ) w ≥ m w, rounding included; one pass over all edges per sweep.

    With e between factor and 1 / ρ(P), w = (I - e Pᵀ)⁻¹ 1 has Pᵀ w ≤ w / e. Its series is summed until the largest
    θ = (Pᵀw)_k / w_k, which is looked at and not believed, proves factor θ < 1 (Collatz, Wielandt).

    Parameters
    ----------
    graph : Graph
    factor : float
    by_strength : bool
        Whether rows of P are divided by their strengths.
    stays : bool
        Whether P has ones on the diagonal of dangling nodes.

    Raises
    ------
    ValueError
        If no such w is found: then factor is 1 / ρ(P) or more, or close to it. The largest factor is said.
    """
    key = (factor, by_strength, stays)
    known = graph._memo.get("barrier")  # the last one alone: each has n weights
    if known is not None and known[0] == key:
        return known[1]
    graph._check_all()
    n, weights = graph.n, np.ones(len(graph.indices)) if graph.data is None else graph.data
    turned = sp.csr_array((weights, graph.indices, graph.indptr), shape=(n, n)).T
    d = graph.degrees()
    divide = np.where(d > 0, d, 1.0) if by_strength else np.ones(n)
    hold = (d == 0) & stays
    longest = int(np.bincount(graph.indices, minlength=n).max(initial=0))
    inflate = 1 + (longest + 16) * _UNIT * 1.01  # products, sums of a column, the quotient
    reach = (1 + factor) / 2 if by_strength else factor * 1.02
    w, best = np.ones(n), np.inf
    for _ in range(_SWEEPS):
        moved = turned @ (w / divide) + hold * w
        theta = float(np.max(moved / w, initial=0.0)) * inflate
        best = min(best, theta)
        # Half of what an endless series would prove: further sweeps gain little.
        if factor * theta < 1 - (1 - factor / reach) / 2:
            found = Barrier(w, (1 - factor * theta) * (1 - 4 * _UNIT), _kernels.LocalWorkers(n))
            graph._memo["barrier"] = key, found
            return found
        w = 1 + reach * moved
        if not np.isfinite(w.max(initial=0.0)) or w.max(initial=0.0) > 1e100:
            break
    raise ValueError(
        f"beta must be below 1 / (the largest sum of weights of a row), or so small that a barrier is found; got "
        f"{factor}: {1 / best:.6g} is too large or too close to the limit, take at most "
        f"{1 / graph.extent()[0]:.6g}, which always converges."
    )
