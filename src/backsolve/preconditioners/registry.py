"""Preconditioners by name: one literal dict drives selection, tests and documentation."""

from __future__ import annotations

from typing import Any

from scipy.sparse.linalg import LinearOperator

from ..errors import describe
from .amg import AMG
from .base import AbstractPreconditioner
from .chebyshev import Chebyshev
from .diagonal import BlockJacobi, Jacobi
from .function import Function, function_of
from .ilut import ILUT
from .sweeps import IC0, ILU0, MIC, SSOR

__all__ = ["PRECONDITIONERS", "check_preconditioner"]

PRECONDITIONERS: dict[str, type] = {
    "jacobi": Jacobi,
    "block_jacobi": BlockJacobi,
    "ssor": SSOR,
    "ic0": IC0,
    "mic": MIC,
    "ilu0": ILU0,
    "ilut": ILUT,
    "amg": AMG,
    "chebyshev": Chebyshev,
}
"""Those that can be made from A alone, by name."""

_ONE_OF_EACH: dict[str, AbstractPreconditioner] = {}


def check_preconditioner(M: Any) -> AbstractPreconditioner | None:
    """Return the preconditioner for a name, an object, a function or a SciPy operator; None stays None.

    Raises
    ------
    ValueError, TypeError
        If it is none of these.
    """
    if M is None or isinstance(M, AbstractPreconditioner):
        return M
    if isinstance(M, str):
        if M not in PRECONDITIONERS:
            known = ", ".join(map(repr, PRECONDITIONERS))
            raise ValueError(f"M must be one of {known}, a preconditioner, or a function v -> M v; got {M!r}.")
        return _ONE_OF_EACH.setdefault(M, PRECONDITIONERS[M]())
    if isinstance(M, type) and issubclass(M, AbstractPreconditioner):
        raise TypeError(f"M must be an object; got the class {M.__name__}: write {M.__name__}().")
    if isinstance(M, LinearOperator):
        return function_of(M)
    if callable(M):
        return Function(M)
    raise TypeError(
        f"M must be a name, a preconditioner, or a function v -> M v; got {describe(M)}: for an array that "
        "approximates the inverse of A write lambda v: M @ v."
    )
