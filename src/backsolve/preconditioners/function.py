"""A preconditioner that the user brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from scipy.sparse.linalg import LinearOperator

from ..errors import describe
from .base import AbstractPreconditioner, Prepared

__all__ = ["Function"]


@dataclass(frozen=True)
class Function(AbstractPreconditioner):
    """M v = apply(v), for any function.

    Parameters
    ----------
    apply : callable
        Maps a vector (n,) to a vector (n,), linearly. The arrays are NumPy's where A is sparse, and those of A's
        framework where it is dense or matrix-free. It is called for one column after the other.
    adjoint : callable, optional
        Applies Mᴴ; needed by backward solves, unless M is `symmetric`.
    symmetric : bool
        Whether M is Hermitian positive definite, which CG and MINRES need.
    varying : bool
        Whether M changes from one application to the next, such as an inner iteration or a network with state: then
        only "fcg" and "fgmres" take it. It may be non-linear.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A, d = np.array([[9.0, 1.0], [1.0, 2.0]]), np.array([9.0, 2.0])
    >>> M = bs.preconditioners.Function(lambda v: v / d, symmetric=True)
    >>> bs.solve(A, np.array([10.0, 3.0]), method="cg", M=M).round(6)
    array([1., 1.])
    """

    apply: Callable
    adjoint: Callable | None = None
    symmetric: bool = False
    varying: bool = False  # type: ignore[misc]

    name: ClassVar[str] = "function"
    traceable: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("apply", "adjoint"):
            value = getattr(self, name)
            if not callable(value) and not (name == "adjoint" and value is None):
                raise TypeError(f"Function: {name} must be a function v -> M v; got {describe(value)}.")

    @property
    def hermitian(self) -> bool:  # type: ignore[override]
        """As declared."""
        return self.symmetric

    def explain(self, A: Any) -> str:
        """A function."""
        return "a function that was given"

    def prepare(self, A: Any) -> Prepared:
        """Nothing is made."""
        n, xp = A.shape[0], A.structure.xp

        def apply(v: Any, adjoint: bool) -> Any:
            fn = self.apply
            if adjoint and not self.symmetric:
                if self.adjoint is None:
                    raise ValueError(
                        "M: a backward solve needs Mᴴ; got a function without it: give Function(apply, adjoint=...), "
                        "or declare symmetric=True if M is Hermitian."
                    )
                fn = self.adjoint
            items = [
                xp.stack([_checked(fn(v[i, :, c]), v, n) for c in range(v.shape[2])], axis=1) for i in range(v.shape[0])
            ]
            return xp.stack(items)

        def whole(v: Any, adjoint: bool) -> Any:
            return apply(v, adjoint) if v.shape[0] and v.shape[2] else v

        return Prepared(whole)


def function_of(M: LinearOperator) -> Function:
    """SciPy's spelling of a preconditioner."""
    return Function(M.matvec, M.rmatvec)


def _checked(z: Any, v: Any, n: int) -> Any:
    if tuple(getattr(z, "shape", ())) != (n,) or getattr(z, "dtype", None) != v.dtype:
        raise ValueError(
            f"M: apply(v) must return an array of shape ({n},) and dtype {v.dtype}, as v has; got {describe(z)}."
        )
    return z
