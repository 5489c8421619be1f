"""Random walks along edges whose weights a function makes: rows are evaluated where mass has come, batch by batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import _kernels
from ..errors import describe
from ..status import Status
from .budget import Budget
from .fetching import FetchedSide, Fetcher
from .graph import Graph
from .seeds import Seeds
from .system import Vector

__all__ = ["Evaluate", "Goal", "U", "WalkAnswer", "answer", "checked_weights"]

Evaluate = Callable[[np.ndarray], np.ndarray]
"""Places of edges, (k,) int64, to their weights as NumPy has them."""

U = 2.0**-53
_FACTOR = 4.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Goal:
    """Where a query stops: at Σ|x - x̂| <= atol, or at residuals below (1 - alpha) eps for each edge of a node."""

    atol: float | None
    eps: float | None


@dataclass(frozen=True, eq=False)
class WalkAnswer:
    """x̂ of every query of a batch, and what was read for them.

    Attributes
    ----------
    starts : list of (nodes, values)
        Right-hand sides, (1 - alpha) s.
    nodes, values : lists of (k,) arrays
        Ascending nodes, x̂ > 0.
    sum_bounds : (queries,) float64
        Bounds of Σ|x - x̂|, all nodes included.
    touched : int
        Edges read by pushes.
    evaluated, calls : int
        Weights that were evaluated, and calls of the function for them.
    status : Status
    """

    graph: Graph
    alpha: float
    evaluate: Evaluate
    starts: list[Vector]
    nodes: list[np.ndarray]
    values: list[np.ndarray]
    sum_bounds: np.ndarray
    touched: int
    evaluated: int
    calls: int
    status: Status


def checked_weights(graph: Graph, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights as float64, if there is one for each edge, and all are positive and finite."""
    if weights.shape != places.shape or (weights.size and weights.dtype.kind != "f"):
        raise ValueError(
            f"edge_weight must return one float for each of the {len(places)} edges that it was given; got "
            f"{describe(weights)}."
        )
    weights = weights.astype(np.float64)
    # Sums of rows and quotients by them must neither overflow nor lose digits to numbers below the normal ones.
    wrong = np.flatnonzero(~((weights >= 2.0**-500) & (weights <= 2.0**500)))
    if len(wrong):
        at = int(places[wrong[0]])
        row = int(np.searchsorted(graph.indptr, at, "right")) - 1
        raise ValueError(
            f"edge_weight gave {weights[wrong[0]]} for edge {at}, from node {row} to node {int(graph.indices[at])}; "
            "weights must be positive, in [2^-500, 2^500]: take exp or softplus of what is learned."
        )
    return weights


