"""Finite differences of a function of many numbers: complex steps, and central ones whose step is looked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import SolveError

__all__ = ["Directional", "directions_of", "finite_differences"]

_STEPS = 10.0 ** -np.arange(1, 11)
_COMPLEX_STEP = 1e-20


class Directional(NamedTuple):
    """Derivatives along directions."""

    directions: np.ndarray
    """(count, size)"""
    values: np.ndarray
    """(count,)"""
    step: float
    """In units of the size of the parameters."""
    kind: str
    """"complex step" or "central differences"."""


def directions_of(sizes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """All axes if there are no more than `count`, else `count` sums of them with random signs; of the length `sizes`.

    Each parameter is moved in proportion to its own size, so that one step suits all.
    """
    if sizes.size <= count:
        return np.diag(sizes)
    return np.random.default_rng(seed).choice((-1.0, 1.0), (count, sizes.size)) * sizes


def finite_differences(
    f: Callable[[np.ndarray], float],
    at: np.ndarray,
    directions: np.ndarray,
    analytic: Callable[[np.ndarray], complex | None] | None,
) -> Directional:
    """Derivatives of f at a point along directions.

    f'(v) = Im f(v + i h d) / h + O(h²) has no subtraction, so h may be 1e-20 and the error is rounding (Squire and
    Trapp 1998, doi:10.1137/S003614459631241X). It holds for analytic functions only, and what is not, such as |x|, may
    follow complex numbers and be wrong. So `analytic`, f for complex vectors or None where it has no complex value, is
    trusted if central differences agree.
    """
    central, step = _scanned(f, at, directions[0])
    if analytic is not None:
        first = _complex(analytic, at, directions[0])
        if first is not None and abs(first - central) <= 1e-3 * max(abs(first), abs(central)):
            others = [_complex(analytic, at, d) for d in directions[1:]]
            if None not in others:
                return Directional(directions, np.array([first, *others], float), _COMPLEX_STEP, "complex step")
    values = [central, *(_central(f, at, d, step) for d in directions[1:])]
    return Directional(directions, np.array(values), step, "central differences")


def _complex(analytic: Callable[[np.ndarray], complex | None], at: np.ndarray, d: np.ndarray) -> float | None:
    value = analytic(at + 1j * _COMPLEX_STEP * d)
    return None if value is None else float(np.imag(value)) / _COMPLEX_STEP


def _central(f: Callable[[np.ndarray], float], at: np.ndarray, d: np.ndarray, h: float) -> float:
    return (f(at + h * d) - f(at - h * d)) / (2 * h)


def _scanned(f: Callable[[np.ndarray], float], at: np.ndarray, d: np.ndarray) -> tuple[float, float]:
    """The derivative along d, and the step where it changes least from one step to the next smaller one.

    Truncation falls with the step, rounding grows as it falls; between them lies a plateau. A step may lead to where
    there is no solution.
    """
    found = np.full(_STEPS.size, np.nan)
    last: SolveError | None = None
    for at_step, h in enumerate(_STEPS):
        try:
            found[at_step] = _central(f, at, d, h)
        except SolveError as error:
            last = error
    change = np.abs(np.diff(found))
    if not np.isfinite(change).any():
        raise last or ValueError(
            "finite differences: the loss is not finite near the parameters: nothing can be compared."
        )
    best = int(np.nanargmin(np.where(np.isfinite(change), change, np.nan)))
    return float(found[best + 1]), float(_STEPS[best + 1])
