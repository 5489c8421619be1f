"""Bounds on rounding, which turn bounds of exact arithmetic into bounds of what was computed.

With u the unit roundoff, a sum of k products is computed to within γ_k = k u / (1 - k u) times the sum of their moduli,
in any order and with fused operations too, and k underflows add at most k times the smallest number (Higham, Accuracy
and Stability of Numerical Algorithms, 2002, chapter 3). Four more are counted everywhere: they pay for the rounding of
the bound itself, as long as k² u is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["TINY", "dot_up", "gamma", "norm_up"]

TINY = 2.0**-1074


def gamma(k: Any, u: float = 2.0**-53) -> Any:
    """γ_{k+4}."""
    return (k + 4) * u / (1 - (k + 4) * u)


def dot_up(x: np.ndarray, y: np.ndarray) -> float:
    """At least the sum of x_i y_i, for real x and y."""
    size = float(np.abs(x) @ np.abs(y))
    return float(x @ y) + gamma(len(x)) * size + len(x) * TINY


def norm_up(x: np.ndarray, weights: np.ndarray | None = None) -> float:
    """At least the square root of Σ w_i |x_i|²: exact powers of two keep squares from under- and overflowing."""
    size = float(np.abs(x).max(initial=0.0))
    if size == 0 or not np.isfinite(size):
        return size
    scale = 2.0 ** np.floor(np.log2(size))
    square = np.square(np.abs(x) / scale)
    total = float(square.sum() if weights is None else weights @ square)
    return scale * float(np.sqrt(total * (1 + gamma(len(x) + 8)) + len(x) * TINY)) * (1 + gamma(4))
