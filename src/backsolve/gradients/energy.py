"""Upper bounds for ‖e‖_A of e = A⁻¹r, with A symmetric positive definite and 0 < μ ≤ λ_min(M⁻¹A).

Conjugate gradients on A e = r from zero, with M as preconditioner, give steps α_j and residuals r_j with

    Σ_{j<k} α_j r_jᵀM⁻¹r_j ≤ ‖e‖²_A ≤ Σ_{j<k} α_j r_jᵀM⁻¹r_j + γ_k r_kᵀM⁻¹r_k,
    γ_0 = 1/μ,  γ_{k+1} = (γ_k - α_k) / (μ(γ_k - α_k) + β_{k+1})            (Gauss-Radau; Meurant and Tichý 2013),

in exact arithmetic: they rest on the conjugacy of directions, which rounding destroys. What is certified here does not.
For *any* ê, with s = r - Aê,

    ‖e‖²_A = rᵀA⁻¹r = rᵀê + êᵀs + sᵀA⁻¹s ≤ rᵀê + êᵀs + ‖s‖²_{M⁻¹}/μ,

and every term is computed with a bound for its rounding. ê is what conjugate gradients arrive at, which make the last
term small; at k = 0 both bounds are ‖r‖²_{M⁻¹}/μ. The recurrence serves to find a μ that is too large: γ_k < α_k says
that a Ritz value, and so λ_min, is below μ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .rounding import dot_up, gamma, norm_up

__all__ = ["DOUBT", "REST", "Energy", "energy_norm"]

REST = 1e-3
"""Iterations stop when the last term is at most this part of the whole."""
DOUBT = 1e-12
"""The same for a μ that may be too large: Ritz values get nearer to λ_min, which shows it."""


class Energy(NamedTuple):
    """Bounds for ‖A⁻¹r‖_A."""

    upper: float
    """Holds with all rounding."""
    plain: float
    """Bound for ‖A⁻¹r‖₂ likewise: ‖ê‖₂ + ‖A⁻¹s‖₂, with ‖·‖₂ ≤ ‖A⁻¹‖₂^½ ‖·‖_A."""
    radau: float
    """Upper bound by Gauss-Radau quadrature, of exact arithmetic."""
    lower: float
    """Lower bound by Gauss quadrature, of exact arithmetic."""
    iterations: int
    mu_too_large: bool
    """Whether μ was seen to be above λ_min(M⁻¹A), or A not to be definite: then `upper` is no bound."""


def energy_norm(
    form: Any, m: np.ndarray, mu: float, r: np.ndarray, off: np.ndarray, share: float = REST, maxiter: int = 2000
) -> Energy:
    """Bounds for the norms of A⁻¹(r + δ) with |δ| ≤ off, M = diag(m); one product with A for each iteration."""
    correction, steps, radau, iterations, wrong = _conjugate_gradients(form, m, mu, r, share, maxiter)
    inverse = (1 / m) * (1 + gamma(0))
    product, rounding = form.apply(correction)
    s = r - product
    rounding = rounding + gamma(0) * (np.abs(r) + np.abs(product))
    rest, unseen = (norm_up(v, inverse) / np.sqrt(mu) for v in (np.abs(s) + rounding, off))
    size = np.abs(correction)
    square = dot_up(r, correction) + dot_up(correction, s) + dot_up(size, rounding) + rest**2
    upper = (np.sqrt(max(square, 0.0)) + unseen) * (1 + gamma(8))
    root = 1 / np.sqrt(mu * float(m.min(initial=np.inf)))
    plain = min(norm_up(correction) + root * (rest + unseen), root * upper) * (1 + gamma(8))
    return Energy(float(upper), float(plain), float(np.sqrt(steps + radau)), float(np.sqrt(steps)), iterations, wrong)


def _conjugate_gradients(form: Any, m: np.ndarray, mu: float, r: np.ndarray, share: float, maxiter: int):
    """ê, Σ α_j r_jᵀz_j, γ_k r_kᵀz_k, k, and whether μ is too large. Scaled, so that no product underflows."""
    n = len(r)
    x, scale = np.zeros(n), float(np.abs(r).max(initial=0.0))
    if scale == 0:
        return x, 0.0, 0.0, 0, False
    scale = 2.0 ** np.floor(np.log2(scale))
    r = r / scale
    z = r / m
    p, rz = z, float(r @ z)
    steps, node, iterations, wrong = 0.0, 1 / mu, 0, False
    while iterations < maxiter and rz > 0 and rz / mu > share * steps:
        Ap = form.apply(p)[0]
        curvature = float(p @ Ap)
        if curvature <= mu * float(p @ (m * p)) * (1 - 1e-8):  # the Rayleigh quotient of M⁻¹A is at least λ_min
            wrong = True
            break
        alpha = rz / curvature
        excess = node - alpha
        if excess < -1e-8 * alpha:
            wrong = True
            break
        x, r = x + alpha * p, r - alpha * Ap
        z = r / m
        steps, iterations = steps + alpha * rz, iterations + 1
        rz, before = float(r @ z), rz
        beta = rz / before
        p = z + beta * p
        if excess <= 1e-8 * alpha or beta == 0:  # r is an eigenvector: nothing is left but rounding
            node = 0.0
            break
        node = excess / (mu * excess + beta)
    return scale * x, scale**2 * steps, scale**2 * node * rz, iterations, wrong
