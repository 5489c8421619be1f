"""What a query will cost, from the first of its pushes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .budget import Budget
from .forecast import PER_PUSH, global_work
from .functional import FunctionalQuery
from .system import System, Vector

__all__ = ["Forecast", "forecast"]

_PROBE = 1 << 15
"""Entries that may be read to find out."""


@dataclass(frozen=True)
class Forecast:
    """What `predict_cost` expects.

    Attributes
    ----------
    entries : float
        Entries of A that pushes will read, about.
    global_entries : float
        Entries that a solve of the whole system reads; a push counts for ten of them.
    pays : bool
        Whether the local query is expected to be quicker.
    bound : float
        What the bound had come to after `probed` entries.
    probed : int
    """

    entries: float
    global_entries: float
    pays: bool
    bound: float
    probed: int


def forecast(system: System, b: Vector, t: Vector, atol: float) -> Forecast:
    """Push a little, and continue the curve of the bound against the work.

    Each epoch divides a threshold by four and so, about, the bound; where the neighbourhood grows, so does the work of
    an epoch. The mean growth of the epochs seen is taken to go on.
    """
    query, budget, epochs = FunctionalQuery(system, b, t), Budget(_PROBE), []
    sizes = [query.primal.size * query.dual.size]
    while sizes[-1] > atol and not budget.empty:
        half = min(query.halves, key=lambda h: (h.largest <= 0, h.epoch_work))
        before = query.touched
        if not half.reduce(budget):
            break
        epochs.append(max(query.touched - before, 1))
        sizes.append(query.primal.size * query.dual.size)
    total = global_work(system.nnz, system.gap, system.n)
    entries = float(query.touched) + _rest(epochs, sizes, atol)
    return Forecast(entries, total, entries * PER_PUSH < total, sizes[-1], query.touched)


def _rest(epochs: list[int], sizes: list[float], atol: float) -> float:
    if sizes[-1] <= atol:
        return 0.0
    if len(epochs) < 3 or not sizes[-1] < sizes[0] or not atol > 0:
        return math.inf
    rate = math.log(sizes[0] / sizes[-1]) / len(epochs)
    left = math.log(sizes[-1] / atol) / rate
    half = len(epochs) // 2
    growth = (sum(epochs[half:]) / max(sum(epochs[:half]), 1)) ** (1 / max(len(epochs) - half, 1))
    growth = min(max(growth, 1.0), 4.0)
    if left * math.log(growth) > 700:
        return math.inf
    return epochs[-1] * (left if growth < 1.001 else growth * (growth**left - 1) / (growth - 1))
