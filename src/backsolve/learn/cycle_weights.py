"""The weights of a V-cycle: which are allowed, and a map from all real parameters onto such ones."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["HAND_SET", "LARGEST_SCALE", "allowed", "parameters_of", "weights_of"]

LARGEST_SCALE = 3.0
"""Of the logarithm of a coarse scale: beyond it M is definite on paper and not in rounding."""

HAND_SET = (0.8, 0.8, 1.0)
"""Jacobi smoothing with the weight that is best for the five-point Laplacian, twice, and the correction as it is."""

# With B = D⁻¹A, whose spectrum lies in (0, 2], a symmetric cycle is positive definite if the error after smoothing is
# smaller than before, |(1 - a t)(1 - b t)| < 1 on (0, 2], whatever the coarse correction is, as long as that is
# positive itself. g(t) = (1 - a t)(1 - b t), a, b > 0, has g(0) = 1 and falls from there;
#     g(2) < 1      <=>  4 a b < 2 (a + b)      <=>  1/a + 1/b > 2,
#     min g > -1    <=>  (a - b)² / (4 a b) < 1  (at t = (1/a + 1/b)/2, where g = -(a - b)²/(4 a b)).
# With 1/a = m + d/2, 1/b = m - d/2 these are m > 1 and d² < 2 m².


def weights_of(p: Any, q: Any, s: Any, xp: Any = np) -> tuple[Any, Any, Any]:
    """(a, b, scale) for any real p, q, s; arrays of NumPy or torch."""
    m = 1 + xp.clip(xp.exp(xp.clip(p, None, LARGEST_SCALE)), 1e-6, None)
    d = 0.98 * np.sqrt(2) * m * xp.tanh(q)
    return 1 / (m + d / 2), 1 / (m - d / 2), xp.exp(LARGEST_SCALE * xp.tanh(s / LARGEST_SCALE))


def parameters_of(a: Any, b: Any, scale: Any) -> tuple[Any, Any, Any]:
    """(p, q, s) that give these weights."""
    m, d = (1 / np.asarray(a) + 1 / np.asarray(b)) / 2, 1 / np.asarray(a) - 1 / np.asarray(b)
    s = LARGEST_SCALE * np.arctanh(np.log(scale) / LARGEST_SCALE)
    return np.log(m - 1), np.arctanh(d / (0.98 * np.sqrt(2) * m)), s


def allowed(a: Any, b: Any, scale: Any) -> Any:
    """Whether a cycle with these weights is Hermitian positive definite for every such A."""
    a, b, scale = (np.asarray(v, float) for v in (a, b, scale))
    with np.errstate(all="ignore"):
        smooth = (a > 0) & (b > 0) & (1 / a + 1 / b > 2) & ((a - b) ** 2 < 4 * a * b)
        return smooth & (scale > 0) & np.isfinite(a) & np.isfinite(b) & (np.abs(np.log(scale)) <= LARGEST_SCALE)
