"""Scores of graphs whose weights are of torch: followed by version, and differentiated on the touched edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._local.given import Given
from ..operators import CSR, AbstractLinearOperator
from .torch_arrays import asarray
from .torch_functions import Function
from .torch_local import on_host, refuse_transforms
from .torch_local_functions import check_chain, laid

__all__ = ["plain", "recorded", "taken"]


def taken(weights: Any, asoperator: Callable[[Any], AbstractLinearOperator]) -> Given | None:
    """Weights, or a matrix with values, of torch; None for integers, which are constants."""
    refuse_transforms()
    if isinstance(weights, torch.Tensor) and not (weights.is_floating_point() or weights.is_complex()):
        return None
    if isinstance(weights, torch.Tensor) and weights.layout == torch.strided and weights.ndim == 1:
        return _followed(weights, weights, None)
    A = asoperator(weights)
    if not isinstance(A, CSR):
        raise TypeError(f"Graph: a matrix of torch must be sparse; got {A!r}: call to_sparse_coo() of the tensor.")
    return _followed(A.data, None if isinstance(weights, AbstractLinearOperator) else weights, A)


def _followed(values: torch.Tensor, owner: torch.Tensor | None, source: CSR | None) -> Given:
    array = on_host("weights", asarray("weights", values).detach()).numpy()
    owner = values if owner is None else owner
    first = None if owner.is_inference() else owner._version

    def stamp() -> int | None:
        if owner is not values and owner._version != first:
            raise ValueError("the torch.sparse matrix of a Graph was changed in place: make the Graph anew.")
        return None if first is None else owner._version

    return Given(values, array, stamp, source)


def plain(value: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor."""
    refuse_transforms()
    return on_host("seeds and alpha", value.detach()).numpy()


def recorded(ranks: Any, given: Given | None, alpha: Any, seeds: list[Any], grad: str) -> torch.Tensor:
    """Scores as a tensor."""
    refuse_transforms()
    alpha = alpha if isinstance(alpha, torch.Tensor) else None
    weights = None if given is None else given.tensor
    wanted = [t for t in (weights, alpha, *seeds) if t is not None and t.requires_grad]
    if not (wanted and torch.is_grad_enabled()):
        return torch.from_numpy(ranks.values)
    if grad == "sparse" and weights is not None:
        check_chain("weights of the graph", weights)
    return _Scores.apply(ranks, given, grad == "dense", weights, alpha, *seeds)  # type: ignore[no-any-return]


class _Scores(Function):
    @staticmethod
    def forward(ctx, ranks, given, dense, weights, alpha, *seeds):  # type: ignore[override]
        keeper: Any = torch.empty(0)  # freed with the saved tensors
        keeper.asked = ranks, given
        ctx.dense = dense
        ctx.save_for_backward(weights, alpha, keeper, *seeds)
        return torch.from_numpy(ranks.values.copy())

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError("gradients of scores of graphs cannot be differentiated (create_graph=True).")
        weights, alpha, keeper, *seeds = ctx.saved_tensors
        if not hasattr(keeper, "asked"):
            raise RuntimeError(
                "scores were recorded under hooks that copy saved tensors, such as torch.autograd.graph.save_on_cpu: "
                "what its gradient needs cannot be copied; record it outside of them."
            )
        ranks, given = keeper.asked
        found = ranks.gradient(g.detach().numpy())
        by_weights = by_alpha = None
        needed = ctx.needs_input_grad[3:]
        if needed[0]:
            index, slopes = given.gradient(found.positions, found.values)
            by_weights = laid(index, slopes, len(given.array), ctx.dense, weights.dtype)
        if needed[1]:
            by_alpha = torch.tensor(found.alpha, dtype=alpha.dtype).reshape(alpha.shape)
        by_seeds = _by_seeds(ranks, found.seeds, seeds, needed[2:])
        return None, None, None, by_weights, by_alpha, *by_seeds


def _by_seeds(ranks: Any, slopes: np.ndarray, seeds: Any, needed: Any) -> list[torch.Tensor | None]:
    """Through s = w / Σ w, query by query; Katz scores take w as it is."""
    asked, bars = ranks._problem.seeds, []
    for q, (tensor, wanted) in enumerate(zip(seeds, needed, strict=True)):
        if not wanted:
            bars.append(None)
            continue
        own = slice(asked.first[q], asked.first[q + 1])
        slope = slopes[own]
        if ranks._problem.rule.by_strength:
            slope = (slope - slope @ asked.weights[own]) / float(tensor.detach().double().sum())
        bars.append(torch.from_numpy(slope).to(tensor.dtype))
    return bars
