"""Derivatives of a solve as plain functions, with the verdict on the solve that they take."""

from __future__ import annotations

from typing import Any

from .dispatch import columns_of, inputs, make_plan
from .eager import eager
from .plan import Factored, Plan
from .solution import Solution, solution_of

__all__ = ["jvp", "vjp"]


@eager("backsolve.vjp")
def vjp(A: Any, b: Any, **options: Any) -> tuple[Solution, Any]:
    """Solve A x = b in NumPy, JAX or TensorFlow, and return the function that pulls a cotangent of x back.

    Parameters
    ----------
    A, b
        As for `solve`; arrays of NumPy, SciPy or JAX, or tensors of TensorFlow.
    **options
        method, M, assume, rtol, atol, adjoint, on_failure of `solve`.

    Returns
    -------
    sol : Solution
    pullback : callable
        ``data_bar, b_bar, adjoint = pullback(g)`` for g of the shape of ``sol.x``: with df = Re⟨g, dx⟩,
        df = Re⟨data_bar, d data⟩ + Re⟨b_bar, db⟩, and the `Solution` of the adjoint solve. ``data_bar`` has
        one number per stored value of A, in the order of ``A.data``; None for a `MatrixFree` A, whose function
        NumPy cannot differentiate. In JAX cotangents are those of `jax.vjp`, the conjugates of these, and of a
        `MatrixFree` A nested as its parameters, with None for what is no array of floating point.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `solve`; from `pullback` for the adjoint solve.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, backsolve as bs
    >>> A = sp.csr_array(np.array([[2.0, 0.0], [1.0, 4.0]]))
    >>> sol, pullback = bs.vjp(A, np.array([2.0, 5.0]))
    >>> data_bar, b_bar, adjoint = pullback(np.array([0.0, 1.0]))
    >>> data_bar
    array([ 0.125, -0.25 , -0.25 ])
    """
    frontend, A, b, plan = _explicit("vjp", A, b, options)
    if frontend.name in ("jax", "tensorflow"):
        return frontend.vjp(A, b, plan)
    x, outcome, layout, pull = frontend.vjp(A, b, plan, Factored())

    def pullback(g: Any) -> tuple[Any, Any, Solution]:
        data_bar, b_bar, last, lam = pull(g)
        return data_bar, b_bar, solution_of(plan.method, last, layout, lam)

    return solution_of(plan.method, outcome, layout, x), pullback


@eager("backsolve.jvp")
def jvp(A: Any, b: Any, data_dot: Any = None, b_dot: Any = None, **options: Any) -> tuple[Solution, Solution]:
    """Solve A x = b in NumPy or JAX, and the tangent system A ẋ = ḃ - Ȧ x with the same factors.

    Parameters
    ----------
    A, b
        As for `solve`; NumPy, SciPy or JAX arrays.
    data_dot : array of the shape of ``A.data``, optional
        Tangent of the stored values; zero if None. Of a `MatrixFree` A of JAX, arrays nested as the parameters, with
        None for those that do not vary.
    b_dot : array of the shape of b, optional
        Tangent of b; zero if None.
    **options
        method, M, assume, rtol, atol, adjoint, on_failure of `solve`.

    Returns
    -------
    sol, sol_dot : Solution
        ``sol.x`` and its directional derivative ``sol_dot.x``.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `solve`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = bs.coo(np.array([2.0, 4.0]), ([0, 1], [0, 1]), (2, 2))
    >>> sol, sol_dot = bs.jvp(A, np.array([2.0, 4.0]), data_dot=np.array([1.0, 0.0]))
    >>> sol_dot.x
    array([-0.5, -0. ])
    """
    frontend, A, b, plan = _explicit("jvp", A, b, options)
    if frontend.name == "jax":
        return frontend.jvp(A, b, data_dot, b_dot, plan)
    x, outcome, layout, x_dot, last = frontend.jvp(A, b, data_dot, b_dot, plan, Factored())
    return solution_of(plan.method, outcome, layout, x), solution_of(plan.method, last, layout, x_dot)


def _explicit(caller: str, A: Any, b: Any, options: dict) -> tuple[Any, Any, Any, Plan]:
    known = {
        "method": "auto",
        "M": None,
        "assume": None,
        "rtol": None,
        "atol": None,
        "adjoint": None,
        "on_failure": "raise",
    }
    for option in options:
        if option not in known:
            raise TypeError(f"{caller} takes the options {', '.join(known)}; got {option!r}.")
    chosen = known | options
    frontend, A, b = inputs(A, b, chosen.pop("assume"))
    if frontend.name not in ("numpy", "jax") and (caller, frontend.name) != ("vjp", "tensorflow"):
        raise TypeError(f"{caller} is not for arrays of {frontend.name}: differentiate backsolve.solve itself.")
    return frontend, A, b, make_plan(A, **chosen, keep_best=True, columns=columns_of(frontend, A, b))
