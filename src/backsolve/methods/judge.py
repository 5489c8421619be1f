"""The verdict on a solve, from norms of its true residual."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pattern import NORMS
from ..solution import Stats
from ..status import Status
from .base import Target

__all__ = ["B_MAX", "OMEGA", "X_MAX", "met_status", "on_target", "stats_of", "statuses"]

R_MAX, X_MAX, B_MAX, OMEGA, R_SCALED, B_SCALED, R_SQUARE, B_SQUARE = range(len(NORMS))


def met_status(target: Target) -> Status:
    """What a column is that meets its target."""
    return Status.CONVERGED_BACKWARD if target.rtol is None and target.atol is None else Status.CONVERGED_RESIDUAL


def on_target(norms: np.ndarray, norm_A: np.ndarray, n: int, eps: float, target: Target) -> np.ndarray:
    """Whether each column meets its target: (batch, k) booleans, False for NaN.

    norm(r, 2) <= max(rtol norm(b, 2), atol) where a tolerance is given, otherwise
    norm(r, inf) <= 10 sqrt(n) eps (norm(A, inf) norm(x, inf) + norm(b, inf)).
    """
    if met_status(target) is Status.CONVERGED_RESIDUAL:
        atol = 0.0 if target.atol is None else target.atol
        bound = np.maximum((target.rtol or 0.0) * np.sqrt(norms[..., B_SQUARE]), atol)
        return np.sqrt(norms[..., R_SQUARE]) <= bound
    scale = norm_A[:, None] * norms[..., X_MAX] + norms[..., B_MAX]
    return norms[..., R_MAX] <= 10 * np.sqrt(n) * eps * scale


def statuses(norms: np.ndarray, met: np.ndarray, target: Target, failed: np.ndarray) -> np.ndarray:
    """Status of each item, (batch,) int32: that of its worst column, or of its factorization where that failed."""
    good = met_status(target)
    # Where the residual, rows scaled alike, is no smaller than that of x = 0, nothing of the equation is
    # solved: x is dominated by a null vector, however small the backward error.
    b_scaled = norms[..., B_SCALED]
    lost = (norms[..., R_SCALED] > 0.5 * b_scaled) & (b_scaled > 0)
    if met.all() and not lost.any() and not failed.any():
        return np.full(len(norms), good, np.int32)
    columns = np.where(met, good, Status.INACCURATE)
    columns[lost | ~np.isfinite(norms[..., X_MAX])] = Status.SINGULAR
    columns[~np.isfinite(norms[..., B_MAX])] = Status.NONFINITE
    status = columns.min(axis=-1, initial=good).astype(np.int32)
    status[failed != 0] = failed[failed != 0]
    return status


def stats_of(norms: np.ndarray, norm_A: np.ndarray, back: Any, **counts: Any) -> Stats:
    """Stats of each item, the worst over its columns; `back` undoes the scaling of the columns."""
    with np.errstate(all="ignore"):
        r, b = np.sqrt(norms[..., R_SQUARE]), np.sqrt(norms[..., B_SQUARE])
        scale = norm_A[:, None] * norms[..., X_MAX] + norms[..., B_MAX]
        columns = {
            "residual_norm": r * back,
            "relative_residual": _ratio(r, b),
            "backward_error": _ratio(norms[..., R_MAX], scale),
            "componentwise_error": norms[..., OMEGA],
        }
        return Stats(**{k: v.max(axis=-1, initial=0.0) for k, v in columns.items()}, **counts)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a == 0, 0.0, a / b)
