"""Preconditioners (L + D) D⁻¹ (D + U): symmetric sweeps, and incomplete factorizations on the pattern of A."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import device

from ..arrays import put
from ..errors import describe
from .base import AbstractPreconditioner, Prepared, diagonal_of, faults

__all__ = ["IC0", "ILU0", "MIC", "SSOR", "Sweep"]

_SHIFTS = (0.0, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
"""Of the diagonal, relative, tried in turn where the pivots of a definite A are not all positive (Manteuffel 1980)."""


_NEEDS_ENTRIES = "needs the entries of A: use 'chebyshev', or a function"


def _check_omega(owner: str, omega: Any) -> None:
    if not isinstance(omega, int | float) or isinstance(omega, bool) or not 0 < omega < 2:
        raise ValueError(f"{owner}: omega must be a float in (0, 2); got {describe(omega)}.")


def _divided(A: Any, omega: float) -> tuple[Any, Any, Any]:
    """Values of A with the diagonal over ω, the diagonal (batch, n, 1), and what is wrong with it."""
    structure, xp = A.structure, A.structure.xp
    d, broken = diagonal_of(A)
    if structure.kind == "dense":
        identity = xp.eye(A.shape[0], dtype=A.data.dtype, device=device(A.data))
        return A.data * (1 - identity) + identity * (d / omega), d, broken
    stored = structure.diagonal >= 0
    values = xp.asarray(A.data, copy=True)
    values = put(xp, values, (slice(None), structure.diagonal[stored]), d[:, stored, 0] / omega)
    return values, d, broken


def _swept(structure: Any, values: Any, middle: Any, broken: Any) -> Prepared:
    """M v = (D + U)⁻¹ D (L + D)⁻¹ v from one array of values; the adjoint goes the other way on the same."""
    xp = structure.xp
    conjugate = xp.conj(middle) if xp.isdtype(middle.dtype, "complex floating") else middle

    def apply(v: Any, adjoint: bool) -> Any:
        y = structure.solve_triangular(values, v, not adjoint, adjoint)
        return structure.solve_triangular(values, y * (conjugate if adjoint else middle), adjoint, adjoint)

    return Prepared(apply, broken, values.nbytes)


@dataclass(frozen=True)
class SSOR(AbstractPreconditioner):
    """Symmetric successive over-relaxation: one sweep down the rows and one up, for sparse and dense A.

    M⁻¹ = ω/(2-ω) (D/ω + L) D⁻¹ (D/ω + U), with A = L + D + U. No set-up to speak of; an application costs as much as
    a product with A, in sequence.

    Parameters
    ----------
    omega : float
        ω, between 0 and 2; 1 gives symmetric Gauss-Seidel.

    Notes
    -----
    *Requires* a diagonal without zeros. Hermitian positive definite if A is.

    References
    ----------
    Saad 2003, Iterative Methods for Sparse Linear Systems, 2nd edition, section 4.1.
    """

    omega: float = 1.0

    name: ClassVar[str] = "ssor"
    traceable: ClassVar[bool] = True
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        _check_omega("SSOR", self.omega)

    def refuse(self, A: Any) -> str | None:
        """It needs the entries."""
        return _NEEDS_ENTRIES if A.structure.kind == "free" else None

    def explain(self, A: Any) -> str:
        """Sweeps, and their ω."""
        return f"symmetric successive over-relaxation, omega = {self.omega:g}"

    def prepare(self, A: Any) -> Prepared:
        """Divide the diagonal by ω."""
        values, d, broken = _divided(A, self.omega)
        return _swept(A.structure, values, d * ((2 - self.omega) / self.omega), broken)


@dataclass(frozen=True)
class Sweep(AbstractPreconditioner):
    """M = (D/ω + L)⁻¹: one sweep of Gauss and Seidel, over-relaxed; not Hermitian.

    Parameters
    ----------
    omega : float
        ω, between 0 and 2.

    Notes
    -----
    *Requires* a diagonal without zeros.
    """

    omega: float = 1.0

    name: ClassVar[str] = "sweep"
    traceable: ClassVar[bool] = True

    def __post_init__(self):
        _check_omega("Sweep", self.omega)

    def refuse(self, A: Any) -> str | None:
        """It needs the entries."""
        return _NEEDS_ENTRIES if A.structure.kind == "free" else None

    def explain(self, A: Any) -> str:
        """A sweep, and its ω."""
        return f"one forward sweep over A, omega = {self.omega:g}"

    def prepare(self, A: Any) -> Prepared:
        """Divide the diagonal by ω."""
        values, _, broken = _divided(A, self.omega)
        solve = A.structure.solve_triangular
        return Prepared(lambda v, adjoint: solve(values, v, True, adjoint), broken)


class _Incomplete(AbstractPreconditioner):
    """Incomplete elimination, in compiled code, item by item in threads."""

    traceable: ClassVar[bool] = True
    definite: ClassVar[bool] = False
    relaxation: float = 0.0
    shift: float | None = None

    def __post_init__(self):
        owner, shift = type(self).__name__, self.shift
        if shift is not None and (not isinstance(shift, int | float) or not 0 <= shift < np.inf):
            raise ValueError(f"{owner}: shift must be a float of at least 0, or None; got {describe(shift)}.")

    def refuse(self, A: Any) -> str | None:
        """It needs a sparse A with a stored diagonal."""
        kind = A.structure.kind
        if kind == "free":
            return _NEEDS_ENTRIES
        if kind == "dense":
            return "is for sparse A; of a dense one it would be the whole factorization: use method 'lu' or 'cholesky'"
        if not A.structure.has_full_diagonal:
            row = int(np.argmin(A.structure.diagonal >= 0))
            return f"needs every diagonal entry to be stored; that of row {row} is not: use 'ilut'"
        return None

    def prepare(self, A: Any) -> Prepared:
        """Eliminate; where a pivot fails, again with more on the diagonal."""
        pattern = A.structure
        shifts = _SHIFTS if self.shift is None else (float(self.shift),)
        values, failed = pattern.eliminate_incompletely(A.data, shifts, float(self.relaxation), self.definite)
        pivots = values[:, pattern.diagonal][..., None]
        kind = "positive and finite" if self.definite else "finite and not zero"
        advice = "check that A is positive definite, or use" if self.definite else "use"
        broken = faults(
            pattern,
            failed >= 0,
            lambda item: (
                f"{type(self).__name__}: the pivot of row {failed[item]} is not {kind}: {advice} another preconditioner"
            ),
        )
        return _swept(pattern, values, pivots, broken)


@dataclass(frozen=True)
class ILU0(_Incomplete):
    """Incomplete LU factorization without fill-in, on the pattern of a sparse A.

    A ≈ L U with L and U on the stored places of A. Set-up and application cost a few products with A, in sequence;
    nnz numbers.

    Parameters
    ----------
    shift : float, optional
        Added to the diagonal before, relative to it; None tries 0, and then more where a pivot fails.

    Notes
    -----
    *Requires* a stored diagonal. *Fails with* BREAKDOWN (a pivot is zero whatever the shift). Not Hermitian in
    general: not for CG or MINRES.

    References
    ----------
    Meijerink and van der Vorst 1977, doi:10.1090/S0025-5718-1977-0438681-4; Saad 2003, Iterative Methods for Sparse
    Linear Systems, 2nd edition, algorithm 10.4.

    Examples
    --------
    >>> from backsolve import gallery, solve_with_info
    >>> p = gallery.problem("convection", 900)
    >>> [int(solve_with_info(p.A, p.b, method="gmres", M=M).stats.iterations) for M in (None, "ilu0")]
    [109, 8]
    """

    shift: float | None = None

    name: ClassVar[str] = "ilu0"

    def explain(self, A: Any) -> str:
        """ILU(0)."""
        return "incomplete LU factors on the pattern of A"


@dataclass(frozen=True)
class IC0(_Incomplete):
    """Incomplete Cholesky factorization without fill-in, A ≈ L Lᴴ on the pattern of a sparse, definite A.

    It exists for M-matrices (Meijerink and van der Vorst 1977); for others, where a pivot is not positive, the
    diagonal is raised until all are (Manteuffel 1980).

    Parameters
    ----------
    shift : float, optional
        Added to the diagonal before, relative to it; None tries 0, and then more where a pivot fails.

    Notes
    -----
    *Requires* a Hermitian positive definite A with a stored diagonal. *Fails with* BREAKDOWN (a pivot is not positive
    whatever the shift). Iterations fall by a factor of about three against Jacobi's and still grow like 1/h.

    References
    ----------
    Manteuffel 1980, doi:10.1090/S0025-5718-1980-0559197-0; Saad 2003, section 10.3.
    """

    shift: float | None = None

    name: ClassVar[str] = "ic0"
    hermitian: ClassVar[bool] = True
    definite: ClassVar[bool] = True

    def explain(self, A: Any) -> str:
        """IC(0)."""
        return "incomplete Cholesky factors on the pattern of A"


@dataclass(frozen=True)
class MIC(_Incomplete):
    """Relaxed modified incomplete Cholesky factorization on the pattern of a sparse, definite A.

    As `IC0`, but of what is dropped `relaxation` times the sum goes to the diagonal. On discretized elliptic
    problems the iterations then grow like h^(-1/2) instead of 1/h (Gustafsson 1978).

    Parameters
    ----------
    relaxation : float
        Between 0, which is IC(0), and 1, which keeps the row sums of A and may fail.
    shift : float, optional
        As for `IC0`.

    Notes
    -----
    *Requires* and *fails with*: as `IC0`.

    References
    ----------
    Gustafsson 1978, doi:10.1007/BF01931691; Axelsson and Lindskog 1986, doi:10.1007/BF01389448.
    """

    relaxation: float = 0.99
    shift: float | None = None

    name: ClassVar[str] = "mic"
    hermitian: ClassVar[bool] = True
    definite: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.relaxation, int | float) or not 0 <= self.relaxation <= 1:
            raise ValueError(f"MIC: relaxation must be a float in [0, 1]; got {describe(self.relaxation)}.")

    def explain(self, A: Any) -> str:
        """MIC, and its relaxation."""
        return f"modified incomplete Cholesky factors on the pattern of A, relaxation {self.relaxation:g}"
