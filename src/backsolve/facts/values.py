"""Facts read off the values: symmetry, dominance, scaling."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .. import _kernels
from .entries import Entries

__all__ = ["Dominance", "Scaling", "Symmetry", "dominance", "relative", "scaling", "symmetry"]


@dataclass(frozen=True)
class Symmetry:
    """How far the matrix is from its mirror images, relative to its largest entry; 0.0 means equal exactly."""

    pattern: float
    """Share of the off-diagonal entries whose mirror image is stored too."""
    transpose: float
    """max |A - Aᵀ| / max |A|."""
    adjoint: float
    """max |A - Aᴴ| / max |A|."""
    negative: float
    """max |A + Aᵀ| / max |A|: 0.0 for a skew-symmetric matrix."""
    noise: float
    """What rounding in the precision of A explains: 1,000 eps."""

    @property
    def kind(self) -> str:
        """In words."""
        for deviation, word in self._words():
            if deviation == 0:
                return word
        for deviation, word in self._words():
            if deviation <= self.noise:
                return f"{word} to {deviation:.0e}"
        return "not symmetric"

    def _words(self) -> tuple[tuple[float, str], ...]:
        both = max(self.transpose, self.adjoint)
        return (
            (both, "symmetric"),
            (self.adjoint, "Hermitian"),
            (self.transpose, "symmetric, not Hermitian"),
            (self.negative, "skew-symmetric"),
        )


def symmetry(A: Entries) -> Symmetry:
    """Compare A with Aᵀ and Aᴴ entry by entry: O(nnz)."""
    largest = A.size.max(initial=0.0)
    noise = 1000 * float(np.finfo(A.data.dtype).eps)

    def deviation(difference) -> float:
        found = np.abs(difference.data).max(initial=0.0)
        return float(found / largest) if found else 0.0

    transpose = A.matrix.T.tocsr()
    plain = deviation(A.matrix - transpose)
    adjoint = deviation(A.matrix - transpose.conj()) if A.is_complex else plain
    return Symmetry(A.pattern.symmetry, plain, adjoint, deviation(A.matrix + transpose), noise)


@dataclass(frozen=True, eq=False)
class Dominance:
    """Margins |a_ii| - Σ_{j≠i} |a_ij|, summed without rounding and rounded down.

    So the sign is right for real matrices, and a positive margin is certain for complex ones, whose moduli are
    bounded.
    """

    rows: np.ndarray = field(repr=False)
    """Margin of each row: (n,)."""
    columns: np.ndarray = field(repr=False)
    """Margin of each column: (n,)."""
    row_gap: float
    """min over rows of margin / |a_ii|, -inf where a diagonal entry is zero: above 0, A is strictly row dominant."""
    column_gap: float
    """The same of the columns."""

    @property
    def weak_rows(self) -> int:
        """Rows whose margin is not positive."""
        return int((self.rows <= 0).sum())

    @property
    def weak_columns(self) -> int:
        """Columns whose margin is not positive."""
        return int((self.columns <= 0).sum())


def dominance(A: Entries) -> Dominance:
    """Sum the margins of rows and columns: O(nnz)."""
    rows, columns = np.empty(A.n), np.empty(A.n)
    _kernels.margins(A.pattern._core, A.data, rows, columns)
    size = np.abs(A.diagonal)
    gaps = [float(relative(margins, size).min(initial=1.0)) for margins in (rows, columns)]
    return Dominance(rows, columns, gaps[0], gaps[1])


def relative(margins: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Margins over the moduli of the diagonal, -inf where that is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size > 0, margins / size, -np.inf)


@dataclass(frozen=True)
class Scaling:
    """Ratios of the largest to the smallest; what is zero is left out."""

    rows: float
    """Of the largest entries of the rows."""
    columns: float
    """Of the largest entries of the columns."""
    entries: float
    """Of the entries."""


def scaling(A: Entries) -> Scaling:
    """Measure the spread of rows, columns and entries: O(nnz)."""
    rows, columns = np.zeros(A.n), np.zeros(A.n)
    np.maximum.at(rows, A.rows, A.size)
    np.maximum.at(columns, A.columns, A.size)
    return Scaling(_spread(rows), _spread(columns), _spread(A.size))


def _spread(size: np.ndarray) -> float:
    size = size[size > 0]
    with np.errstate(over="ignore"):
        return float(size.max() / size.min()) if len(size) else 1.0
