"""Iterations and times of preconditioned CG on diffusion with a log-normal coefficient, over the size of the grid."""

from __future__ import annotations

from statistics import mean
from typing import Any

import numpy as np
import scipy.sparse as sp
from measure import relative_residual, timed

import backsolve as bs
from backsolve.preconditioners import AMG, MIC

RTOL = 1e-8
SEEDS = 3
PRECONDITIONERS: dict[str, Any] = {
    "jacobi": "jacobi",
    "ic0": "ic0",
    "mic(.99)": MIC(0.99),
    "amg, smoothed aggregation": AMG("smoothed_aggregation"),
    "amg, ruge_stuben": AMG("ruge_stuben"),
}
EXPECTED = {"ic0": (71, 137, 256, 529), "mic(.99)": (35, 51, 90, 173)}
"""Iterations on 64, 128, 256 and 512 points a side that a prototype took, within a tenth."""


def diffusion(side: int, seed: int, sigma: float = 1.0) -> tuple[sp.csr_array, np.ndarray]:
    """-div(k grad u) on the unit square by cells, k = exp(sigma g), and a right-hand side at random.

    g is a periodic Gaussian field of unit variance and covariance exp(-r² / (2 · 0.1²)). Fluxes have harmonic means of
    k; u = 0 on the boundary, half a cell away.
    """
    rng = np.random.default_rng(seed)
    at = np.minimum(np.arange(side), side - np.arange(side)) / side
    spectrum = np.fft.fft2(np.exp(-(at[:, None] ** 2 + at**2) / (2 * 0.1**2))).real.clip(0)
    k = np.exp(sigma * np.fft.ifft2(np.sqrt(spectrum) * np.fft.fft2(rng.standard_normal((side, side)))).real)
    cells = np.arange(side**2).reshape(side, side)
    diagonal, entries = np.zeros((side, side)), []
    for axis in range(2):
        here, there = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        flux = 2 * k[here] * k[there] / (k[here] + k[there])
        diagonal[here] += flux
        diagonal[there] += flux
        entries += [(cells[here], cells[there], -flux), (cells[there], cells[here], -flux)]
        for edge in (0, -1):
            diagonal[(slice(None),) * axis + (edge,)] += 2 * k[(slice(None),) * axis + (edge,)]
    entries.append((cells, cells, diagonal))
    rows, columns, values = (np.concatenate([e[i].ravel() for e in entries]) for i in range(3))
    A = sp.csr_array((values, (rows.astype(np.int32), columns.astype(np.int32))), shape=(side**2, side**2))
    A.sort_indices()
    return A, rng.standard_normal(side**2)


def run(sides: tuple[int, ...]) -> dict[str, Any]:
    """Means of the fields, by preconditioner and side."""
    found: dict[str, Any] = {name: {} for name in PRECONDITIONERS}
    for side in sides:
        problems = [diffusion(side, seed) for seed in range(SEEDS)]
        for name, M in PRECONDITIONERS.items():
            each = [once(A, b, M) for A, b in problems]
            found[name][side] = {key: mean(one[key] for one in each) for key in ("iterations", "set_up_ms", "solve_ms")}
            found[name][side] |= {"residual": max(one["residual"] for one in each), "fields": SEEDS}
            print(f"  {side:4d} {name:28s} {found[name][side]}", flush=True)
    return {"rtol": RTOL, "expected": EXPECTED, "found": found}


def once(A: sp.csr_array, b: np.ndarray, M: Any) -> dict[str, float]:
    """One field: M for its values, then CG."""
    operator = bs.CSR(A.data, A.indices, A.indptr, A.shape)
    operator @ b  # what belongs to the pattern and to the product is not what M costs
    set_up, F = timed(lambda: bs.factorize(operator, method="cg", M=M, rtol=RTOL))
    solve, sol = timed(lambda: F.solve_with_info(b))
    return {
        "iterations": int(sol.stats.iterations),
        "set_up_ms": 1e3 * set_up,
        "solve_ms": 1e3 * solve,
        "residual": relative_residual(A, sol.x, b),
    }
