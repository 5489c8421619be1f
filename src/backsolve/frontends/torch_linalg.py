"""Dense linear algebra for torch tensors on any device: what `methods.lapack` is for NumPy."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

__all__ = [
    "cholesky",
    "cholesky_solve",
    "like",
    "lu_factor",
    "lu_solve",
    "matmul",
    "name",
    "on_host",
    "pivots_in",
    "solve_triangular",
    "to_numpy",
    "unrounded",
    "widen",
    "xp",
]

name = "torch.linalg"
pivots_in = "column"

_AS_IT_IS = nullcontext()


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A host array."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()


def like(b: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """A host array where b lives."""
    return torch.from_numpy(np.array(array)).to(b.device)


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """Double precision, real or complex."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in their own precision: under autocast torch would round both to 16 bits."""
    if not torch.is_autocast_enabled(a.device.type):
        return a @ b
    with unrounded(a):
        return a @ b


def unrounded(array: Any) -> AbstractContextManager:
    """Where autocast rounds nothing that is on the device of `array`; NumPy arrays are safe from it."""
    if isinstance(array, torch.Tensor) and torch.is_autocast_enabled(array.device.type):
        return torch.autocast(array.device.type, enabled=False)
    return _AS_IT_IS


def on_host(tensor: torch.Tensor) -> np.ndarray | None:
    """The numbers of a tensor on the host, in C order and without a copy where they are so; None elsewhere."""
    return np.ascontiguousarray(to_numpy(tensor)) if tensor.is_cpu else None


def lu_factor(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Factors, pivots and LAPACK's info of each item."""
    lu, pivots, info = torch.linalg.lu_factor_ex(a)
    return lu, pivots, to_numpy(info)


def lu_solve(lu: torch.Tensor, pivots: torch.Tensor, b: torch.Tensor, adjoint: bool) -> torch.Tensor:
    """Solve with the factors of `lu_factor`."""
    return torch.linalg.lu_solve(lu, pivots, b, adjoint=adjoint)


def cholesky(a: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Lower factor and LAPACK's info of each item; reads the lower triangle."""
    lower, info = torch.linalg.cholesky_ex(a)
    return lower, to_numpy(info)


def cholesky_solve(lower: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Solve with the factor of `cholesky`."""
    return torch.cholesky_solve(b, lower)


def solve_triangular(a: torch.Tensor, b: torch.Tensor, lower: bool, adjoint: bool) -> torch.Tensor:
    """Solve with one triangle of each item, or with its conjugate transpose."""
    return torch.linalg.solve_triangular(a.mH if adjoint else a, b, upper=lower == adjoint)
