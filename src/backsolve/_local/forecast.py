"""Whether going on locally is quicker than a solve of the whole system."""

from __future__ import annotations

import math

from .system import System

__all__ = ["PER_PUSH", "global_work", "pays"]

PER_PUSH = 10
"""Entries that a global method reads while a push reads one: it streams, pushes jump (4 to 15 were measured)."""
_DIGITS = math.log(2e14)
"""To which a hand-over solves, whatever was asked for, so that the certificate is all that rounding leaves."""
_LEAST = 1 << 15
"""Entries that pushes read while a solver of the whole system has only been set up."""


def global_work(nnz: int, gap: float | None, n: int | None = None) -> float:
    """Entries that a hand-over reads: two solves, √(2/gap) ln(2/accuracy) products each (condition at most 2/gap)."""
    products = math.sqrt(2 / min(max(gap or 1e-3, 1e-15), 1.0))
    return 2 * nnz * min(products, n or math.inf) * _DIGITS


def pays(system: System, touched: int, epoch_work: int) -> bool:
    """Whether what has been read, and what the next epochs will take, costs less time than a global solve would."""
    return touched + 2 * epoch_work < max(global_work(system.nnz, system.gap, system.n) / PER_PUSH, _LEAST)
