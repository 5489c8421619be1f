"""Derivatives of local queries that are asked for by name."""

from __future__ import annotations

from typing import Any

from .._local.estimate import Estimate
from .._local.gradient import Gradient
from ..eager import eager
from ..errors import describe
from .queries import functional

__all__ = ["hvp", "value_and_grad"]


@eager("backsolve.local.value_and_grad")
def value_and_grad(A: Any, b: Any, t: Any, atol: float, **options: Any) -> tuple[Estimate, Gradient]:
    """Return `functional` and its gradient, with bounds for both.

    The gradient is made of what the query has found, so it costs no solve. Where frameworks record gradients
    themselves, in torch and TensorFlow, this is an alternative that shows bounds; in JAX it is the way.

    Parameters
    ----------
    A, b, t, atol, **options
        As of `functional`; b is sparse. With ``gradient_atol`` pushes go on until each entry is as exact as that.

    Returns
    -------
    estimate : Estimate
    gradient : Gradient
        Its arrays are those of the framework of A, b and t; in JAX values have the dtype of A.

    Raises
    ------
    SolveError
        As `functional`.
    ValueError
        If b is dense.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est, g = local.value_and_grad(M, ([50], [1.0]), ([51], [1.0]), atol=1e-9, gradient_atol=1e-9)
    >>> round(est.value, 6), g.A.rows.tolist(), g.A.columns.tolist(), np.round(g.A.values, 6).tolist()
    (0.0625, [50, 51, 51], [50, 50, 51], [-0.015625, -0.0625, -0.015625])
    """
    estimate = functional(A, b, t, atol, **options)
    return estimate, estimate.gradient()


@eager("backsolve.local.hvp")
def hvp(estimate: Estimate, direction: Any, atol: float | None = None) -> Gradient:
    """Return how the gradient of a functional changes along a direction V of the values of A: second order.

    ẋ = -A⁻¹(V x) and λ̇ = -A⁻ᵀ(Vᵀλ) take two local solves; the Hessian times V is -(λ̇xᵀ + λẋᵀ) on the pattern. Bounds
    are those of these solves and what the errors of x and λ come to in them.

    Parameters
    ----------
    estimate : Estimate
        Of `functional` or `entry` with a sparse b.
    direction : scipy.sparse matrix on the pattern of A, pair (places, increments), or (count,) array or tensor
    atol : float, optional
        Bound of the errors of both solves. By default they come close to what the errors of x and λ bring.

    Returns
    -------
    Gradient
        `A` is the Hessian by the values times V, `b` is λ̇ and `t` is ẋ: the derivatives of what
        ``estimate.gradient()`` has there.

    Raises
    ------
    SolveError
        If a solve cannot come below `atol`.
    ValueError
        If b is dense, or the direction does not fit A.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(99), np.full(100, 4.0)], offsets=[-1, 0]).tocsr()
    >>> est = local.entry(M, ([50], [1.0]), 50, atol=1e-9, gradient_atol=1e-9)
    >>> h = local.hvp(est, sp.coo_array(([1.0], ([50], [50])), shape=M.shape))
    >>> np.max(np.abs(h.A.values)).round(6), h.A.bound < 1e-6
    (np.float64(0.03125), True)
    """
    if not isinstance(estimate, Estimate):
        raise TypeError(
            f"hvp: estimate must be an Estimate of local.functional or local.entry; got {describe(estimate)}."
        )
    return estimate._owner("hvp").hvp(estimate, direction, atol)
