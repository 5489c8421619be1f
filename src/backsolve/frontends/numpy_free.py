"""Matrix-free operators on NumPy arrays: column after column; no derivative but the adjoint that was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla

from ..free import Free, Map, check_linear
from ..methods import lapack
from ..operators import MatrixFree, flatten
from ..shapes import Layout, layout_of

__all__ = ["asoperator", "identity", "laid_out", "of_function", "result_dtype"]


class NumpyFree(Free):
    """`Free` on NumPy arrays."""

    def __init__(self, map: Map, rebuild: Callable):
        super().__init__(map, rebuild, lapack)

    def columns(self, data: tuple, adjoint: bool) -> Callable:
        """Column after column, by fn or by the adjoint that was given."""
        function = self.map.adjoint if adjoint else self.map.fn
        if function is None:
            raise ValueError(
                "MatrixFree: adjoint must be given in NumPy, which cannot transpose fn; got None: "
                "write MatrixFree(fn, params, shape, adjoint=...), with fn itself if A is Hermitian."
            )
        params = self.rebuild(data)

        def apply(x: np.ndarray) -> np.ndarray:
            y = np.empty((*x.shape[:1], self.inner[1 if adjoint else 0], *x.shape[2:]), x.dtype)
            for item, k in np.ndindex(x.shape[0], x.shape[2]):
                v = np.ascontiguousarray(x[item, :, k])
                y[item, :, k] = self.checked(function(params, v), v, adjoint)
            return y

        return apply


def asoperator(A: Any) -> MatrixFree:
    """A, or a SciPy LinearOperator, on the structure that applies it here."""
    if isinstance(A, sla.LinearOperator):
        matvec, rmatvec = A.matvec, A.rmatvec

        def adjoint(_: Any, g: np.ndarray) -> np.ndarray:
            try:
                return rmatvec(g).astype(g.dtype, copy=False)
            except NotImplementedError:
                raise ValueError(
                    "A must have rmatvec, its adjoint, for a backward or adjoint solve; this LinearOperator has none: "
                    "give it one when it is made."
                ) from None

        A = MatrixFree(
            lambda _, v: matvec(v).astype(v.dtype, copy=False),
            (),
            A.shape,
            adjoint=adjoint,
        )
    if isinstance(A.structure, NumpyFree):
        return A
    return A.bound(NumpyFree(A.map, flatten(A.data)[1]))


def result_dtype(A: MatrixFree, b: np.ndarray) -> Any:
    """The dtype of a product with b: arrays with axes count, numbers do not."""
    arrays = [a.dtype for a in A.leaves if a.ndim and a.dtype.kind in "fc"]
    return np.result_type(b.dtype, *arrays)


def laid_out(A: MatrixFree, b: np.ndarray) -> tuple[Any, Layout, np.ndarray]:
    """Data, layout, and b as (items, n, columns)."""
    layout = layout_of((), b.shape)
    columns = layout.columns(np.asarray(b, result_dtype(A, b)), np.broadcast_to, np.transpose)
    return A.leaves, layout, columns


def identity(A: MatrixFree) -> np.ndarray:
    """The columns of which A makes its own."""
    return np.eye(A.shape[1], dtype=result_dtype(A, np.empty(0, np.float64 if A.dtype is None else np.float32)))


def of_function(function: Any, b: np.ndarray, n: int) -> MatrixFree:
    """A function v -> A v as an operator, once it has been seen to be linear."""
    v = np.linspace(1, 2, n).astype(b.dtype)
    y, z = function(v), function(-2 * v)
    if all(isinstance(t, np.ndarray) and t.shape == v.shape for t in (y, z)) and n:
        check_linear(float(abs(z + 2 * y).max()), float(abs(y).max()), float(np.finfo(b.dtype).eps))
    return MatrixFree(lambda _, v: function(v), (), (n, n))
