"""Which method solves with a matrix, and why: the first rule that holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import describe
from .methods import CG, LU, METHODS, AbstractMethod, BiCGStab, Cholesky, SuperLU, Triangular
from .methods.direct import DirectMethod

__all__ = ["RULES", "check_method", "choose_method", "explain"]


def _dense(A: Any) -> bool:
    return A.structure.kind == "dense"


def _free(A: Any) -> bool:
    return A.structure.kind == "free"


RULES: list[tuple[Callable[[Any], bool], AbstractMethod, str]] = [
    (lambda A: _free(A) and A.assumed == "spd", CG(), "matrix-free and declared positive definite"),
    (_free, BiCGStab(), "matrix-free"),
    (lambda A: A.assumed in ("lower", "upper"), Triangular(), "declared triangular"),
    (lambda A: _dense(A) and A.assumed == "spd", Cholesky(), "dense and declared positive definite"),
    (_dense, LU(), "dense"),
    (lambda A: True, SuperLU(), "sparse, and SuperLU is the sparse direct engine at hand"),
]
"""(predicate, method, reason), read from the top."""


def choose_method(A: Any, method: Any = "auto") -> AbstractMethod:
    """Return the method object for A: a name, a method object, or "auto".

    Raises
    ------
    ValueError
        If the name is unknown, or the method cannot take A.
    """
    named = check_method(method)
    chosen = next(m for holds, m, _ in RULES if holds(A)) if named is None else named
    if _free(A) and isinstance(chosen, DirectMethod):
        refusal = "needs the entries of A: use 'cg' or 'bicgstab', or A.toarray() if A is small"
    else:
        refusal = chosen.refuse(A)
    if refusal:
        raise ValueError(f"method {chosen.name!r} {refusal}; A is {A!r}.")
    return chosen


def check_method(method: Any) -> AbstractMethod | None:
    """Return the method object for a name or a method object, and None for "auto", which depends on A."""
    if isinstance(method, str):
        if method == "auto":
            return None
        if method not in METHODS:
            hint = "; local solves are not a method of solve" if method == "sublinear" else ""
            known = ", ".join(map(repr, ("auto", *METHODS)))
            raise ValueError(f"method must be one of {known}, or a method object; got {method!r}{hint}.")
        return METHODS[method]()
    if not isinstance(method, tuple(METHODS.values())):
        raise ValueError(
            f"method must be a name or a method object such as backsolve.SuperLU(); got {describe(method)}."
        )
    return method


def explain(A: Any, method: Any = "auto") -> str:
    """Say which method would solve with A, how, and why."""
    chosen = choose_method(A, method)
    if method != "auto":
        return f"{chosen.name}, as named. {chosen.explain(A)}."
    reason = next(why for holds, _, why in RULES if holds(A))
    return f"{chosen.name}, since A is {reason}. {chosen.explain(A)}."
