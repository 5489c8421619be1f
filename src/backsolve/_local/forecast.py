"""Whether going on locally is quicker than a solve of the whole system."""

from __future__ import annotations

import math

from .half import Half
from .system import System

__all__ = ["global_work", "pays"]

_PER_PUSH = 5
"""Entries that a global method reads in the time in which a push reads one: it streams, pushes jump."""


def global_work(system: System, digits: float) -> float:
    """Entries that a Krylov method reads: √(2/gap) ln(2/accuracy) products (condition at most 2/gap)."""
    gap = min(max(system.gap or 1e-3, 1e-15), 1.0)
    return system.nnz * min(math.sqrt(2 / gap), system.n) * max(digits, 1.0)


def pays(system: System, touched: int, atol: float, primal: Half, dual: Half) -> bool:
    """Whether the pushes so far, and those that the next epoch will take, stay below a fifth of a global solve."""
    size = primal.size * dual.size
    digits = math.log(2 * size / atol) if atol > 0 and size > atol and math.isfinite(size / atol) else 40.0
    next_epoch = 2 * min(primal.epoch_work, dual.epoch_work)
    return touched + next_epoch < max(global_work(system, digits) / _PER_PUSH, 1 << 12)
