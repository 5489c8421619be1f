"""Dense operator."""

from __future__ import annotations

from typing import Any, Self

from ..errors import describe
from .base import AbstractLinearOperator

__all__ = ["Dense"]


class Dense(AbstractLinearOperator):
    """A dense matrix, or a batch of them.

    Parameters
    ----------
    data : array (..., n_rows, n_cols), float32, float64, complex64 or complex128
    """

    _data_axes = 2

    def __init__(self, data: Any):
        if not hasattr(data, "shape") or len(data.shape) < 2:
            raise ValueError(f"Dense: data must be an array of shape (..., n_rows, n_cols); got {describe(data)}.")
        super().__init__(self.operations["full"](data), data)

    def with_data(self, data: Any) -> Self:
        """Return the same operator with other entries, which may be of another framework."""
        other = super().with_data(data)
        other.structure = self.operations["full"](data)
        return other
