"""Coarser and coarser levels, and the cycle through them; vectors (count,) have all items one after another.

A level has ``scaled(x) = D⁻¹ A x``, `restrict`, `prolong`, `diagonal` and its `inverse`; the last one has `solve`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .stencil import Stencil
from .transfer import Transfer

__all__ = ["Bottom", "Level", "cycle", "cycle_in_place", "damping_diagonal", "grid_levels", "matrix_levels"]

_SMALL = 64
"""Unknowns of the coarsest level, at most, if it is a grid: it is solved directly."""


@dataclass(frozen=True, eq=False)
class Level:
    """One level, as the functions that the cycle needs."""

    scaled: Callable[[Any], Any]
    """x -> D⁻¹ A x."""
    restrict: Callable[[Any], Any]
    """The transpose of `prolong`."""
    prolong: Callable[[Any], Any]
    diagonal: Any
    inverse: Any
    nbytes: int = 0


@dataclass(frozen=True, eq=False)
class Bottom:
    """The coarsest level."""

    solve: Callable[[Any], Any]
    lowest: np.ndarray
    """Smallest eigenvalue over the largest, of each item."""
    nbytes: int = 0


def cycle(levels: Sequence[Any], weights: Sequence[tuple[Any, Any, Any]], r: Any, at: int = 0) -> Any:
    """One V-cycle from zero: x = M r, with (a, b, scale) of each level; the last of them serve for all that follow.

    Smoothing with a and b from zero is one polynomial: a t + b (t - D⁻¹ A a t) = (a + b) t - a b D⁻¹ A t, t = D⁻¹ r.
    """
    level = levels[at]
    if at == len(levels) - 1:
        return level.solve(r)
    a, b, scale = weights[min(at, len(weights) - 1)]
    t = r * level.inverse
    x = (a + b) * t - (a * b) * level.scaled(t)
    coarse = cycle(levels, weights, level.restrict((t - level.scaled(x)) * level.diagonal), at + 1)
    x = x + scale * level.prolong(coarse)
    x = x + b * (t - level.scaled(x))
    return x + a * (t - level.scaled(x))


def cycle_in_place(levels: Sequence[Any], weights: Sequence[tuple[float, float, float]], r: np.ndarray, at: int = 0):
    """`cycle` for NumPy, in the arrays that products return: new memory would take as long as the arithmetic."""
    level = levels[at]
    if at == len(levels) - 1:
        return level.solve(r)
    a, b, scale = weights[min(at, len(weights) - 1)]
    t = r * level.inverse
    x, y = level.scaled(t), t * (a + b)
    x *= -(a * b)
    x += y
    np.subtract(t, level.scaled(x), out=y)
    y *= level.diagonal
    coarse = cycle_in_place(levels, weights, level.restrict(y), at + 1)
    coarse *= scale
    x += level.prolong(coarse)
    for weight in (b, a):
        np.subtract(t, level.scaled(x), out=y)
        y *= weight
        x += y
    return x


def damping_diagonal(diagonal: np.ndarray, moduli: np.ndarray) -> np.ndarray:
    """D = max(a_ii, ½ Σ_j |a_ij|), with which A ⪯ 2 D for every Hermitian A.

    2 D - A has a diagonal of at least 2 D_ii - a_ii ≥ Σ_j |a_ij| - a_ii ≥ Σ_{j≠i} |a_ij| (a_ii ≥ 0): dominant, so it
    has no negative eigenvalue.
    """
    D = np.maximum(diagonal, moduli / 2)
    return np.where(D > 0, D, 1.0)


def grid_levels(A: Stencil) -> list[Any]:
    """Levels of matrices on a grid."""
    transfer = Transfer(A.grid, A.distances())
    levels: list[Any] = []
    while np.prod(A.grid) > _SMALL:
        levels.append(_grid_level(A, transfer))
        A, transfer = transfer.galerkin(A), transfer.coarser()
    levels.append(_grid_bottom(A))
    return levels


def _grid_level(A: Stencil, transfer: Transfer) -> Level:
    batch, D = len(A.diagonal), damping_diagonal(A.diagonal, A.moduli())
    inverse = 1 / D
    banded = A.diagonals(inverse)
    fine, coarse = (batch, *A.grid), (batch, *transfer.coarse_grid)
    return Level(
        scaled=banded.__matmul__,
        restrict=lambda r: transfer.restrict(r.reshape(fine)).reshape(-1),
        prolong=lambda e: transfer.prolong(e.reshape(coarse)).reshape(-1),
        diagonal=D.reshape(-1),
        inverse=inverse.reshape(-1),
        nbytes=banded.data.nbytes + 2 * D.nbytes,
    )


def _grid_bottom(A: Stencil) -> Bottom:
    batch, n = len(A.diagonal), int(np.prod(A.grid))
    whole = A.diagonals(np.ones_like(A.diagonal)).toarray().reshape(batch, n, batch, n)
    return _bottom(np.stack([whole[i, :, i, :] for i in range(batch)]))


def _bottom(dense: np.ndarray) -> Bottom:
    """Solve by eigenvectors, with the largest eigenvalue in place of those that are lost in rounding.

    So constants, which a Laplacian maps to zero, do no harm, and the result is positive whatever they are.
    """
    batch, n, _ = dense.shape
    values, vectors = np.linalg.eigh((dense + dense.transpose(0, 2, 1)).astype(float) / 2)
    top = np.abs(values).max(axis=1, keepdims=True)
    lowest = values[:, 0] / np.where(top > 0, top, 1)[:, 0]
    kept = np.where(values > 1e-12 * top, values, np.where(top > 0, top, 1))
    inverse = ((vectors / kept[:, None, :]) @ vectors.transpose(0, 2, 1)).astype(dense.dtype)
    return Bottom(lambda r: (inverse @ r.reshape(batch, n, 1)).reshape(-1), lowest, inverse.nbytes)


def matrix_levels(A: sp.csr_array, kind: str) -> list[Any]:
    """Levels of one matrix, whose coarser ones pyamg makes."""
    from ..preconditioners import AMG

    solver = AMG(kind).hierarchy(A, hermitian=True)
    levels: list[Any] = []
    for fine in solver.levels[:-1]:
        A, P = sp.csr_array(fine.A), sp.csr_array(fine.P)
        D = damping_diagonal(A.diagonal(), np.asarray(abs(A).sum(axis=1)).ravel())
        scaled, R = sp.csr_array(sp.diags_array(1 / D) @ A), sp.csr_array(P.T)
        nbytes = sum(m.data.nbytes + m.indices.nbytes + m.indptr.nbytes for m in (scaled, P, R)) + 2 * D.nbytes
        levels.append(Level(scaled.__matmul__, R.__matmul__, P.__matmul__, D, 1 / D, nbytes))
    levels.append(_bottom(sp.csr_array(solver.levels[-1].A).toarray()[None]))
    return levels
