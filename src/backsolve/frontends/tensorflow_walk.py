"""Learned walks of TensorFlow, eagerly: tapes follow the weights of the touched edges, evaluated once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record  # type: ignore[import-untyped]

from .._local.estimate import Estimate
from .._local.learned import WalkAnswer, answer, checked_weights
from .._local.learned_gradient import touched_edges, walk_gradient
from .._local.walk_options import Request
from .._local.walk_values import cotangents, stacked, values_at
from .tensorflow_arrays import host, tensor
from .tensorflow_edges import weights_of
from .tensorflow_local import refuse_forward_mode, refuse_graphs
from .tensorflow_recording import recorded, recording, unrecorded

__all__ = ["walk"]


def walk(graph: Any, alpha: float, edge_weight: Callable, theta: Any, asked: Request) -> Estimate:
    """x̂ at the nodes asked for, or as a SparseTensor (n,), or (queries, n)."""
    refuse_graphs("local.LearnedWalk")
    kind: list[tf.DType] = []

    def evaluate(places: np.ndarray) -> np.ndarray:
        with unrecorded():
            weights = weights_of(edge_weight, theta, places)
        kind[:] = [weights.dtype]
        return host(weights)

    found = answer(graph, alpha, evaluate, asked.seeds, asked.goal, asked.budget())
    x = tensor(stacked(found)[2] if asked.at is None else values_at(found, asked))
    x = tf.cast(x, kind[0]) if kind else x
    if recording():
        x = _tracked(found, asked, edge_weight, theta, x)
    bound = float(np.max(found.sum_bounds, initial=0.0))
    value = x if asked.at is not None else _sparse(found, asked, x)
    return Estimate(value, bound, "columns", found.touched, found.status, (found, asked))


def _tracked(found: WalkAnswer, asked: Request, edge_weight: Callable, theta: Any, x: tf.Tensor) -> tf.Tensor:
    """x̂ as the function of the weights that it is certified to be."""
    edges = touched_edges(found)
    if not len(edges):
        return x
    weights = weights_of(edge_weight, theta, edges)
    refuse_forward_mode([weights])

    def pullback(g: Any, *_: Any) -> list:
        if record.should_record_backprop([weights]):
            raise RuntimeError(
                "LearnedWalk has first derivatives only: its gradients cannot be differentiated; backsolve.solve has "
                "those of any order, on a small graph."
            )
        plain = checked_weights(found.graph, edges, host(weights))
        gradient = walk_gradient(found, edges, plain, cotangents(found, asked, host(tf.convert_to_tensor(g)))).values
        return [tf.cast(tensor(gradient), weights.dtype)]

    return recorded(lambda: x, (weights,), pullback)


def _sparse(found: WalkAnswer, asked: Request, x: tf.Tensor) -> tf.SparseTensor:
    query, nodes, _ = stacked(found)
    if asked.seeds.single:
        return tf.SparseTensor(nodes[:, None], x, (found.graph.n,))
    return tf.SparseTensor(np.stack([query, nodes], axis=1), x, (len(found.nodes), found.graph.n))
