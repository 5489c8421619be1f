"""One implicit step of dy/dt = f(t, y): Euler's, BDF2, and a Rosenbrock method of order 3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..errors import SolveError, SolveWarning, describe
from ..options import check_on_failure, check_tolerance
from ..status import Status
from .torch_rates import Rates
from .torch_stage import stage

__all__ = ["METHODS", "Step", "bdf2", "implicit_euler", "rates_of", "report", "rosenbrock"]


class Step(NamedTuple):
    """What a step returns."""

    y: torch.Tensor
    """The new state, (..., n), differentiable; NaN where the step failed."""
    error: torch.Tensor | None
    """Estimate of the local error, of a method that has one ("rosenbrock")."""
    status: torch.Tensor
    """Codes of `Status`, one for each state of a batch."""
    iterations: int
    """Of Newton's method."""


def implicit_euler(
    f: Callable,
    t: float,
    y: torch.Tensor,
    h: float,
    *,
    params: tuple = (),
    jacobian: Any = "dense",
    rtol: float = 1e-6,
    on_failure: str = "raise",
) -> Step:
    """Step by h with Euler's implicit method, z = y + h f(t + h, z): order 1, L-stable.

    The equation is solved by Newton's method with I - h ∂f/∂y. The derivative of the step is that of the implicit
    function, one solve with the adjoint, to any order; iterations are not differentiated.

    Parameters
    ----------
    f : callable or torch.nn.Module
        ``f(t, y, *params)``, like y; t is a tensor without axes. Rows of y are states of their own.
    t, h : float
        Not differentiated.
    y : tensor (..., n), float32 or float64
    params : tuple of tensors, optional
        Everything that f needs a gradient for; the parameters of a module are found.
    jacobian : {"dense", "products"} or Pattern, optional
        How I - h ∂f/∂y is solved with: as a dense matrix, n backward passes of f; by products of f's forward and
        backward mode, iterated with GMRES, a batch as one system; or as a sparse matrix on a Pattern that has all of
        its entries, which takes one backward pass for each colour of its rows, and one to see that none is missing.
    rtol : float, optional
        Tolerance of the ODE, a tenth of which products are iterated to.
    on_failure : {"raise", "warn", "return"}, optional
        What a step that fails does, forward and backward; states that failed are NaN, and so are their gradients.

    Returns
    -------
    Step

    Raises
    ------
    SolveError
        If Newton's method or a solve fails.
    TypeError, ValueError
        If an argument does not fit, f uses a tensor that needs a gradient and is not in `params`, or the Pattern misses
        an entry.

    References
    ----------
    Hairer and Wanner, Solving Ordinary Differential Equations II, 2nd ed., sections IV.3 and IV.8.

    Examples
    --------
    >>> import torch
    >>> from backsolve.physics import implicit_euler
    >>> k = torch.tensor(1e6, dtype=torch.float64, requires_grad=True)
    >>> step = implicit_euler(lambda t, y, k: -k * y, 0.0, torch.ones(1, dtype=torch.float64), 1.0, params=(k,))
    >>> step.y.sum().backward()
    >>> print(f"{step.y.item():.3e}, {k.grad.item():.3e}")
    1.000e-06, -1.000e-12
    """
    rates = rates_of(f, t, y, params, jacobian, rtol, on_failure)
    return report(_euler(rates, t, h, (y,), (t,)), "implicit_euler", t, on_failure)


