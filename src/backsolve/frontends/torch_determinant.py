"""Determinants, with derivatives through the inverse on the stored places.

ℓ = log det A has dℓ = tr(A⁻¹ dA), so θ̄ = g A⁻ᴴ. For a sparse A that are n solves with unit vectors, the recorded
ones of `torch_functions`; for a dense A it is torch's differentiable inverse: hence every order. Forward returns the
pair (sign, ℓ) in one tensor; ℓ is complex for a complex A, with the phase as its imaginary part, and the derivative
of sign = exp(i Im ℓ) is torch's own.

torch.linalg.slogdet gives the values alone: up to torch 2.13 its jacrev(jacfwd) is zero and its vmap(jacfwd) wrong.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from ..plan import Factored, Plan
from ..shapes import layout_of
from .torch_functions import Call, Function, Ops, nested_forward_mode, primal

__all__ = ["dense_slogdet", "sparse_slogdet"]

_BLOCK = 2**22  # numbers in one block of solutions


def sparse_slogdet(data: torch.Tensor, plan: Plan, factored: Factored) -> tuple[torch.Tensor, torch.Tensor]:
    """Sign and logarithm of the modulus, (...,), for canonical values (..., nnz)."""
    batch = tuple(data.shape[:-1])
    pair = _LogDet.apply(data.reshape(prod(batch), data.shape[-1]) if batch else data, plan, factored)
    return _parts(pair.reshape(*batch, 2))  # type: ignore[union-attr]


def dense_slogdet(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sign and logarithm of the modulus, (...,), for matrices (..., n, n)."""
    return _parts(_DenseLogDet.apply(data))


def _parts(pair: Any) -> tuple[torch.Tensor, torch.Tensor]:
    sign, size = pair.unbind(-1)
    sign = sign.detach()
    if not pair.is_complex():
        return sign, size
    phase = torch.polar(torch.ones_like(size.imag), size.imag)
    return torch.where(sign == 0, sign, phase), size.real


class _DenseLogDet(Function):
    """(..., n, n) to (..., 2)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(data):  # type: ignore[override]
        sign, size = torch.linalg.slogdet(data)
        return torch.stack([sign, torch.complex(size, sign.angle()) if data.is_complex() else size], -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        (data,) = ctx.saved_tensors
        return g[..., 1, None, None] * torch.linalg.inv(data).mH

    @staticmethod
    def jvp(ctx, data_dot):  # type: ignore[override]
        with nested_forward_mode():
            data = primal(*ctx.saved_tensors)
            change = (torch.linalg.inv(data).mT * data_dot).sum((-2, -1))
            return torch.stack([torch.zeros_like(change), change], -1)


class _LogDet(Function):
    """(nnz,) to (2,), or (items, nnz) to (items, 2)."""

    @staticmethod
    def forward(data, plan, factored):  # type: ignore[override]
        plain = np.ascontiguousarray(data.detach().resolve_conj().resolve_neg().numpy())
        sign, size = plan.slogdet(factored, plain if plain.ndim == 2 else plain[None])
        if data.is_complex():
            size = size + 1j * np.angle(np.where(np.isfinite(size), sign, 1))
        pair = np.stack([sign, size], -1).astype(plain.dtype, copy=False)
        return torch.from_numpy(pair if data.ndim == 2 else pair[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        data, ctx.plan, factored = inputs
        # As for a solve: freed with the graph; a copy without the factors, which hooks may make, factors again.
        keeper = torch.empty(0)
        keeper.factored = factored  # type: ignore[attr-defined]
        ctx.save_for_backward(data, keeper)
        ctx.save_for_forward(data, keeper)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        return g[..., 1:] * _inverse_adjoint(ctx), None, None

    @staticmethod
    def jvp(ctx, data_dot, *_):  # type: ignore[override]
        with nested_forward_mode():
            change = (_inverse_adjoint(ctx, primal).conj() * data_dot).sum(-1)
            return torch.stack([torch.zeros_like(change), change], -1)

    @staticmethod
    def vmap(info, in_dims, data, plan, factored):  # type: ignore[override]
        data = data.movedim(in_dims[0], 0)
        items = data.reshape(prod(data.shape[:-1]), data.shape[-1])
        pair = _LogDet.apply(items, plan, factored.mapped())
        return pair.reshape(*data.shape[:-1], 2), 0  # type: ignore[union-attr]


def _inverse_adjoint(ctx: Any, of: Any = lambda data: data) -> torch.Tensor:
    """The entries of A⁻ᴴ on the stored places: Aᴴ Z = E for a block of unit vectors after the other."""
    data, keeper = ctx.saved_tensors
    data = of(data)
    pattern, items = ctx.plan.template.structure, data.shape[:-1]
    n = pattern.shape[0]
    factored = getattr(keeper, "factored", None) or Factored()
    block = max(1, min(n, _BLOCK // max(1, n * max(1, items.numel()))))
    found = [data.new_zeros((*items, 0))]
    for start in range(0, n, block):
        width = min(block, n - start)
        unit = torch.zeros((n, width), dtype=data.dtype)
        unit[start : start + width].fill_diagonal_(1)
        ops = Ops(pattern, Call(ctx.plan, layout_of(tuple(items), (n, width))), factored)
        z = ops.solve(data, unit.expand(*items, n, width), True)
        lo, hi = pattern.t_indptr[start], pattern.t_indptr[start + width]
        columns = np.repeat(np.arange(width), np.diff(pattern.t_indptr[start : start + width + 1]))
        places = torch.from_numpy(pattern.t_indices[lo:hi].astype(np.int64) * width + columns)
        found.append(z.reshape(*items, n * width).index_select(-1, places))
    back = np.empty(pattern.nnz, np.int64)
    back[pattern.t_slot] = np.arange(pattern.nnz)
    return torch.cat(found, -1).index_select(-1, torch.from_numpy(back))
