"""Personalised PageRank and Katz scores, on plain arrays: x = keep s + factor Pᵀ x."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .barrier import barrier
from .graph import Graph
from .ranks import Ranks, ranks_of
from .seeds import Seeds
from .uniform import spread_evenly
from .walks import ABSORB, SCALE, SELF, SUM, TO_SEEDS, Rule, Stop, below_one, push

__all__ = ["Problem", "katz", "pagerank", "pagerank_problem"]

_UNIT = 2.0**-53


@dataclass(frozen=True, eq=False)
class Problem:
    """What was asked: the graph, the rule of a push, and the seeds."""

    graph: Graph
    rule: Rule
    seeds: Seeds
    dangling: str = "seeds"
    best: bool = False
    """Whether only the best are listed."""
    age: int = 0
    """That of the graph when it was asked."""

    def scale_of(self, nodes: np.ndarray) -> np.ndarray:
        """The weights w of the bounds of single nodes."""
        if self.rule.scale is not None:
            return self.rule.scale[nodes]
        if self.rule.scale_name == "ones":
            return np.ones(nodes.shape)
        return self.graph.strength_of(nodes)

    def largest_scale(self) -> float:
        """max w"""
        if self.rule.scale is not None:
            return float(self.rule.scale.max(initial=0))
        return 1.0 if self.rule.scale_name == "ones" else self.graph.extent()[0]


def pagerank_problem(
    graph: Graph, seeds: Seeds, alpha: float, dangling: str, *, best: bool, use_barrier: bool
) -> Problem:
    """The rule of PageRank.

    For an undirected graph w = D 1 has Pᵀw = Wᵀ1 = w; strengths are off by 2u at most, so M w ≥ (1 - α (1 + 5u)) w. It
    holds with dangling nodes too: they are alone, no mass gets there. For a directed one a barrier is computed.
    """
    policy = {"seeds": TO_SEEDS, "self": SELF, "uniform": ABSORB, "absorb": ABSORB}[dangling]
    margin = below_one(alpha)
    w, workers, scale_margin = None, None, 0.0
    if not graph.directed:
        scale_margin = max(margin - 6 * _UNIT, 0.0)
    elif use_barrier:
        w, scale_margin, workers = barrier(graph, alpha, by_strength=True, stays=policy == SELF)
        if policy == TO_SEEDS and graph.has_dangling():
            scale_margin = 0.0
    rule = Rule(alpha, 1 - alpha, True, margin, policy, w, scale_margin=scale_margin, workers=workers)
    return Problem(graph, rule, seeds, dangling, best, graph.age)


def pagerank(problem: Problem, stop: Stop) -> Ranks:
    """Answer all queries; ``stop.tol`` of the goal SCALE is that of Andersen, Chung and Lang."""
    if stop.goal == SCALE:
        # Thresholds are floats: a little less, so that the bound, which is rounded up, is within what was asked.
        stop = Stop(SCALE, stop.tol * problem.rule.margin * (1 - 2e-6), budget=stop.budget)
    if problem.dangling == "uniform" and problem.graph.has_dangling():
        answers = spread_evenly(problem.graph, problem.rule, problem.seeds, stop)
    else:
        answers = push(problem.graph, problem.rule, problem.seeds, stop)
    return ranks_of(problem, answers, problem.seeds.single)


def katz(graph: Graph, seeds: Seeds, beta: float, stop: Stop) -> Ranks:
    """x = Σ_k βᵏ (Wᵀ)ᵏ b. Columns of M = I - β Wᵀ have the margin 1 - β (strength of the row); w = 1 has the rows'.

    Where strengths are too large for both, a barrier w with M w > 0 takes their place; ValueError where there is none.
    """
    largest = graph.extent()[0] * (1 + 4 * _UNIT)
    margin = below_one(beta * largest * (1 + 4 * _UNIT)) if len(graph.indices) else 1.0
    rule = Rule(beta, 1.0, False, margin, scale_name="ones")
    if margin <= 0 and stop.goal == SUM:
        raise ValueError(
            f"katz: norm='sum' needs beta below 1 / (largest strength) = {1 / graph.extent()[0]:.6g}; got {beta}: "
            "take norm='max'."
        )
    if not graph.directed and margin > 0:
        rule = replace(rule, scale_margin=margin)
    elif margin <= 0 or stop.goal != SUM:
        w, scale_margin, workers = barrier(graph, beta, by_strength=False, stays=False)
        rule = replace(rule, scale=w, scale_name="barrier", scale_margin=scale_margin, workers=workers)
    problem = Problem(graph, rule, seeds, "absorb", age=graph.age)
    return ranks_of(problem, push(graph, rule, seeds, stop), seeds.single)
