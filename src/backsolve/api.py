"""The public face: one call for every framework and every kind of matrix."""

from __future__ import annotations

import sys
from typing import Any

from .dispatch import columns_of, frontend_of, info, inputs, make_plan, operator, square, start
from .eager import as_written, eager
from .nullspace import deflated
from .operators import AbstractLinearOperator
from .options import Adjoint
from .plan import Factored
from .select import explain as explain_choice
from .solution import Solution

__all__ = ["aslinearoperator", "explain", "solve", "solve_with_info"]


@as_written
def aslinearoperator(A: Any) -> AbstractLinearOperator:
    """Return A as a linear operator.

    Parameters
    ----------
    A : array (..., n, m), scipy.sparse array or matrix, sparse tensor or array of a framework, or operator
        torch.sparse COO, CSR and CSC, JAX's BCOO and BCSR, tf.SparseTensor. Gradients of a
        framework's array reach the array that was given.

    Returns
    -------
    AbstractLinearOperator
        `CSR` for sparse input, `Dense` for arrays; operators are returned as they are.

    Raises
    ------
    TypeError, ValueError
        If A is no matrix, or of an unsupported dtype or layout.

    Examples
    --------
    >>> import scipy.sparse as sp, backsolve as bs
    >>> bs.aslinearoperator(sp.eye_array(3, format="csr"))
    CSR(3x3, nnz=3, float64)
    """
    return A if isinstance(A, AbstractLinearOperator) else operator(frontend_of(A), A, None)


@as_written
def solve(
    A: Any,
    b: Any,
    *,
    method: Any = "auto",
    M: Any = None,
    assume: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
    x0: Any = None,
    callback: Any = None,
    nullspace: str | None = None,
) -> Any:
    """Solve A x = b, differentiably in the stored numbers of A and in b.

    Backward costs one more solve with the same factors: Aᴴ λ = g gives b̄ = λ, and the gradient with respect
    to A is -λ xᴴ on the stored places only, never n×n for a sparse A. Any order of derivative.

    Parameters
    ----------
    A : array (..., n, n), sparse array or tensor, or linear operator
        See `aslinearoperator`. Leading axes are a batch.
    b : array (n,) or (..., n, k)
        One vector only if 1-D. Leading axes broadcast with those of A. If any of A and b is a tensor of torch or
        TensorFlow or a JAX array, so is the result, and NumPy and SciPy inputs are constants.
    method : str or method object, optional
        "auto", a direct method ("superlu", "pardiso", "klu", "lu", "cholesky", "triangular"), an iterative one ("cg",
        "fcg", "minres", "bicgstab", "gmres", "fgmres", "lsmr", "chebyshev", ...), or an object such as
        ``GMRES(restart=80)``; `explain` tells of "auto".
    M : str, preconditioner or function, optional
        M ≈ A⁻¹ for an iterative method: "jacobi", "block_jacobi", "ssor", "ic0", "mic", "ilu0", "ilut", "amg",
        "chebyshev", or one of `backsolve.preconditioners`. Changes the time, never the answer; backward solves use Mᴴ.
    assume : {"general", "spd", "sym", "her", "lower", "upper"}, optional
        What is known of A; chooses the method and never the answer.
    rtol, atol : float, optional
        Ask for norm(b - A x) <= max(rtol norm(b), atol) of the true residual, for every system. Without them a
        direct method is judged by its backward error.
    adjoint : Adjoint, optional
        Tolerances and failure policy of the backward solve; the same as forward by default.
    on_failure : {"raise", "warn", "return"}, optional
        Raise `SolveError`, warn and go on, or go on. Systems that failed are NaN, and so are their gradients;
        `solve_with_info` returns the best iterate instead. Holds in backward too.
    x0 : array of the shape of x, optional
        Where an iterative method begins; zero by default. It never changes the target and has no gradient. In
        TensorFlow eagerly.
    callback : callable, optional
        ``callback(iteration, residual_norm, x)`` for each iteration of an iterative method, from 0 on, with the norms
        of its recursive residuals, one for each right-hand side. What it raises ends the solve. See `History` and
        `Progress`. Of eager solves alone, also in JAX and TensorFlow.
    nullspace : {"constant"}, optional
        A maps constants, and nothing else, to zero, from both sides, and b has mean zero: return the x of mean zero,
        with its derivatives for changes of A that leave it so. Not inside of torch.compile and tf.function; compiled by
        JAX, x is NaN, with status INACCURATE, where A or b is not of this kind.

    Returns
    -------
    array
        x, of the broadcast shape, in the wider precision of A and b, complex if one of them is. Each gradient has the
        dtype of what it belongs to.

    Raises
    ------
    SolveError
        If a system did not converge; the message says how and what to do, ``.solution`` has the details.
    TypeError, ValueError
        If shapes, dtypes, devices, frameworks or options do not fit.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([2.0, 3.0]))
    array([1., 2.])
    """
    if (torch := sys.modules.get("torch")) is not None and torch.compiler.is_compiling():
        from .frontends import torch_compile

        return torch_compile.solve(
            _solve, A, b, method, M, assume, rtol, atol, adjoint, on_failure, x0, callback, nullspace
        )
    return _solve(A, b, method, M, assume, rtol, atol, adjoint, on_failure, x0, callback, nullspace)


