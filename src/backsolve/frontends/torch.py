"""PyTorch, eager: tensors of every kind in, solves recorded by autograd and torch.func, to any order.

Values of sparse matrices are read by the host kernels through zero-copy NumPy views; dense ones stay tensors.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch

from ..errors import describe
from ..full import Full
from ..operators import CSR, AbstractLinearOperator, Dense, MatrixFree, coo
from ..plan import Factored, Plan
from ..shapes import layout_of
from . import torch_free, torch_linalg
from .torch_arrays import asarray, canonical, cast, items_of, plain, result_dtype
from .torch_determinant import dense_slogdet, sparse_slogdet
from .torch_free import of_function
from .torch_functions import Call, Ops, check_start_here
from .torch_sparse import values_of

__all__ = [
    "asarray",
    "asoperator",
    "full",
    "known",
    "matvec",
    "of_function",
    "prepare",
    "put",
    "result_dtype",
    "slogdet",
    "solve",
    "take",
    "to_host",
    "toarray",
    "values",
    "weakly",
]

name = "torch"


@lru_cache(maxsize=64)
def _full(shape: tuple[int, int]) -> Full:
    return Full(shape, torch_linalg)


def full(data: torch.Tensor) -> Full:
    """The structure of a dense tensor."""
    return _full(tuple(data.shape[-2:]))


def asoperator(A: Any) -> AbstractLinearOperator:
    """A matrix that torch users have, as an operator; gradients reach the tensor that was given."""
    if isinstance(A, MatrixFree):
        return torch_free.asoperator(A)
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


def solve(
    A: AbstractLinearOperator,
    b: torch.Tensor,
    plan: Plan,
    factored: Factored,
    adjoint: bool = False,
    box: list | None = None,
):
    """Solve, and return x with the outcome and its layout."""
    check_start_here(plan)
    if isinstance(A, MatrixFree):
        leaves, layout, columns = torch_free.laid_out(A, b)
        call = Call(plan, layout, box)
        x = torch_free.run(A, leaves, columns, call, factored, adjoint)
    else:
        _one_device(A, b)
        dtype = result_dtype(A.data, b)
        layout = layout_of(A.batch_shape, tuple(b.shape))
        call = Call(plan, layout, box)
        data = items_of(A, canonical(A, dtype), layout)
        columns = layout.columns(cast(b, dtype), torch.Tensor.expand, torch.permute)
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
    data = data.detach().reshape(prod(A.batch_shape), *data.shape[data.ndim - A._data_axes :])
    factored.state(plan.method, A.on(plain(A.structure, data)))


def matvec(A: AbstractLinearOperator, x: torch.Tensor) -> torch.Tensor:
    """A @ x."""
    if isinstance(A, MatrixFree):
        return torch_free.matvec(A, x)
    _one_device(A, x)
    dtype = result_dtype(A.data, x)
    layout = layout_of(A.batch_shape, tuple(x.shape))
    columns = layout.columns(x.to(dtype), torch.Tensor.expand, torch.permute)
    y = Ops(A.structure).matvec(items_of(A, canonical(A, dtype), layout), columns, False)
    return layout._replace(n=A.shape[0]).restore(y, torch.permute)


def toarray(A: AbstractLinearOperator) -> torch.Tensor:
    """The dense tensor."""
    if isinstance(A, MatrixFree):
        return torch_free.toarray(A)
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


def largest(values: torch.Tensor) -> torch.Tensor:
    """Largest modulus along the last axis, a constant for derivatives; 1 where all are zero."""
    size = torch.nn.functional.pad(values.detach().abs(), (0, 1)).amax(-1)
    return torch.where(size > 0, size, 1)


def constant(array: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    """An array as a constant with the dtype and on the device of `values`."""
    return torch.from_numpy(array).to(values.device, values.dtype)


def weakly(s: Any, values: torch.Tensor) -> torch.Tensor:
    """A number or tensor of factors in the precision of `values` if it has no axes."""
    dtype = torch.result_type(values, s)
    return s.to(dtype) if isinstance(s, torch.Tensor) else torch.tensor(s, dtype=dtype, device=values.device)


def _index(places: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(places if places.flags.writeable else np.array(places)).to(values.device)


def slogdet(A: AbstractLinearOperator, plan: Plan | None, factored: Factored) -> tuple[torch.Tensor, torch.Tensor]:
    """Sign and logarithm of the modulus of the determinant; the plan is for sparse A."""
    if plan is None:
        return dense_slogdet(A.data)
    _one_device(A, A.data)
    return sparse_slogdet(canonical(A, A.data.dtype), plan, factored)


def _one_device(A: AbstractLinearOperator, b: torch.Tensor) -> None:
    if A.data.device != b.device:
        raise ValueError(
            f"A and b must be on one device; A is on {A.data.device} and b on {b.device}: move one with .to()."
        )
    if A.structure.kind != "dense" and not A.data.is_cpu:
        raise ValueError(
            f"A must be on the CPU, where the sparse methods run; its values are on {A.data.device}: "
            "move A and b with .cpu()."
        )


def known(values: torch.Tensor) -> np.ndarray | None:
    """Values as a NumPy array, or None where they are only traced."""
    return to_host(values)


def to_host(values: torch.Tensor) -> np.ndarray:
    """Values as a NumPy array, without a graph."""
    return values.detach().cpu().resolve_conj().resolve_neg().numpy()


def from_host(array: np.ndarray) -> torch.Tensor:
    """A status or statistic as a tensor."""
    return torch.from_numpy(array)


def restore(layout: Any, x: torch.Tensor) -> torch.Tensor:
    """What an engine returned, in the shape that the user knows."""
    return layout.restore(x.detach(), torch.permute)
