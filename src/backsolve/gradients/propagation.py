"""Errors of approximate solutions, and what they do to a gradient.

For g_i = -λᵀB_i x, B_i = ∂A/∂θ_i, with x = x̃ + e and λ = λ̃ + ε,

    λᵀB_i x - λ̃ᵀB_i x̃ = λ̃ᵀB_i e + εᵀB_i x̃ + εᵀB_i e.                                             (1)

*Energy.* Let B_i = Σ g_r g_rᵀ ⪰ 0 and Σ θ_i B_i ⪯ cA. By Cauchy and Schwarz, over the rows r and then their sum,

    Σ_i θ_i |vᵀB_i w| ≤ ‖v‖_B ‖w‖_B,  ‖v‖²_B = Σ_i θ_i vᵀB_i v ≤ c‖v‖²_A,

so the 1-norm of θ_i times (1) is at most √c ‖λ̃‖_B ‖e‖_A + √c ‖x̃‖_B ‖ε‖_A + c ‖ε‖_A ‖e‖_A, without the condition
number; ‖λ̃‖_B and ‖x̃‖_B are sums over what is known. Without the factor θ_i, Σ_i |vᵀB_i w| is at most
(Σ_i vᵀB_i v / θ_i)^½ ‖w‖_B.

*Residual.* Else Σ_i |s_i λ̃ᵀB_i e| ≤ ‖w‖₂ ‖e‖₂, where w adds up what multiplies each |e_j| (`spread` of a form), and
‖e‖₂ ≤ ‖A⁻¹‖₂ ‖r‖₂.

Both are a‖e‖ + p‖ε‖ + q‖e‖‖ε‖: a `Sensitivity`.

If the cotangent was made from x̃ and is Lipschitz in x with the constant L, in the 2-norm, then λ = A⁻ᵀḡ(x) and
ε = A⁻ᵀ(ḡ(x̃) - Aᵀλ̃) + A⁻ᵀ(ḡ(x) - ḡ(x̃)), whose last term is at most L‖A⁻¹‖₂‖e‖₂ in the 2-norm, and L‖A⁻¹‖₂^½‖e‖₂ in the
energy norm, as ‖A⁻¹v‖_A = ‖v‖_{A⁻¹} ≤ ‖A⁻¹‖₂^½ ‖v‖₂.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .rounding import gamma, norm_up

__all__ = ["Sensitivity", "drift", "sensitivity_of"]


class Sensitivity(NamedTuple):
    """What errors of x and λ do to a gradient: a e + p ε + q e ε in the 1-norm."""

    of_x: float
    of_adjoint: float
    of_both: float

    def error(self, x_error: float, adjoint_error: float) -> float:
        """A bound for the error of the gradient."""
        a, p, q = self
        return (a * x_error + p * adjoint_error + q * x_error * adjoint_error) * (1 + gamma(8))


def sensitivity_of(form: Any, kind: str, c: float, lam: np.ndarray, x: np.ndarray, logarithmic: bool) -> Sensitivity:
    """Of the gradient by the parameters of a form, or by their logarithms, to errors in the norms of this kind."""
    if kind == "energy":
        return _by_energy(form, c, lam, x, logarithmic)
    return _by_residual(form, lam, x, logarithmic)


def drift(lipschitz: float, kind: str, inverse_norm: float, plain_error: float) -> float:
    """What ‖e‖₂ does to λ through a cotangent that was made from x̃, in the norm of the kind."""
    return lipschitz * (np.sqrt(inverse_norm) if kind == "energy" else inverse_norm) * plain_error * (1 + gamma(8))


def _by_energy(form: Any, c: float, lam: np.ndarray, x: np.ndarray, logarithmic: bool) -> Sensitivity:
    """By energy norms, for a form whose pieces are positive semidefinite."""
    scale = form.weights if logarithmic else 1 / form.weights
    root = np.sqrt(c) * (1 + gamma(4))
    of_x, of_adjoint = (root * _row_norm(form, scale, v) for v in (lam, x))
    return Sensitivity(of_x, of_adjoint, c if logarithmic else c / float(form.k.min()) * (1 + gamma(4)))


def _row_norm(form: Any, scale: np.ndarray, v: np.ndarray) -> float:
    """At least (Σ_r scale_r (g_rᵀv)²)^½."""
    product = np.abs(form.G @ v) + gamma(form.terms) * (abs(form.G) @ np.abs(v))
    return norm_up(product, scale * (1 + gamma(4)))


def _by_residual(form: Any, lam: np.ndarray, x: np.ndarray, logarithmic: bool) -> Sensitivity:
    """By 2-norms, for any form."""
    return Sensitivity(
        norm_up(form.spread(lam, logarithmic)),
        norm_up(form.spread_adjoint(x, logarithmic)),
        form.spread_norm(logarithmic),
    )
