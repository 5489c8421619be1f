"""Roots of nonlinear equations as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..options import Adjoint, check_tolerance
from .iteration import norms
from .outcome import RootSolution
from .setup import prepare, solved, tolerance

__all__ = ["root", "root_with_info"]


def root(
    F: Callable,
    z0: Any,
    params: tuple = (),
    *,
    solver: Any = "newton",
    jacobian: Any = "auto",
    batch_axes: int = 0,
    atol: float | None = None,
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> Any:
    """Find z with F(z, *params) = 0, differentiably in params, to any order.

    The solver is not recorded. By the implicit function theorem ż = -J⁻¹ ∂F/∂θ θ̇ with J = ∂F/∂z at the root, so a
    derivative, forward or backward, costs one linear solve with J or Jᴴ by `backsolve.solve`; its memory does not grow
    with the steps of the solver.

    Parameters
    ----------
    F : callable
        ``F(z, *params)`` of the shape and dtype of z. In torch it may depend on what is differentiated through params
        alone; in JAX what it closes over is a parameter, too.
    z0 : array
        Where the solver begins, of any shape, float32 or float64; it has no gradient.
    params : tuple
        Arrays in nested tuples, lists and dicts; in JAX any pytree. Every array of floating point gets a gradient.
    solver : {"newton", "anderson", "broyden", "picard"}, solver object or callable, optional
        An object such as ``Newton(maxiter=20)``, or a function ``(residual, z0) -> z`` of yours.
    jacobian : str, sparsity pattern or callable, optional
        How J is had for Newton and for derivatives: "products" (matrix-free, solved by GMRES), "dense", a pattern
        (`Pattern`, `CSR`, or scipy.sparse: entries from one product for each colour of columns, solved directly), or a
        function ``(z, *params) -> matrix`` for the unknowns in C order. "auto" is "dense" up to 64 unknowns.
    batch_axes : int, optional
        Leading axes of z0 that count samples whose equations do not depend on each other: Anderson, Broyden and Picard
        judge and stop each of them by itself.
    atol : float, optional
        Target for the 2-norm of F, of each sample; 1e-10 in double, 1e-5 in single precision.
    method : str or method object, optional
        For systems with J, as for `backsolve.solve`.
    adjoint : Adjoint, optional
        Targets and failure policy of the solve in derivatives.
    on_failure : {"raise", "warn", "return"}, optional
        Raise `SolveError`, warn and go on, or go on. A root that was not found is NaN, and so is its gradient.

    Returns
    -------
    array
        z, of the shape of z0.

    Raises
    ------
    SolveError
        If the residual, evaluated anew at the end, is above atol; or, from a derivative, if its system failed.
    TypeError, ValueError
        If arguments do not fit, or F depends on a tensor of torch with a gradient that is not in params.

    Notes
    -----
    Compiled by JAX, nothing is raised: what failed is NaN. In NumPy products are made by forward differences, and there
    is no gradient. `torch.func.vmap` finds one root after the other; ``jax.vmap`` all at once. A derivative at a z that
    is off by δ is off by O(δ): atol limits its accuracy, too.

    References
    ----------
    Christianson 1994, doi:10.1080/10556789408805572; Blondel et al. 2022, arXiv:2105.15183.

    Examples
    --------
    >>> import torch
    >>> from backsolve import implicit
    >>> a = torch.tensor([4.0, 9.0], dtype=torch.float64, requires_grad=True)
    >>> z = implicit.root(lambda z, a: z * z - a, torch.ones(2, dtype=torch.float64), (a,))
    >>> z.sum().backward()
    >>> a.grad  # 1 / (2 sqrt(a))
    tensor([0.2500, 0.1667], dtype=torch.float64)
    """
    return _found(F, z0, params, solver, jacobian, batch_axes, atol, method, adjoint, on_failure, False).z


def root_with_info(
    F: Callable,
    z0: Any,
    params: tuple = (),
    *,
    solver: Any = "newton",
    jacobian: Any = "auto",
    batch_axes: int = 0,
    atol: float | None = None,
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> RootSolution:
    """Find a root like `root`, and tell what became of it.

    Parameters
    ----------
    F, z0, params, solver, jacobian, batch_axes, atol, method, adjoint, on_failure
        As for `root`.

    Returns
    -------
    RootSolution
        ``.z`` as `root` returns it, but the best point where none was found; ``.status``, ``.residual_norm``,
        ``.iterations``; ``.adjoint``, the latest backward solve, in eager torch.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `root`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import implicit
    >>> sol = implicit.root_with_info(lambda z: z * z + 1, np.array([2.0]), on_failure="return")
    >>> bs.Status(int(sol.status)).name  # no real root
    'STAGNATION'
    """
    return _found(F, z0, params, solver, jacobian, batch_axes, atol, method, adjoint, on_failure, True)


def _found(F, z0, params, solver, jacobian, batch_axes, atol, method, adjoint, on_failure, keep_best) -> RootSolution:
    target = check_tolerance("root", "atol", atol)
    if target is None:
        target = tolerance(z0, 1e-10, 1e-5)
    prepared = prepare(
        "root",
        lambda z, y: y,
        F,
        z0,
        params,
        solver=solver,
        jacobian=jacobian,
        batch_axes=batch_axes,
        arrived=lambda run, z, r: norms(run.backend.xp, r) <= target,
        series=None,
        method=method,
        adjoint=adjoint,
        on_failure=on_failure,
    )
    return solved(prepared, keep_best)
