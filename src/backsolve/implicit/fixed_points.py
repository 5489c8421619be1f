"""Fixed points as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from ..errors import describe
from ..options import Adjoint, check_tolerance
from .iteration import Run, norms
from .outcome import RootSolution
from .problem import Series
from .setup import prepare, solved, tolerance

__all__ = ["fixed_point", "fixed_point_with_info"]

GRADIENTS: dict[str, Series | None] = {"implicit": None, "neumann": Series(), "one-step": Series(terms=1)}


def fixed_point(
    f: Callable,
    z0: Any,
    params: tuple = (),
    *,
    solver: Any = "anderson",
    gradient: Any = "implicit",
    jacobian: Any = "auto",
    batch_axes: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> Any:
    """Find z with z = f(z, *params), differentiably in params, to any order.

    The root of z - f(z), see `root`: backward solves (I - ∂f/∂z)ᴴ λ = g, and θ̄ = (∂f/∂θ)ᴴ λ.

    Parameters
    ----------
    f : callable
        ``f(z, *params)`` of the shape and dtype of z.
    z0, params, jacobian, batch_axes, method, on_failure
        As for `root`; J = I - ∂f/∂z.
    solver : {"anderson", "broyden", "picard", "newton"}, solver object or callable, optional
        A function of yours gets the residual z - f(z).
    gradient : {"implicit", "neumann", "one-step"} or Series, optional
        "implicit" is right to the accuracy of its linear solve. "neumann" takes the first eight terms of
        (I - ∂f/∂z)⁻¹ = Σ (∂f/∂z)ᵏ, "one-step" the first, ``Series(terms=20, lipschitz=.9)`` as many as you say: their
        error is bounded in ``fixed_point_with_info(...).adjoint``, and stays in derivatives of the gradient.
    rtol, atol : float, optional
        Target for the 2-norm of z - f(z), of each sample: max(rtol norm(f(z)), atol). By default rtol is 1e-8 in
        double, 1e-5 in single precision, and atol eps times the root of the number of unknowns of a sample.
    adjoint : Adjoint, optional
        Targets and failure policy of the solve in derivatives; of no use to a series, which has no target.

    Returns
    -------
    array
        z, of the shape of z0.

    Raises
    ------
    SolveError
        If z - f(z), evaluated anew at the end, is above its target; or, from a derivative, if its system failed.
    TypeError, ValueError
        As `root`.

    References
    ----------
    Bai, Kolter and Koltun 2019, arXiv:1909.01377; Christianson 1994, doi:10.1080/10556789408805572.

    Examples
    --------
    >>> import torch
    >>> from backsolve import implicit
    >>> w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> z = implicit.fixed_point(lambda z, w: w * z + 1, torch.zeros(1, dtype=torch.float64), (w,))  # 1 / (1 - w)
    >>> z.sum().backward()
    >>> w.grad
    tensor(4.0000, dtype=torch.float64)
    """
    options = (solver, gradient, jacobian, batch_axes, rtol, atol, method, adjoint, on_failure)
    return _found(f, z0, params, *options, False).z


def fixed_point_with_info(
    f: Callable,
    z0: Any,
    params: tuple = (),
    *,
    solver: Any = "anderson",
    gradient: Any = "implicit",
    jacobian: Any = "auto",
    batch_axes: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> RootSolution:
    """Find a fixed point like `fixed_point`, and tell what became of it.

    Parameters
    ----------
    f, z0, params, solver, gradient, jacobian, batch_axes, rtol, atol, method, adjoint, on_failure
        As for `fixed_point`.

    Returns
    -------
    RootSolution
        As of `root_with_info`; after a backward pass by a series ``.adjoint`` is a `SeriesAdjoint`.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `fixed_point`.

    Examples
    --------
    >>> import numpy as np
    >>> from backsolve import implicit
    >>> sol = implicit.fixed_point_with_info(np.cos, np.zeros((2, 1)), batch_axes=1)
    >>> sol.z.round(6).tolist(), sol.converged
    ([[0.739085], [0.739085]], True)
    """
    options = (solver, gradient, jacobian, batch_axes, rtol, atol, method, adjoint, on_failure)
    return _found(f, z0, params, *options, True)


def _found(f, z0, params, solver, gradient, jacobian, batch_axes, rtol, atol, method, adjoint, on_failure, keep_best):
    relative, absolute = (
        check_tolerance("fixed_point", "rtol", rtol, below=1),
        check_tolerance("fixed_point", "atol", atol),
    )
    if relative is None:
        relative = tolerance(z0, 1e-8, 1e-5) if absolute is None else 0.0
    if absolute is None:
        per_sample = prod(tuple(getattr(z0, "shape", ()))[batch_axes:]) if isinstance(batch_axes, int) else 1
        absolute = tolerance(z0, 2.3e-16, 1.2e-7) * per_sample**0.5

    def arrived(run: Run, z: Any, r: Any) -> Any:
        xp = run.backend.xp
        size = relative * norms(xp, z - r)
        return norms(xp, r) <= xp.where(size > absolute, size, absolute)

    prepared = prepare(
        "fixed_point",
        lambda z, y: z - y,
        f,
        z0,
        params,
        solver=solver,
        jacobian=jacobian,
        batch_axes=batch_axes,
        arrived=arrived,
        series=_series(gradient),
        method=method,
        adjoint=adjoint,
        on_failure=on_failure,
    )
    return solved(prepared, keep_best)


def _series(gradient: Any) -> Series | None:
    if isinstance(gradient, Series):
        return gradient
    if isinstance(gradient, str) and gradient in GRADIENTS:
        return GRADIENTS[gradient]
    raise ValueError(
        f"fixed_point: gradient must be one of {', '.join(map(repr, GRADIENTS))}, or an object such as "
        f"Series(terms=20); got {describe(gradient)}."
    )
