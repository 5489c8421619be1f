"""PyTorch, eager: tensors of every kind in, solves recorded by autograd and torch.func, to any order.

Values of sparse matrices are read by the host kernels through zero-copy NumPy views; dense ones stay tensors.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..errors import describe
from ..full import Full
from ..operators import CSR, AbstractLinearOperator, Dense, coo
from ..plan import Factored, Plan
from ..shapes import layout_of, plain_array
from . import torch_linalg
from .torch_functions import Call, Ops
from .torch_sparse import values_of

__all__ = [
    "asarray",
    "asoperator",
    "full",
    "matvec",
    "prepare",
    "put",
    "result_dtype",
    "solve",
    "take",
    "toarray",
    "values",
    "weakly",
]

name = "torch"
_SUPPORTED = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def asarray(label: str, value: Any) -> torch.Tensor:
    """Return `value` as a tensor of a supported dtype; NumPy arrays and lists become constants."""
    if not isinstance(value, torch.Tensor):
        value = torch.from_numpy(np.array(plain_array(label, value)))
    if value.layout != torch.strided:
        raise TypeError(f"{label} must be a dense tensor; got layout {value.layout}: use {label}.to_dense().")
    if value.dtype not in _SUPPORTED:
        raise TypeError(
            f"{label} must be of dtype float32, float64, complex64 or complex128; got {describe(value)}: "
            "convert it, for example with .double()"
            + (" (under autocast, with .float() before the solve)." if value.dtype.itemsize == 2 else ".")
        )
    if value.is_meta:
        raise ValueError(
            f"{label} must hold numbers; got a tensor of shape {tuple(value.shape)} on the meta device, "
            "which has none: make it on another device."
        )
    return value


def result_dtype(*tensors: Any) -> torch.dtype:
    """The dtype that a solve with these tensors computes in."""
    dtype = tensors[0].dtype
    for t in tensors[1:]:
        dtype = torch.promote_types(dtype, t.dtype)
    return dtype


@lru_cache(maxsize=64)
def _full(shape: tuple[int, int]) -> Full:
    return Full(shape, torch_linalg)


def full(data: torch.Tensor) -> Full:
    """The structure of a dense tensor."""
    return _full(tuple(data.shape[-2:]))


def asoperator(A: Any) -> AbstractLinearOperator:
    """A matrix that torch users have, as an operator; gradients reach the tensor that was given."""
    if isinstance(A, AbstractLinearOperator):
        data = asarray("A", A.data)
        if A.structure.kind == "dense":
            return A if data is A.data else Dense(data).assume(A.assumed)
        return A if data is A.data else A.with_data(data)
    if isinstance(A, torch.Tensor) and A.layout != torch.strided:
        return _sparse(A)
    if sp.issparse(A):
        if A.ndim != 2:
            raise ValueError(f"A must be a 2-D scipy.sparse array; got {describe(A)}: use A.reshape(n, n).")
        csr: Any = sp.csr_array(A)
        return CSR(asarray("A", csr.data), csr.indices, csr.indptr, csr.shape)
    dense = asarray("A", A)
    if dense.ndim < 2:
        raise ValueError(
            f"A must be a matrix of shape (..., n, n); got {describe(dense)}: for a diagonal matrix use torch.diag(A)."
        )
    return Dense(dense)


def _sparse(A: torch.Tensor) -> CSR:
    """A torch.sparse tensor; its gradient is a sparse tensor on the same pattern."""
    shape = tuple(A.shape)
    if A.layout not in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        raise TypeError(f"A must be dense or in layout COO, CSR or CSC; got {A.layout}: use A.to_sparse_csr().")
    if len(shape) != 2 or (A.layout == torch.sparse_coo and A.dense_dim()):
        raise ValueError(
            f"A must be a 2-D sparse tensor with scalar entries; got shape {shape}: for a batch on one pattern "
            "use backsolve.CSR(values, indices, indptr, shape) with values of shape (..., nnz)."
        )
    if A.layout == torch.sparse_csr:
        return CSR(asarray("A", values_of(A)), A.col_indices(), A.crow_indices(), shape)
    if A.layout == torch.sparse_csc:
        ccol = A.ccol_indices()
        columns = torch.repeat_interleave(torch.arange(shape[1], device=ccol.device), ccol.diff())
        return coo(asarray("A", values_of(A)), (A.row_indices(), columns), shape)
    A = A.coalesce()
    return coo(asarray("A", values_of(A)), A.indices(), shape)


def canonical(A: AbstractLinearOperator, dtype: torch.dtype) -> torch.Tensor:
    """Stored values in canonical order: repeated places summed, by native operations that autograd knows."""
    data = A.data.to(dtype)
    slots = getattr(A, "slots", None)
    if slots is None:
        return data
    total = data.new_zeros((*data.shape[:-1], A.structure.nnz))
    return total.index_add(-1, torch.from_numpy(slots).to(data.device), data)


def solve(
    A: AbstractLinearOperator,
    b: torch.Tensor,
    plan: Plan,
    factored: Factored,
    adjoint: bool = False,
    box: list | None = None,
):
    """Solve, and return x with the outcome and its layout."""
    _one_device(A, b)
    dtype = result_dtype(A.data, b)
    layout = layout_of(A.batch_shape, tuple(b.shape))
    call = Call(plan, layout, box)
    data = _items(A, canonical(A, dtype), layout)
    columns = layout.columns(b.to(dtype), torch.Tensor.expand, torch.permute)
    x = Ops(plan.template.structure, call, factored).solve(data, columns, adjoint, backward=False)
    outcome, call.outcome = call.outcome, None  # the graph needs none of it
    if outcome is None and box is not None:
        raise RuntimeError(
            "solve_with_info has no verdict for each example of torch.func.vmap: call backsolve.solve there, "
            "or give A and b the mapped axis themselves."
        )
    return layout.restore(x, torch.permute), outcome, layout


def prepare(A: AbstractLinearOperator, plan: Plan, factored: Factored) -> None:
    """Factor now."""
    _one_device(A, A.data)
    with torch.no_grad():
        data = canonical(A, A.data.dtype)
    data = data.detach().reshape(-1, *data.shape[data.ndim - A._data_axes :])
    factored.state(
        plan.method, A.on(data if A.structure.kind == "dense" else np.ascontiguousarray(data.resolve_conj().numpy()))
    )


def matvec(A: AbstractLinearOperator, x: torch.Tensor) -> torch.Tensor:
    """A @ x."""
    _one_device(A, x)
    dtype = result_dtype(A.data, x)
    layout = layout_of(A.batch_shape, tuple(x.shape))
    columns = layout.columns(x.to(dtype), torch.Tensor.expand, torch.permute)
    y = Ops(A.structure).matvec(_items(A, canonical(A, dtype), layout), columns, False)
    return layout._replace(n=A.shape[0]).restore(y, torch.permute)


def toarray(A: AbstractLinearOperator) -> torch.Tensor:
    """The dense tensor."""
    if A.structure.kind == "dense":
        return A.data
    data = canonical(A, A.data.dtype)
    rows, columns = A.structure.rows.astype(np.int64), A.structure.indices
    places = torch.from_numpy(rows * A.shape[1] + columns).to(data.device)
    flat = data.new_zeros((*A.batch_shape, A.shape[0] * A.shape[1]))
    return flat.index_add(-1, places, data).reshape(*A.batch_shape, *A.shape)


def values(A: AbstractLinearOperator) -> torch.Tensor:
    """Stored values in canonical order."""
    A = asoperator(A)
    return canonical(A, A.data.dtype)


def take(values: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """Values at places of the last axis."""
    return values.index_select(-1, _index(places, values))


def put(values: torch.Tensor, places: np.ndarray, size: int) -> torch.Tensor:
    """Transpose of `take` for places that differ: zeros of (..., size), with the values at their places."""
    return values.new_zeros((*values.shape[:-1], size)).index_add(-1, _index(places, values), values)


def weakly(s: Any, values: torch.Tensor) -> torch.Tensor:
    """A number or tensor of factors in the precision of `values` if it has no axes."""
    return torch.as_tensor(s, dtype=torch.result_type(values, s), device=values.device)


def _index(places: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(places if places.flags.writeable else np.array(places)).to(values.device)


def _items(A: AbstractLinearOperator, data: torch.Tensor, layout: Any) -> torch.Tensor:
    """Values with the batch axes that vary as one axis, or without any."""
    core = tuple(data.shape[data.ndim - A._data_axes :])
    if not A.batch_shape:
        return data
    return data.reshape((prod(layout.items), *core) if layout.keep else core)


def _one_device(A: AbstractLinearOperator, b: torch.Tensor) -> None:
    if A.data.device != b.device:
        raise ValueError(
            f"A and b must be on one device; A is on {A.data.device} and b on {b.device}: move one with .to()."
        )
    if A.structure.kind != "dense" and A.data.device.type != "cpu":
        raise ValueError(
            f"A must be on the CPU, where the sparse methods run; its values are on {A.data.device}: "
            "move A and b with .cpu()."
        )


def from_host(array: np.ndarray) -> torch.Tensor:
    """A status or statistic as a tensor."""
    return torch.from_numpy(array)


def restore(layout: Any, x: torch.Tensor) -> torch.Tensor:
    """What an engine returned, in the shape that the user knows."""
    return layout.restore(x.detach(), torch.permute)
