"""What is proved, or estimated, of the smallest eigenvalue and of the norm of an inverse.

For a symmetric A, a positive diagonal M and any w > 0, Gershgorin's discs of W⁻¹M⁻¹A W lie right of
min_i (⟨A⟩w)_i / (m_i w_i), where ⟨A⟩ has |a_ii| on its diagonal and -|a_ij| elsewhere, so that is a lower bound for the
eigenvalues of M⁻¹A, whatever w. With w = 1 it is dominance of the rows; w from inverse iteration with ⟨A⟩ gives
λ_min(M⁻¹⟨A⟩) in the limit (Collatz and Wielandt), which is λ_min(M⁻¹A) where A is an M-matrix, as graph Laplacians and
two-point fluxes are. How w was found is no part of the proof.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import onenormest

from ..factorization import Factorization, factorize
from ..interop.scipy import as_scipy_operator
from .rounding import gamma

__all__ = ["estimated_inverse_norm", "proven_inverse_norm", "proven_mu"]

SWEEPS = 20
"""Inverse iterations for w at most; they end when one gains less than a hundredth."""


def proven_mu(form: Any, m: np.ndarray) -> float:
    """A lower bound for the eigenvalues of M⁻¹A, M = diag(m); not positive if none could be proved."""
    n = form.shape[0]
    if n == 0 or not (m > 0).all():
        return 0.0
    comparison = _comparison(form.matrix)
    w = np.ones(n)
    best = float(_ratios(form, comparison, m, w).min())
    F = factorize(comparison, on_failure="return")
    for _ in range(SWEEPS):
        w = F.solve(m * w)
        if not (np.isfinite(w).all() and (w > 0).all()):
            break
        w = w / w.max()
        found = float(_ratios(form, comparison, m, w).min())
        if found <= 1.01 * best:
            return max(best, found)
        best = found
    return best


def _comparison(A: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(2 * sp.diags_array(np.abs(A.diagonal())) - abs(A))


def _ratios(form: Any, comparison: sp.csr_array, m: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(⟨A⟩w)_i / (m_i w_i), rounded down; the assembled A is off by γ times its majorant."""
    longest = int(np.diff(comparison.indptr).max(initial=0))
    off = gamma(2 * form.terms + longest + 4) * (form.majorant @ w)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ratios = (comparison @ w - off) / (m * w)
    return np.where(np.isfinite(ratios), ratios, 0.0) * (1 - gamma(4))


def proven_inverse_norm(form: Any) -> float:
    """An upper bound for ‖A⁻¹‖₂ of a diagonally dominant A, symmetric or not; infinite if none could be proved.

    ‖A⁻¹‖∞ ≤ 1/min row margin (Varah 1975), ‖A⁻¹‖₁ ≤ 1/min column margin, and ‖·‖₂² ≤ ‖·‖₁‖·‖∞, ‖·‖₂ ≤ √n ‖·‖∞.
    """
    one = np.ones(form.shape[0])
    comparison = _comparison(form.matrix)
    margins = [
        float(_ratios(_Transposed(form) if by_columns else form, C, one, one).min(initial=np.inf))
        for by_columns, C in ((False, comparison), (True, sp.csr_array(comparison.T)))
    ]
    rows, columns = (1 / margin if margin > 0 else np.inf for margin in margins)
    root = np.sqrt(form.shape[0])
    return float(min(np.sqrt(rows * columns), root * rows, root * columns)) * (1 + gamma(8))


class _Transposed:
    """What `_ratios` asks of a form, for the columns."""

    def __init__(self, form: Any):
        self.terms, self.majorant = form.terms, sp.csr_array(form.majorant.T)


def estimated_inverse_norm(F: Factorization) -> float:
    """√(‖A⁻¹‖₁ ‖A⁻¹‖∞) as Higham and Tisseur's algorithm finds them, from below: most often equal, never proved."""
    forward, adjoint = as_scipy_operator(F), as_scipy_operator(F.adjoint)
    few = min(F.shape[0], 2)
    norms: list[Any] = [onenormest(inverse, t=few) for inverse in (forward, adjoint)]
    return float(np.sqrt(norms[0] * norms[1]))
