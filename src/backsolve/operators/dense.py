"""Dense operator."""

from __future__ import annotations

from typing import Any, Self

from ..eager import as_written
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

    @as_written
    def with_data(self, data: Any) -> Self:
        """Return the same operator with other entries, which may be of another framework."""
        other = super().with_data(data)
        other.structure = self.operations["full"](data)
        return other

    def _of(self, values: Any, structure: Any, assumed: str) -> Dense:
        other = Dense(values)
        other.assumed = assumed
        return other

    def _flat(self) -> Any:
        return self.operations["reshape"](self._values(), (*self.batch_shape, self.structure.nnz))

    def _transposed(self, conj: bool, assumed: str) -> Dense:
        values = self.operations["swapaxes"](self._values(), -1, -2)
        return self._of(self.operations["conj"](values) if conj else values, None, assumed)

    def _scaled_values(self, rows: Any, columns: Any) -> Any:
        values = self._values()
        if rows is not None:
            values = values * rows[..., :, None]
        return values if columns is None else values * columns[..., None, :]

    def _shifted(self, diagonal: Any, assumed: str) -> Dense:
        added = self.operations["put"](diagonal, self.structure.diagonal, self.structure.nnz)
        added = self.operations["reshape"](added, (*added.shape[:-1], *self.shape))
        return self._of(self._values() + added, None, assumed)
