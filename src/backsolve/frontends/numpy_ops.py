"""`calculus` bound to NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..operators import AbstractLinearOperator
from ..plan import Factored, Plan
from ..shapes import Layout, check_start
from ..solution import Solution, solution_of, watcher

__all__ = ["Ops"]


class Ops:
    """`calculus` on plain arrays: data (...,) or (items, ...), vectors (n,), (n, k) or (items, n, columns)."""

    def __init__(self, plan: Plan, factored: Factored, layout: Layout):
        self.plan, self.factored, self.layout = plan, factored, layout
        self.structure, self.last = plan.template.structure, None

    @classmethod
    def of(cls, A: AbstractLinearOperator) -> Ops:
        """Products alone."""
        ops = cls.__new__(cls)
        ops.structure = A.structure
        return ops

    def matvec(self, data: np.ndarray, x: np.ndarray, adjoint: bool) -> np.ndarray:
        items, cube = _cube(x)
        y = self.structure.matvec(_items(self.structure, data, items), cube, adjoint)
        return y.reshape(*x.shape[: max(x.ndim - 2, 0)], y.shape[1], *x.shape[max(x.ndim - 2, 0) + 1 :])

    def outer(self, y: np.ndarray, x: np.ndarray) -> Any:
        if self.structure.kind == "free":
            return None  # NumPy cannot differentiate the function
        s = self.structure.outer(_cube(y)[1], _cube(x)[1])
        return s if x.ndim == 3 else s[0]

    def solve(self, data: np.ndarray, b: np.ndarray, adjoint: bool) -> np.ndarray:
        return self.run(data, b, adjoint, backward=True)[0]

    def run(self, data: np.ndarray, b: np.ndarray, adjoint: bool, backward: bool):
        items, cube = _cube(b)

        def values():
            return _items(self.structure, data, items)

        more = {} if backward else self.start(cube.dtype)
        self.last = self.plan.run(
            self.factored, values, cube, adjoint=adjoint, backward=backward, show=self.show, **more
        )
        return self.last.x.reshape(b.shape), self.last

    def start(self, dtype: Any) -> dict:
        """Where an iterative method begins, and whom it tells."""
        x0, layout = self.plan.x0, self.layout
        if x0 is not None:
            check_start(x0.shape, layout)
            x0 = _cube(layout.columns(x0.astype(dtype), np.broadcast_to, np.transpose))[1]
        return {"x0": x0, "watch": watcher(self.plan.callback, layout, np.asarray, np.transpose)}

    def show(self, outcome: Any) -> Solution:
        """The outcome as the user knows it."""
        return solution_of(self.plan.method, outcome, self.layout, self.layout.shown(outcome.x, np.transpose))


def _cube(b: np.ndarray) -> tuple[int, np.ndarray]:
    """Items, and b as contiguous (items, n, k)."""
    b = np.ascontiguousarray(b)
    if b.ndim == 3:
        return b.shape[0], b
    return 1, b.reshape(1, b.shape[0], -1 if b.size else (1 if b.ndim == 1 else b.shape[1]))


def _items(structure: Any, data: Any, items: int) -> Any:
    if structure.kind == "free":
        return data
    return data.reshape(items, *(structure.shape if structure.kind == "dense" else (structure.nnz,)))
