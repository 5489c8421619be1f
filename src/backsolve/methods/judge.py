"""The verdict on a solve, from norms of its true residual."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from .. import _kernels
from ..pattern import NORMS, largest_summable
from ..solution import Stats
from ..status import Status
from .base import Target

__all__ = [
    "A_MAX",
    "OMEGA",
    "X_MAX",
    "boundless",
    "in_doubt",
    "met_status",
    "nonfinite_sentence",
    "on_target",
    "settled",
    "standard",
    "stats_of",
    "statuses",
    "unsafe_exponents",
    "unsolved",
]

A_MAX, R_MAX, X_MAX, B_MAX, OMEGA, R_SCALED, B_SCALED, R_SQUARE, B_SQUARE, X_SQUARE, CURVATURE = range(len(NORMS))


SAFE_RANGE = {True: (1e-120, 1e120, 1000), False: (1e-15, 1e15, 120)}
"""Of double precision, and of single: sizes of b that need no scaling, and the largest binary exponent to scale by."""


_COUNTS = ("refinements", "iterations", "matvecs", "factorizations", "copies")


def met_status(target: Target) -> Status:
    """What a column is that meets its target."""
    return Status.CONVERGED_BACKWARD if target.rtol is None and target.atol is None else Status.CONVERGED_RESIDUAL


def settled(norms: np.ndarray, n: int, eps: float, target: Target, definite: bool) -> bool:
    """Whether nothing is left to do or to say: every column accurate, on target, and in the safe range."""
    return _kernels.settled(np.ascontiguousarray(norms, np.float64), standard(n, eps, target, definite))


def standard(n: int, eps: float, target: Target, definite: bool = False) -> tuple[float, ...]:
    """What a column must meet to be settled, for the kernel: `on_target`, no doubt, in range; csrc/verdict.hpp."""
    low, high, _ = SAFE_RANGE[eps < 1e-10]
    return (
        4 * eps,
        10 * sqrt(n) * eps,
        sqrt(eps),
        low,
        high,
        largest_summable(np.float64, n),
        target.rtol or 0.0,
        0.0 if target.atol is None else target.atol,
        float(met_status(target) is Status.CONVERGED_RESIDUAL),
        float(definite),
    )


def unsafe_exponents(norms: np.ndarray, eps: float) -> np.ndarray | None:
    """Binary exponents of columns near the ends of the floating-point range, 0 for safe ones; None if all are safe.

    Products of such a column with the factors, and its squared norm, would underflow or overflow.
    """
    low, high, reach = SAFE_RANGE[eps < 1e-10]
    b_max = norms[..., B_MAX]
    unsafe = ((b_max < low) & (b_max > 0)) | ((b_max > high) & np.isfinite(b_max))
    if not unsafe.any():
        return None
    return np.where(unsafe, np.clip(np.frexp(b_max)[1], -reach, reach), 0).astype(float)


def on_target(norms: np.ndarray, n: int, eps: float, target: Target) -> np.ndarray:
    """Whether each column meets its target: (batch, k) booleans, False for NaN.

    norm(r, 2) <= max(rtol norm(b, 2), atol) where a tolerance is given, otherwise
    norm(r, inf) <= 10 sqrt(n) eps (norm(A, inf) norm(x, inf) + norm(b, inf)).
    """
    if met_status(target) is Status.CONVERGED_RESIDUAL:
        atol = 0.0 if target.atol is None else target.atol
        bound = np.maximum((target.rtol or 0.0) * np.sqrt(norms[..., B_SQUARE]), atol)
        return np.sqrt(norms[..., R_SQUARE]) <= bound
    scale = norms[..., A_MAX] * norms[..., X_MAX] + norms[..., B_MAX]
    return norms[..., R_MAX] <= 10 * np.sqrt(n) * eps * scale


def statuses(
    norms: np.ndarray, met: np.ndarray, target: Target, failed: np.ndarray, definite: bool, lost: np.ndarray
) -> np.ndarray:
    """Status of each item, (batch,) int32: that of its worst column, or of its factorization where that failed.

    `lost`, (batch, k), marks columns without a right digit.
    """
    good = met_status(target)
    wrong = _negative_curvature(norms) if definite else np.zeros_like(lost)
    if met.all() and not (lost | wrong).any() and not failed.any():
        return np.full(len(norms), good, np.int32)
    columns = np.where(met, good, Status.INACCURATE)
    columns[met & wrong] = Status.INDEFINITE
    columns[lost | ~np.isfinite(norms[..., X_MAX])] = Status.SINGULAR
    columns[~np.isfinite(norms[..., B_MAX] + norms[..., A_MAX])] = Status.NONFINITE
    status = columns.min(axis=-1, initial=good).astype(np.int32)
    status[failed != 0] = failed[failed != 0]
    return status


def _negative_curvature(norms: np.ndarray) -> np.ndarray:
    """Columns with Re xᴴ b < 0, which no positive definite matrix has: xᴴ b = xᴴ A x."""
    return norms[..., CURVATURE] < -1e-6 * np.sqrt(norms[..., X_SQUARE] * norms[..., B_SQUARE])


def in_doubt(norms: np.ndarray, eps: float) -> np.ndarray:
    """Columns whose residual, rows scaled alike, leaves half the digits of b unsolved: x may hold a null vector."""
    return norms[..., R_SCALED] > sqrt(eps) * norms[..., B_SCALED]


def unsolved(norms: np.ndarray) -> np.ndarray:
    """Columns of whose equation nothing is solved: the residual, rows scaled alike, is about that of x = 0.

    Their x is dominated by a null vector, however small the backward error.
    """
    b_scaled = norms[..., B_SCALED]
    return (norms[..., R_SCALED] > 0.5 * b_scaled) & (b_scaled > 0)


def boundless(norms: np.ndarray, eps: float) -> np.ndarray:
    """Columns of x so large that their factors are singular by far: norm(A) norm(x) > norm(b) / eps².

    A regular matrix has norm(A⁻¹) norm(A) < 1/eps or so, and pivots that were left as they are do not make it 1/eps².
    """
    return norms[..., A_MAX] * norms[..., X_MAX] * eps > norms[..., B_MAX] / eps


def stats_of(norms: np.ndarray, correction: Any = np.nan, **counts: Any) -> Stats:
    """Stats of each item, the worst over its columns; counts that are not given are zero."""
    made = {name: np.zeros(len(norms), np.int32) for name in _COUNTS} | counts
    made["correction"] = np.broadcast_to(np.asarray(correction, float), len(norms))
    made["error_bound"] = np.full(len(norms), np.nan)
    with np.errstate(all="ignore"):
        r, b = np.sqrt(norms[..., R_SQUARE]), np.sqrt(norms[..., B_SQUARE])
        scale = norms[..., A_MAX] * norms[..., X_MAX] + norms[..., B_MAX]
        columns = {
            "residual_norm": r,
            "relative_residual": _ratio(r, b),
            "backward_error": _ratio(norms[..., R_MAX], scale),
            "componentwise_error": norms[..., OMEGA],
        }
        return Stats(**{k: v.max(axis=-1, initial=0.0) for k, v in columns.items()}, **made)


def nonfinite_sentence(what: str, array: Any, structure: Any) -> str:
    """Say which number of A, or of right-hand sides, is not finite."""
    value, place = structure.first_nonfinite(array)
    if not place:
        return f"{what} has numbers so large that their sum overflows: scale it"
    if len(place) == 2:  # values on a Pattern
        place = (place[0], *structure.entry(place[1]))
    item, row, column = place
    of = f" of system {item}" if len(array) > 1 else ""
    return f"{what} has {value} in row {row}, column {column}{of}"


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a == 0, 0.0, a / b)
