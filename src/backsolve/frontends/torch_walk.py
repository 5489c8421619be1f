"""Learned walks of torch: gradients reach theta through the weights of the touched edges, evaluated once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._local.estimate import Estimate
from .._local.learned import WalkAnswer, answer, checked_weights
from .._local.learned_gradient import touched_edges, walk_gradient
from .._local.walk_options import Request
from .._local.walk_values import cotangents, stacked, values_at
from .torch_functions import Function

__all__ = ["walk"]


class _Walk(Function):
    """(weights of the touched edges) -> x̂: the function that x̂ is certified to be."""

    @staticmethod
    def forward(ctx: Any, weights: torch.Tensor, x: torch.Tensor, state: Any) -> torch.Tensor:
        ctx.save_for_backward(weights)
        ctx.state = state
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:  # type: ignore[override]
        if torch.is_grad_enabled():  # else the weights would be differentiated twice, and the solve once
            raise RuntimeError(
                "LearnedWalk has first derivatives only: leave create_graph=True out; backsolve.solve has those of "
                "any order, on a small graph."
            )
        found, asked, edges = ctx.state
        (weights,) = ctx.saved_tensors
        found_gradient = walk_gradient(
            found, edges, checked_weights(found.graph, edges, _plain(weights)), cotangents(found, asked, _plain(g))
        )
        return torch.from_numpy(found_gradient.values).to(weights), None, None


def walk(graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request) -> Estimate:
    """x̂ at the nodes asked for, or as a sparse tensor (n,), or (queries, n)."""
    kind: list[torch.Tensor] = []

    def evaluate(places: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            weights = _weights(edge_weight, theta, places)
        kind[:] = [weights[:0]]
        return _plain(weights)

    found = answer(graph, alpha, evaluate, asked.seeds, asked.goal, asked.budget())
    x = torch.from_numpy(stacked(found)[2] if asked.at is None else values_at(found, asked))
    x = x.to(kind[0]) if kind else x
    if torch.is_grad_enabled():
        x = _tracked(found, asked, edge_weight, theta, x)
    bound = float(np.max(found.sum_bounds, initial=0.0))
    value = x if asked.at is not None else _sparse(found, asked, x)
    return Estimate(value, bound, "columns", found.touched, found.status, (found, asked))


def _tracked(found: WalkAnswer, asked: Request, edge_weight: Callable, theta: Any, x: torch.Tensor) -> torch.Tensor:
    edges = touched_edges(found)
    if not len(edges):
        return x
    weights = _weights(edge_weight, theta, edges)
    return _Walk.apply(weights, x, (found, asked, edges)) if weights.requires_grad else x  # type: ignore[return-value]


def _weights(edge_weight: Callable, theta: Any, places: np.ndarray) -> torch.Tensor:
    weights = edge_weight(theta, torch.from_numpy(places))
    if not isinstance(weights, torch.Tensor):
        raise TypeError(f"edge_weight must return a torch tensor, as theta is of torch; got {type(weights).__name__}.")
    return weights


def _plain(weights: torch.Tensor) -> np.ndarray:
    return weights.detach().cpu().numpy()


def _sparse(found: WalkAnswer, asked: Request, x: torch.Tensor) -> torch.Tensor:
    query, nodes, _ = stacked(found)
    indices = torch.from_numpy(nodes[None] if asked.seeds.single else np.stack([query, nodes])).to(x.device)
    shape = (found.graph.n,) if asked.seeds.single else (len(found.nodes), found.graph.n)
    # Nodes ascend in each query: coalesced by construction.
    return torch.sparse_coo_tensor(indices, x, shape, is_coalesced=True, check_invariants=False)
