"""Learned walks of JAX: edge_weight is compiled for batches of 2^k edges, and differentiated by its vjp."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._local.estimate import Estimate
from .._local.learned import answer, checked_weights
from .._local.learned_gradient import touched_edges, walk_gradient
from .._local.walk_options import Request
from .._local.walk_values import cotangents, stacked, values_at

__all__ = ["value_and_grad", "walk"]

_LEAST = 256


@lru_cache(maxsize=64)
def _compiled(edge_weight: Callable) -> Callable:
    return jax.jit(edge_weight)


@lru_cache(maxsize=64)
def _pullback(edge_weight: Callable) -> Callable:
    return jax.jit(lambda theta, places, g: jax.vjp(lambda t: edge_weight(t, places), theta)[1](g)[0])


def _padded(array: np.ndarray) -> np.ndarray:
    """With zeros up to the next power of two, so that few programs are compiled."""
    return np.pad(array, (0, max(_LEAST, 1 << (max(len(array), 1) - 1).bit_length()) - len(array)))


def _evaluate(edge_weight: Callable, theta: Any, places: np.ndarray) -> np.ndarray:
    weights = _compiled(edge_weight)(theta, _padded(places))
    return np.asarray(weights)[: len(places)]


def walk(graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request) -> Estimate:
    """x̂ at the nodes asked for, or a pair (indices, values) of arrays."""

    def evaluate(places: np.ndarray) -> np.ndarray:
        return _evaluate(edge_weight, theta, places)

    found = answer(graph, alpha, evaluate, asked.seeds, asked.goal, asked.budget())
    value: Any
    if asked.at is not None:
        value = jnp.asarray(values_at(found, asked))
    else:
        query, nodes, x = stacked(found)
        value = (nodes if asked.seeds.single else (query, nodes)), jnp.asarray(x)
    bound = float(np.max(found.sum_bounds, initial=0.0))
    return Estimate(value, bound, "columns", found.touched, found.status, (found, asked))


def value_and_grad(
    graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request, loss: Callable
) -> tuple[Any, Any, Estimate]:
    """(loss(x̂ at the nodes), its gradient by theta, the estimate)."""
    estimate = walk(graph, alpha, edge_weight, theta, asked)
    found, _ = estimate.query
    value, g = jax.value_and_grad(loss)(estimate.value)
    edges = touched_edges(found)
    weights = _evaluate(edge_weight, theta, edges)
    plain = checked_weights(graph, edges, weights)
    gradient = walk_gradient(found, edges, plain, cotangents(found, asked, np.asarray(g))).values
    theta_bar = _pullback(edge_weight)(theta, _padded(edges), _padded(gradient.astype(weights.dtype)))
    return value, theta_bar, estimate
