"""What is known of a matrix, and bounds can rest on: definiteness, pieces, the norm of the inverse; with sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..factorization import factorize
from .certificate import Condition
from .energy import DOUBT, REST, energy_norm
from .forms import Entries, Pieces
from .incidence import IncidenceForm
from .rounding import gamma, norm_up
from .spectrum import estimated_inverse_norm, proven_inverse_norm, proven_mu

__all__ = ["Errors", "Setting", "errors_of", "measured", "setting_of"]


class Setting(NamedTuple):
    """What is known of a matrix before anything is solved."""

    form: Any
    m: np.ndarray
    """Diagonal of A, the preconditioner of the bounds."""
    mu: float
    """0 < μ ≤ λ_min(M⁻¹A), or 0: then A is not known to be positive definite."""
    c: float
    """Σ θ_i B_i ⪯ c A, or infinity."""
    conditions: tuple[Condition, ...]
    mu_given: bool = False
    """Whether μ is the user's, and has to be doubted."""

    @property
    def inverse_norm(self) -> float:
        """‖A⁻¹‖₂ ≤ 1/(μ min m)."""
        return 1 / (self.mu * float(self.m.min(initial=np.inf))) * (1 + gamma(4))


class Errors(NamedTuple):
    """Bounds for e = x - x̃ and for ε, the error of λ̃ for the cotangent as it was given."""

    of_x: float
    of_adjoint: float
    """In the norm of the kind."""
    kind: str
    """"energy" or "residual", which are 2-norms."""
    of_x_plain: float
    of_adjoint_plain: float
    """In the 2-norm."""
    of_both: float
    """Of |sᴴA⁻¹r|, for the residuals r and s."""
    inverse_norm: float
    """What was used for ‖A⁻¹‖₂."""
    proved: bool
    conditions: tuple[Condition, ...]


def setting_of(A: Any, mu: float | None) -> Setting:
    """Check what bounds by energy norms rest on."""
    form: Any = Pieces(A) if isinstance(A, IncidenceForm) else Entries(A)
    if mu is not None and not (np.isfinite(mu) and mu > 0):
        raise ValueError(f"mu must be a positive number, a lower bound for eigenvalues; got {mu}: leave it out.")
    m = form.matrix.diagonal()
    if not form.symmetric:
        mu, said = 0.0, Condition(False, "A is not real and symmetric, so it has no energy norm here")
    elif not (m > 0).all():
        mu, said = 0.0, Condition(False, "A has a diagonal entry that is not positive, so it is not definite")
    else:
        mu, said = _checked_mu(form, m, mu)
    c, about_pieces = _dominated(form, m, mu)
    return Setting(form, m, mu, c, (said, about_pieces), said.holds is None)


def _checked_mu(form: Any, m: np.ndarray, mu: float | None) -> tuple[float, Condition]:
    if mu is not None:
        return mu, Condition(None, f"mu = {mu:.3g}, as given, is at most the least eigenvalue of diag(A)⁻¹A")
    mu = proven_mu(form, m)
    if mu > 0:
        return mu, Condition(True, f"A is positive definite, the eigenvalues of diag(A)⁻¹A being at least {mu:.3g}")
    return 0.0, Condition(
        False,
        "no lower bound for the eigenvalues of diag(A)⁻¹A was proved, as A is not dominated by its diagonal: give mu",
    )


def _dominated(form: Any, m: np.ndarray, mu: float) -> tuple[float, Condition]:
    """c with Σ θ_i B_i = A - D ⪯ c A: 1 if D ⪰ 0, and 1 + δ/μ if D ⪰ -δ M, as A ⪰ μ M. Gershgorin says which."""
    if not isinstance(form, Pieces):
        return np.inf, Condition(False, "A is not given as a sum of positive semidefinite pieces: see IncidenceForm")
    diagonal = form.D.diagonal()
    size = abs(form.D) @ np.ones(form.shape[0])
    rounding = np.where(size == diagonal, 0.0, gamma(form.terms) * size)  # nothing was added up where they are equal
    below = float(np.max((size - 2 * diagonal + rounding) / np.where(m > 0, m, np.nan), initial=0.0))
    if below <= 0:
        return 1.0, Condition(True, "the pieces of A are positive semidefinite, and their sum is at most A (c = 1)")
    if not mu > 0 or not np.isfinite(below):
        return np.inf, Condition(False, "D was not seen to be positive semidefinite, so no c with Σ θᵢBᵢ ⪯ cA is known")
    c = (1 + below / mu) * (1 + gamma(8))
    return c, Condition(True, f"the pieces of A are positive semidefinite, and their sum is at most c A, c = {c:.4g}")


def measured(setting: Setting, errors: Errors) -> Errors:
    """In the norm of the bound that the conditions allow: energy norms are of no use where pieces are not known."""
    if np.isfinite(setting.c):
        return errors
    return errors._replace(of_x=errors.of_x_plain, of_adjoint=errors.of_adjoint_plain, kind="residual")


def errors_of(setting: Setting, b: Any, x: Any, g: Any, lam: Any) -> Errors:
    """Bounds for x̃ and λ̃ as solutions of A x = b and Aᴴ λ = g: energy norms where they can be had, else 2-norms."""
    form, why = setting.form, []
    if setting.mu > 0:
        share = DOUBT if setting.mu_given else REST
        residuals = (form.residual(right, v) for right, v in ((b, x), (g, lam)))
        one, two = (energy_norm(form, setting.m, setting.mu, r, off, share) for r, off in residuals)
        if not (one.mu_too_large or two.mu_too_large):
            both = one.upper * two.upper
            inverse_norm = setting.inverse_norm
            return Errors(one.upper, two.upper, "energy", one.plain, two.plain, both, inverse_norm, True, ())
        why.append(Condition(False, f"mu = {setting.mu:.3g} is too large: A has a Ritz value below it"))
    F = factorize(form.matrix)
    size = proven_inverse_norm(form)
    if proved := bool(np.isfinite(size)):
        why.append(Condition(True, f"‖A⁻¹‖₂ is at most {size:.3g}, as A is diagonally dominant"))
    else:
        size = estimated_inverse_norm(F)
        why.append(Condition(False, f"‖A⁻¹‖₂ was estimated to be {size:.3g}, from below; nothing proves it"))
    (r_size, e), (s_size, eps) = (
        _plain_error(form, F, size, right, v, adjoint) for right, v, adjoint in ((b, x, False), (g, lam, True))
    )
    return Errors(e, eps, "residual", e, eps, min(s_size * e, r_size * eps), size, proved, tuple(why))


def _plain_error(form: Any, F: Any, inverse_norm: float, b: Any, x: Any, adjoint: bool) -> tuple[float, float]:
    """‖r‖₂, and ‖e‖₂ ≤ ‖ê‖₂ + ‖A⁻¹‖₂ ‖r - A ê‖₂ for any ê, here that of F, so that little hangs on ‖A⁻¹‖₂."""
    r, off = form.residual(b, x, adjoint)
    e = (F.adjoint if adjoint else F).solve(r)
    rest, rounding = form.residual(r, e, adjoint)
    r_size = norm_up(np.abs(r) + off)
    error = norm_up(e) + inverse_norm * norm_up(np.abs(rest) + rounding + off)
    return r_size, min(error, inverse_norm * r_size) * (1 + gamma(8))
