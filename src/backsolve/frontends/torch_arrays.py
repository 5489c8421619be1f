"""Tensors as the other halves of the torch frontend need them: checked, canonical, laid out, or plain."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from ..errors import describe
from ..operators import AbstractLinearOperator
from ..shapes import plain_array

__all__ = ["asarray", "canonical", "cast", "items_of", "plain", "result_dtype"]

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
        dtype = dtype if t.dtype == dtype else torch.promote_types(dtype, t.dtype)
    return dtype


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in a dtype; as ``tensor.to``, which takes its time to find that there is nothing to do."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def canonical(A: AbstractLinearOperator, dtype: torch.dtype) -> torch.Tensor:
    """Stored values in canonical order: repeated places summed, by native operations that autograd knows."""
    data = cast(A.data, dtype)
    slots = getattr(A, "slots", None)
    if slots is None:
        return data
    total = data.new_zeros((*data.shape[:-1], A.structure.nnz))
    return total.index_add(-1, torch.from_numpy(slots).to(data.device), data)


def items_of(A: AbstractLinearOperator, data: torch.Tensor, layout: Any) -> torch.Tensor:
    """Values with the batch axes that vary as one axis, or without any."""
    if data.ndim == A._data_axes:
        return data
    core = tuple(data.shape[data.ndim - A._data_axes :])
    return data.reshape((prod(layout.items), *core) if layout.keep else core)


def plain(structure: Any, tensor: torch.Tensor) -> Any:
    """What the structure computes on: the tensor itself if dense, else its NumPy view; contiguous."""
    if structure.kind == "dense":
        return tensor.detach().contiguous()
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    try:
        return np.ascontiguousarray(tensor.numpy())
    except RuntimeError as error:
        raise RuntimeError(
            "values must hold numbers; got a tensor that stands for any while a program is traced: "
            "inside torch.compile and torch.export call backsolve.solve."
        ) from error
