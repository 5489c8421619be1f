"""The public half of what connects backsolve with lineax; the other half imports it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..options import Adjoint

__all__ = ["as_lineax_operator", "as_lineax_solver"]


def as_lineax_operator(A: Any, *, assume: str | None = None) -> Any:
    """Return one matrix of JAX, NumPy or SciPy, sparse or dense, as a `lineax.AbstractLinearOperator`.

    Every solver of lineax takes it: the iterative ones by its products, in O(nnz); the direct ones make it dense, all
    but the one of `as_lineax_solver`, which keeps it sparse, and its transpose, multiples, and sums and products with
    sparse or diagonal operators. It is a pytree whose only leaf is ``A.data``, so gradients arrive at the stored
    values, one number for each.

    Parameters
    ----------
    A : CSR, Dense, JAX array, BCOO or BCSR, NumPy array or scipy.sparse array, (n_rows, n_cols)
        See `aslinearoperator`.
    assume : {"general", "spd", "sym", "her", "lower", "upper"}, optional
        What is known of A; what it was declared to be, by default. lineax sees "spd", "sym", "lower" and "upper" as it
        sees its tags, and from the pattern whether A is diagonal, tridiagonal or triangular.

    Returns
    -------
    lineax.AbstractLinearOperator
        With the operator as its field ``A``.

    Raises
    ------
    ImportError
        If lineax is missing.
    ValueError
        If A is a batch: map over its values by `jax.vmap`.
    TypeError
        If A is torch's, or given by a function: that is a `lineax.FunctionLinearOperator`.

    Examples
    --------
    >>> import jax.numpy as jnp, lineax, backsolve as bs  # doctest: +SKIP
    >>> A = bs.coo(jnp.array([2.0, 1.0, 4.0]), ([0, 0, 1], [0, 1, 1]), (2, 2))  # doctest: +SKIP
    >>> operator = bs.as_lineax_operator(A)  # doctest: +SKIP
    >>> operator.mv(jnp.array([1.0, 1.0])).tolist()  # doctest: +SKIP
    [3.0, 4.0]
    >>> lineax.is_upper_triangular(operator)  # doctest: +SKIP
    True
    """
    return _half("lineax_operator").as_operator(A, assume)


def as_lineax_solver(
    method: Any = "auto", *, rtol: float | None = None, atol: float | None = None, adjoint: Adjoint | None = None
) -> Any:
    """Return the methods of `solve` as a `lineax.AbstractLinearSolver`.

    ``lineax.linear_solve(operator, vector, solver=backsolve.as_lineax_solver())`` solves square systems, and
    ``lineax.Normal`` of it least squares. Derivatives are lineax's, of any order; a solve and its derivatives
    factor once. Factors are kept by the cache of compiled programs, up to 1 GiB.

    Parameters
    ----------
    method, rtol, atol
        As for `solve`.
    adjoint : Adjoint, optional
        Tolerances of the solves with the transposed operator, as in reverse mode. lineax raises when these fail, so
        ``on_failure`` must be None.

    Returns
    -------
    lineax.AbstractLinearSolver
        Operators of `as_lineax_operator`, diagonal and tridiagonal ones, and what lineax makes of those, stay sparse;
        matrices and pytrees of arrays are dense; functions and Jacobians are made dense up to n = 1,000, larger ones
        after `lineax.materialise` only. Tags of lineax choose the method as `assume` does, never the answer.

        Failures are results of lineax, so that ``throw`` decides: SINGULAR, INDEFINITE and INACCURATE are
        ``RESULTS.singular``, MAXITER ``max_steps_reached``, and the others what they are called there. Then ``value``
        is NaN, and ``stats`` has the `Status` and the residuals.

    Raises
    ------
    ImportError
        If lineax is missing.
    TypeError, ValueError
        As `solve`.

    Examples
    --------
    >>> import jax.numpy as jnp, lineax, backsolve as bs  # doctest: +SKIP
    >>> A = bs.coo(jnp.array([2.0, 1.0, 4.0]), ([0, 0, 1], [0, 1, 1]), (2, 2))  # doctest: +SKIP
    >>> solver = bs.as_lineax_solver("superlu")  # doctest: +SKIP
    >>> lineax.linear_solve(bs.as_lineax_operator(A), jnp.array([3.0, 4.0]), solver).value.tolist()  # doctest: +SKIP
    [1.0, 1.0]
    """
    return _half("lineax_solver").LineaxSolver(method, rtol, atol, adjoint)


def _half(name: str) -> Any:
    """The module that imports lineax, or the sentence that says how to install it."""
    try:
        return import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name not in ("lineax", "equinox", "jax"):
            raise
        raise ImportError(
            f"operators and solvers for lineax need the package lineax: pip install 'backsolve[lineax]'; {error}."
        ) from error
