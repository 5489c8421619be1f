"""What is known of the error of a gradient, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

__all__ = ["Certificate", "Condition"]


class Condition(NamedTuple):
    """One thing that a bound rests on."""

    holds: bool | None
    """None for what cannot be checked, and is assumed."""
    sentence: str


@dataclass(frozen=True)
class Certificate:
    """A bound for the error of a whole gradient, and what it rests on: what `certify` returns.

    Attributes
    ----------
    gradient : array (parameters,)
        -λ̃ᵀ(∂A/∂θ_i)x̃, by each parameter: by k of an `IncidenceForm`, else by the stored entries, row by row.
    bound : float
        Of Σ_i |g̃_i - g_i|, the error of `gradient` in the 1-norm.
    log_bound : float
        Of Σ_i |θ_i (g̃_i - g_i)|, the error of the gradient by the logarithms of the parameters.
    certified : bool
        Whether the bounds are proved, rounding included, from the conditions that are said to hold or to be assumed.
        Otherwise they are estimates, since ‖A⁻¹‖ was estimated.
    kind : {"energy", "residual"}
        By energy norms, without the condition number; or by norms of residuals times a bound of ‖A⁻¹‖₂.
    conditions : tuple of Condition
        Those that hold, are assumed, or failed.
    x_error, adjoint_error : float
        Bounds for x̃ and λ̃: in the energy norm of A, or in the 2-norm by residuals.
    mu : float
        Lower bound for the eigenvalues of diag(A)⁻¹A that was used; NaN for "residual".
    inverse_norm : float
        Bound or estimate of ‖A⁻¹‖₂ that was used; NaN for "energy".
    """

    gradient: np.ndarray = field(repr=False)
    bound: float
    log_bound: float
    certified: bool
    kind: str
    conditions: tuple[Condition, ...]
    x_error: float
    adjoint_error: float
    mu: float = float("nan")
    inverse_norm: float = float("nan")

    @property
    def failed(self) -> tuple[str, ...]:
        """Sentences of the conditions that do not hold."""
        return tuple(c.sentence for c in self.conditions if c.holds is False)

    def __str__(self) -> str:
        what = "bound" if self.certified else "estimate, not a bound,"
        size, scaled = np.abs(self.gradient).sum(), self.log_bound
        norm = "energy norm" if self.kind == "energy" else "2-norm"
        how = "energy norms, free of the condition number" if self.kind == "energy" else "residuals times ‖A⁻¹‖"
        lines = [
            f"Gradient error, 1-norm: {what} {self.bound:.3e}, for a gradient of {size:.3e}",
            f"  by logarithms of the parameters: {scaled:.3e}",
            f"  by {how}; errors of x {self.x_error:.3e} and of the adjoint {self.adjoint_error:.3e} in the {norm}",
        ]
        words = {True: "holds", None: "assumed", False: "FAILS"}
        lines += [f"  {words[c.holds]:>7}: {c.sentence}" for c in self.conditions]
        return "\n".join(lines)
