"""Learned walks of NumPy: values, and explicit gradients by the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from .._local.estimate import Estimate
from .._local.learned import answer
from .._local.walk_options import Request
from .._local.walk_values import stacked, values_at

__all__ = ["walk"]


def walk(graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request) -> Estimate:
    """x̂ at the nodes asked for, or as a sparse array (n, 1), or (queries, n)."""

    def evaluate(places: np.ndarray) -> np.ndarray:
        return np.asarray(edge_weight(theta, places))

    found = answer(graph, alpha, evaluate, asked.seeds, asked.goal, asked.budget())
    value: Any
    if asked.at is not None:
        value = values_at(found, asked)
    else:
        query, nodes, x = stacked(found)
        shape = (graph.n, 1) if asked.seeds.single else (len(found.nodes), graph.n)
        value = scipy.sparse.coo_array((x, (nodes, query) if asked.seeds.single else (query, nodes)), shape=shape)
    bound = float(np.max(found.sum_bounds, initial=0.0))
    return Estimate(value, bound, "columns", found.touched, found.status, (found, asked))