class _Lists:
    """Columns of M = I - alpha Pᵀ: column i has 1 - alpha P_ii on the diagonal and -alpha P_ij at j."""

    def __init__(self, graph: Graph, alpha: float, evaluate: Evaluate):
        self.graph, self.alpha, self.evaluate = graph, alpha, evaluate
        self.evaluated = self.longest = 0
        self.fetcher = Fetcher(graph.n, None, self.columns, False, False, True, 0.0)

    def supply(self, ids: np.ndarray) -> None:
        """Evaluate the rows of these nodes, but first say how long they are: thresholds of long ones are higher."""
        if len(ids):
            count = (self.graph.indptr[ids + 1] - self.graph.indptr[ids]).astype(np.int64) + 1
            self.fetcher.fetch(self.fetcher.matrix.expect(ids, count), columns=True)

    def columns(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        owner, neighbour, places = self.graph.edges_of(ids)
        weight = checked_weights(self.graph, places, self.evaluate(places))
        self.evaluated += len(places)
        count = np.bincount(owner, minlength=len(ids))
        self.longest = max(self.longest, int(count.max(initial=0)))
        entry = -self.alpha * (weight / np.bincount(owner, weight, minlength=len(ids))[owner])
        # The diagonal, loops and parallel edges: what belongs together is added up.
        owner = np.concatenate([owner, np.arange(len(ids))])
        neighbour = np.concatenate([neighbour, ids])
        entry = np.concatenate([entry, np.ones(len(ids))])
        order = np.lexsort((neighbour, owner))
        owner, neighbour, entry = owner[order], neighbour[order], entry[order]
        fresh = np.ones(len(owner), bool)
        fresh[1:] = (owner[1:] != owner[:-1]) | (neighbour[1:] != neighbour[:-1])
        first = np.flatnonzero(fresh)
        return np.bincount(owner[first], minlength=len(ids)), neighbour[first], np.add.reduceat(entry, first)


def answer(graph: Graph, alpha: float, evaluate: Evaluate, seeds: Seeds, goal: Goal, budget: Budget) -> WalkAnswer:
    """x = (1 - alpha) s + alpha Pᵀ x for every query; rows that any of them lacks are evaluated in one call."""
    lists, asked_goal = _Lists(graph, alpha, evaluate), goal
    setting = _kernels.LocalFetchedSetting(lists.fetcher.matrix, False, False)
    vectors = [_merged(seeds.ids[a:b], (1 - alpha) * seeds.weights[a:b]) for a, b in itertools.pairwise(seeds.first)]
    sides = [FetchedSide(lists.fetcher) for _ in vectors]
    for side, vector in zip(sides, vectors, strict=True):
        side.load(setting, *vector)
    bounds = np.full(len(vectors), np.inf)
    for _ in range(4):  # what rounding adds is seen by the certificate only
        _push(sides, setting, lists, goal, alpha, budget)
        bounds = np.array([_certify(*one, setting, lists, alpha) for one in zip(sides, vectors, strict=True)])
        if goal.atol is None or budget.empty or np.all(bounds <= goal.atol):
            break
        goal = Goal(goal.atol * 0.5, None)
    asked = np.inf if asked_goal.atol is None else asked_goal.atol
    status = Status.BUDGET if budget.empty else Status.CERTIFIED if np.all(bounds <= asked) else Status.INACCURATE
    found = [side.support() for side in sides]
    orders = [np.argsort(one[0]) for one in found]
    return WalkAnswer(
        graph,
        alpha,
        evaluate,
        vectors,
        [one[0][order] for one, order in zip(found, orders, strict=True)],
        [one[1][order] for one, order in zip(found, orders, strict=True)],
        bounds,
        sum(side.work for side in sides),
        lists.evaluated,
        lists.fetcher.calls,
        status,
    )


def _merged(ids: np.ndarray, weights: np.ndarray) -> Vector:
    every, place = np.unique(ids, return_inverse=True)
    return every, np.bincount(place, weights, minlength=len(every))


def _push(sides: list[FetchedSide], setting, lists: _Lists, goal: Goal, alpha: float, budget: Budget) -> None:
    """Push in all queries at once, thresholds falling by 4; rows that stop some of them are evaluated together."""
    thresholds = [side.standing(setting)[0] / _FACTOR for side in sides]
    active = [q for q, side in enumerate(sides) if not _reached(side, setting, goal, alpha)]
    while active and not budget.empty:
        wanted, later = [], []
        for q in active:
            side, before = sides[q], sides[q].work
            theta = thresholds[q] if goal.eps is None else max(thresholds[q], (1 - alpha) * goal.eps)
            done = _kernels.LocalFetchedSide.push(side, setting, theta, 1.0, min(_CHUNK, budget.left))
            budget.spend(side.work - before)
            wanted.append(side.wanted()[0])
            if not (done and _reached(side, setting, goal, alpha)):
                later.append(q)
                if done:
                    thresholds[q] = _next(side, setting, theta, goal, alpha)
        lists.supply(np.unique(np.concatenate(wanted)))
        active = later


def _reached(side: FetchedSide, setting, goal: Goal, alpha: float) -> bool:
    largest, total = side.standing(setting)
    if goal.eps is not None:
        return largest <= (1 - alpha) * goal.eps
    assert goal.atol is not None
    return total <= goal.atol * (1 - alpha) or not largest > 0


def _next(side: FetchedSide, setting, theta: float, goal: Goal, alpha: float) -> float:
    """Thresholds fall by 4, by less where the goal is near."""
    largest, total = side.standing(setting)
    if goal.atol is None:
        return min(theta, largest) / _FACTOR
    near = 0.9 * goal.atol * (1 - alpha) / total if total > 0 else 0.9
    return min(theta, largest) * min(0.9, max(1 / _FACTOR, near))


def _certify(side: FetchedSide, vector: Vector, setting, lists: _Lists, alpha: float) -> float:
    """A bound of Σ|x - x̂| for the exact P = D⁻¹W and the exact seeds.

    Each column of M has the margin 1 - alpha, so it is Σ|b - M x̂|/(1 - alpha). The kernel bounds that for the stored M,
    whose entries -fl(alpha fl(w / d)) are off by gamma(m + 4) of themselves for m edges, d being a sum, and on the
    diagonal by m u: by 2 gamma(m + 4) Σ|x̂| in all. b is off by 8 u of itself (1 - alpha, its product, sums of seeds).
    """
    side.recompute(setting, *vector)
    _, residual, _ = side.bounds(setting)
    x = side.support()[1]
    entries = 2 * (lists.longest + 4) * U * float(np.sum(np.abs(x)))
    right = (8 + 2 * len(vector[0])) * U * float(np.sum(np.abs(vector[1])))
    bound = (residual + 1.01 * (entries + right)) / (1 - alpha) * (1 + (len(x) + 16) * 4 * U)
    return bound if math.isfinite(bound) else math.inf
