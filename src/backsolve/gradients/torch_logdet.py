"""Determinants in torch whose gradients are selected inverses, or means over probes."""

from __future__ import annotations

from typing import Any

import torch

from .. import api
from ..frontends.torch_functions import Ops
from .inversion import HostFactors
from .matrices import operator_on

__all__ = ["by_factors", "by_sampling"]


def by_factors(values: torch.Tensor, host: HostFactors) -> torch.Tensor:
    """log|det A| of canonical values, differentiable once."""
    return _Exact.apply(values, host)  # type: ignore[return-value]


def by_sampling(values: torch.Tensor, value: float, A: Any, vectors: Any, solve: dict) -> torch.Tensor:
    """A value that was sampled, with Σ_v (A⁻ᴴv) vᴴ on the places of A for its gradient; any number of times."""
    V = torch.from_numpy(vectors).to(values)
    return _Sampled.apply(values, value, A.structure, A.assumed, V, solve)  # type: ignore[return-value]


def _real(values: torch.Tensor, value: float) -> torch.Tensor:
    return values.new_tensor(value, dtype=values.real.dtype if values.is_complex() else values.dtype)


class _Exact(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, host):  # type: ignore[override]
        ctx.host = host
        ctx.save_for_backward(values)  # so that a change in place before backward is noticed
        return _real(values, host.logabsdet)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        (values,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise RuntimeError(
                "gradients.logdet with method='factor' is differentiable once: for second derivatives use "
                "backsolve.slogdet, whose gradient takes n solves, or method='slq'."
            )
        return g * torch.from_numpy(ctx.host.inverse_entries()).to(values), None


class _Sampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, value, structure, assumed, V, solve):  # type: ignore[override]
        ctx.structure, ctx.assumed, ctx.V, ctx.solve = structure, assumed, V, solve
        ctx.save_for_backward(values)
        return _real(values, value)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        (values,) = ctx.saved_tensors
        W = api.solve(operator_on(ctx.structure, values, ctx.assumed).H, ctx.V, **ctx.solve)
        return g * Ops(ctx.structure).outer(W, ctx.V), None, None, None, None, None
