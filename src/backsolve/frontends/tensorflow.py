"""TensorFlow: tensors and variables in, eagerly or in tf.function; solves that tapes record, to any order.

Values are read by the kernels of the host; the algebra of operators is made of TensorFlow's own operations.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import tensorflow as tf

from ..errors import describe
from ..full import Full
from ..methods import lapack
from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree, coo
from ..plan import Factored, Plan
from . import tensorflow_free, tensorflow_trees  # noqa: F401  (the tree is registered)
from .tensorflow_algebra import conj, promoted, put, reshape, swapaxes, take, weakly
from .tensorflow_arrays import asarray, canonical, host, laid_out, permuted, result_dtype, tensor
from .tensorflow_determinant import dense_slogdet, sparse_slogdet
from .tensorflow_free import of_function
from .tensorflow_functions import Call, Ops, from_host
from .tensorflow_recording import is_eager, traced
from .tensorflow_verdict import info, vjp

__all__ = [
    "asarray",
    "asoperator",
    "conj",
    "from_host",
    "full",
    "info",
    "known",
    "matvec",
    "of_function",
    "prepare",
    "promoted",
    "put",
    "reshape",
    "restore",
    "result_dtype",
    "slogdet",
    "solve",
    "swapaxes",
    "take",
    "to_host",
    "toarray",
    "traced",
    "values",
    "vjp",
    "weakly",
]

name = "tensorflow"


@lru_cache(maxsize=64)
def _full(shape: tuple[int, int]) -> Full:
    return Full(shape, lapack)


def full(data: Any) -> Full:
    """The structure of a dense tensor, whose factorizations are those of the host."""
    shape = tuple(data.shape[-2:])
    if None in shape:
        raise ValueError(
            f"A must have known numbers of rows and columns when the program is traced; got shape {tuple(data.shape)}: "
            "call tf.ensure_shape(A, (..., n, n))."
        )
    return _full(shape)


def asoperator(A: Any) -> AbstractLinearOperator:
    """A matrix that TensorFlow users have, as an operator; gradients reach the tensor or variable that was given."""
    if isinstance(A, MatrixFree):
        return tensorflow_free.asoperator(A)
    if isinstance(A, sla.LinearOperator):
        raise TypeError(
            f"A must map tensors, as b is one; got {describe(A)}, which maps NumPy arrays: "
            "write backsolve.MatrixFree(fn, params, shape) with a function of tensors."
        )
    if isinstance(A, AbstractLinearOperator):
        data = asarray("A", A.data)
        if A.structure.kind == "dense":
            return A if data is A.data else Dense(data).assume(A.assumed)
        return A if data is A.data else A.with_data(data)
    if isinstance(A, tf.SparseTensor):
        return _sparse(A)
    if sp.issparse(A):
        if A.ndim != 2:
            raise ValueError(f"A must be a 2-D scipy.sparse array; got {describe(A)}: use A.reshape(n, n).")
        csr: Any = sp.csr_array(A)
        return CSR(asarray("A", csr.data), csr.indices, csr.indptr, csr.shape)
    dense = asarray("A", A)
    if dense.shape.rank < 2:
        raise ValueError(
            f"A must be a matrix of shape (..., n, n); got {describe(dense)}: "
            "for a diagonal matrix use tf.linalg.diag(A)."
        )
    return Dense(dense)


def _sparse(A: tf.SparseTensor) -> CSR:
    """A SparseTensor in any order, its repeats summed; its values are differentiated, in their order."""
    shape = tf.get_static_value(A.dense_shape)
    index = A.indices if hasattr(A.indices, "numpy") else tf.get_static_value(A.indices)
    if index is None or shape is None:
        raise ValueError(
            "A must have a pattern that is known when the program is traced; the indices or the shape of this "
            "SparseTensor are traced: make A = backsolve.CSR(values, indices, indptr, shape) outside, and call "
            "A.with_data(values) inside."
        )
    if len(shape) != 2:
        raise ValueError(
            f"A must be a 2-D SparseTensor; got shape {tuple(map(int, shape))}: for a batch on one pattern "
            "use backsolve.CSR(values, indices, indptr, shape) with values of shape (..., nnz)."
        )
    return coo(asarray("A", A.values), np.asarray(index).T, (int(shape[0]), int(shape[1])))


def solve(
    A: AbstractLinearOperator,
    b: tf.Tensor,
    plan: Plan,
    factored: Factored,
    adjoint: bool = False,
    box: list | None = None,
):
    """Solve, and return x with the outcome, None in a graph, and its layout."""
    if isinstance(A, MatrixFree):
        return tensorflow_free.solve(A, b, plan, factored, adjoint, box)
    data, columns, layout = laid_out(A, b)
    call = Call(plan, layout, box)
    ops = Ops(call.structure, call, factored)
    found = ops.found(data, columns, adjoint, False)
    x = ops.differentiable(data, columns, adjoint, found)
    return layout.restore(x, permuted, tf.reshape), found.outcome, layout


def prepare(A: AbstractLinearOperator, plan: Plan, factored: Factored) -> None:
    """Factor now; in a graph the first solve does it."""
    if traced():
        return
    values = host(canonical(A, tf.as_dtype(A.data.dtype)))
    items = values.reshape(prod(A.batch_shape), *values.shape[values.ndim - A._data_axes :])
    factored.state(plan.method, A.on(np.ascontiguousarray(items)))


def matvec(A: AbstractLinearOperator, x: tf.Tensor) -> tf.Tensor:
    """A @ x."""
    if isinstance(A, MatrixFree):
        return tensorflow_free.matvec(A, x)
    data, columns, layout = laid_out(A, x)
    y = Ops(A.structure).matvec(data, columns, False)
    return layout._replace(n=A.shape[0]).restore(y, permuted, tf.reshape)


def toarray(A: AbstractLinearOperator) -> tf.Tensor:
    """The dense tensor."""
    if isinstance(A, MatrixFree):
        return tensorflow_free.toarray(A)
    if A.structure.kind == "dense":
        return asarray("A", A.data)
    places = A.structure.rows.astype(np.int64) * A.shape[1] + A.structure.indices
    return reshape(put(values(A), places, A.shape[0] * A.shape[1]), (*A.batch_shape, *A.shape))


def values(A: AbstractLinearOperator) -> tf.Tensor:
    """Stored values in canonical order."""
    A = asoperator(A)
    return canonical(A, A.data.dtype)


def largest(values: tf.Tensor) -> tf.Tensor:
    """Largest modulus along the last axis, a constant for derivatives; 1 where all are zero."""
    size = tf.reduce_max(tf.abs(tf.stop_gradient(values)), axis=-1)
    return tf.where(size > 0, size, tf.ones_like(size))


def constant(array: np.ndarray, values: tf.Tensor) -> tf.Tensor:
    """An array as a constant with the dtype of `values`."""
    return tf.cast(tf.constant(array), values.dtype)


def known(values: Any) -> np.ndarray | None:
    """Values as a NumPy array, or None where they are only traced."""
    return host(values) if is_eager(values) else None


def to_host(values: Any) -> np.ndarray:
    """Values as a NumPy array."""
    return host(tf.convert_to_tensor(values))


def restore(layout: Any, x: np.ndarray) -> tf.Tensor:
    """What an engine returned, in the shape that the user knows."""
    return tensor(layout.restore(x, np.transpose))


def slogdet(A: AbstractLinearOperator, plan: Plan | None, factored: Factored) -> tuple[tf.Tensor, tf.Tensor]:
    """Sign and logarithm of the modulus of the determinant; the plan is for sparse A."""
    data = canonical(A, A.data.dtype)
    return dense_slogdet(data) if plan is None else sparse_slogdet(data, plan, factored)
