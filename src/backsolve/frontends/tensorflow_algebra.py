"""What the algebra of operators is made of: tensors in one precision, taken, put, and in another shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..operators import AbstractLinearOperator
from .tensorflow_arrays import cast, result_dtype
from .tensorflow_recording import segment_sum, take

__all__ = ["conj", "promoted", "put", "reshape", "swapaxes", "take", "weakly"]


def put(values: tf.Tensor, places: np.ndarray, size: int) -> tf.Tensor:
    """Transpose of `take`: zeros of (..., size), with the values at their places."""
    return segment_sum(values, places, size)


def weakly(s: Any, values: tf.Tensor) -> tf.Tensor:
    """A number or tensor of factors in the precision of `values`, or the wider of theirs."""
    if isinstance(s, tf.Tensor):
        return cast(s, result_dtype(values, s))
    return tf.constant(s, tf.as_dtype(np.result_type(values.dtype.as_numpy_dtype, s)))


def promoted(made: list) -> list:
    """Operators, tensors and numbers in one precision, which TensorFlow asks for in products and sums."""
    tensors = [v.data if isinstance(v, AbstractLinearOperator) else v for v in made]
    tensors = [v for v in tensors if isinstance(v, tf.Tensor)]
    if not tensors:
        return made
    dtype = result_dtype(*tensors)
    if any(isinstance(v, complex) for v in made):
        dtype = tf.as_dtype(np.result_type(dtype.as_numpy_dtype, 1j))

    def one(v: Any) -> Any:
        if isinstance(v, AbstractLinearOperator):
            return v if v.data.dtype == dtype else v.on(cast(v.data, dtype))
        return cast(v, dtype) if isinstance(v, tf.Tensor) else v

    return [one(v) for v in made]


def reshape(values: tf.Tensor, shape: tuple) -> tf.Tensor:
    """Values in another shape, of which one size may be unknown."""
    return tf.reshape(values, [-1 if size is None else size for size in shape])


def conj(values: tf.Tensor) -> tf.Tensor:
    """Complex conjugates."""
    return tf.math.conj(values)


def swapaxes(values: tf.Tensor, first: int, second: int) -> tf.Tensor:
    """Matrices, transposed."""
    return tf.linalg.matrix_transpose(values)
