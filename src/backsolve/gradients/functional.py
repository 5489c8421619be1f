"""Values tᴴA⁻¹b that are right to second order, as the adjoint knows what the residual does to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..api import aslinearoperator
from ..api import solve as solve_by
from ..dispatch import frontend_of
from ..errors import describe
from ..factorization import factorize
from ..operators import AbstractLinearOperator
from .certificate import Condition
from .forms import WIDE_UNIT, host_vector
from .incidence import IncidenceForm
from .rounding import gamma
from .setting import errors_of, setting_of

__all__ = ["Functional", "functional"]


@dataclass(frozen=True)
class Functional:
    """A corrected value of tᴴA⁻¹b: what `functional` returns.

    Attributes
    ----------
    value : array ()
        tᴴx̃ + λ̃ᴴ(b - A x̃), of the framework and dtype of the inputs, differentiable.
    uncorrected : array ()
        tᴴx̃.
    bound : float
        Of |value - tᴴA⁻¹b|, rounding included; NaN where A has no entries or is traced.
    certified : bool
        Whether the bound is proved, and not an estimate.
    conditions : tuple of Condition
    x, adjoint : array (n,)
        x̃ and λ̃.
    """

    value: Any
    uncorrected: Any = field(repr=False)
    bound: float
    certified: bool
    conditions: tuple[Condition, ...] = field(repr=False)
    x: Any = field(repr=False)
    adjoint: Any = field(repr=False)


def functional(
    A: Any,
    b: Any,
    t: Any,
    *,
    x: Any = None,
    adjoint: Any = None,
    rtol: float | None = 1e-6,
    mu: float | None = None,
    **options: Any,
) -> Functional:
    """Compute tᴴA⁻¹b to an error that is the product of those of two solves, and bound it.

    With x̃ ≈ A⁻¹b, λ̃ ≈ A⁻ᴴt, r = b - A x̃ and s = t - Aᴴλ̃, the value tᴴx̃ + λ̃ᴴr is off by exactly sᴴA⁻¹r: at a tolerance
    of 1e-4 by some 1e-8 and not 1e-4. The bound is ‖s‖_{A⁻¹}‖r‖_{A⁻¹} for a symmetric A that is proved, or said by
    `mu`, to be positive definite; else ‖s‖₂‖A⁻¹r‖₂, as certify bounds it.

    Parameters
    ----------
    A : anything that `backsolve.solve` takes, or IncidenceForm; one matrix
    b, t : array (n,)
        t is conjugated.
    x, adjoint : array (n,), optional
        x̃ and λ̃, from wherever they are; without them they are solved for. Give both or none.
    rtol : float
        Of both solves.
    mu : float, optional
        As for `certify`.
    **options
        method, M, assume, atol, on_failure of `backsolve.solve`.

    Returns
    -------
    Functional

    Raises
    ------
    SolveError, TypeError, ValueError
        As `backsolve.solve`; also if b or t is not a vector.

    Notes
    -----
    All of it is recorded by the framework, so derivatives of ``value`` of any order are there. They take two more
    solves than those of tᴴx̃, the corrections of λ̃ and x̃ by A⁻ᴴs and A⁻¹r, and are then of second order as well.

    References
    ----------
    N. Pierce and M. Giles, Adjoint recovery of superconvergent functionals from PDE approximations, SIAM Review 42,
    2000.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import gradients
    >>> A = 3 * np.eye(40) - np.eye(40, k=1) - np.eye(40, k=-1)
    >>> b, t = np.ones(40), np.eye(40)[20]
    >>> J = gradients.functional(A, b, t, method="cg", rtol=1e-3)
    >>> truth = bs.solve(A, b)[20]
    >>> J.certified, bool(abs(J.uncorrected - truth) > 1e-4), bool(abs(J.value - truth) <= J.bound < 1e-6)
    (True, True, True)
    """
    form = A if isinstance(A, IncidenceForm) else None
    frontend = frontend_of(A if form is None else form.matrix, b, t)
    if frontend.name == "tensorflow":
        raise TypeError("functional is for NumPy, torch and JAX; got tensors of TensorFlow: write tᴴx + λᴴ(b - A @ x).")
    given = form.matrix if form is not None else A
    A = frontend.asoperator(given if isinstance(given, AbstractLinearOperator) else aslinearoperator(given))
    b, t = frontend.asarray("b", b), frontend.asarray("t", t)
    for name, v in (("b", b), ("t", t), ("x", x), ("adjoint", adjoint)):
        if v is not None and tuple(v.shape) != (A.shape[0],):
            raise ValueError(
                f"{name} must have shape ({A.shape[0]},), as a functional is of one vector; got {describe(v)}."
            )
    if (x is None) != (adjoint is None):
        raise ValueError("x and adjoint must be given together, or both be left out.")
    if x is None:
        x, lam = _both(A, b, t, {"rtol": rtol, **options})
    else:
        x, lam = frontend.asarray("x", x), frontend.asarray("adjoint", adjoint)
    conj = AbstractLinearOperator.operations["conj"]
    first = (conj(t) * x).sum()
    value = first + (conj(lam) * (b - A @ x)).sum()
    with np.errstate(over="ignore", invalid="ignore"):
        bound, proved, conditions = _bound(A if form is None else form, A, b, t, x, lam, value, mu)
    return Functional(value, first, bound, proved and bool(np.isfinite(bound)), conditions, x, lam)


def _both(A: Any, b: Any, t: Any, options: dict) -> tuple[Any, Any]:
    """x̃ and λ̃, from one factorization where there are entries to factor."""
    if A.structure.kind == "free" or b.dtype != A.data.dtype or t.dtype != A.data.dtype:
        return solve_by(A, b, **options), solve_by(A.H, t, **options)
    F = factorize(A, **options)
    return F.solve(b), F.adjoint.solve(t)


def _bound(form: Any, A: Any, b: Any, t: Any, x: Any, lam: Any, value: Any, mu: float | None) -> tuple:
    """|sᴴA⁻¹r| and the rounding of the value; whether it is proved; and why."""
    frontend = frontend_of(x)
    if A.structure.kind == "free":
        return float("nan"), False, (Condition(False, "A has no entries, by which the error could be bounded"),)
    values = (b, t, x, lam, *A.leaves)
    if any(frontend.known(v) is None for v in values):
        return float("nan"), False, (Condition(False, "the values are traced: bounds are made on the host"),)
    setting = setting_of(form, mu)
    b, t, x, lam = (host_vector(name, v, A.shape[0]) for name, v in (("b", b), ("t", t), ("x", x), ("adjoint", lam)))
    errors = errors_of(setting, b, x, t, lam)
    rounding = _rounding(setting.form, b, t, x, lam, complex(frontend.known(value)))
    bound = float(errors.of_both + rounding) * (1 + gamma(8))
    return bound, errors.proved, (*setting.conditions, *errors.conditions)


def _rounding(form: Any, b: np.ndarray, t: np.ndarray, x: np.ndarray, lam: np.ndarray, value: complex) -> float:
    """How far the value may be from tᴴx̃ + λ̃ᴴ(b - A x̃): the difference to the same sums in extended precision.

    Those are off by far less, and a bound that knows n alone would count as if all roundings had one sign.
    """
    r, off = form.residual(b, x)
    long = np.clongdouble
    again = (t.conj().astype(long) * x).sum() + (lam.conj().astype(long) * r).sum()
    size = np.abs(t) @ np.abs(x) + np.abs(lam) @ np.abs(r)
    return float(abs(again - value)) + float(gamma(4 * len(b), WIDE_UNIT) * size + np.abs(lam) @ off) * (
        1 + gamma(len(b))
    )