@eager("backsolve.solve")
def _solve(A, b, method, M, assume, rtol, atol, adjoint, on_failure, x0, callback, nullspace):
    frontend, A, b = inputs(A, b, assume)
    system = None
    if nullspace is not None:
        system = deflated(frontend, A, b, nullspace, method, M)
        A, b, method, M = system.A, system.b, system.method, system.M
    columns = columns_of(frontend, A, b)
    plan = make_plan(A, method, rtol, atol, adjoint, on_failure, keep_best=False, M=M, columns=columns)
    start(frontend, plan, x0, callback)
    x = frontend.solve(A, b, plan, Factored(once=True))[0]
    return x if system is None else system.restore(x)


@eager("backsolve.solve_with_info")
def solve_with_info(
    A: Any,
    b: Any,
    *,
    method: Any = "auto",
    M: Any = None,
    assume: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
    x0: Any = None,
    callback: Any = None,
    nullspace: str | None = None,
) -> Solution:
    """Solve A x = b like `solve`, and tell what became of it.

    Parameters
    ----------
    A, b, method, M, assume, rtol, atol, adjoint, on_failure, x0, callback, nullspace
        As for `solve`; with `nullspace`, stats are those of the system that was solved.

    Returns
    -------
    Solution
        ``.x`` as `solve` returns it, but the best iterate where a system failed without being singular;
        ``.status`` and ``.stats`` per system; ``.adjoint``, the latest backward solve, in eager torch and TensorFlow.

    Raises
    ------
    SolveError, TypeError, ValueError
        As `solve`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> sol = bs.solve_with_info(np.zeros((2, 2)), np.ones(2), on_failure="return")
    >>> sol.converged, bs.Status(int(sol.status)).name
    (False, 'SINGULAR')
    """
    frontend, A, b = inputs(A, b, assume)
    system = None
    if nullspace is not None:
        system = deflated(frontend, A, b, nullspace, method, M)
        A, b, method, M = system.A, system.b, system.method, system.M
    columns = columns_of(frontend, A, b)
    plan = make_plan(A, method, rtol, atol, adjoint, on_failure, keep_best=True, M=M, columns=columns)
    start(frontend, plan, x0, callback)
    sol = info(frontend, A, b, plan, Factored(once=True))
    return sol if system is None else system.told(sol)


@eager("backsolve.explain")
def explain(A: Any, *, method: Any = "auto", M: Any = None, assume: str | None = None) -> str:
    """Say which method `solve` would use for A, how, and why.

    Parameters
    ----------
    A, method, M, assume
        As for `solve`.

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        As `solve`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.explain(np.eye(3))
    'lu, since A is dense. LU with partial pivoting by LAPACK: the matrix is dense.'
    """
    return explain_choice(square(operator(frontend_of(A), A, assume)), method, M)
