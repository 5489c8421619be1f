"""Triangular systems by substitution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..status import Status
from .direct import DirectMethod, Factors

__all__ = ["Triangular"]


@dataclass(frozen=True)
class Triangular(DirectMethod):
    """Forward or back substitution, for matrices declared "lower" or "upper", sparse or dense, of any index width.

    Nothing is factored and nothing kept: O(nnz) per right-hand side, and as much for the adjoint, on the rows as
    they are stored. Sums run in double precision for a sparse A. Only the declared triangle is read; the residual is
    that of the whole matrix, so a false declaration shows as INACCURATE.

    Parameters
    ----------
    rtol, atol : float, optional
        See `DirectMethod`; without them the backward error judges.

    Notes
    -----
    *Requires* assume="lower" or "upper". *Fails with* SINGULAR (a diagonal entry is zero or not stored, or x is
    dominated by a null vector), INACCURATE, NONFINITE. *Differentiation*: the adjoint solve substitutes the other
    way on the same values. *Differs from* ``scipy.sparse.linalg.spsolve_triangular``: neither copies nor sorts A,
    refined, judged, and any order of derivative.

    References
    ----------
    Higham 2002, Accuracy and Stability of Numerical Algorithms, 2nd edition, chapter 8.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> L = bs.coo(np.array([2.0, 1.0, 4.0]), ([0, 1, 1], [0, 0, 1]), (2, 2))
    >>> bs.solve(L, np.array([2.0, 5.0]), assume="lower")
    array([1., 1.])
    """

    name: ClassVar[str] = "triangular"
    scalable: ClassVar[bool] = False

    def refuse(self, A: Any) -> str | None:
        """It has to be declared which triangle A is."""
        if A.assumed in ("lower", "upper"):
            return None
        return "takes matrices declared triangular only: declare assume='lower' or assume='upper' if A is"

    def explain(self, A: Any) -> str:
        """Which substitution, and by what."""
        way = "Forward" if A.assumed == "lower" else "Back"
        by = f"by {A.structure.linalg.name}" if A.structure.kind == "dense" else "on the stored rows"
        return f"{way} substitution {by}: nothing is factored"

    def factor(self, A: Any, usable: np.ndarray) -> Factors:
        """Look for zeros on the diagonal; there is nothing else to do."""
        factors = _Substitution(A)
        zero = _diagonal(A) == 0
        for item in np.flatnonzero(zero.any(axis=1)).tolist():
            row = int(np.argmax(zero[item]))
            factors.fail(item, Status.SINGULAR, f"the diagonal entry of row {row} is zero or not stored")
        return factors


class _Substitution(Factors):
    """The matrices themselves."""

    def __init__(self, A: Any):
        super().__init__(np.zeros(A.data.shape[0], np.int32), count=0)
        self.A = A

    @property
    def nbytes(self) -> int:
        """Nothing beyond the values of A."""
        return 0

    def solve(self, b: Any, adjoint: bool) -> Any:
        """Substitute."""
        structure = self.A.structure
        x = structure.solve_triangular(self.A.data, b, self.A.assumed == "lower", adjoint)
        if self.failed.any():
            lost = np.broadcast_to((self.failed != 0)[:, None], (b.shape[0], b.shape[2]))
            x = structure.choose(lost, x * float("nan"), x)
        return x

    def slogdet(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """From the diagonal alone, which says nothing unless the other triangle is zero.

        Raises
        ------
        ValueError
            If it is not.
        """
        self._check_declaration()
        diagonal = _diagonal(self.A)
        with np.errstate(all="ignore"):
            modulus = np.abs(diagonal)
            sign = np.prod(diagonal / modulus, axis=1, dtype=np.result_type(dtype, np.float64)).astype(dtype)
            size = np.log(modulus).sum(axis=1, dtype=np.float64).astype(modulus.dtype)
        singular = self.failed == Status.SINGULAR
        failed = (self.failed != 0) & ~singular
        sign[singular], size[singular] = 0, -np.inf
        sign[failed], size[failed] = np.nan, np.nan
        return sign, size

    def _check_declaration(self) -> None:
        pattern, assumed = self.A.structure, self.A.assumed
        beyond = pattern.indices > pattern.rows if assumed == "lower" else pattern.indices < pattern.rows
        places = np.flatnonzero(beyond)
        readable = (self.failed != Status.NONFINITE)[:, None]
        wrong = np.argwhere((self.A.data[:, places] != 0) & readable)
        if len(wrong):
            item, at = wrong[0].tolist()
            row, column = pattern.entry(places[at])
            raise ValueError(
                f"slogdet: A must be the triangle that it is declared to be, {assumed!r}; got "
                f"{self.A.data[item, places[at]]} in row {row}, column {column}: declare assume='general'."
            )


def _diagonal(A: Any) -> np.ndarray:
    """Diagonals of a batch, zero where nothing is stored: (batch, n), on the host."""
    structure, data = A.structure, A.data
    if structure.kind == "dense":
        return structure.to_numpy(structure.linalg.xp.linalg.diagonal(data))
    places = structure.diagonal
    if structure.has_full_diagonal:
        return data[:, places]
    diagonal = np.zeros((len(data), len(places)), data.dtype)
    diagonal[:, places >= 0] = data[:, places[places >= 0]]
    return diagonal
