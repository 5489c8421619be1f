"""What walks take: a matrix that is seen to be dominant, and constant vectors; and what they give to torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._local.vectors import sparse_vector
from ..local.dominant import DiagonallyDominant

__all__ = ["attached", "dense", "dominant", "given"]


def dominant(caller: str, A: Any, both: bool = False) -> DiagonallyDominant:
    """A prepared, once it is seen to be dominant by rows, and by columns if `both`."""
    D = A if isinstance(A, DiagonallyDominant) else DiagonallyDominant(A)
    if D.system.w is not None or D.system.v is not None:
        raise ValueError(f"{caller} takes no barrier: walks need a matrix that is dominant as it is.")
    for columns, holds in ((False, D.by_rows), (True, D.by_columns)):
        if not holds and (both or not columns):
            at, margin = D.system.weakest(columns)
            sense = "column" if columns else "row"
            raise ValueError(
                f"{caller}: A must be diagonally dominant by {sense}s; {sense} {at} has the margin {margin:.3g}: use a "
                "solve, such as backsolve.solve with method='cg'."
            )
    return D


def dense(name: str, v: Any, n: int) -> np.ndarray:
    """A constant vector as a dense one."""
    if getattr(v, "requires_grad", False):
        raise TypeError(f"{name} is a constant here, and the tensor given requires a gradient: detach it.")
    index, value = sparse_vector(name, v, n)
    if not len(index) and name == "t":
        raise ValueError("t must have an entry other than zero, where walks can start.")
    dense = np.zeros(n)
    dense[index] = value
    return dense


def given(D: Any, stored: np.ndarray) -> np.ndarray:
    """Numbers for stored values as numbers for the values that were given."""
    return stored if D._slots is None else stored[D._slots]


def attached(D: Any, value: float, gradient: np.ndarray) -> Any:
    """The value whose derivative by the values of A is the gradient, where these are a tensor that asks for one."""
    data = D._data
    if not getattr(data, "requires_grad", False):
        return value
    known = data.new_tensor(np.nan_to_num(gradient, nan=0.0))
    return value + ((data - data.detach()) * known).sum()
