"""torch.sparse tensors: their stored values, differentiable to any order.

torch's own ``values()`` and constructors drop the graph of a double backward, silently. Here each is the
derivative of the other, as they are linear.
"""

from __future__ import annotations

from typing import Any

import torch

from .torch_functions import Function

__all__ = ["values_of"]


def values_of(A: torch.Tensor) -> torch.Tensor:
    """Stored values of a CSR, CSC or coalesced COO tensor; their gradient has the layout and pattern of A."""
    if not A.requires_grad:
        return A.values()
    if A.layout == torch.sparse_coo:
        places = (A.indices(),)
    elif A.layout == torch.sparse_csr:
        places = (A.crow_indices(), A.col_indices())
    else:
        places = (A.ccol_indices(), A.row_indices())
    return _Values.apply(A, places, A.layout, tuple(A.shape))  # type: ignore[no-any-return]


class _Values(Function):
    @staticmethod
    def forward(ctx, A, places, layout, shape):  # type: ignore[override]
        ctx.made_of = places, layout, shape
        return A.values().detach().clone()

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        if g.layout != torch.strided:  # of a local solve
            g = g.to_dense()
        return _Build.apply(g, *ctx.made_of), None, None, None


class _Build(Function):
    @staticmethod
    def forward(ctx, values, places, layout, shape):  # type: ignore[override]
        ctx.made_of = places, layout, shape
        return _build(values, places, layout, shape)

    @staticmethod
    def backward(ctx, G):  # type: ignore[override]
        places, layout, shape = ctx.made_of
        if G.layout == torch.strided:
            return G[_places(places, layout)], None, None, None
        return _Values.apply(G.coalesce() if layout == torch.sparse_coo else G, places, layout, shape), None, None, None


def _build(values: torch.Tensor, places: Any, layout: Any, shape: tuple[int, int]) -> torch.Tensor:
    if layout == torch.sparse_coo:
        return torch.sparse_coo_tensor(places[0], values, shape, is_coalesced=True, check_invariants=False)
    make = torch.sparse_csr_tensor if layout == torch.sparse_csr else torch.sparse_csc_tensor
    return make(places[0], places[1], values, shape, check_invariants=False)


def _places(places: Any, layout: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) of the stored places."""
    if layout == torch.sparse_coo:
        return tuple(places[0])
    outer, inner = places
    along = torch.repeat_interleave(torch.arange(len(outer) - 1, device=outer.device), outer.diff())
    return (along, inner) if layout == torch.sparse_csr else (inner, along)
