"""Whether A is an H-matrix, or an M-matrix: answers that are certain, or none.

The comparison matrix ⟨A⟩ has |a_ii| on the diagonal and -|a_ij| beside it. A is a (nonsingular) H-matrix if and only if
⟨A⟩ w > 0 for some w > 0, and is none if and only if ⟨A⟩ u <= 0 for some u >= 0 other than zero (Fiedler and Pták 1962;
Berman and Plemmons 1994, chapter 6). It is an M-matrix if besides A = ⟨A⟩. A vector w or u that has been checked with
the rounding of the check is a proof, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order

from .entries import TINY, Entries, gamma
from .values import Dominance

__all__ = ["Verdict", "h_matrix", "m_matrix"]

_SWEEPS = 30


@dataclass(frozen=True, eq=False)
class Verdict:
    """A proven answer, or none."""

    holds: bool | None
    """True or False if proven, None if unknown."""
    witness: str
    """What proves it, or why nothing does."""
    vector: np.ndarray | None = field(default=None, repr=False)
    """The vector that proves it, where it takes one: (n,)."""

    def __str__(self) -> str:
        return f"{ {True: 'yes', False: 'no', None: 'unknown'}[self.holds] }: {self.witness}"


def h_matrix(A: Entries, margins: Dominance, solve: Callable | None) -> Verdict:
    """Try dominance, chains, sweeps of Jacobi, and at last the solution of ⟨A⟩ w = |diag A|.

    Parameters
    ----------
    solve : callable or None
        ``solve(matrix, b)`` solves with a sparse matrix; None if that is beyond the budget.
    """
    comparison = _Comparison(A)
    if (zero := np.flatnonzero(comparison.diagonal == 0)).size:
        return Verdict(False, f"diagonal entry {zero[0]} is zero", _unit(A.n, int(zero[0])))
    for found, lines, graph in (
        (margins.rows, "row", A.graph),
        (margins.columns, "column", A.graph.T),
    ):
        if (found > 0).all():
            return Verdict(True, f"every {lines} is strictly dominant", np.ones(A.n) if lines == "row" else None)
        if (found >= 0).all() and _all_reach(graph, found > 0):
            return Verdict(True, f"no {lines} lacks dominance, and each leads to a strictly dominant one")
        if not A.is_complex and (found <= 0).all():
            return Verdict(False, f"no {lines} is strictly dominant", np.ones(A.n) if lines == "row" else None)
    return comparison.sweep() or comparison.solve(solve) or Verdict(None, f"{_SWEEPS} sweeps of Jacobi leave it open")


def m_matrix(A: Entries, h: Verdict) -> Verdict:
    """An H-matrix with positive diagonal and no positive entry beside it; or whether -A is one."""
    real = np.where(A.wide.imag == 0, A.wide.real, np.nan)
    diagonal = np.where(A.diagonal.imag == 0, A.diagonal.real, np.nan)
    if A.n and h.holds and (diagonal < 0).all() and (real[A.beside] >= 0).all():
        return Verdict(False, "but -A is one, as an H-matrix of its signs", h.vector)
    on = np.flatnonzero(~(diagonal > 0))
    if on.size:
        return Verdict(False, f"diagonal entry {on[0]} is {A.diagonal[on[0]]:.3g}")
    beside = A.beside & ~(real <= 0)
    if beside.any():
        i, j = A.pattern.entry(int(np.argmax(beside)))
        return Verdict(False, f"entry ({i}, {j}) is {A.data[np.argmax(beside)]:.3g}")
    return Verdict(h.holds, "an H-matrix with the signs of one" if h.holds else h.witness, h.vector)


class _Comparison:
    """⟨A⟩ = D - B, with D and B not negative."""

    def __init__(self, A: Entries):
        self.A, self.diagonal = A, np.abs(A.diagonal)
        beside = np.where(A.beside, A.size, 0.0)
        self.beside = sp.csr_array((beside, A.pattern.indices, A.pattern.indptr), shape=A.pattern.shape)
        # A modulus errs by less than two roundings, a product and a row of sums by one each, the difference by one.
        self.rounding = gamma(A.degree + 6)

    def proves(self, w: np.ndarray) -> bool:
        """Whether w > 0 and ⟨A⟩ w > 0 for certain."""
        if not (np.isfinite(w).all() and (w > 0).all()):
            return False
        held, lost = self.diagonal * w, self.beside @ w
        return bool((held - lost > self.rounding * (held + lost) + TINY).all())

    def disproof(self, u: np.ndarray) -> np.ndarray | None:
        """u >= 0 with ⟨A⟩ u <= 0 for certain, by setting to zero what spoils it, if anything is left."""
        u = np.where(np.isfinite(u), np.maximum(u, 0.0), 0.0)
        for _ in range(_SWEEPS):
            held, lost = self.diagonal * u, self.beside @ u
            wrong = (u > 0) & ~(held - lost < -self.rounding * (held + lost) - TINY)
            if not wrong.any():
                return u if u.any() else None
            u = np.where(wrong, 0.0, u)
        return None

    @np.errstate(all="ignore")
    def sweep(self) -> Verdict | None:
        """w = Σ_{j<k} Jʲ 1 with J = D⁻¹ B has ⟨A⟩ w = D (1 - Jᵏ 1); powers of (I + J)/2 tend to a u if J expands."""
        term, w = np.ones(self.A.n), np.zeros(self.A.n)
        u = np.ones(self.A.n)
        for k in range(1, _SWEEPS + 1):
            w = w + term
            term = self.beside @ term / self.diagonal
            if term.max(initial=0.0) < 1 and self.proves(w):
                return Verdict(True, f"⟨A⟩ w > 0 for a w > 0 made by {k} sweeps of Jacobi", w)
            u = u + self.beside @ u / self.diagonal
            u = u / u.max(initial=1.0)
            if k in (_SWEEPS // 3, _SWEEPS) and (found := self.disproof(u)) is not None:
                return Verdict(False, f"⟨A⟩ u < 0 on {np.count_nonzero(found)} rows for a u >= 0", found)
        return None

    @np.errstate(all="ignore")
    def solve(self, solve: Callable | None) -> Verdict | None:
        """The w with D⁻¹⟨A⟩ w = 1 is positive for an H-matrix; -w, or what is left of it, is a u for another."""
        if solve is None:
            return None
        scaled = np.where(self.A.beside, -self.A.size, self.A.size) / self.diagonal[self.A.rows]
        matrix = sp.csr_array((scaled, self.A.pattern.indices, self.A.pattern.indptr), shape=self.A.pattern.shape)
        w = solve(matrix, np.ones(self.A.n))
        if w is None:
            return None
        if self.proves(w):
            return Verdict(True, "⟨A⟩ w > 0 for the w > 0 that solves ⟨A⟩ w = |diag A|", w)
        found = self.disproof(-w)
        if found is not None:
            return Verdict(False, f"⟨A⟩ u < 0 on {np.count_nonzero(found)} rows for a u >= 0", found)
        return None


def _all_reach(graph, strict: np.ndarray) -> bool:
    """Whether from every node some strict one is reached along the edges: a search backwards from all of those."""
    n = len(strict)
    if not strict.any():
        return False
    back = sp.coo_array(graph.T)
    targets = np.flatnonzero(strict)
    rows = np.concatenate((back.coords[0], np.full(len(targets), n)))
    columns = np.concatenate((back.coords[1], targets))
    whole = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n + 1, n + 1))
    return len(breadth_first_order(whole, n, return_predecessors=False)) == n + 1


def _unit(n: int, i: int) -> np.ndarray:
    e = np.zeros(n)
    e[i] = 1.0
    return e
