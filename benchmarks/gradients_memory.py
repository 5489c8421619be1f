"""Peak memory of unrolled and implicit gradients by the number of iterations, as the allocator counts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gradients_problems import Diffusion, coefficient, right_side

import backsolve as bs
from backsolve import gradients
from backsolve.gradients.torch_memory import peak_bytes
from backsolve.preconditioners import Function

COUNTS = (15, 60, 240, 300, 600, 1200, 2000, 2800)
_CHECKPOINTED_UP_TO = 600
FACTORS = (10, 100, 250, 1000)


class Task:
    """The gradient of the mean square of x by the coefficient, in one of the forms of A."""

    def __init__(self, side: int, form: str):
        self.grid, self.form = Diffusion(side), form
        self.k = coefficient(side, "log-normal").requires_grad_()
        self.b = right_side(side, "random")

    def parts(self) -> tuple[Any, Any, Any]:
        """A, and the inverse diagonal as `unroll` and as `solve` take it."""
        if self.form == "sparse":
            return self.grid.matrix(self.k), "jacobi", "jacobi"
        inverse = 1 / self.grid.diagonal(self.k)
        fixed = inverse.detach()
        return self.grid.function(self.k), lambda v: inverse * v, Function(lambda v: fixed * v, symmetric=True)

    def unrolled(self, count: int, **options: Any) -> Callable[[], Any]:
        def run() -> Any:
            A, M, _ = self.parts()
            x = gradients.unroll(A, self.b, iterations=count, M=M, **options)
            return torch.autograd.grad(x.square().mean(), self.k)

        return run

    def implicit(self, count: int) -> Callable[[], Any]:
        """As many iterations in each of the two solves."""

        def run() -> Any:
            A, _, M = self.parts()
            method = bs.CG(maxiter=count, M=M, rtol=1e-14)
            x = bs.solve_with_info(A, self.b, method=method, on_failure="return").x
            return torch.autograd.grad(x.square().mean(), self.k)

        return run


def run(sides: tuple[int, ...], counts: tuple[int, ...] = COUNTS) -> dict[str, Any]:
    """Curves for each form and size, the dense matrix, and resident memory beside the allocator's account."""
    found = {}
    for form in ("function", "sparse"):
        for side in sides:
            most = max(counts) if side <= 64 else 300
            found[f"{form}, {side}²"] = curve(Task(side, form), tuple(c for c in counts if c <= most))
    for name, told in found.items():
        told["reached"] = reached(told["rows"])
        print("  ", name, told["reached"], flush=True)
    beside = [resident(max(sides), way, 240) for way in ("unrolled", "implicit")]
    dense_rows = dense(1000, (60, 240))
    print("  ", beside, dense_rows, flush=True)
    return {"found": found, "resident": beside, "dense": dense_rows}


def curve(task: Task, counts: tuple[int, ...]) -> dict[str, Any]:
    """Bytes by iterations."""
    rows = []
    for count in counts:
        runs = {
            "unrolled": task.unrolled(count),
            "implicit": task.implicit(min(count, 240)),  # its memory does not depend on them
        }
        if count <= _CHECKPOINTED_UP_TO:
            runs["checkpointed"] = task.unrolled(count, checkpoint=max(round(count**0.5), 1))
        row: dict[str, Any] = {"iterations": count}
        for name, one in runs.items():
            if count == counts[0]:
                one()
            row[name] = peak_bytes(one)
        row["ratio"] = row["unrolled"] / row["implicit"]
        rows.append(row)
        print("  ", task.form, task.grid.side, row, flush=True)
    return {"unknowns": task.grid.n, "rows": rows}


def reached(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """The iterations at which the ratio passes each factor, between two that were measured; None beyond the last."""
    told: dict[str, float | None] = {}
    for factor in FACTORS:
        told[str(factor)] = None
        for one, two in pairwise(rows):
            if one["ratio"] <= factor <= two["ratio"]:
                share = (factor - one["ratio"]) / (two["ratio"] - one["ratio"])
                told[str(factor)] = round(one["iterations"] + share * (two["iterations"] - one["iterations"]))
    return told


def dense(n: int, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """One dense matrix, of which the gradient itself has n² numbers."""
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((n, n)))
    A = (noise @ noise.T / n + torch.eye(n, dtype=torch.float64)).requires_grad_()
    rows: list[dict[str, Any]] = []
    b = torch.ones(n, dtype=torch.float64)

    def implicit() -> Any:
        return torch.autograd.grad(bs.solve(A, b, assume="spd").square().sum(), A)

    def krylov() -> Any:
        return torch.autograd.grad(bs.solve(A, b, method="cg", assume="spd").square().sum(), A)

    for count in counts:

        def unrolled(count: int = count) -> Any:
            return torch.autograd.grad(gradients.unroll(A, b, iterations=count).square().sum(), A)

        for one in (implicit, krylov, unrolled):
            one()
        row = {name: peak_bytes(one) for name, one in (("cholesky", implicit), ("cg", krylov), ("unrolled", unrolled))}
        rows.append({"n": n, "iterations": count, **row, "ratio": row["unrolled"] / row["cholesky"]})
    return rows


def resident(side: int, way: str, count: int) -> dict[str, Any]:
    """Growth of the peak of resident memory, in a process of its own, beside the allocator's account."""
    done = subprocess.run(
        [sys.executable, __file__, str(side), way, str(count)], capture_output=True, text=True, check=True
    )
    grown, counted = map(int, done.stdout.split())
    return {"side": side, "way": way, "iterations": count, "resident": grown, "allocated": counted}


def high_water() -> int:
    """VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    side, way, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    task = Task(side, "function")
    small = Task(8, "function")
    for one in (small.unrolled(5), small.implicit(5)):
        one()
    before = high_water()
    one = getattr(task, way)(count)
    one()
    print(high_water() - before, peak_bytes(one))
