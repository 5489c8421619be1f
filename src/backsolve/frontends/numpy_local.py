"""Local queries of NumPy: arrays in, arrays out, derivatives on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import System, Vector
from .._local.vector import VectorQuery
from .._local.vectors import column, sparse_vector
from ..errors import describe
from ..shapes import plain_array

__all__ = ["functional", "solve", "values"]


def values(data: Any, slots: np.ndarray | None, nnz: int) -> tuple[np.ndarray, None]:
    """Stored values, not copied where they are given so; and what tells whether they have changed.

    NumPy knows of an array only whether it may be written to.
    """
    data = plain_array("A", data)
    if slots is None:
        return np.ascontiguousarray(data), None
    summed = np.zeros((*data.shape[:-1], nnz), data.dtype)
    np.add.at(summed, (..., slots), data)  # type: ignore[arg-type]
    return summed, None


def functional(system: System, data: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    left, right = sparse_vector("t", t, system.n), sparse_vector("b", b, system.n)
    return _Session(system, options, lambda: functional_query(system, right, left), data, slots).start()


def solve(system: System, data: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as an (n, 1) sparse array."""
    vector = sparse_vector("b", b, system.n)
    return _Session(system, options, lambda: VectorQuery(system, vector), data, slots).start()


class _Session(AbstractSession):
    def __init__(self, system: System, options: Options, make: Callable, data: Any, slots: np.ndarray | None):
        super().__init__(system, options, make, slots)
        self.data = data

    def value(self, raw: Estimate) -> Any:
        return column(raw.value, self.system.n)

    def shown(self, found: Gradient) -> Gradient:
        return found

    def vector(self, name: str, value: Any) -> Vector:
        return sparse_vector(name, value, self.system.n)

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.among.change(name, dA)

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        data = self.system.access.data
        if not data.flags.writeable:
            raise ValueError(
                f"dA must be written into the values of A, which are read only, {describe(data)}: ask anew with others."
            )
        old = data[places].copy()
        np.add.at(data, places, increments.astype(data.dtype))

        def undo() -> None:
            data[places] = old

        return undo
