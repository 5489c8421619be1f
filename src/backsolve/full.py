"""The static structure of a dense matrix: its shape, and products in the array namespace of its entries."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from . import _kernels
from .arrays import OnArrays
from .pattern import NORMS, Pattern, finite_items, largest_summable

__all__ = ["Full"]


class Full(OnArrays):
    """Every place is stored. The counterpart of `Pattern` for dense arrays of any array namespace.

    Parameters
    ----------
    shape : (n_rows, n_cols)
    linalg : namespace
        ``xp`` (an array namespace), ``matmul`` and the factorizations of the framework: ``lu_factor``,
        ``lu_solve``, ``cholesky``, ``cholesky_solve``, ``solve_triangular``, ``on_host``; see `methods.lapack`.
    """

    kind = "dense"

    def __init__(self, shape: tuple[int, int], linalg: Any):
        self.shape = (int(shape[0]), int(shape[1]))
        super().__init__(linalg)
        self.nnz = self.shape[0] * self.shape[1]
        self.memo: dict = {}

    # -- products: data (batch, n_rows, n_cols), vectors (batch, n, k) --------------------------------------

    def matvec(self, data, x, adjoint: bool = False):
        """A x, or Aᴴ x."""
        return self.linalg.matmul(_adjoint(self.linalg.xp, data) if adjoint else data, x)

    def outer(self, y, x):
        """Y Xᴴ."""
        if y.shape[2] == 1:  # in half of the time that a product of matrices takes
            return y * _adjoint(self.linalg.xp, x)
        return self.linalg.matmul(y, _adjoint(self.linalg.xp, x))

    def residual(self, data, x, b, adjoint: bool = False):
        """b - A x (or Aᴴ x), and the norms of `pattern.NORMS` for each column."""
        A_host, x_host, b_host = (self.linalg.on_host(v) for v in (data, x, b))
        if b_host is None:
            return self._residual(data, x, b, adjoint)
        r, norms = np.empty_like(b_host), np.zeros((b.shape[0], b.shape[2], len(NORMS)))
        if b.shape[1]:
            _kernels.dense_residual(A_host, x_host, b_host, r, norms, adjoint)
        return self.linalg.like(b, r), norms

    @np.errstate(all="ignore")
    def _residual(self, data, x, b, adjoint: bool):
        """`residual` in operations of the namespace, for arrays on other devices."""
        xp = self.linalg.xp
        matrix, wide_x, wide_b = (self.linalg.widen(v) for v in (data, x, b))
        if adjoint:
            matrix = _adjoint(xp, matrix)
        r = wide_b - matrix @ wide_x
        if self.shape[0] == 0 or b.shape[2] == 0:
            return b, np.zeros((b.shape[0], b.shape[2], len(NORMS)))
        entries, size, x_size, b_size = (xp.abs(v) for v in (matrix, r, wide_x, wide_b))
        sums, weight = xp.sum(entries, axis=2)[..., None], entries @ x_size + b_size
        scale = xp.where(sums > 0, sums, xp.ones_like(sums))
        omega = xp.where(size == 0, size, size / xp.where(weight > 0, weight, xp.ones_like(weight)))
        maxima = (xp.zeros_like(size) + sums, size, x_size, b_size, omega, size / scale, b_size / scale)
        complex_valued = xp.isdtype(wide_x.dtype, "complex floating")
        curvature = xp.real(xp.conj(wide_x) * wide_b) if complex_valued else wide_x * wide_b
        totals = (size * size, b_size * b_size, x_size * x_size, curvature)
        norms = xp.stack([xp.max(v, axis=1) for v in maxima] + [xp.sum(v, axis=1) for v in totals], axis=-1)
        return xp.astype(r, b.dtype), self.to_numpy(norms)

    def solve_triangular(self, data, b, lower: bool, adjoint: bool = False):
        """A⁻¹ b, or A⁻ᴴ b, from one triangle of A; of no meaning for items with a zero on the diagonal."""
        return self.linalg.solve_triangular(data, b, lower, adjoint) if b.shape[1] and b.shape[2] else b

    def extended_residual(self, data, x, b, adjoint: bool = False):
        """b - A x accumulated in double-double, on the host; see `Pattern.extended_residual`."""
        n, m = self.shape
        everywhere = Pattern(np.arange(n + 1) * m, np.tile(np.arange(m), n), self.shape)
        values, x_host, b_host = (np.ascontiguousarray(self.to_numpy(v)) for v in (data, x, b))
        r = everywhere.extended_residual(values.reshape(len(values), -1), x_host, b_host, adjoint)
        return self.linalg.like(b, r)

    @np.errstate(all="ignore")
    def finite_items(self, data) -> np.ndarray:
        """Whether all entries of each item are finite, and so are sums of a row of them: (batch,) booleans."""
        xp, limit = self.linalg.xp, largest_summable(str(data.dtype).removeprefix("torch."), max(self.shape))
        host = self.linalg.on_host(data)
        if host is not None:
            return finite_items(host.reshape(len(host), self.nnz), limit)
        fits = xp.abs(data) <= limit
        return self.to_numpy(xp.all(xp.reshape(fits, (data.shape[0], self.nnz)), axis=1))

    # -- facts, as `Pattern` has them -----------------------------------------------------------------------

    @cached_property
    def diagonal(self) -> np.ndarray:
        """Place of each diagonal entry among the entries in row order."""
        return np.arange(min(self.shape)) * (self.shape[1] + 1)

    empty_row = -1
    symmetry = 1.0

    def __eq__(self, other) -> bool:
        return isinstance(other, Full) and self.shape == other.shape

    def __hash__(self) -> int:
        return hash(self.shape)

    def __repr__(self) -> str:
        return f"Full({self.shape[0]}x{self.shape[1]})"


def _adjoint(xp, m):
    swapped = xp.matrix_transpose(m)
    return xp.conj(swapped) if xp.isdtype(m.dtype, "complex floating") else swapped
