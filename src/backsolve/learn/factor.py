"""Incomplete Cholesky factors that a small network corrects: what learned ones are exported to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..preconditioners import IC0, AbstractPreconditioner, Prepared

__all__ = ["CorrectedFactor", "Elimination", "corrections", "eliminated"]

NODES, EDGES = 3, 2
"""Numbers that are known of each unknown, and of each entry."""

REACH = (0.2, 0.5)
"""Of the logarithms of what entries and pivots are multiplied by."""

_GROWTH = 1.25
"""Of a column sum |l_ij| / d_j beyond 1, or beyond that of IC(0)."""


@dataclass(frozen=True, eq=False)
class Elimination:
    """IC(0) of some matrices on one pattern, M⁻¹ = (L + D) D⁻¹ (D + Lᵀ), and what the network is told of it."""

    values: np.ndarray
    """L + D + Lᵀ on the places of A: (batch, nnz)."""
    pivots: np.ndarray
    """D: (batch, n)."""
    lower: np.ndarray
    """Places of the entries below the diagonal."""
    upper: np.ndarray
    """Places of their transposes."""
    columns: np.ndarray
    """Column of each entry below the diagonal."""
    growth: np.ndarray
    """What Σ_i |l_ij| / d_j may be in each column j: (batch, n)."""
    nodes: np.ndarray
    """(batch, n, NODES): pivot and row sum of what was dropped, both over a_ii, and excess of the diagonal."""
    edges: np.ndarray
    """(batch, lower, EDGES + 2 NODES): entries of A and L, scaled by the diagonal, and the unknowns that they join."""
    broken: dict[int, str]


def eliminated(pattern: Any, data: np.ndarray) -> Elimination:
    """Eliminate matrices with values (batch, nnz), and describe what came of it; nothing depends on their scale."""
    shifts = (0.0, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
    values, failed = pattern.eliminate_incompletely(np.ascontiguousarray(data, float), shifts, 0.0, True)
    rows, columns = np.asarray(pattern.rows), np.asarray(pattern.indices)
    lower = np.flatnonzero(rows > columns)
    upper = np.asarray(pattern.t_slot)[lower]
    gaps = np.abs(data - data[:, pattern.t_slot]).max(axis=1, initial=0.0)
    sizes, broken = np.abs(data).max(axis=1, initial=0.0), {}
    for item in range(len(data)):
        if failed[item] >= 0:
            broken[item] = (
                f"CorrectedFactor: the pivot of row {failed[item]} is not positive and finite: check that A is "
                "positive definite"
            )
        elif gaps[item] > 1e3 * np.finfo(data.dtype).eps * sizes[item]:
            broken[item] = f"CorrectedFactor: A must be symmetric; A - Aᵀ has an entry of {gaps[item]:.1e}: use 'ilu0'"
    with np.errstate(all="ignore"):
        d, pivots = data[:, pattern.diagonal].astype(float), values[:, pattern.diagonal]
        ones = np.ones((len(data), pattern.shape[0], 1))
        # (L + D) D⁻¹ (D + Lᵀ) 1 with the parts of `values`
        part = values.copy()
        part[:, lower] = 0
        up = pattern.matvec(part, ones) / pivots[..., None]
        part = values.copy()
        part[:, upper] = 0
        dropped = (pattern.matvec(part, up) - pattern.matvec(data.astype(float), ones))[..., 0]
        moduli = pattern.matvec(np.abs(data).astype(float), ones)[..., 0]
        nodes = np.stack([pivots / d - 1, dropped / d, moduli / d - 2], axis=-1)
        i, j = rows[lower], columns[lower]
        growth = _GROWTH * np.maximum(1, column_sums(j, values[:, lower], pattern.shape[0]) / pivots)
        entries = np.stack(
            [data[:, lower] / np.sqrt(d[:, i] * d[:, j]), values[:, lower] / np.sqrt(pivots[:, i] * pivots[:, j])], -1
        )
        edges = np.concatenate([entries, nodes[:, i], nodes[:, j]], axis=-1)
    return Elimination(values, pivots, lower, upper, j, growth, nodes, edges, broken)


def column_sums(columns: np.ndarray, entries: np.ndarray, n: int) -> np.ndarray:
    """Sums of moduli (batch, n) of entries (batch, lower)."""
    return np.stack([np.bincount(columns, np.abs(values), n) for values in entries])


# With L + D = (I + L D⁻¹) D the inverse of the first factor is Σ_k (-L D⁻¹)^k, as many terms as the graph of L is deep.
# If no column sum |l_ij| / d_j exceeds g, they grow like g^k at most (in the norm of column sums). MIC has g = 1 for
# M-matrices, as (D + Lᵀ) 1 = D (L + D)⁻¹ A 1 >= 0 if A 1 >= 0. So pivots are raised where g would exceed 1.25, or 1.25
# times that of IC(0): what is definite on paper for all weights is so in rounding. With g = 1 networks learn to touch
# the bound everywhere, as exact MIC does, which is worse than relaxed MIC.


def corrections(xp: Any, weights: Any, features: Any, reach: float) -> Any:
    """Factors between e^-reach and e^reach from features (..., m), by a network of one hidden layer."""
    first, bias, second, last = weights
    return xp.exp(reach * xp.tanh((xp.tanh(features @ first + bias) @ second + last) / reach))


@dataclass(frozen=True, eq=False)
class CorrectedFactor(AbstractPreconditioner):
    """M⁻¹ = (L + D) D⁻¹ (D + Lᵀ), factors of IC(0) whose entries and pivots a network multiplies by positive numbers.

    The network sees each entry, the two unknowns that it joins, and what IC(0) dropped in their rows, all over the
    diagonal of A: so it serves for matrices of any size and scale. Positive definite for all weights, as pivots stay
    positive, and large enough for the entries in their columns.

    Parameters
    ----------
    entries : (array (8, h), array (h,), array (h,), float)
        Weights for the entries of L.
    pivots : (array (3, h), array (h,), array (h,), float)
        Weights for D.

    Notes
    -----
    *Requires* a real symmetric positive definite sparse A with a stored diagonal, for which IC(0) exists. *Fails with*
    BREAKDOWN where it does not.

    References
    ----------
    Meijerink and van der Vorst 1977, doi:10.1090/S0025-5718-1977-0438681-4 (IC(0)).
    """

    entries: Any
    pivots: Any

    name: ClassVar[str] = "corrected_factor"
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        for name, count in (("entries", EDGES + 2 * NODES), ("pivots", NODES)):
            object.__setattr__(self, name, _weights(name, getattr(self, name), count))

    def refuse(self, A: Any) -> str | None:
        """As IC(0), for real A."""
        if "complex" in str(A.data.dtype):
            return "is for real A: use 'ic0'"
        if A.structure.kind == "csr" and A.structure.symmetry < 1:
            return "is for symmetric A: use 'ilu0'"
        return IC0().refuse(A)

    def explain(self, A: Any) -> str:
        """Where the factors come from."""
        return "incomplete Cholesky factors on the pattern of A, corrected by a network"

    def prepare(self, A: Any) -> Prepared:
        """Eliminate, and correct."""
        pattern, data = A.structure, A.data
        found = eliminated(pattern, data)
        with np.errstate(all="ignore"):
            entries = found.values[:, found.lower] * corrections(np, self.entries, found.edges, REACH[0])
            sums = column_sums(found.columns, entries, pattern.shape[0])
            pivots = np.maximum(found.pivots * corrections(np, self.pivots, found.nodes, REACH[1]), sums / found.growth)
        values = np.empty_like(found.values)
        values[:, found.lower], values[:, found.upper] = entries, entries
        values[:, pattern.diagonal] = pivots
        values, middle = values.astype(data.dtype), pivots[..., None].astype(data.dtype)
        solve = pattern.solve_triangular

        def apply(v: np.ndarray, adjoint: bool) -> np.ndarray:
            return solve(values, solve(values, v, True) * middle, False)

        return Prepared(apply, found.broken, values.nbytes)


def _weights(name: str, given: Any, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    try:
        first, bias, second, last = (np.array(w, float) for w in given)
    except (TypeError, ValueError):
        first, bias, second, last = np.zeros((4, 0))
    if first.ndim != 2 or len(first) != count or not bias.shape == second.shape == first.shape[1:] or last.ndim:
        raise ValueError(
            f"CorrectedFactor: {name} must be weights of shapes ({count}, h), (h,), (h,) and (); got {describe(given)}."
        )
    if not all(np.isfinite(w).all() for w in (first, bias, second, last)):
        raise ValueError(
            f"CorrectedFactor: {name} must be finite; a weight is not: train again with a smaller lr, or load a "
            "checkpoint."
        )
    return first, bias, second, float(last)
