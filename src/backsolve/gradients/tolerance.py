"""From the error that a gradient may have to the tolerances of its two solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..options import Adjoint
from .certificate import Condition
from .certify import about_cotangent, given, lipschitz_of
from .propagation import Sensitivity, drift, sensitivity_of
from .rounding import gamma
from .setting import Errors, Setting, errors_of, measured, setting_of

__all__ = ["Tolerance", "suggest_tolerance"]

LOOSEST, PILOT = 0.1, 1e-3


@dataclass(frozen=True)
class Tolerance:
    """Tolerances for a solve and its adjoint: what `suggest_tolerance` returns.

    Attributes
    ----------
    rtol, adjoint_rtol : float
        Of the norms of residuals, relative to those of b and of the cotangent, as in `backsolve.solve`.
    target : float
        The error of the gradient, in the 1-norm, that they stand for.
    certified : bool
        Whether every pair of solutions that meets them is proved to meet the target, in exact arithmetic but for the
        rounding of the gradient; else they rest on an estimate of ‖A⁻¹‖.
    conditions : tuple of Condition
    """

    rtol: float
    adjoint_rtol: float
    target: float
    certified: bool
    conditions: tuple[Condition, ...]

    @property
    def options(self) -> dict[str, Any]:
        """For ``backsolve.solve(A, b, **tolerance.options)``."""
        return {"rtol": self.rtol, "adjoint": Adjoint(rtol=self.adjoint_rtol)}

    def __str__(self) -> str:
        how = "proved" if self.certified else "estimated"
        words = {True: "holds", None: "assumed", False: "FAILS"}
        first = (
            f"rtol {self.rtol:.1e}, adjoint {self.adjoint_rtol:.1e}: gradient error at most {self.target:.1e} ({how})"
        )
        return "\n".join([first, *(f"  {words[c.holds]:>7}: {c.sentence}" for c in self.conditions)])


def suggest_tolerance(
    A: Any,
    b: Any,
    cotangent: Any,
    target: float,
    *,
    logarithmic: bool = True,
    x: Any = None,
    adjoint: Any = None,
    mu: float | None = None,
    lipschitz: float | None = None,
) -> Tolerance:
    """Find the relative tolerance, the same for a solve and its adjoint, by which the gradient meets a target.

    The error of the gradient is of first order in both tolerances, so tightening one of them alone is wasted. The
    promise is for any solver that meets them, so it is more cautious, by up to the square root of the condition number,
    than what `certify` finds for the solutions that came out.

    Parameters
    ----------
    A, b, cotangent, mu, lipschitz
        As for `certify`.
    target : float
        Largest error of the gradient in the 1-norm.
    logarithmic : bool
        Whether the target is for the gradient by logarithms of the parameters, or by themselves.
    x, adjoint : array (n,), optional
        Rough solutions, which tell how large solutions are; without them they are solved for.

    Returns
    -------
    Tolerance

    Raises
    ------
    ValueError
        If no residual in double precision can be small enough; the message says which target can be met.
    TypeError, SolveError
        As `certify`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import gradients
    >>> A = gradients.IncidenceForm(np.eye(50) - np.eye(50, k=-1), np.linspace(1, 2, 50))
    >>> b, sensor = np.ones(50), np.eye(50)[49]
    >>> tolerance = gradients.suggest_tolerance(A, b, sensor, target=1e-3)
    >>> x = bs.solve(A.matrix, b, method="cg", rtol=tolerance.rtol)
    >>> adjoint = bs.solve(A.matrix, sensor, method="cg", rtol=tolerance.adjoint_rtol)
    >>> tolerance.certified, gradients.certify(A, b, sensor, x=x, adjoint=adjoint).log_bound < 1e-3
    (True, True)
    """
    if not (np.isfinite(target) and target > 0):
        raise ValueError(f"target must be a positive number, the largest error of the gradient; got {target}.")
    setting, L = setting_of(A, mu), lipschitz_of(cotangent, lipschitz)
    b, x, g, lam = given(setting, b, cotangent, x, adjoint, PILOT)
    errors = measured(setting, errors_of(setting, b, x, g, lam))
    eps = errors.of_adjoint + drift(L, errors.kind, errors.inverse_norm, errors.of_x_plain)
    a, p, q = sensitivity_of(setting.form, errors.kind, setting.c, lam, x, logarithmic)
    exact = Sensitivity(a + q * eps, p + q * errors.of_x, q)  # of the true λ and x, around which (1) is expanded
    model = _Model(exact, errors, L, float(np.linalg.norm(b)), float(np.linalg.norm(g)))
    rtol = model.largest(target)
    floor = _floor(setting, b, x, g, lam)
    if rtol < floor:
        raise ValueError(
            f"target = {target:.1e} would need residuals of {rtol:.1e}, relatively, and double precision gets to about "
            f"{floor:.1e}: ask for {model.error(floor):.1e} or more, or refine (SuperLU(extended=True)) and certify."
        )
    conditions = (*setting.conditions, *about_cotangent(L), *errors.conditions)
    return Tolerance(rtol, rtol, target, errors.proved, conditions)


class _Model:
    """The error of a gradient whose solves have relative residuals of ρ."""

    def __init__(self, exact: Sensitivity, errors: Errors, lipschitz: float, b_norm: float, g_norm: float):
        self.exact, self.lipschitz, self.inverse_norm, self.kind = exact, lipschitz, errors.inverse_norm, errors.kind
        self.b_norm, self.g_norm = b_norm, g_norm
        # ‖A⁻¹r‖_A ≤ ‖A⁻¹‖₂^½ ‖r‖₂
        self.by_residual = np.sqrt(self.inverse_norm) if errors.kind == "energy" else self.inverse_norm
        self.pilot = errors.of_x_plain

    def error(self, rtol: float) -> float:
        """Its bound, which grows with ρ."""
        e = self.by_residual * rtol * self.b_norm
        plain = self.inverse_norm * rtol * self.b_norm
        cotangent = self.g_norm + self.lipschitz * (plain + self.pilot)
        eps = self.by_residual * rtol * cotangent + drift(self.lipschitz, self.kind, self.inverse_norm, plain)
        return self.exact.error(e, eps) * (1 + gamma(16))

    def largest(self, target: float) -> float:
        """The largest ρ up to `LOOSEST` that meets a target, by bisection of its logarithm from below."""
        if self.error(LOOSEST) <= target:
            return LOOSEST
        low, high = -300.0, np.log10(LOOSEST)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.error(10**middle) <= target else (low, middle)
        return float(10**low)


def _floor(setting: Setting, b: np.ndarray, x: np.ndarray, g: np.ndarray, lam: np.ndarray) -> float:
    """Relative residuals that rounding leaves: about what its bound says of solutions of this size."""
    form, sizes = setting.form, []
    for right, v in ((b, x), (g, lam)):
        norm = np.linalg.norm(right)
        sizes.append(gamma(form.terms) * np.linalg.norm(form.majorant @ np.abs(v)) / norm if norm else 0.0)
    return float(max(sizes))
