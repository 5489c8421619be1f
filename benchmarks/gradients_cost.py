"""How do the times of loss and gradient grow with the size of the system and the number of iterations?"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from gradients_problems import Diffusion, coefficient, right_side

import backsolve as bs
from backsolve import gradients, local

REPEATS = 5


def timed(forward: Callable[[], Any], wanted: Any) -> dict[str, Any]:
    """Seconds of the processor, of the loss and of its gradient: medians, least and most."""
    times: dict[str, list[float]] = {"forward": [], "backward": []}
    for turn in range(REPEATS + 1):
        start = time.process_time()
        value = forward()
        between = time.process_time()
        torch.autograd.grad(value, wanted)
        if turn:  # the first may load and analyse
            times["forward"].append(between - start)
            times["backward"].append(time.process_time() - between)
    return {name: {"median": median(t), "least": min(t), "most": max(t)} for name, t in times.items()}


def exponent(sizes: list[int], times: list[float]) -> dict[str, float]:
    """Slope of log time over log size by least squares, its standard error, and the extremes of neighbours."""
    x, y = np.log(sizes), np.log(np.maximum(times, 1e-7))
    slope, intercept = np.polyfit(x, y, 1)
    off = y - slope * x - intercept
    spread = np.sqrt((off @ off) / max(len(x) - 2, 1) / ((x - x.mean()) @ (x - x.mean())))
    steps = np.diff(y) / np.diff(x)
    return {"slope": float(slope), "error": float(spread), "least": float(steps.min()), "most": float(steps.max())}


def fitted(cases: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Times by size, and the exponents of both directions."""
    sizes = sorted(cases)
    slopes = {way: exponent(sizes, [cases[n][way]["median"] for n in sizes]) for way in ("forward", "backward")}
    return {"times": {str(n): cases[n] for n in sizes}, "exponents": slopes}


def dense(n: int) -> dict[str, Any]:
    noise = np.random.default_rng(0).standard_normal((n, n))
    A = torch.from_numpy(noise / np.sqrt(n) + 3 * np.eye(n)).requires_grad_()
    b = torch.ones(n, dtype=torch.float64)
    return timed(lambda: bs.solve(A, b).square().mean(), A)


def sparse(side: int, **options: Any) -> dict[str, Any]:
    grid = Diffusion(side)
    w = grid.values(coefficient(side, "log-normal")).requires_grad_()
    A, b = grid.template.with_data(w).assume("spd"), right_side(side, "random")
    return timed(lambda: bs.solve(A, b, **options).square().mean(), w)


def unrolled(side: int, count: int) -> dict[str, Any]:
    grid = Diffusion(side)
    w = grid.values(coefficient(side, "log-normal")).requires_grad_()
    A, b = grid.template.with_data(w), right_side(side, "random")
    return timed(lambda: gradients.unroll(A, b, iterations=count, M="jacobi").square().mean(), w)


def one_entry(n: int) -> dict[str, Any]:
    """An entry of A⁻¹ within 1e-8, of a chain with a relative margin of a third."""
    M = sp.diags_array([np.full(n - 1, -1.0), np.full(n, 3.0), np.full(n - 1, -1.0)], offsets=[-1, 0, 1])
    A = bs.aslinearoperator(sp.csr_array(M))
    w = torch.from_numpy(A.data).requires_grad_()
    D = local.DiagonallyDominant(A.with_data(w))
    at = n // 2
    return timed(lambda: local.functional(D, ([at], [1.0]), ([at + 1], [1.0]), atol=1e-8).value, w)


def run(small: bool) -> dict[str, Any]:
    """Each kind over its sizes, and unrolling over its iterations."""
    sides = (16, 32, 64) if small else (32, 64, 128, 256)
    many = (1000, 10_000) if small else (1000, 10_000, 100_000, 1_000_000)
    steps = (25, 50) if small else (50, 100, 200, 400)

    def direct(side: int) -> dict[str, Any]:
        return sparse(side, method="superlu")

    def krylov(side: int) -> dict[str, Any]:
        return sparse(side, method="cg", M="jacobi", rtol=1e-8)

    kinds: dict[str, tuple[str, Callable[[int], Any], tuple[int, ...]]] = {
        "dense LU": ("n", dense, (100, 200, 400) if small else (200, 400, 800, 1600)),
        "sparse direct": ("n", direct, sides),
        "Krylov: cg, Jacobi, rtol 1e-8": ("n", krylov, sides[:3]),
        "unrolled cg, 50 iterations": ("n", lambda side: unrolled(side, 50), sides),
        "local.functional, one entry": ("n", one_entry, many),
        "unrolled cg, 64²": ("iterations", lambda count: unrolled(64, count), steps),
    }
    found = {}
    for name, (by, make, sizes) in kinds.items():
        squared = "sparse" in name or "Krylov" in name or "50 iterations" in name
        found[name] = {"by": by} | fitted({size**2 if squared else size: make(size) for size in sizes})
        print("  ", name, found[name]["exponents"], flush=True)
    return found
