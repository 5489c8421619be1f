"""Queries on graphs as the kernel takes them: the rule of a push, when to stop, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _kernels
from .graph import Graph
from .seeds import Seeds

__all__ = [
    "ABSORB",
    "BEST",
    "LARGEST",
    "SCALE",
    "SELF",
    "SUM",
    "TO_SEEDS",
    "Answers",
    "Rule",
    "Stop",
    "below_one",
    "push",
]

ABSORB, SELF, TO_SEEDS = 0, 1, 2
"""What becomes of a walk in a dangling node."""
SCALE, SUM, LARGEST, BEST = 0, 1, 2, 3
"""What `Stop.tol` bounds: |r_v| over the scale of each v, the 1-norm of the error, its largest entry; or the k best."""

_UNIT = 2.0**-53
_WITHOUT_LIMIT = 2**62
_OMEGA = 1.2


@dataclass(frozen=True)
class Rule:
    """M = I - factor Pᵀ, and what is known of it; csrc/local_push.hpp says what each number means."""

    factor: float
    keep: float
    by_strength: bool
    margin: float
    dangling: int = ABSORB
    scale: np.ndarray | None = None
    """Weights w of thresholds and bounds; None: strengths of the graph, or ones if that is their name."""
    scale_name: str = "strengths"
    scale_margin: float = 0.0
    """M w ≥ scale_margin w; 0 where that is not known."""
    positive: bool = True
    workers: Any = None
    """Space of the kernels; None: that of the graph."""


@dataclass(frozen=True)
class Stop:
    """When a query ends."""

    goal: int
    tol: float
    k: int = 0
    ordered: bool = False
    budget: int | None = None


@dataclass(frozen=True, eq=False)
class Answers:
    """What the kernel found: query q has the entries first[q]:first[q + 1], and one number in each other array."""

    first: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    """Bounds of the 1-norm of the error."""
    up: np.ndarray
    """x - x̂ ≤ min(up, up_scale w + offset)"""
    down: np.ndarray
    """x̂ - x ≤ min(down, down_scale w + offset)"""
    up_scale: np.ndarray
    down_scale: np.ndarray
    offset: np.ndarray
    lost: np.ndarray
    """Σ x̂ over dangling nodes."""
    touched: np.ndarray
    edges: np.ndarray
    pushes: np.ndarray
    proved: np.ndarray
    verdict: np.ndarray
    """0: reached, 1: as far as rounding allows, or tied; 2: the budget is spent."""


def push(graph: Graph, rule: Rule, seeds: Seeds, stop: Stop, *, reverse: bool = False) -> Answers:
    """Run all queries, in threads; ``reverse`` pushes against the edges.

    Then x = D λ for (I - factor P) λ = b / D: D - factor W, read by columns, is M with the lists of in-edges, and the
    strengths that divide stay those of the out-edges.
    """
    ptr, idx, slot = graph.transposed() if reverse else (graph.indptr, graph.indices, None)
    given, kind, (largest, least) = rule.scale, 2, graph.extent()
    if rule.scale_name == "ones":
        kind, largest, least = 0, 1.0, 1.0
    elif given is not None:
        largest, least = float(given.max(initial=1.0)), float(given.min(initial=1.0))
    else:
        given = graph.degrees() if reverse else graph.strengths
        kind = 1 if given is None else 2
    numbers = {
        "factor": rule.factor,
        "keep": rule.keep,
        "by_strength": rule.by_strength,
        "dangling": rule.dangling,
        "scale": kind,
        "unit": 2.0 ** math.ceil(math.log2(largest)),
        "largest": largest,
        "least": least,
        "margin": rule.margin,
        "scale_margin": rule.scale_margin,
        "omega": _OMEGA,
        "positive": rule.positive,
    }
    until = {
        "goal": stop.goal,
        "tol": stop.tol,
        "k": stop.k,
        "ordered": stop.ordered,
        "budget": _WITHOUT_LIMIT if stop.budget is None else stop.budget,
    }
    first, ids, values, numbers_, counts = _kernels.local_push(
        rule.workers or graph.workers(("reverse " if reverse else "") + rule.scale_name),
        ptr, idx, slot, graph.data, graph.degrees() if reverse else graph.strengths, given,
        seeds.first, seeds.ids, seeds.weights, numbers, until,
    )  # fmt: skip
    # The kernels' int64 is C's long long, which NumPy prints as another dtype.
    first, ids, counts = (array.view(np.int64) for array in (first, ids, counts))
    sums, up, down, up_scale, down_scale, offset, lost, _ = numbers_.reshape(-1, 8).T
    touched, edges, pushes, proved, verdict = counts.reshape(-1, 5).T
    return Answers(
        first, ids, values, sums, up, down, up_scale, down_scale, offset, lost, touched, edges, pushes, proved, verdict
    )


def below_one(factor: float) -> float:
    """1 - factor, rounded down."""
    return (1 - factor) * (1 - 2 * _UNIT)
