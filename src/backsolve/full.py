"""The static structure of a dense matrix: its shape, and products in the array namespace of its entries."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from .pattern import NORMS, largest_summable

__all__ = ["Full"]


class Full:
    """Every place is stored. The counterpart of `Pattern` for dense arrays of any array namespace.

    Parameters
    ----------
    shape : (n_rows, n_cols)
    linalg : namespace
        ``xp`` (an array namespace) and the factorizations of the framework: ``lu_factor``, ``lu_solve``,
        ``cholesky``, ``cholesky_solve``; see `methods.lapack`.
    """

    kind = "dense"

    def __init__(self, shape: tuple[int, int], linalg: Any):
        self.shape = (int(shape[0]), int(shape[1]))
        self.linalg = linalg
        self.nnz = self.shape[0] * self.shape[1]
        self.memo: dict = {}

    # -- products: data (batch, n_rows, n_cols), vectors (batch, n, k) --------------------------------------

    def matvec(self, data, x, adjoint: bool = False):
        """A x, or Aᴴ x."""
        return (_adjoint(self.linalg.xp, data) if adjoint else data) @ x

    def outer(self, y, x):
        """Y Xᴴ."""
        return y @ _adjoint(self.linalg.xp, x)

    @np.errstate(all="ignore")
    def residual(self, data, x, b, adjoint: bool = False):
        """b - A x (or Aᴴ x), and the norms of `pattern.NORMS` for each column."""
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

    @np.errstate(all="ignore")
    def finite_items(self, data) -> np.ndarray:
        """Whether all entries of each item are finite, and so are sums of a row of them: (batch,) booleans."""
        xp = self.linalg.xp
        fits = xp.abs(data) <= largest_summable(str(data.dtype).removeprefix("torch."), max(self.shape))
        return self.to_numpy(xp.all(xp.reshape(fits, (data.shape[0], self.nnz)), axis=1))

    # -- small things that methods need, as `Pattern` has them ----------------------------------------------

    def to_numpy(self, array) -> np.ndarray:
        """A host copy."""
        return self.linalg.to_numpy(array)

    def eps(self, data) -> float:
        """Spacing of 1.0 in the precision of `data`."""
        return float(self.linalg.xp.finfo(data.dtype).eps)

    def size(self, d) -> np.ndarray:
        """Largest modulus in each item: (batch,)."""
        flat = self.linalg.xp.reshape(self.linalg.xp.abs(d), (d.shape[0], -1))
        return self.to_numpy(self.linalg.xp.max(flat, axis=1))

    def choose(self, mask: np.ndarray, yes, no):
        """Columns of `yes` where the (batch, k) mask holds, else of `no`."""
        return self.linalg.xp.where(self.linalg.like(no, mask[:, None, :]), yes, no)

    def like(self, b, array: np.ndarray):
        """A real array in the precision and on the device of b."""
        real = self.linalg.xp.real(b) if self.linalg.xp.isdtype(b.dtype, "complex floating") else b
        return self.linalg.xp.astype(self.linalg.like(b, array), real.dtype)

    def first_nonfinite(self, array) -> tuple[Any, tuple[int, ...]]:
        """The first NaN or infinity, and its index; (None, ()) if there is none."""
        host = self.to_numpy(array)
        places = np.argwhere(~np.isfinite(host))
        return (host[tuple(places[0])], tuple(places[0].tolist())) if len(places) else (None, ())

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
