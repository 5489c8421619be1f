"""Learned walks of JAX: edge_weight is compiled for batches of 2^k edges, and differentiated by its vjp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._local.estimate import Estimate
from .._local.learned import answer, checked_weights
from .._local.learned_gradient import touched_edges, walk_gradient
from .._local.walk_options import Request
from .._local.walk_values import cotangents, stacked, values_at
from .jax_batches import Weighing, array

__all__ = ["value_and_grad", "walk"]


def walk(graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request) -> Estimate:
    """x̂ at the nodes asked for, or a pair (indices, values) of arrays."""
    return _walk(graph, alpha, Weighing(edge_weight, theta), asked)


def value_and_grad(
    graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request, loss: Callable
) -> tuple[Any, Any, Estimate]:
    """(loss(x̂ at the nodes), its gradient by theta, the estimate)."""
    weighing = Weighing(edge_weight, theta)
    estimate = _walk(graph, alpha, weighing, asked)
    found, _ = estimate.query
    value, g = jax.value_and_grad(loss)(estimate.value)
    edges = touched_edges(found)
    weights = checked_weights(graph, edges, weighing.evaluate(edges))
    gradient = walk_gradient(found, edges, weights, cotangents(found, asked, np.asarray(g))).values
    return value, weighing.pull(edges, gradient)[1], estimate


def _walk(graph: Any, alpha: float, weighing: Weighing, asked: Request) -> Estimate:
    found = answer(graph, alpha, weighing.evaluate, asked.seeds, asked.goal, asked.budget())
    value: Any
    if asked.at is not None:
        value = array(values_at(found, asked))
    else:
        query, nodes, x = stacked(found)
        value = (nodes if asked.seeds.single else (query, nodes)), array(x)
    bound = float(np.max(found.sum_bounds, initial=0.0))
    return Estimate(value, bound, "columns", found.touched, found.status, (found, asked))
