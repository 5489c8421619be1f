"""Nonlinear least squares as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..errors import describe
from ..options import Adjoint, check_on_failure, check_tolerance
from ..status import Status
from .levenberg import LevenbergMarquardt, stationary
from .outcome import report_lines
from .problem import Problem
from .saddle import Saddle
from .setup import check_adjoint, solved, taken, tolerance

__all__ = ["LeastSquaresSolution", "least_squares", "least_squares_with_info"]

ADVICE = {
    Status.CONVERGED_RESIDUAL: "the residuals, evaluated anew, are orthogonal to the columns of their Jacobian",
    Status.MAXITER: "the steps ran out: raise maxiter, begin nearer, loosen rtol, or rescale a model that hardly bends",
    Status.STAGNATION: (
        "no damping lowers the sum of squares though the gradient is not zero: look for a residual that has a jump or "
        "a corner, loosen rtol to what rounding allows, or use float64"
    ),
    Status.BREAKDOWN: (
        "an unknown has run to where the residuals no longer depend on it: begin elsewhere, or add a residual that "
        "holds it back"
    ),
    Status.NONFINITE: "the residuals or their Jacobian have a NaN or an infinity: begin where they have none",
}


@dataclass(repr=False, eq=False)
class LeastSquaresSolution:
    """What `least_squares_with_info` returns.

    Attributes
    ----------
    z : array
        The point, of the shape of z0, differentiable. Where the status says failure, the best that was met.
    residual : array (m,)
        The residuals there, in C order, differentiable.
    status : int32 array without axes
        A code of `backsolve.Status`.
    gradient_norm : array without axes
        2-norm of Jᵀr, evaluated anew at z.
    iterations : array without axes
    evaluations : int
        Of the residuals, those that Jacobians are made of not counted.
    solver : LevenbergMarquardt
        What was run, with its options.
    """

    z: Any
    residual: Any
    status: Any
    gradient_norm: Any
    iterations: Any
    evaluations: Any
    solver: Any
    _backward: list = field(default_factory=list)

    @property
    def converged(self) -> bool:
        """Whether a stationary point was found."""
        return bool((np.asarray(self.status) > 0).all())

    @property
    def adjoint(self) -> Any:
        """The latest backward pass in eager torch, None before: a `backsolve.Solution`."""
        return self._backward[-1] if self._backward else None

    @property
    def message(self) -> str:
        """What became of it, how accurate, and what to do."""
        return report_lines(self.status, self.gradient_norm, "gradient norm", ADVICE)

    def __repr__(self) -> str:
        count = int(np.max(np.asarray(self.iterations), initial=0))
        return (
            f"LeastSquaresSolution: z of shape {tuple(self.z.shape)}, {self.residual.shape[-1]} residuals, "
            f"by {self.solver}, {count} iteration{'s' * (count != 1)}\n{self.message}"
        )


def least_squares(
    residual: Callable,
    z0: Any,
    params: tuple = (),
    *,
    solver: LevenbergMarquardt | None = None,
    rtol: float | None = None,
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> Any:
    """Minimise the sum of squares of residual(z, *params) over z, differentiably in params, to any order.

    The steps are those of Levenberg and Marquardt, and are not recorded. At the minimum z and the residuals solve a
    symmetric saddle system, so a derivative costs, for n unknowns, n products with second derivatives of the residuals,
    a QR factorization of J, (m, n), and one solve of n equations by `backsolve.solve`. It has the curvature of the
    residuals, which Gauss and Newton's JᵀJ lacks, and as JᵀJ is not formed, the condition of J counts once.

    Parameters
    ----------
    residual : callable
        ``residual(z, *params)``: an array of any shape, of the dtype of z and of at least as many numbers. In torch it
        may depend on what is differentiated through params alone; in JAX what it closes over is a parameter, too.
    z0 : array
        Where the steps begin, of any shape, float32 or float64; it has no gradient. Of torch or JAX.
    params : tuple
        Arrays in nested tuples, lists and dicts; in JAX any pytree. Every array of floating point gets a gradient.
    solver : LevenbergMarquardt, optional
        With its options: ``LevenbergMarquardt(maxiter=200)``.
    rtol : float, optional
        How nearly the residuals are orthogonal to the columns of J: abs(J_jᵀ r) ≤ rtol norm(J_j) (norm(r) +
        Σ_k norm(J_k) abs(z_k)) for all j, whatever the units of z and r. 1e-12 in double, 1e-5 in single precision.
    method : str or method object, optional
        For the system of derivatives, dense and symmetric, as for `backsolve.solve`.
    adjoint : Adjoint, optional
        Targets and failure policy of the solve in derivatives.
    on_failure : {"raise", "warn", "return"}, optional
        Raise `SolveError`, warn and go on, or go on. A minimum that was not found is NaN, and so is its gradient.

    Returns
    -------
    array
        z, of the shape of z0: a point where the gradient is zero, which descent came to; there may be lower ones.

    Raises
    ------
    SolveError
        If no such point was found; or, from a derivative, if its system failed, as where the minimum is a line.
    TypeError, ValueError
        If arguments do not fit, or residual depends on a tensor of torch with a gradient that is not in params.

    Notes
    -----
    Compiled by JAX, nothing is raised: what failed is NaN. `torch.func.vmap` finds one minimum after the other. In
    torch residual is differentiated by `torch.func`, twice for a gradient. J is dense: for many unknowns with few
    entries in a row write the gradient down and take `root` with its sparsity pattern.

    References
    ----------
    Björck 1996, Numerical Methods for Least Squares Problems, chapter 9; Gould, Hartley and Campbell 2022,
    doi:10.1109/TPAMI.2021.3059462, for the derivative.

    Examples
    --------
    >>> import torch
    >>> from backsolve import implicit
    >>> t = torch.arange(4, dtype=torch.float64)
    >>> y = (3 * torch.exp(-t / 2)).requires_grad_()
    >>> def misfit(z, y):
    ...     return z[0] * torch.exp(-z[1] * t) - y
    >>> z = implicit.least_squares(misfit, torch.tensor([1.0, 1.0], dtype=torch.float64), (y,))
    >>> [round(v, 9) for v in z.tolist()]
    [3.0, 0.5]
    >>> z[1].backward()
    >>> [round(v, 4) for v in y.grad.tolist()]  # the decay rate by each measurement
    [0.1766, -0.104, -0.1912, -0.1936]
    """
    return _found(residual, z0, params, solver, rtol, method, adjoint, on_failure, False).z


def least_squares_with_info(
    residual: Callable,
    z0: Any,
    params: tuple = (),
    *,
    solver: LevenbergMarquardt | None = None,
    rtol: float | None = None,
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> LeastSquaresSolution:
    """Minimise a sum of squares like `least_squares`, and tell what became of it.

    Parameters
    ----------
    residual, z0, params, solver, rtol, method, adjoint, on_failure
        As for `least_squares`.

    Returns
    -------
    LeastSquaresSolution
        ``.z`` as `least_squares` returns it, but the best point where none was found; ``.residual``, differentiable
        too; ``.status``, ``.gradient_norm``, ``.iterations``; ``.adjoint``, the latest backward solve, in eager torch.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `least_squares`.

    Examples
    --------
    >>> import torch
    >>> from backsolve import implicit
    >>> sol = implicit.least_squares_with_info(lambda z: torch.cat([z - 1, z * z - 3]), torch.ones(1).double())
    >>> round(float(sol.z), 6), sol.converged
    (1.672982, True)
    """
    return _found(residual, z0, params, solver, rtol, method, adjoint, on_failure, True)


def _found(residual, z0, params, solver, rtol, method, adjoint, on_failure, keep_best) -> Any:
    owner, relative = "least_squares", check_tolerance("least_squares", "rtol", rtol, below=1)
    if solver is not None and not isinstance(solver, LevenbergMarquardt):
        raise TypeError(f"{owner}: solver must be a LevenbergMarquardt; got {describe(solver)}.")
    backend, z0, leaves, rebuild = taken(owner, residual, z0, params)
    if backend.name == "numpy":
        raise TypeError(
            f"{owner}: z0 must be an array of torch or JAX, which differentiate the residuals; got {describe(z0)}: "
            "without derivatives take scipy.optimize.least_squares."
        )
    if relative is None:
        relative = tolerance(z0, 1e-12, 1e-5)
    shape, n = tuple(z0.shape), prod(z0.shape)

    def r(z: Any, leaves: tuple) -> Any:
        return residual(z.reshape(shape), *rebuild(leaves)).reshape(-1)

    def flat(y: Any, leaves: tuple) -> Any:
        at, pull = backend.vjp(lambda z: r(z, leaves), y[m:])
        return backend.xp.concat([at - y[:m], pull(y[:m])[0]])

    def arrived(run: Any, y: Any, F: Any, J: Any = None) -> Any:
        return stationary(run, run.operator(y).data if J is None else J, y, F, relative)

    def outcome(y: Any, *told: Any) -> LeastSquaresSolution:
        return LeastSquaresSolution(y[m:].reshape(shape), y[:m], *told)

    y0 = _extended(backend, residual, z0, leaves, rebuild)
    m = y0.shape[0] - n
    options = {
        "solver": solver or LevenbergMarquardt(),
        "jacobian": Saddle(m, n),
        "arrived": arrived,
        "series": None,
        "method": method,
        "adjoint": check_adjoint(owner, adjoint),
        "on_failure": check_on_failure(on_failure),
        "batch_axes": 0,
        "function": residual,
        "outcome": outcome,
    }
    return solved((backend, Problem(owner, flat, (m + n,), 1, options), y0, leaves), keep_best)


def _extended(backend: Any, residual: Any, z0: Any, leaves: tuple, rebuild: Any) -> Any:
    """(0, z0), with a zero for each residual, whose number one evaluation tells."""
    n, r = prod(z0.shape), residual(z0, *rebuild(leaves))
    if getattr(r, "dtype", None) != z0.dtype or not n <= prod(r.shape):
        raise ValueError(
            f"least_squares: residual must return an array of the dtype of z0, {z0.dtype}, and of at least as many "
            f"numbers, {n}; got {describe(r)}: add residuals that say what z should be near to."
        )
    return backend.xp.concat([backend.like(z0, np.zeros(prod(r.shape))), z0.reshape(-1)])
