"""Times and residuals, taken the same way in all parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

import numpy as np


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and the result."""
    begin = time.process_time()
    result = call()
    return time.process_time() - begin, result


def spread(seconds: list[float]) -> dict[str, float]:
    """Quartiles in milliseconds, and how many."""
    low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {"low": 1e3 * low, "median": 1e3 * middle, "high": 1e3 * high, "rounds": len(seconds)}


def relative_residual(A: Any, x: np.ndarray, b: np.ndarray) -> float:
    """norm(b - A x) / norm(b), by SciPy's product."""
    return float(np.linalg.norm(b - A @ x) / np.linalg.norm(b))
