"""Tensors as the other halves of the TensorFlow frontend need them: checked, canonical, laid out, or on the host."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import describe
from ..operators import AbstractLinearOperator
from ..shapes import Layout, layout_of, plain_array
from .tensorflow_recording import segment_sum

__all__ = [
    "asarray",
    "canonical",
    "cast",
    "host",
    "laid_out",
    "of_rank",
    "permuted",
    "result_dtype",
    "tensor",
]

_SUPPORTED = (tf.float32, tf.float64, tf.complex64, tf.complex128)
_SMALL = (tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16)


def asarray(label: str, value: Any) -> tf.Tensor:
    """Return `value` as a tensor of a supported dtype; NumPy arrays and lists become constants.

    Integers become floats as for `tf.truediv`: float32 if of 8 or 16 bits, else float64.
    """
    if isinstance(value, tf.SparseTensor):
        raise TypeError(f"{label} must be a dense tensor; got a SparseTensor: use tf.sparse.to_dense({label}).")
    if isinstance(value, tf.RaggedTensor):
        raise TypeError(f"{label} must have rows of equal length; got a RaggedTensor: use {label}.to_tensor().")
    if isinstance(value, tf.IndexedSlices):
        raise TypeError(f"{label} must be a tensor; got IndexedSlices: use tf.convert_to_tensor({label}).")
    if type(value).__name__ == "KerasTensor":
        raise TypeError(
            f"{label} must be a tensor; got a KerasTensor, which stands for any while a model is put together: "
            "call backsolve in the call method of a keras.layers.Layer."
        )
    if not isinstance(value, tf.Tensor):
        held = isinstance(value, tf.Variable) or type(value).__module__.split(".")[0] == "keras"
        value = tf.convert_to_tensor(value if held else plain_array(label, value))
    if value.dtype.is_integer or value.dtype.is_bool:
        return tf.cast(value, tf.float32 if value.dtype in _SMALL else tf.float64)
    if value.dtype not in _SUPPORTED:
        raise TypeError(
            f"{label} must be of dtype float32, float64, complex64 or complex128; got {describe(value)}: convert it, "
            f"for example with tf.cast({label}, tf.float32) (in Keras, give the layer dtype='float32')."
        )
    return of_rank(label, value)


def of_rank(label: str, value: Any) -> Any:
    """The tensor, if it is known how many axes it has."""
    if value.shape.rank is None:
        raise ValueError(
            f"{label} must have a known number of axes when the program is traced; its shape is unknown: "
            f"call tf.ensure_shape({label}, shape), with None for the sizes that vary."
        )
    return value


def result_dtype(*tensors: Any) -> tf.DType:
    """The dtype that a solve with these tensors computes in."""
    dtype = tensors[0].dtype
    if all(t.dtype == dtype for t in tensors):
        return tf.as_dtype(dtype)
    return tf.as_dtype(np.result_type(*(tf.as_dtype(t.dtype).as_numpy_dtype for t in tensors)))


def cast(value: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The tensor in a dtype."""
    return value if value.dtype == dtype else tf.cast(value, dtype)


def host(value: Any) -> np.ndarray:
    """The values of an eager tensor as a NumPy array, without a copy where it is in the memory of the host."""
    return np.asarray(memoryview(value)) if value.device.endswith("CPU:0") else value.numpy()


def tensor(array: np.ndarray) -> tf.Tensor:
    """A NumPy array as a tensor, copied: TensorFlow asks for an alignment that NumPy's memory need not have."""
    return tf.convert_to_tensor(array)


def canonical(A: AbstractLinearOperator, dtype: tf.DType) -> tf.Tensor:
    """Stored values in canonical order: repeated places summed, by native operations that tapes know."""
    data = cast(A.data, dtype)
    slots = getattr(A, "slots", None)
    return data if slots is None else segment_sum(data, slots, A.structure.nnz)


def permuted(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """x with its axes in another order."""
    return x if axes == tuple(range(len(axes))) else tf.transpose(x, axes)


def _expanded(x: tf.Tensor, shape: tuple) -> tf.Tensor:
    known = all(isinstance(size, int) for size in shape)
    return x if known and tuple(x.shape) == shape else tf.broadcast_to(x, shape)


def laid_out(A: AbstractLinearOperator, b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Layout]:
    """Canonical values with the batch axes that vary as one, b as columns, and the layout.

    Sizes that are known only when the program runs are scalars in the layout; data and b then broadcast at run time.
    """
    dtype, n = result_dtype(A.data, b), A.shape[1]
    b, data = _sized(cast(b, dtype), n), canonical(A, dtype)
    layout = layout_of(A.batch_shape, tuple(b.shape))
    rank, core = len(A.batch_shape), tuple(data.shape[data.shape.rank - A._data_axes :])
    if None in layout.batch:
        leading = tf.shape(b)[:-2] if b.shape.rank > 2 else tf.zeros(0, tf.int32)
        found = tf.broadcast_dynamic_shape(tf.shape(data)[:rank], leading)
        batch = tuple(found[a] if size is None else size for a, size in enumerate(layout.batch))
        layout = layout._replace(batch=batch)
        axes = range(len(batch) - rank, len(batch))
        data = tf.broadcast_to(data, (*(batch[a] if a in layout.keep else 1 for a in axes), *core))
    if layout.k is None:
        layout = layout._replace(k=tf.shape(b)[-1])
    if rank:
        data = tf.reshape(data, (prod(layout.items), *core) if layout.keep else core)
    return data, layout.columns(b, _expanded, permuted, tf.reshape), layout


def _sized(b: tf.Tensor, n: int) -> tf.Tensor:
    """b with its axis of unknowns known, which is checked when the program runs."""
    if b.shape[-min(b.shape.rank, 2)] is not None:
        return b
    return tf.ensure_shape(b, (n,) if b.shape.rank == 1 else (*b.shape[:-2], n, b.shape[-1]))
