"""Truncated adjoints in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..api import solve_with_info
from ..operators import AbstractLinearOperator, flatten
from .program import Program

__all__ = ["detached", "solved"]


def solved(A: AbstractLinearOperator, b: torch.Tensor, program: Program, options: dict, tally: Any) -> torch.Tensor:
    """x + S (b - A x) with x constant: what is in brackets is zero, but its derivative ḃ - Ȧ x is not.

    S stands for A⁻¹; its adjoint is the series, so λ_T = Sᴴ g arrives at b, and -λ_T xᴴ at A.
    """
    with torch.no_grad():
        sol = solve_with_info(A, b, **options)
    if tally is not None:
        tally.solved(sol)
    x = sol.x.detach()
    return x + _Series.apply(b.to(x.dtype) - A @ x, detached(A), program, tally)


class _Series(torch.autograd.Function):
    """Forward zero, as x solves the system already."""

    @staticmethod
    def forward(ctx, r, A, program, tally):  # type: ignore[override]
        ctx.A, ctx.program, ctx.tally = A, program, tally
        return torch.zeros_like(r)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):  # type: ignore[override]
        return ctx.program.run(ctx.A.H, g, ctx.tally), None, None, None


def detached(A: AbstractLinearOperator) -> AbstractLinearOperator:
    """The operator of the same numbers, as constants."""
    if A.structure.kind != "free":
        return A.on(A.data.detach())
    leaves, rebuild = flatten(A.data)
    return A.on(rebuild([leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]))
