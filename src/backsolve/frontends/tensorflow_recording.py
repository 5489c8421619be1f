"""How results of the host become functions of tensors: for tapes, for forward mode, and for gradients of graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record  # type: ignore[import-untyped]

recording = record.could_possibly_record
"""Whether a tape or forward mode looks on."""

unrecorded = record.stop_recording
"""A context in which no tape and no forward mode looks on."""

__all__ = ["depends", "here", "is_eager", "recorded", "recording", "segment_sum", "take", "traced", "unrecorded"]


def traced() -> bool:
    """Whether operations are recorded for a graph, as inside of tf.function, and not run."""
    return not tf.executing_eagerly()


def is_eager(value: Any) -> bool:
    """Whether a tensor has a value now, even if a graph is being traced."""
    return not hasattr(value, "graph")


def depends(function: Callable, *arguments: Any) -> bool:
    """Whether a tape of this thread follows what the function returns for arguments that it does not follow."""
    y = function(*arguments)
    return isinstance(y, tf.Tensor) and record.should_record_backprop([y])


def recorded(compute: Callable, inputs: tuple[tf.Tensor, ...], gradient: Callable) -> tf.Tensor:
    """``compute()`` as a function of the inputs, with ``gradient(g, *inputs)`` for their cotangents.

    The inputs that `gradient` gets are those of the graph in which it is traced, where its own gradient looks for them:
    the gradient of a tf.function has a graph of its own.
    """

    def pullback(g: Any) -> Any:
        return gradient(*map(here, (g, *inputs)))

    # custom_gradient lets forward mode see what is inside as well: in a graph it then takes the tangent of that, zero
    # for a constant, without a word. So tapes and forward mode are stopped, and told afterwards.
    with unrecorded():
        x = tf.custom_gradient(lambda *_: (compute(), pullback))(*inputs)
    record.record_operation("backsolve", [x], list(inputs), pullback)
    return x


def here(value: Any) -> tf.Tensor:
    """The tensor in the graph that is being traced; a cotangent may be slices, where a result was gathered from."""
    value = tf.convert_to_tensor(value)
    return tf.identity(value) if traced() and not is_eager(value) else value


def segment_sum(values: tf.Tensor, slots: Any, size: int) -> tf.Tensor:
    """Along the last axis, sums of the values that have one slot: the transpose of `take`."""
    rank = values.shape.rank

    def compute() -> tf.Tensor:
        if rank == 1:
            return tf.math.unsorted_segment_sum(values, slots, size)
        first = tf.transpose(values, (rank - 1, *range(rank - 1)))
        return tf.transpose(tf.math.unsorted_segment_sum(first, slots, size), (*range(1, rank), 0))

    return recorded(compute, (values,), lambda g, _: (take(g, slots),))


def take(values: Any, places: Any) -> tf.Tensor:
    """Values at places of the last axis.

    TensorFlow's own derivative is made of slices, which nested forward mode cannot take.
    """
    size: Any = values.shape[-1]
    return recorded(lambda: tf.gather(values, places, axis=-1), (values,), lambda g, _: (segment_sum(g, places, size),))
