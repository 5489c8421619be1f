"""How wrong is an implicit gradient by its tolerances, and what does every way cost on several problems?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from gradients_problems import Diffusion, coefficient, relative, right_side
from problems import RESULTS, laplacian, matrix

import backsolve as bs
from backsolve import gradients
from backsolve.gradients import FiniteDifferences, Implicit, NeumannAdjoint, Sampled, Unrolled

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
APART = (1e-2, 1e-4, 1e-6, 1e-8)


def tolerances(side: int) -> dict[str, Any]:
    """Error by both tolerances together, and apart."""
    grid, found = Diffusion(side), {}
    for field, given in (("smooth", "constant"), ("log-normal", "random")):
        k, b = coefficient(side, field).requires_grad_(), right_side(side, given)
        (truth,) = torch.autograd.grad(bs.solve(grid.matrix(k), b, method=bs.SuperLU(extended=True)).square().mean(), k)

        def error(forward: float, backward: float, k: Any = k, b: Any = b, truth: Any = truth) -> float:
            adjoint = bs.Adjoint(rtol=backward)
            x = bs.solve(grid.matrix(k), b, method="cg", M="jacobi", rtol=forward, adjoint=adjoint)
            return relative(torch.autograd.grad(x.square().mean(), k)[0], truth)

        both = {f"{rtol:.0e}": error(rtol, rtol) for rtol in TOLERANCES}
        apart = {f"{f:.0e}": {f"{t:.0e}": error(f, t) for t in APART} for f in APART}
        ratios = [value / float(rtol) for rtol, value in both.items()]
        over = [value / max(float(f), float(t)) for f, row in apart.items() for t, value in row.items()]
        found[f"{field} k, {given} b"] = {
            "both": both,
            "apart": apart,
            "constant": {"least": min(ratios + over), "most": max(ratios + over)},
        }
        print("  ", field, given, both, found[f"{field} k, {given} b"]["constant"], flush=True)
    return {"side": side, "found": found}


def problems(sides: tuple[int, ...], data: Path | None) -> Iterator[tuple[str, tuple[Any, Any], dict, list[Any]]]:
    """Name, (A, b), options of `compare`, and the ways that the size allows."""
    few = FiniteDifferences(directions=4)
    noise = np.random.default_rng(0).standard_normal((1000, 1000))
    dense = bs.Dense(torch.from_numpy(noise @ noise.T / 1000 + np.eye(1000))).assume("spd")
    every = [Implicit(), Implicit(rtol=1e-3), Implicit(rtol=1e-6), Unrolled(), Unrolled(truncate=True)]
    every += [Unrolled(checkpoint=True), NeumannAdjoint(1), NeumannAdjoint(10), NeumannAdjoint(100)]
    every += [few, Sampled(0.1)]
    yield "dense, n = 1,000", (dense, torch.ones(1000, dtype=torch.float64)), {}, every
    for side, field in (*((side, "smooth") for side in sides), (sides[0], "log-normal")):
        grid = Diffusion(side)
        options = {"wrt": coefficient(side, field), "solve": {"assume": "spd"}}
        ways = every if side <= 128 else [way for way in every if way not in (few, Unrolled(), NeumannAdjoint(100))]
        ways = ways if side <= 256 else [Implicit(), Implicit(rtol=1e-3), NeumannAdjoint(1), Sampled(0.1)]
        steps = [Unrolled(iterations=k, method="cg", M="jacobi") for k in (50, 100, 200)] if side <= 128 else []
        yield f"diffusion, {field} k, {side}²", (grid.matrix, right_side(side, "random")), options, ways + steps
    wind = bs.aslinearoperator(laplacian(128, 0.5))
    A = wind.with_data(torch.from_numpy(wind.data))
    yield "convection, 128²", (A, right_side(128, "random")), {}, every
    stored = matrix("memplus", data)
    if stored is not None and data is not None:
        circuit = bs.aslinearoperator(stored)
        b = np.asarray(scipy.io.mmread(data / "memplus_rhs.mtx.gz")).reshape(-1).astype(float)
        yield "circuit memplus", (circuit.with_data(torch.from_numpy(circuit.data)), torch.from_numpy(b)), {}, every


def mean_square(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean()


def compared(sides: tuple[int, ...], data: Path | None, loss: Callable = mean_square) -> dict[str, Any]:
    """Every way on every problem; each has its figure in results/."""
    found = {}
    for name, (A, b), options, ways in problems(sides, data):
        table = gradients.compare(A, b, loss, methods=ways, repeats=2, **options)
        print(table, flush=True)
        figure = (
            "gradients_"
            + "_".join("".join(c for c in word if c.isascii() and c.isalnum()) for word in name.split())
            + ".png"
        )
        table.plot(RESULTS / figure)
        found[name] = json.loads(table.to_json()) | {"figure": figure}
    return found
