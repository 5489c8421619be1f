"""Certificates for gradients by matrices: the conditions, checked one after the other, and the bound they allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..api import solve
from ..errors import describe
from .certificate import Certificate, Condition
from .forms import host_vector
from .propagation import drift, sensitivity_of
from .rounding import gamma
from .setting import Setting, errors_of, measured, setting_of

__all__ = ["about_cotangent", "certify", "given", "lipschitz_of"]


def certify(
    A: Any,
    b: Any,
    cotangent: Any,
    *,
    x: Any = None,
    adjoint: Any = None,
    mu: float | None = None,
    lipschitz: float | None = None,
    rtol: float = 1e-8,
) -> Certificate:
    """Bound the error of a whole gradient by the matrix, of approximate solutions of A x = b and Aᵀλ = ∂J/∂x.

    Where A(θ) = Σ θ_i B_i + D is a sum of positive semidefinite pieces and A is positive definite, the error of the
    gradient by log θ, in the 1-norm, is at most c(‖λ̃‖ ‖x - x̃‖ + ‖λ - λ̃‖ ‖x‖) in energy norms, whatever the condition
    number. Energy norms of errors are bounded from above with a lower bound μ of the eigenvalues of diag(A)⁻¹A: yours,
    or one that is proved here. Otherwise it is residuals times ‖A⁻¹‖₂, which is proved for diagonally dominant A
    and else estimated; the result then says that it is an estimate.

    It costs a few dozen products with A for each side, and for a μ that is not given one factorization.

    Parameters
    ----------
    A : IncidenceForm, or array, sparse array or tensor, or operator with entries (n, n)
        An `IncidenceForm` is differentiated by its k, another matrix by its stored entries. Real.
    b : array (n,)
        Constant: no gradient by b is certified, nor of what it is computed from.
    cotangent : array (n,), or callable
        ḡ = ∂J/∂x, where it does not depend on x; or the function ``cotangent(x)``, of NumPy arrays.
    x, adjoint : array (n,), optional
        x̃ and λ̃, from any solver in any framework. Without them they are solved for.
    mu : float, optional
        Lower bound for the eigenvalues of diag(A)⁻¹A. The bounds are as true as it is; one that is too large is found
        out as soon as conjugate gradients see a smaller Ritz value, and is not used then.
    lipschitz : float, optional
        L with ‖ḡ(x) - ḡ(y)‖₂ ≤ L ‖x - y‖₂; needed where `cotangent` is a function: 1 for half a sum of squares.
    rtol : float
        For x̃ and λ̃ that are not given.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, something is not finite or complex, or the Lipschitz constant of a function is missing.
    SolveError
        If A is singular.

    Notes
    -----
    The gradient that is certified is the one in the result, from x̃ and λ̃ in double precision: bounds include the
    rounding of residuals, products and sums, and of the gradient itself. A backward of bs.solve gives the same numbers
    to rounding.

    References
    ----------
    G. Meurant and P. Tichý, On computing quadrature-based bounds for the A-norm of the error in conjugate gradients,
    Numerical Algorithms 62, 2013. J. Varah, A lower bound for the smallest singular value of a matrix, 1975.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import gradients
    >>> G = np.eye(50) - np.eye(50, k=-1)  # a line of resistors, grounded at one end
    >>> A = gradients.IncidenceForm(G, np.linspace(1, 2, 50))
    >>> b, sensor = np.ones(50), np.eye(50)[49]
    >>> x = bs.solve(A.matrix, b, method="cg", rtol=1e-6)
    >>> adjoint = bs.solve(A.matrix, sensor, method="cg", rtol=1e-6)
    >>> c = gradients.certify(A, b, sensor, x=x, adjoint=adjoint)
    >>> c.certified, c.kind, bool(c.log_bound <= 1e-5 * np.abs(A.k * c.gradient).sum())
    (True, 'energy', True)
    """
    setting = setting_of(A, mu)
    L = lipschitz_of(cotangent, lipschitz)
    b, x, g, lam = given(setting, b, cotangent, x, adjoint, rtol)
    with np.errstate(over="ignore", invalid="ignore"):
        found = _certificate(setting, b, x, g, lam, L)
    if np.isfinite(found.bound) and np.isfinite(found.log_bound):
        return found
    beyond = Condition(False, "numbers overflow in double precision: scale A, b and the cotangent")
    conditions = (*found.conditions, beyond)
    return replace(found, bound=np.inf, log_bound=np.inf, certified=False, conditions=conditions)


def given(setting: Setting, b: Any, cotangent: Any, x: Any, adjoint: Any, rtol: float) -> tuple:
    """b, x̃, ḡ and λ̃ on the host; those that are not given are solved for."""
    A, n = setting.form.matrix, setting.form.shape[0]
    if np.iscomplexobj(A):
        raise TypeError(
            "A must be real, as certificates of gradients are: write real and imaginary parts as one system."
        )
    b = real_vector("b", b, n)
    x = real_vector("x", solve(A, b, rtol=rtol) if x is None else x, n)
    g = real_vector("cotangent", cotangent(x) if callable(cotangent) else cotangent, n)
    return b, x, g, real_vector("adjoint", solve(A.T, g, rtol=rtol) if adjoint is None else adjoint, n)


def _certificate(setting: Setting, b: Any, x: Any, g: Any, lam: Any, lipschitz: float) -> Certificate:
    form = setting.form
    errors = measured(setting, errors_of(setting, b, x, g, lam))
    e = errors.of_x
    eps = (errors.of_adjoint + drift(lipschitz, errors.kind, errors.inverse_norm, errors.of_x_plain)) * (1 + gamma(4))
    gradient, rounding = form.gradient(lam, x)
    bounds = []
    for logarithmic, scale in ((False, np.ones(len(rounding))), (True, form.scales())):
        error = sensitivity_of(form, errors.kind, setting.c, lam, x, logarithmic).error(e, eps)
        bounds.append(float(error + scale @ rounding) * (1 + gamma(len(rounding))))
    return Certificate(
        gradient, *bounds, certified=errors.proved, kind=errors.kind,
        conditions=(*setting.conditions, *about_cotangent(lipschitz), *errors.conditions),
        x_error=float(e), adjoint_error=float(eps), mu=setting.mu, inverse_norm=errors.inverse_norm,
    )  # fmt: skip


def about_cotangent(L: float) -> tuple[Condition, ...]:
    """What is assumed of b and of the cotangent."""
    if L == 0:
        return (Condition(None, "b and the cotangent do not depend on the parameters"),)
    return (
        Condition(None, "b does not depend on the parameters"),
        Condition(None, f"the cotangent is Lipschitz in x with the constant {L:.3g}, as given"),
    )


def lipschitz_of(cotangent: Any, given: float | None) -> float:
    """The constant of a cotangent that is a function, 0 of one that is an array."""
    if callable(cotangent) and given is None:
        raise ValueError(
            "lipschitz must be given where cotangent is a function, since the error of x moves it; got None: "
            "1 for half a sum of squares, or an upper bound for the largest eigenvalue of the Hessian of the loss."
        )
    if given is not None and not (np.isfinite(given) and given >= 0):
        raise ValueError(f"lipschitz must be a number of at least 0; got {given}.")
    return float(given or 0.0)


def real_vector(name: str, v: Any, n: int) -> np.ndarray:
    """A real vector of any framework on the host."""
    host = host_vector(name, v, n)
    if np.iscomplexobj(host):
        raise TypeError(f"{name} must be real, as certificates of gradients are; got {describe(v)}.")
    return host
