"""What a factorization will take, from the pattern alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from .. import _kernels
from ..methods import SuperLU
from ..pattern import Pattern, canonical_pattern
from .entries import Entries

__all__ = ["Forecast", "elimination_order", "forecast", "permuted"]

_SPECS = {"colamd": "COLAMD", "mmd_at_plus_a": "MMD_AT_PLUS_A", "mmd_ata": "MMD_ATA"}


@dataclass(frozen=True)
class Forecast:
    """Cost of the factors that `solve` would make: those of A + Aᵀ in its ordering.

    Within some per cent if the pattern is symmetric and pivots stay on the diagonal. Pivots that leave it cost more; of
    matrices far from symmetric, which are ordered by columns, the factors are up to eight times smaller.
    """

    method: str
    """Name of the method that "auto" takes."""
    ordering: str
    """Of the unknowns; empty where there is none to choose."""
    entries: int | None
    """Entries of the factors; None if ordering is beyond the budget, or there are no factors."""
    flops: float | None
    """Additions and multiplications of the factorization."""
    nbytes: int | None
    """Memory of the factors."""


def forecast(A: Entries, method: Any, dense: bool, itemsize: int, order: np.ndarray | None, name: str) -> Forecast:
    """Count entries and operations; `order` as `elimination_order` returns it, by the ordering `name`."""
    if method.name == "triangular":
        return Forecast(method.name, "natural", 0, 0.0, 0)
    if dense:
        flops = 2 * A.n**3 / (6 if method.name == "cholesky" else 3)
        return Forecast(method.name, "", A.n**2, flops, A.n**2 * itemsize)
    if order is None:
        return Forecast(method.name, name, None, None, None)
    _, counts = _kernels.symbolic(permuted(A.pattern, order, A.match)[0]._core)
    counts = counts.astype(np.float64)
    # L and U have the pattern of a Cholesky factor and its transpose; column j costs c - 1 quotients and
    # (c - 1)² multiplications and subtractions.
    entries = int(2 * counts.sum() - A.n)
    flops = float((counts - 1).sum() + 2 * ((counts - 1) ** 2).sum())
    return Forecast(method.name, name, entries, flops, entries * (itemsize + 4))


def elimination_order(A: Entries, method: Any, operator: Any, budget: float) -> tuple[np.ndarray | None, str]:
    """Place of each column in the elimination, in the ordering that SuperLU would use, and its name.

    SuperLU hands out its ordering with factors only: so it makes incomplete ones, of a matrix with the pattern of A, a
    diagonal of ones and nothing else worth keeping. None if A is structurally singular, or too large.
    """
    engine = method if isinstance(method, SuperLU) else SuperLU()
    ordering = engine.plan(operator)[0]
    if ordering == "natural" or A.n == 0:
        return np.arange(A.n), ordering
    degrees = np.diff(A.pattern.indptr).astype(np.float64)
    columns = np.diff(A.pattern.t_indptr).astype(np.float64)
    too_large = max((degrees**2).sum(), (columns**2).sum()) > budget / 10 or A.pattern.indices.dtype != np.int32
    if too_large or (A.match < 0).any():
        return None, ordering
    # Rows are moved so that the diagonal is stored, as pivoting would do it.
    moved = sp.csc_matrix((np.full(A.pattern.nnz, 1e-30), (A.match[A.rows], A.columns)), shape=A.pattern.shape)
    moved.setdiag(1.0)
    lu = sla.spilu(
        moved,
        drop_tol=0.5,
        fill_factor=1,
        permc_spec=_SPECS[ordering],
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": ordering == "mmd_at_plus_a"},
    )
    return lu.perm_c.astype(np.int64), ordering


def permuted(pattern: Pattern, order: np.ndarray, rows: np.ndarray | None = None) -> tuple[Pattern, np.ndarray]:
    """The pattern of A + Aᵀ + I, its rows moved to `rows` and then all to `order`, and where the entries of A are."""
    moved = pattern.rows if rows is None else rows[pattern.rows]
    i, j, k = order[moved], order[pattern.indices], np.arange(len(order))
    union, slots = canonical_pattern(np.concatenate((i, j, k)), np.concatenate((j, i, k)), pattern.shape)
    return union, np.arange(pattern.nnz) if slots is None else slots[: pattern.nnz]
