"""Determinants, with derivatives through the inverse on the stored places.

ℓ = log det A has dℓ = tr(A⁻¹ dA), so θ̄ = g A⁻ᴴ. For a sparse A that are n solves with unit vectors, the recorded
ones of `tensorflow_functions`; for a dense A it is TensorFlow's differentiable inverse: hence every order. ℓ is complex
for a complex A, with the phase as its imaginary part, which the derivative of tf.linalg.slogdet leaves out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..factor_cache import CACHE
from ..plan import Factored, Plan
from ..shapes import layout_of
from .tensorflow_functions import Call, Ops, on_host
from .tensorflow_recording import is_eager, recorded, take, unrecorded

__all__ = ["dense_slogdet", "sparse_slogdet"]

_BLOCK = 2**22  # numbers in one block of solutions


def dense_slogdet(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sign and logarithm of the modulus, (...,), for matrices (..., n, n)."""
    with unrecorded():
        sign, size = tf.linalg.slogdet(data)
        size = tf.math.real(size)
    return _differentiable(data, sign, size, lambda data: tf.linalg.inv(data, adjoint=True))


def sparse_slogdet(data: tf.Tensor, plan: Plan, factored: Factored) -> tuple[tf.Tensor, tf.Tensor]:
    """Sign and logarithm of the modulus, (...,), for canonical values (..., nnz)."""
    batch, nnz = data.shape[:-1], data.shape[-1]
    if None in batch:
        raise ValueError(
            f"slogdet of a sparse A needs a known number of matrices when the program is traced; got values of shape "
            f"{tuple(data.shape)}: call tf.ensure_shape(values, shape)."
        )
    items = tf.reshape(data, (batch.num_elements(), nnz))
    plan = plan.bare()

    def run(data: np.ndarray) -> list[np.ndarray]:
        values = np.ascontiguousarray(data)
        if is_eager(items):
            return _pair(plan.slogdet(factored, values), values)
        with CACHE.factors(plan.template.structure, plan.method, plan.template.assumed, values) as kept:
            return _pair(plan.slogdet(kept, values.copy()), values)

    sign, size = on_host(run, (items,), (data.dtype, data.dtype.real_dtype), ((items.shape[0],),) * 2)
    sign, size = _differentiable(items, sign, size, lambda items: _inverse_adjoint(items, plan, factored))
    return tf.reshape(sign, batch), tf.reshape(size, batch)


def _pair(found: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> list[np.ndarray]:
    sign, size = found
    return [np.asarray(sign, values.dtype), np.asarray(size, np.finfo(values.dtype).dtype)]


def _differentiable(data: tf.Tensor, sign: Any, size: Any, inverse_adjoint: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The pair as a function of data, through ℓ, whose gradient is A⁻ᴴ on the stored places."""
    if data.dtype.is_complex:
        phase = tf.math.angle(tf.where(sign == 0, tf.ones_like(sign), sign))
        value = tf.complex(size, phase)
    else:
        value = size
    last: Any = (..., *[None] * (data.shape.rank - size.shape.rank))

    def gradient(g: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor]:
        return (g[last] * inverse_adjoint(data),)

    value = recorded(lambda: value, (data,), gradient)
    if not data.dtype.is_complex:
        return sign, value
    turned = tf.exp(tf.complex(tf.zeros_like(size), tf.math.imag(value)))
    return tf.where(sign == 0, sign, turned), tf.math.real(value)


def _inverse_adjoint(data: tf.Tensor, plan: Plan, factored: Factored) -> tf.Tensor:
    """The entries of A⁻ᴴ on the stored places: Aᴴ Z = E for a block of unit vectors after the other."""
    pattern, items = plan.template.structure, int(data.shape[0])  # type: ignore[arg-type]
    n = pattern.shape[0]
    block = max(1, min(n, _BLOCK // max(1, n * max(1, items))))
    found = [tf.zeros((items, 0), data.dtype)]
    for start in range(0, n, block):
        width = min(block, n - start)
        unit = np.zeros((items, n, width), data.dtype.as_numpy_dtype)
        unit[:, np.arange(start, start + width), np.arange(width)] = 1
        ops = Ops(pattern, Call(plan, layout_of((items,), (n, width))), factored)
        z = ops.solve(data, tf.constant(unit), True)
        lo, hi = pattern.t_indptr[start], pattern.t_indptr[start + width]
        columns = np.repeat(np.arange(width), np.diff(pattern.t_indptr[start : start + width + 1]))
        places = pattern.t_indices[lo:hi].astype(np.int64) * width + columns
        found.append(take(tf.reshape(z, (items, n * width)), places))
    back = np.empty(pattern.nnz, np.int64)
    back[pattern.t_slot] = np.arange(pattern.nnz)
    return take(tf.concat(found, 1), back)
