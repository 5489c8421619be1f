"""Whether a Hermitian matrix is definite: answers that are certain, or none."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .. import _kernels
from .comparison import Verdict
from .entries import TINY, UNIT, Entries, gamma
from .forecast import permuted
from .values import Symmetry

__all__ = ["Definiteness", "definiteness"]


@dataclass(frozen=True, eq=False)
class Definiteness:
    """A proven answer, or none."""

    kind: str
    """"positive definite", "negative definite", "indefinite" (with both signs), "not definite" (singular, or with one
    sign only known), "not Hermitian" or "unknown"."""
    witness: str
    """What proves it, or why nothing does."""
    vector: np.ndarray | None = field(default=None, repr=False)
    """v for which vᴴ A v has the other sign than the diagonal, where that is the proof: (n,)."""

    @property
    def holds(self) -> bool | None:
        """Whether A is positive or negative definite; None if unknown."""
        return {"positive definite": True, "negative definite": True, "unknown": None}.get(self.kind, False)

    def __str__(self) -> str:
        return f"{self.kind}: {self.witness}"


def definiteness(A: Entries, symmetry: Symmetry, h: Verdict, order: np.ndarray | None) -> Definiteness:
    """Look for a witness on the diagonal, in 2x2 minors and in dominance, then try Cholesky.

    Parameters
    ----------
    order : (n,) integers or None
        Place of each unknown in the elimination; None if a factorization is beyond the budget.
    """
    if symmetry.adjoint > symmetry.noise:
        return Definiteness("not Hermitian", "definiteness is a matter of Hermitian matrices")
    diagonal = A.diagonal.real
    positive, negative = bool((diagonal > 0).any()), bool((diagonal < 0).any())
    if positive and negative:
        i, j = int(np.argmax(diagonal > 0)), int(np.argmax(diagonal < 0))
        return Definiteness("indefinite", f"diagonal entries {i} and {j} have opposite signs")
    if not A.size.any():
        return Definiteness("not definite", "all entries are zero")
    sign = -1.0 if negative else 1.0
    name = "negative definite" if negative else "positive definite"
    if A.n and h.holds and symmetry.adjoint == 0 and (diagonal != 0).all():
        return Definiteness(name, f"an H-matrix with a {name.split()[0]} diagonal")
    if symmetry.adjoint == 0 and (found := _minor(A, diagonal)) is not None:
        return found
    if (diagonal == 0).any():
        return Definiteness("unknown", f"A is {symmetry.kind} only, with zeros on the diagonal")
    if order is None:
        return Definiteness("unknown", "a factorization is beyond the budget")
    return _cholesky(A, symmetry, sign, name, order)


def _minor(A: Entries, diagonal: np.ndarray) -> Definiteness | None:
    """A zero on the diagonal, or the smallest 2x2 minor; in exact arithmetic."""
    held = A.beside & (A.size > 0)
    if (zero := np.flatnonzero(diagonal == 0)).size:
        beside = np.flatnonzero(held & (diagonal[A.rows] == 0))
        if not beside.size:
            return Definiteness("not definite", f"diagonal entry {zero[0]} is zero")
        i, j = A.pattern.entry(int(beside[0]))
        return Definiteness("indefinite", f"diagonal entry {i} is zero and entry ({i}, {j}) is not")
    if not held.any():
        return None
    root = np.sqrt(np.abs(diagonal))
    with np.errstate(over="ignore"):
        at = int(np.argmax(np.where(held, A.size / root[A.rows] / root[A.columns], 0.0)))
    i, j = A.pattern.entry(at)
    a, b, real, imag = (Fraction(float(v)) for v in (diagonal[i], diagonal[j], A.wide[at].real, A.wide[at].imag))
    minor = a * b - real**2 - imag**2
    if minor > 0:
        return None
    return Definiteness("indefinite" if minor < 0 else "not definite", f"the 2x2 minor of rows {i} and {j} shows it")


def _cholesky(A: Entries, symmetry: Symmetry, sign: float, name: str, order: np.ndarray) -> Definiteness:
    """If Cholesky of D A D - c I runs to its end, c above its backward error, A is positive definite (Rump 2006).

    With D of powers of two, which is exact, the diagonal of D A D is about one. The computed factor is that of a matrix
    off by at most γ/(1 - γ) tr(D A D) in norm, γ the rounding of the longest inner product (Higham 2002, 10.1). A
    pivot that is not positive gives a v; A is not positive definite if vᴴ A v < 0 beyond the rounding of that sum.
    """
    scale = np.ldexp(1.0, -np.round(np.log2(np.abs(A.diagonal.real)) / 2).astype(int))
    with np.errstate(all="ignore"):
        scaled = sign * scale[A.rows] * A.wide * scale[A.columns]
        asymmetry = _asymmetry(A, scale) if symmetry.adjoint else 0.0
    modulus = np.abs(scaled)
    if not np.isfinite(scaled).all() or (modulus[A.size > 0] < 1e-280).any() or not np.isfinite(asymmetry):
        return Definiteness("unknown", "entries differ too much in size to be scaled exactly")
    pattern, places = permuted(A.pattern, order)
    values = np.zeros(pattern.nnz, scaled.dtype)
    values[places] = scaled
    core = pattern._core
    trace = float(np.abs(scaled[A.pattern.diagonal]).sum())
    rounding = gamma((_kernels.longest_row(core) + 4) * (4 if A.is_complex else 1))
    shift = 1.01 * (rounding / (1 - 2 * rounding) * trace + 8 * UNIT + asymmetry) + TINY
    row, v = _kernels.cholesky(core, values, shift)
    proof = "Cholesky" if symmetry.adjoint == 0 else f"Cholesky of the Hermitian part (A is {symmetry.kind})"
    if row < 0:
        return Definiteness(name, f"{proof} runs to the end with {shift:.0e} taken off the scaled diagonal")
    witness = scale * v[order]
    if _certainly_negative(A, sign, witness):
        return Definiteness("indefinite", f"vᴴA v has the other sign for a v, found by {proof}", witness)
    unknown = int(np.argmax(order == row))
    return Definiteness("unknown", f"{proof} breaks down at unknown {unknown}, at rounding level")


def _asymmetry(A: Entries, scale: np.ndarray) -> float:
    """Bound of the norm of D (A - Aᴴ) D."""
    difference: Any = A.matrix - A.matrix.conj().T
    difference = abs(difference.tocsr()).multiply(scale[:, None]).multiply(scale)
    return 1.01 * float(difference.sum(axis=1).max())


def _certainly_negative(A: Entries, sign: float, v: np.ndarray) -> bool:
    """Whether sign vᴴ A v is below zero by more than its rounding."""
    v = v / np.abs(v).max()
    weight = float(np.abs(v) @ (abs(A.matrix) @ np.abs(v)))
    rounding = gamma(4 * (A.n + A.degree + 4))
    return float(sign * np.vdot(v, A.matrix @ v).real) < -rounding * weight - TINY
