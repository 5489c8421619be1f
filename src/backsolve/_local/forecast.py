"""Whether going on locally is quicker than a solve of the whole system."""

from __future__ import annotations

import math

from .system import System

__all__ = ["PER_PUSH", "global_work", "pays"]

PER_PUSH = 5
"""Entries that a global method reads in the time in which a push reads one: it streams, pushes jump."""


def global_work(system: System, digits: float) -> float:
    """Entries that a Krylov method reads: √(2/gap) ln(2/accuracy) products (condition at most 2/gap)."""
    gap = min(max(system.gap or 1e-3, 1e-15), 1.0)
    return system.nnz * min(math.sqrt(2 / gap), system.n) * max(digits, 1.0)


def pays(system: System, touched: int, atol: float, size: float, epoch_work: int) -> bool:
    """Whether the pushes so far, and those that the next epoch will take, stay below a fifth of a global solve.

    `size` is the bound as it stands, which is to fall to `atol`.
    """
    ratio = size / atol if atol > 0 else math.inf
    digits = math.log(2 * ratio) if 1 < ratio < math.inf else 40.0
    return touched + 2 * epoch_work < max(global_work(system, digits) / PER_PUSH, 1 << 12)
