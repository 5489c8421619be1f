"""Factor once, solve many times."""

from __future__ import annotations

from typing import Any

import numpy as np

from .dispatch import frontend_of, info, make_plan, operator, square
from .eager import eager
from .factor_cache import digest
from .operators import AbstractLinearOperator
from .options import Adjoint
from .plan import Factored, Plan
from .shapes import check_rhs
from .solution import Solution

__all__ = ["Factorization", "factorize"]


class Factorization:
    """A factored matrix: what `factorize` returns.

    ``F.solve(b)`` is differentiable in ``F.A.data`` and b like `backsolve.solve`, and all solves, forward and
    backward, use the one factorization, which lives as long as F or a graph through it.

    Attributes
    ----------
    A : AbstractLinearOperator
        The operator whose values were factored.
    adjoint : Factorization
        The same factors, solving Aᴴ x = b.
    """

    def __init__(
        self,
        A: AbstractLinearOperator,
        plan: Plan,
        factored: Factored,
        adjoint: bool = False,
        stamp: int | bytes | None = None,
    ):
        self.A, self._plan, self._factored, self._is_adjoint = A, plan, factored, adjoint
        self._stamp = _stamp(A.data) if stamp is None else stamp

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix."""
        return self.A.shape

    @property
    def method(self) -> Any:
        """The method object."""
        return self._plan.method

    @property
    def adjoint(self) -> Factorization:
        """The view that solves Aᴴ x = b; F.adjoint.adjoint solves A x = b again."""
        return Factorization(self.A, self._plan, self._factored, not self._is_adjoint, self._stamp)

    @eager("F.solve")
    def solve(self, b: Any) -> Any:
        """Solve for b of shape (n,) or (..., n, k).

        Raises
        ------
        SolveError
            If a system did not converge.
        RuntimeError
            If the values were changed in place after they were factored.
        """
        frontend, A, b = self._ready(b)
        return frontend.solve(A, b, self._plan, self._factored, self._is_adjoint)[0]

    @eager("F.solve_with_info")
    def solve_with_info(self, b: Any) -> Solution:
        """Solve as `solve` does, and tell what became of it."""
        frontend, A, b = self._ready(b)
        return info(frontend, A, b, self._plan, self._factored, self._is_adjoint)

    @eager("F.refactorize")
    def refactorize(self, data: Any) -> Factorization:
        """Factor other values on the same pattern; this Factorization stays valid for its own values.

        Parameters
        ----------
        data : array of the shape of ``A.data`` (or with other leading axes)
        """
        A = self.A.with_data(frontend_of(self.A, data).asarray("data", data))
        plan, factored = self._plan, Factored()
        frontend_of(A).prepare(A, plan, factored)
        return Factorization(A, plan, factored, self._is_adjoint)

    def _of(self, A: AbstractLinearOperator) -> Factorization:
        """The same factors for an operator whose values are equal, but have a graph of their own."""
        return Factorization(A, self._plan, self._factored, self._is_adjoint)

    def _check_unchanged(self) -> None:
        if _stamp(self.A.data) != self._stamp:
            raise RuntimeError(
                "the values of A were changed in place after they were factored, so the factors are those of another "
                "matrix: call F.refactorize(A.data)."
            )

    def _ready(self, b: Any) -> tuple[Any, AbstractLinearOperator, Any]:
        self._check_unchanged()
        frontend = frontend_of(self.A, b)
        A, b = frontend.asoperator(self.A), frontend.asarray("b", b)
        check_rhs("b", tuple(b.shape), A.shape[0])
        if frontend.result_dtype(A.data, b) != A.data.dtype:
            raise TypeError(
                f"b must not need a wider dtype than the factors; A is {A.data.dtype} and b {b.dtype}: "
                "convert A before factorize, or b."
            )
        return frontend, A, b

    def __reduce__(self):
        raise TypeError(
            "a Factorization holds factors in an engine's memory and cannot be pickled: pickle F.A and factorize again."
        )

    def __repr__(self) -> str:
        return f"Factorization of {'the adjoint of ' if self._is_adjoint else ''}{self.A!r} by {self.method}"


@eager("backsolve.factorize")
def factorize(
    A: Any,
    *,
    method: Any = "auto",
    M: Any = None,
    assume: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> Factorization:
    """Factor A now, for many solves.

    Parameters
    ----------
    A, method, M, assume, rtol, atol, adjoint, on_failure
        As for `solve`; an iterative method keeps its preconditioner.

    Returns
    -------
    Factorization
        A matrix that cannot be factored is told by its first solve, whose policy `on_failure` is.

    Raises
    ------
    TypeError, ValueError
        As `solve`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> F = bs.factorize(np.array([[2.0, 1.0], [0.0, 4.0]]))
    >>> F.solve(np.array([4.0, 8.0])), F.adjoint.solve(np.array([2.0, 9.0]))
    (array([1., 2.]), array([1., 2.]))
    """
    frontend = frontend_of(A)
    A = square(operator(frontend, A, assume))
    if A.structure.kind == "free":
        raise ValueError(f"factorize needs the entries of A; A is {A!r}: use solve, or A.toarray() if it is small.")
    plan, factored = make_plan(A, method, rtol, atol, adjoint, on_failure, keep_best=False, M=M), Factored()
    frontend.prepare(A, plan, factored)
    return Factorization(A, plan, factored)


def _stamp(data: Any) -> int | bytes:
    """Changes when values are written in place: torch's version counter, or a digest of NumPy values.

    JAX's arrays never change.
    """
    return digest(data) if isinstance(data, np.ndarray) else getattr(data, "_version", 0)