def bdf2(
    f: Callable,
    t: float,
    y: torch.Tensor,
    y_before: torch.Tensor,
    h: float,
    *,
    h_before: float | None = None,
    params: tuple = (),
    jacobian: Any = "dense",
    rtol: float = 1e-6,
    on_failure: str = "raise",
) -> Step:
    """Step by h with the two-step backward differentiation formula: order 2, L-stable.

    With ω = h / h_before, (1 + 2ω) z = (1 + ω)² y - ω² y_before + h (1 + ω) f(t + h, z). Zero-stable for ω < 1 + √2.

    Parameters
    ----------
    f, t, y, h, params, jacobian, rtol, on_failure
        As for `implicit_euler`.
    y_before : tensor (..., n)
        The state at t - h_before.
    h_before : float, optional
        h by default.

    Returns
    -------
    Step

    Raises
    ------
    SolveError, TypeError, ValueError
        As `implicit_euler`.

    References
    ----------
    Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, 2nd ed., section III.5.

    Examples
    --------
    >>> import torch
    >>> from backsolve.physics import bdf2
    >>> y = torch.tensor([[1.1], [1.0]], dtype=torch.float64)
    >>> bdf2(lambda t, y: 0 * y + 1, 0.0, y[0], y[1], 0.1).y.item()
    1.2000000000000002
    """
    rates = rates_of(f, t, y, params, jacobian, rtol, on_failure)
    before = t - (h if h_before is None else h_before)
    return report(_bdf2(rates, t, h, (y, y_before), (t, before)), "bdf2", t, on_failure)


def rosenbrock(
    f: Callable,
    t: float,
    y: torch.Tensor,
    h: float,
    *,
    params: tuple = (),
    jacobian: Any = "dense",
    rtol: float = 1e-6,
    on_failure: str = "raise",
) -> Step:
    """Step by h with RODAS3: order 3 with an estimate of order 2, L-stable, four solves with one factorization.

    No equation is iterated for: (I - h ∂f/∂y / 2) U_i = (h/2) (f(t + α_i h, y + Σ a_ij U_j) + Σ (c_ij / h) U_j +
    γ_i h ∂f/∂t). The derivative goes through the solves, and through ∂f/∂y: f must be differentiable once more than
    the step.

    Parameters
    ----------
    f, t, y, h, params, jacobian, rtol, on_failure
        As for `implicit_euler`.

    Returns
    -------
    Step
        With `error`.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `implicit_euler`.

    References
    ----------
    Sandu et al. 1997, Benchmarking stiff ODE solvers for atmospheric chemistry problems II: Rosenbrock solvers,
    Atmospheric Environment 31(20), doi:10.1016/S1352-2310(97)83212-8. Hairer and Wanner II, section IV.7.

    Examples
    --------
    >>> import torch
    >>> from backsolve.physics import rosenbrock
    >>> step = rosenbrock(lambda t, y: -y, 0.0, torch.ones(1, dtype=torch.float64), 0.1)
    >>> print(f"{step.y.item():.5f}, {step.error.item():.0e}")  # exp(-0.1) = 0.90484
    0.90484, -3e-05
    """
    rates = rates_of(f, t, y, params, jacobian, rtol, on_failure)
    return report(_rosenbrock(rates, t, h, (y,), (t,)), "rosenbrock", t, on_failure)


# A step of the table below takes the states that it needs, newest first, with their times, and maybe a guess.


def _euler(rates: Rates, t: float, h: float, states: tuple, times: tuple, guess: Any = None) -> Step:
    y = states[0]
    z, newton = stage(rates, t + h, h, y, y if guess is None else guess)
    return Step(z, None, newton.status, newton.iterations)


def _bdf2(rates: Rates, t: float, h: float, states: tuple, times: tuple, guess: Any = None) -> Step:
    if len(states) < 2:
        return _euler(rates, t, h, states, times, guess)
    y, before = states
    w = h / (times[0] - times[1])
    r = ((1 + w) ** 2 * y - w**2 * before) / (1 + 2 * w)
    z, newton = stage(rates, t + h, h * (1 + w) / (1 + 2 * w), r, y + w * (y - before) if guess is None else guess)
    return Step(z, None, newton.status, newton.iterations)


_A = ((), (0.0,), (2.0, 0.0), (2.0, 0.0, 1.0))
_C = ((), (4.0,), (1.0, -1.0), (1.0, -1.0, -8 / 3))
_ALPHA, _GAMMA = (0.0, 0.0, 1.0, 1.0), (0.5, 1.5, 0.0, 0.0)
"""Coefficients of RODAS3; y + 2 U_1 + U_3 + U_4 is the new state, U_4 its error."""


