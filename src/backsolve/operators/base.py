"""What every linear operator is."""

from __future__ import annotations

import copy
from typing import Any, Self

from ..errors import describe
from ..options import check_assume

__all__ = ["AbstractLinearOperator"]


class AbstractLinearOperator:
    """A bilinear form ⟨y, A(data) x⟩: a static structure and the numbers stored on it.

    Attributes
    ----------
    data : array
        The stored numbers, in which the operator is linear and with respect to which it is differentiated.
        Leading axes are a batch of operators on one structure.
    structure : Pattern or Full
        What does not change with the numbers.
    assumed : str
        What was declared with `assume`; "general" by default.
    """

    operations: dict[str, Any] = {}  # noqa: RUF012
    """Differentiable products for arrays of each framework; `api` binds them, since it alone knows the frameworks."""

    def __init__(self, structure: Any, data: Any, assumed: str = "general"):
        self.structure = structure
        self.data = data
        self.assumed = assumed

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols) of each operator of the batch."""
        return self.structure.shape

    @property
    def dtype(self):
        """dtype of `data`."""
        return self.data.dtype

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of `data`."""
        return tuple(self.data.shape[: len(self.data.shape) - self._data_axes])

    _data_axes = 1

    def with_data(self, data: Any) -> Self:
        """Return the same operator with other numbers, in the order in which the first ones were given.

        The structure is shared, so whatever was worked out from it is used again.

        Raises
        ------
        ValueError
            If the last axes of `data` differ from those of the present data.
        """
        if not hasattr(data, "shape"):
            raise ValueError(f"with_data: data must be an array; got {describe(data)}.")
        want = tuple(self.data.shape[len(self.data.shape) - self._data_axes :])
        if tuple(data.shape[-self._data_axes :]) != want or len(data.shape) < self._data_axes:
            raise ValueError(
                f"with_data: data must have shape (..., {', '.join(map(str, want))}); got {describe(data)}."
            )
        other = copy.copy(self)
        other.data = data
        return other

    def on(self, data: Any) -> Self:
        """Return the operator that engines work on: canonical plain values with one batch axis."""
        other = AbstractLinearOperator.__new__(type(self))
        other.structure, other.data, other.assumed = self.structure, data, self.assumed
        return other

    def assume(self, assume: str) -> Self:
        """Return the same operator, declared to be "spd", "sym", "her", "lower", "upper" or "general".

        A declaration chooses the method and never the answer: residuals, adjoints and gradients are those of
        the matrix as stored, and gradients are never symmetrised. "spd" of a complex matrix means Hermitian
        positive definite.
        """
        other = copy.copy(self)
        other.assumed = check_assume(assume)
        return other

    def __matmul__(self, x: Any) -> Any:
        """A @ x for x of shape (n_cols,) or (..., n_cols, k); differentiable in `data` and x."""
        return self.operations["matvec"](self, x)

    def toarray(self) -> Any:
        """Return the dense array, (..., n_rows, n_cols), of the framework of `data`; differentiable."""
        return self.operations["toarray"](self)

    def __repr__(self) -> str:
        name, batch = type(self).__name__, f", batch {self.batch_shape}" if self.batch_shape else ""
        declared = "" if self.assumed == "general" else f", assume={self.assumed!r}"
        return f"{name}({self.shape[0]}x{self.shape[1]}, nnz={self.structure.nnz}, {self.dtype}{batch}{declared})"
