"""Bounds of spectra from a few Lanczos steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import describe

__all__ = ["check_bounds", "ritz_values"]


def check_bounds(owner: str, bounds: Any) -> None:
    """Raise unless `bounds` is None or a pair of positive numbers in order."""
    if bounds is None:
        return
    good = isinstance(bounds, tuple) and len(bounds) == 2 and all(isinstance(v, int | float) for v in bounds)
    if not good or not 0 < bounds[0] < bounds[1] < np.inf:
        raise ValueError(f"{owner}: bounds must be a pair of floats with 0 < low < high; got {describe(bounds)}.")


@np.errstate(all="ignore")
def ritz_values(A: Any, M: Any = None, steps: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest Ritz value of M A in each item, for Hermitian A and M, from a fixed vector: (batch,) each.

    Both lie inside the spectrum, the largest mostly within a few per cent; NaN where a product is not finite.
    """
    structure, xp, n = A.structure, A.structure.xp, A.shape[0]
    leaf = A.data[0] if isinstance(A.data, tuple) else A.data
    batch = 1 if structure.kind == "free" else leaf.shape[0]
    product = structure.product(A.data, False)
    zero = xp.zeros((batch, n, 1), dtype=leaf.dtype, device=leaf.device)
    v = zero + structure.like(zero, np.random.default_rng(0).standard_normal((1, n, 1)))

    def scalar(a: Any, b: Any) -> np.ndarray:
        value = xp.vecdot(a, b, axis=1)
        return structure.to_numpy(xp.real(value) if xp.isdtype(value.dtype, "complex floating") else value)[:, 0]

    def scaled(array: Any, factor: np.ndarray) -> Any:
        return array * structure.like(array, factor[:, None, None])

    def preconditioned(v: Any) -> Any:
        return v if M is None else M.apply(v, False)

    # Lanczos in the inner product of M: v is M-orthonormal, z = M v (Elman, Silvester and Wathen, algorithm 2.4)
    z = preconditioned(v)
    gamma, gammas, deltas = np.sqrt(scalar(z, v)), [], []
    before = zero
    for _ in range(min(steps, n)):
        safe = np.where(gamma > 0, gamma, 1.0)
        v, z = scaled(v, 1 / safe), scaled(z, 1 / safe)
        w = product(z)
        delta = scalar(z, w)
        v, before = w - scaled(v, delta) - scaled(before, gamma if deltas else np.zeros(batch)), v
        z = preconditioned(v)
        gamma = np.sqrt(scalar(z, v))
        deltas.append(delta)
        gammas.append(gamma)
    size = len(deltas)
    T = np.zeros((batch, size, size))
    for j in range(size):
        T[:, j, j] = deltas[j]
        if j + 1 < size:
            T[:, j, j + 1] = T[:, j + 1, j] = gammas[j]
    low, high = np.full(batch, np.nan), np.full(batch, np.nan)
    for item in range(batch):
        # beyond an invariant subspace there is nothing to know
        small = [j for j in range(size - 1) if not gammas[j][item] > 1e-10 * abs(deltas[j][item])]
        end = small[0] + 1 if small else size
        if end and np.isfinite(T[item, :end, :end]).all():
            values = np.linalg.eigvalsh(T[item, :end, :end])
            low[item], high[item] = values[0], values[-1]
    return low, high