def _rosenbrock(rates: Rates, t: float, h: float, states: tuple, times: tuple, guess: Any = None) -> Step:
    y, s = states[0], h / 2
    solve = rates.solver(rates.operator(t, y, s))
    by_time = rates.by_time(t, y)
    v, U, status = rates(t, y), [], None
    for i in range(4):
        if i > 1:  # the first two are evaluated at one place
            v = rates(t + _ALPHA[i] * h, y + sum(a * u for a, u in zip(_A[i], U, strict=True) if a))
        right = s * (v + _GAMMA[i] * h * by_time) + sum(c / 2 * u for c, u in zip(_C[i], U, strict=True))
        u, solved = solve(right)
        U.append(u)
        status = solved if status is None else torch.minimum(status, solved)
    return Step(y + 2 * U[0] + U[2] + U[3], U[3], status.to(torch.int32), 0)  # type: ignore[union-attr]


METHODS: dict[str, tuple[Callable, int]] = {
    "implicit_euler": (_euler, 1),
    "bdf2": (_bdf2, 2),
    "rosenbrock": (_rosenbrock, 1),
}
"""Steps by name, and how many states each takes."""


def rates_of(f: Any, t: float, y: torch.Tensor, params: Any, jacobian: Any, rtol: float, on_failure: str) -> Rates:
    """f as `Rates`, with every argument checked."""
    if not isinstance(y, torch.Tensor) or y.dtype not in (torch.float32, torch.float64) or y.ndim < 1:
        raise TypeError(f"y must be a float32 or float64 tensor of shape (..., n); got {describe(y)}.")
    if not callable(f):
        raise TypeError(f"f must be a function f(t, y, *params) or a torch.nn.Module; got {describe(f)}.")
    if not isinstance(params, tuple | list) or not all(isinstance(p, torch.Tensor) for p in params):
        raise TypeError(f"params must be a tuple of tensors; got {describe(params)}.")
    if isinstance(t, torch.Tensor):
        raise TypeError("t must be a float, as steps are not differentiated by time; got a tensor: write t.item().")
    if check_tolerance("steps", "rtol", rtol, below=1) is None:
        raise ValueError("rtol must be a float; got None: it is the tolerance of the ODE.")
    check_on_failure(on_failure)
    params = tuple(params)
    if isinstance(f, torch.nn.Module):
        f, params = _functional(f, params)
    rates = Rates(f, params, jacobian, rtol, on_failure)
    with torch.enable_grad():
        v = rates.on(tuple(p.detach() for p in params))(t, y.detach())
    if v.requires_grad:
        raise ValueError(
            "f must get every tensor that needs a gradient through params; it uses one that is not there, whose "
            "gradient would be lost: write f(t, y, *params)."
        )
    return rates


def _functional(module: torch.nn.Module, given: tuple) -> tuple[Callable, tuple]:
    """A module as a function of its parameters too."""
    names = [name for name, _ in module.named_parameters()]
    count = len(given)

    def f(t: torch.Tensor, y: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, params[count:], strict=True))
        return torch.func.functional_call(module, own, (t, y, *params[:count]))

    return f, (*given, *(p for _, p in module.named_parameters()))


def report(step: Step, name: str, t: float, on_failure: str) -> Step:
    """Raise or warn of a step that failed, as was asked; return it with NaN where it failed."""
    failed = step.status <= 0
    if not bool(failed.any()):
        return step
    worst = Status(int(step.status.min()))
    count = "" if failed.numel() == 1 else f" ({int(failed.sum())} of {failed.numel()} states)"
    advice = _ADVICE if worst == Status.MAXITER else worst.advice
    message = f"{name}: the step at t = {t:.6g} failed with {worst.name}{count}: {advice}."
    if on_failure == "raise":
        raise SolveError(message)
    if on_failure == "warn":
        warnings.warn(SolveWarning(message), stacklevel=3)
    return step._replace(y=torch.where(failed[..., None], float("nan"), step.y))


_ADVICE = "Newton's method did not converge: take a smaller step, or check that f is smooth and jacobian is its own"
