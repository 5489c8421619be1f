"""Dangling nodes from which a walk goes on anywhere: a rank-one term, added to what absorbing nodes give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .graph import Graph
from .seeds import Seeds
from .walks import SCALE, SUM, Answers, Rule, Stop, push

__all__ = ["spread_evenly"]

_UNIT = 2.0**-53


def spread_evenly(graph: Graph, rule: Rule, seeds: Seeds, stop: Stop) -> Answers:
    """x̂ = ŷ + k ẑ, from absorbing solutions: ŷ of the seeds, and ẑ of v = 1/n for all queries.

    P gets the rank-one term dang vᵀ, M~ = M - α v dangᵀ, and the residual of x̂ is

        (1 - α) s - M~ x̂ = r_y + k r_z + v [α dangᵀŷ + α k dangᵀẑ - k (1 - α)],

    zero in the bracket for k = α dangᵀŷ / ((1 - α) - α dangᵀẑ) ≤ α / (1 - α). Columns of M~ have the margin 1 - α, so
    errors of x̂ are at most those of ŷ and k times those of ẑ in the 1-norm, and what rounding leaves of the bracket
    is added. ẑ is dense, and so is x̂ as soon as a walk ends in a dangling node.
    """
    alpha, keep, n = rule.factor, rule.keep, graph.n
    even = Seeds(np.array([0, n]), np.arange(n), np.full(n, 1 / n), True)
    rule = replace(rule, scale_margin=0.0)
    shared = stop.goal != SCALE  # the error allowed is that of ŷ and k times that of ẑ
    part = replace(stop, tol=stop.tol / 2) if shared else stop
    y = push(graph, rule, seeds, part)
    if not y.lost.any():
        return y
    z = push(graph, rule, even, replace(part, tol=part.tol * keep / max(alpha, keep)) if shared else part)
    k = alpha * y.lost / (keep - alpha * z.lost[0])
    bracket = np.abs(alpha * y.lost + alpha * k * z.lost[0] - k * keep)
    bracket += 16 * _UNIT * (alpha * y.lost + alpha * k * z.lost[0] + k * keep) + 4 * _UNIT * k
    rest = bracket / rule.margin * (1 + 16 * _UNIT) + 4 * _UNIT * (1 + k / keep)
    rows = [_sum(n, y, q, k[q], z) for q in range(len(k))]
    safe = 1 + 16 * _UNIT
    none = np.full(len(k), np.inf)
    sums, up, down = (
        (ours + k * theirs[0]) * safe + rest for ours, theirs in ((y.sums, z.sums), (y.up, z.up), (y.down, z.down))
    )
    verdict = np.maximum(y.verdict, np.where(k > 0, z.verdict[0], 0))
    if shared:
        reached = (sums if stop.goal == SUM else np.maximum(up, down) * safe) <= stop.tol
        verdict = np.where(reached, 0, np.maximum(verdict, 1))
    return replace(
        y,
        first=np.cumsum([0, *(len(ids) for ids, _ in rows)]),
        ids=np.concatenate([ids for ids, _ in rows]),
        values=np.concatenate([values for _, values in rows]),
        sums=sums, up=up, down=down, up_scale=none, down_scale=none, offset=np.zeros(len(k)),
        lost=y.lost + k * z.lost[0],
        touched=np.maximum(y.touched, z.touched[0]),
        edges=y.edges + z.edges[0],
        pushes=y.pushes + z.pushes[0],
        verdict=verdict,
    )  # fmt: skip


def _sum(n: int, y: Answers, q: int, k: float, z: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Entries of ŷ + k ẑ for one query."""
    mine = slice(y.first[q], y.first[q + 1])
    if k == 0:
        return y.ids[mine], y.values[mine]
    whole = np.zeros(n)
    whole[z.ids] = k * z.values
    whole[y.ids[mine]] += y.values[mine]
    ids = np.flatnonzero(whole)
    return ids, whole[ids]
