"""How far solutions move: a condition number from a few solves, and null vectors that can be seen.

N. J. Higham, F. Tisseur, A block algorithm for matrix 1-norm estimation, with an application to 1-norm pseudospectra,
SIAM J. Matrix Anal. Appl. 21(4), 2000, doi:10.1137/S0895479899356080.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..methods import Target
from ..status import Status
from .entries import Entries, gamma
from .graph import Structure
from .values import Dominance

__all__ = ["Engine", "Singularity", "condition", "singularity"]


_BLOCK, _EXACT = 2, 16


class Engine:
    """A method and what it has prepared for one set of values."""

    def __init__(self, method: Any, operator: Any):
        self.method, self.state, self.singular = method, method.prepare(operator), False

    def solve(self, b: np.ndarray, adjoint: bool = False) -> np.ndarray | None:
        """x for b of shape (n,) or (n, k); None if the matrix turns out to be singular or the solve fails."""
        columns = np.ascontiguousarray(b.reshape(1, len(b), -1), self.state.A.data.dtype)
        with np.errstate(all="ignore"):
            outcome = self.method.apply(self.state, columns, Target(), adjoint=adjoint)
        self.singular |= int(outcome.status[0]) == Status.SINGULAR
        usable = outcome.converged and bool(np.isfinite(outcome.x).all())
        return outcome.x.reshape(b.shape) if usable else None


class _FailedError(Exception):
    """A solve that the estimate needs has failed."""


def condition(A: Entries, engine: Engine) -> float:
    """Estimate ‖A‖₁ ‖A⁻¹‖₁ from below; inf if A is singular to working precision, NaN if a solve fails otherwise."""
    if A.n == 0:
        return 0.0

    def solve(b: np.ndarray, adjoint: bool = False) -> np.ndarray:
        x = engine.solve(b, adjoint)
        if x is None:
            raise _FailedError
        return x

    try:
        inverse = _norm_of_inverse(solve, A.n)
    except _FailedError:
        return float("inf" if engine.singular else "nan")
    return inverse * float(np.bincount(A.columns, A.size, A.n).max())


def _norm_of_inverse(solve: Callable, n: int) -> float:
    """Largest column sum of |A⁻¹|: of all if they are few, else by the block algorithm of Higham and Tisseur.

    A column with a large sum shows in the signs that A⁻¹ X has: the largest rows of A⁻ᴴ sign(A⁻¹ X) say which columns
    to try next. SciPy's `onenormest` does the same with random numbers of NumPy's global state; these have their own.
    The alternating vector of Higham 1988 guards against cancellation.
    """
    if n <= _EXACT:
        return float(np.abs(solve(np.eye(n))).sum(axis=0).max())
    rng, tried = np.random.default_rng(0), np.zeros(n, bool)
    X = np.where(rng.random((n, _BLOCK)) < 0.5, -1.0, 1.0) / n
    X[:, 0] = 1.0 / n
    alternating = np.where(np.arange(n) % 2, -1.0, 1.0) * (1 + np.arange(n) / (n - 1))
    best = 2 * float(np.abs(solve(alternating)).sum()) / (3 * n)
    least = 0.0
    for _ in range(5):
        Y = solve(X)
        found = float(np.abs(Y).sum(axis=0).max())
        if found <= least:
            break
        least = found
        S = np.where(Y == 0, 1.0, Y) / np.where(Y == 0, 1.0, np.abs(Y))
        if abs(np.vdot(S[:, 0], S[:, 1])) > n - 0.5:  # columns with the same signs would ask the same question
            S[:, 1] = np.where(rng.random(n) < 0.5, -1.0, 1.0)
        promise = np.abs(solve(S, True)).max(axis=1)
        promise[tried] = -1.0
        next_columns = np.argsort(-promise, kind="stable")[:_BLOCK]
        tried[next_columns] = True
        X = np.zeros((n, _BLOCK))
        X[next_columns, np.arange(_BLOCK)] = 1.0
    return max(best, least)


class Singularity(NamedTuple):
    """What shows without a factorization that A is singular, or as good as."""

    certain: bool
    """Whether A is singular in exact arithmetic."""
    reason: str
    """Why; empty if nothing shows."""


def singularity(A: Entries, structure: Structure, margins: Dominance) -> Singularity:
    """Look for empty lines, a deficient structural rank, and components whose rows sum to zero."""
    for name, lines in (("row", structure.empty_rows), ("column", structure.empty_columns)):
        if lines.size:
            more = f", and so do {lines.size - 1} more" if lines.size > 1 else ""
            return Singularity(True, f"{name} {lines[0]} has no entry other than zero{more}")
    if structure.rank < A.n:
        return Singularity(True, f"its structural rank is {structure.rank} of {A.n}")
    sums = np.zeros(A.n, A.wide.dtype)
    np.add.at(sums, A.rows, A.wide)
    size = np.bincount(A.rows, A.size, A.n)
    grounded = np.abs(sums) > gamma(A.degree + 2) * size
    # Where no sign cancels another, the margin is the sum of the row or its negative, without rounding.
    signed = np.where(A.beside, -A.wide.real, A.wide.real)
    mixed = np.ones(A.n, bool)
    for sign in (1, -1):
        mixed &= np.bincount(A.rows, (sign * signed < 0) | (A.wide.imag != 0), A.n) > 0
    exact = ~mixed & (margins.rows == 0)
    count, labels = structure.component_count, structure.components
    floating = np.flatnonzero(np.bincount(labels, grounded, count) == 0)
    if not floating.size:
        return Singularity(False, "")
    certain = bool((np.bincount(labels, ~exact, count)[floating] == 0).any())
    first, members = int(np.argmax(labels == floating[0])), int((labels == floating[0]).sum())
    what = f"the {members} unknowns of the component of unknown {first}" if count > 1 else "all unknowns"
    more = f" (and in {floating.size - 1} more components)" if floating.size > 1 else ""
    how = "" if certain else ", up to rounding"
    return Singularity(certain, f"rows sum to zero{how} over {what}{more}: constants are mapped to zero")
