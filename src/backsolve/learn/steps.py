"""A few steps of an iteration with coefficients that were learned, over any array namespace.

Vectors have any shape; `dot` gives inner products that broadcast with them. So the same code runs on columns
(batch, n, k) of NumPy, torch and JAX, and on systems that were laid one after another for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["chebyshev_coefficients", "conjugate_steps", "factor_range", "momentum_steps", "scalar_products"]


def momentum_steps(product: Callable, inverse: Any, b: Any, alphas: Sequence[Any], betas: Sequence[Any]) -> Any:
    """x after one step for each α from zero: d ← β d + α D⁻¹ r, x ← x + d, r ← r - A d; no inner product.

    ``inverse`` is D⁻¹. x = p(D⁻¹A) D⁻¹ b for a polynomial p of a degree one below the number of steps, so the map
    b -> x is linear, and symmetric if A is.
    """
    d = alphas[0] * (inverse * b)
    x, r = d, b
    for alpha, beta in zip(alphas[1:], betas[1:], strict=True):
        r = r - product(d)
        d = beta * d + alpha * (inverse * r)
        x = x + d
    return x


def conjugate_steps(
    xp: Any,
    product: Callable,
    dot: Callable,
    inverse: Any,
    b: Any,
    alphas: Sequence[Any],
    betas: Sequence[Any],
    eps: float,
) -> Any:
    """x after some steps of CG from zero, whose coefficients are multiplied by α_k and β_k.

    With all of them 1 it is CG preconditioned by ``inverse`` = D⁻¹. Factors change β_k relatively: as CG's own β vary
    by orders of magnitude, something added to them would end all conjugacy. A column stops where rᵀ D⁻¹ r has fallen to
    rounding level of what it was at first, or a curvature is not positive: a test that knows no scale. Divisions there
    are by 1, so no NaN enters x or a derivative.
    """
    r, x = b, xp.zeros_like(b)
    z = inverse * r
    p, rz = z, dot(r, z)
    floor = (10 * eps) ** 2 * rz
    one, zero = xp.ones_like(rz), xp.zeros_like(rz)
    for alpha, beta in zip(alphas, betas, strict=True):
        q = product(p)
        curvature = dot(p, q)
        alive = (rz > floor) & (curvature > 0)
        step = alpha * xp.where(alive, rz / xp.where(alive, curvature, one), zero)
        x, r = x + step * p, r - step * q
        z = inverse * r
        after = dot(r, z)
        p = z + beta * xp.where(alive, after / xp.where(alive, rz, one), zero) * p
        rz = xp.where(alive, after, zero)
    return x


def chebyshev_coefficients(steps: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """α and β with which `momentum_steps` is Chebyshev's semi-iteration on [low, high] (Saad 2003, algorithm 12.1)."""
    theta, delta = (high + low) / 2, (high - low) / 2
    alphas, betas, rho = [1 / theta], [0.0], delta / theta
    for _ in range(steps - 1):
        after = 1 / (2 * theta / delta - rho)
        alphas.append(2 * after / delta)
        betas.append(after * rho)
        rho = after
    return np.array(alphas), np.array(betas)


def factor_range(alphas: Sequence[float], betas: Sequence[float], high: float = 2.0) -> tuple[float, float]:
    """The smallest value of p on [0, high], and the largest modulus; NaN where they overflow.

    p has a degree of steps - 1, so its Chebyshev series of as many terms is p itself, and the roots of the derivative
    are where its extreme values are.
    """

    def p(t: np.ndarray) -> np.ndarray:
        return momentum_steps(lambda d: t * d, 1.0, np.ones_like(t), alphas, betas)

    with np.errstate(all="ignore"):
        series = np.polynomial.chebyshev.Chebyshev.interpolate(p, len(alphas) - 1, domain=[0, high])
        turns = series.deriv().roots() if np.isfinite(series.coef).all() and len(alphas) > 2 else np.zeros(0)
        inside = np.clip(np.real(turns), 0, high)  # of roots that are not real too: to look there does no harm
        values = p(np.concatenate([np.linspace(0, high, 16 * len(alphas) + 1), inside]))
        return float(values.min()), float(np.abs(values).max())


def scalar_products(xp: Any) -> Callable:
    """Inner products of columns (batch, n, k): (batch, 1, k)."""
    return lambda u, v: xp.sum(u * v, axis=1, keepdims=True)
