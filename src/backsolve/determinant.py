"""The determinant, by its sign and logarithm."""

from __future__ import annotations

from typing import Any

from .dispatch import frontend_of, make_plan, operator, square
from .eager import eager
from .factorization import Factorization
from .plan import Factored

__all__ = ["slogdet"]


@eager("backsolve.slogdet")
def slogdet(A: Any) -> tuple[Any, Any]:
    """Return the sign and the logarithm of the modulus of det A, as NumPy and torch name them.

    Dense: from the framework's LU. Sparse: from the factors P_r A P_c = L U of SuperLU, with the diagonal of U and the
    parities of the permutations; declared "lower" or "upper": from the diagonal, once the other triangle is seen to
    be zero. In torch, JAX and TensorFlow differentiable to any order in the numbers of A: d log|det A| = Re tr(A⁻¹ dA).

    Parameters
    ----------
    A : array (..., n, n), sparse array or tensor, linear operator, or Factorization
        See `aslinearoperator`. The factors of a sparse `Factorization` are used.

    Returns
    -------
    sign : array (...,)
        1 or -1, a number of modulus 1 if A is complex, and 0 if A is singular.
    logabsdet : array (...,)
        -inf where A is singular.

    Raises
    ------
    SolveError
        In the derivative for a sparse A, if A is singular (in a compiled program of JAX it is NaN instead); the
        framework's own error for a dense one.
    TypeError, ValueError
        As `solve`; ValueError also for a sparse A that is not the triangle that it is declared to be.

    Notes
    -----
    *Differentiation* of a sparse A needs the entries of A⁻ᴴ on the stored places: n solves with the factors at
    hand, in blocks, in O(nnz) memory and one block of 4 million numbers. A graph for a second derivative keeps
    all n solutions, n² numbers.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = bs.coo(np.array([2.0, 3.0]), ([0, 1], [1, 0]), (2, 2))
    >>> sign, logabsdet = bs.slogdet(A)
    >>> float(sign), float(np.exp(logabsdet).round(12))
    (-1.0, 6.0)
    """
    if isinstance(A, Factorization):
        return _of_factors(A)
    frontend = frontend_of(A)
    A = square(operator(frontend, A, None))
    if A.structure.kind == "free":
        raise ValueError(f"slogdet needs the entries of A; A is {A!r}: use A.toarray() if it is small.")
    if A.structure.kind == "dense":
        return frontend.slogdet(A, None, Factored())
    method = "triangular" if A.assumed in ("lower", "upper") else "superlu"
    A = A if method == "triangular" else A.assume("general")
    return frontend.slogdet(A, make_plan(A, method, None, None, None, "raise", False), Factored())


def _of_factors(F: Factorization) -> tuple[Any, Any]:
    F._check_unchanged()
    plan = None if F.A.structure.kind == "dense" else F._plan
    sign, size = frontend_of(F.A).slogdet(F.A, plan, F._factored)
    return (F.A.operations["conj"](sign) if F._is_adjoint else sign), size
