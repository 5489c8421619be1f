"""The curse of unrolling, and where it is not: errors of forward, unrolled and implicit gradients by iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from gradients_problems import FIELDS, SIDES, Diffusion, coefficient, cosine, relative, right_side

import backsolve as bs
from backsolve import gradients

TABLE = (100, 200, 400)
CURVE = (25, 50, 75, 100, 150, 200, 300, 400, 600)
STEPS = (1e-8, 1e-9, 1e-10, 1e-11)


def losses(b: torch.Tensor, side: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Three that weigh x differently."""
    return {
        "energy b·x": lambda x: x @ b,
        "mean square": lambda x: x.square().mean(),
        "one entry": lambda x: x[side * (side // 3) + side // 2],
    }


def run(side: int, curve: tuple[int, ...] = CURVE) -> dict[str, Any]:
    """Jacobi-preconditioned CG on diffusion, the gradient by the coefficient of every cell."""
    grid, found = Diffusion(side), {}
    for field in FIELDS:
        for given in SIDES:
            k, b = coefficient(side, field), right_side(side, given)
            name = f"{field} k, {given} b"
            found[name] = {}
            for label, loss in losses(b, side).items():
                counts = curve if label == "mean square" else TABLE
                found[name][label] = errors(grid, k, b, loss, counts)
                for row in found[name][label]:
                    print("  ", name, label, row, flush=True)
    worst = confirmed(grid, coefficient(side, "smooth"), right_side(side, "constant"), min(TABLE[0], max(curve)))
    print("   the program's own derivative:", worst, flush=True)
    return {"side": side, "found": found, "program": worst}


def errors(grid: Diffusion, k: torch.Tensor, b: torch.Tensor, loss: Callable, counts: tuple[int, ...]) -> list[dict]:
    """After so many iterations, against direct solves: of x, of the unrolled and of the implicit gradient.

    The implicit one is made of the x and the λ that the same program has after the same number of iterations each.
    """
    k = k.clone().requires_grad_()
    x = bs.solve(grid.matrix(k), b, method=bs.SuperLU(extended=True))
    (truth,) = torch.autograd.grad(loss(x), k)
    rows = []
    for count in counts:
        A = grid.matrix(k)
        unrolled = gradients.unroll(A, b, iterations=count, M="jacobi")
        (g,) = torch.autograd.grad(loss(unrolled), k)
        implicit = by_hand(grid, k, b, loss, count)
        rows.append(
            {
                "iterations": count,
                "forward": relative(unrolled, x),
                "unrolled": relative(g, truth),
                "unrolled_cosine": cosine(g, truth),
                "implicit": relative(implicit, truth),
                "implicit_cosine": cosine(implicit, truth),
            }
        )
    return rows


def by_hand(grid: Diffusion, k: torch.Tensor, b: torch.Tensor, loss: Callable, count: int) -> torch.Tensor:
    """-λᵀ (∂A/∂k) x, for x and λ of so many iterations."""
    A = grid.matrix(k)
    with torch.no_grad():
        x = gradients.unroll(A, b, iterations=count, M="jacobi")
    seen = x.clone().requires_grad_()
    (cotangent,) = torch.autograd.grad(loss(seen), seen)
    with torch.no_grad():
        lam = gradients.unroll(A, cotangent, iterations=count, M="jacobi")
    return torch.autograd.grad(-(lam @ (A @ x)), k)[0]


def confirmed(grid: Diffusion, k: torch.Tensor, b: torch.Tensor, count: int) -> dict[str, Any]:
    """Is the wrong gradient that of the program? Along itself, by central differences of the program."""

    def value(k: torch.Tensor) -> torch.Tensor:
        return gradients.unroll(grid.matrix(k), b, iterations=count, M="jacobi").square().mean()

    k = k.clone().requires_grad_()
    (g,) = torch.autograd.grad(value(k), k)
    direction, k = g / g.norm(), k.detach()
    with torch.no_grad():
        slopes = {f"{h:.0e}": float((value(k + h * direction) - value(k - h * direction)) / (2 * h)) for h in STEPS}
    return {"iterations": count, "recorded": float(g.norm()), "differences": slopes}
