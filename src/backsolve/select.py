"""Which method solves with a matrix, and why: the first rule that holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import describe
from .methods import CG, KLU, LU, METHODS, AbstractMethod, BiCGStab, Cholesky, Pardiso, SuperLU, Triangular
from .methods.availability import installed, missing_sentence, why_missing
from .methods.direct import DirectMethod

__all__ = ["RULES", "check_method", "choose_method", "explain"]


def _dense(A: Any) -> bool:
    return A.structure.kind == "dense"


def _free(A: Any) -> bool:
    return A.structure.kind == "free"


def _circuits(A: Any) -> bool:
    """Many items whose factors are thin: more than twice as fast as SuperLU in benchmarks/results/circuits.json."""
    items = math.prod(A.data.shape[:-1])
    return items >= 8 and installed("klu") and KLU().refuse(A) is None and KLU().flops_per_entry(A) < 40


def _fills_in(A: Any) -> bool:
    """Large meshes, whose factors have dense blocks; not bands, nor networks with hubs, whose factors stay thin.

    There a step of training with Pardiso takes at most three quarters of the time with SuperLU, and as little as a
    thirtieth in three dimensions; the first solve takes between a third more and a tenth. In three dimensions that
    holds from 4,000 unknowns on, in two from 50,000 (benchmarks/results/engines.json).
    """
    n = A.shape[0]
    if n < 4_000 or Pardiso().refuse(A) is not None:
        return False
    pattern = A.structure
    if "fills in" not in pattern.memo:
        mean, longest = pattern.nnz / n, np.diff(pattern.indptr).max()
        bandwidth = np.abs(pattern.rows - pattern.indices).max(initial=0)
        dense_enough = mean >= 6.5 or (mean >= 4.5 and n >= 50_000)
        pattern.memo["fills in"] = bool(dense_enough and longest <= 6 * mean and bandwidth >= math.sqrt(n) / 2)
    return pattern.memo["fills in"]


RULES: list[tuple[Callable[[Any], bool], AbstractMethod, str]] = [
    (lambda A: _free(A) and A.assumed == "spd", CG(), "matrix-free and declared positive definite"),
    (_free, BiCGStab(), "matrix-free"),
    (lambda A: A.assumed in ("lower", "upper"), Triangular(), "declared triangular"),
    (lambda A: _dense(A) and A.assumed == "spd", Cholesky(), "dense and declared positive definite"),
    (_dense, LU(), "dense"),
    (_circuits, KLU(), "a sparse batch whose factors are thin: one ordering, and pivots, serve all items"),
    (lambda A: _fills_in(A) and installed("pardiso"), Pardiso(), "sparse and a large mesh, whose factors fill in"),
    (lambda A: True, SuperLU(), "sparse, and SuperLU is the sparse direct engine at hand"),
]
"""(predicate, method, reason), read from the top."""


def choose_method(A: Any, method: Any = "auto") -> AbstractMethod:
    """Return the method object for A: a name, a method object, or "auto".

    Raises
    ------
    ValueError
        If the name is unknown, or the method cannot take A.
    ImportError
        If the method needs a package that is not there.
    """
    named = check_method(method)
    chosen = next(m for holds, m, _ in RULES if holds(A)) if named is None else named
    if _free(A) and isinstance(chosen, DirectMethod):
        refusal = "needs the entries of A: use 'cg' or 'bicgstab', or A.toarray() if A is small"
    else:
        refusal = chosen.refuse(A)
    if refusal:
        raise ValueError(f"method {chosen.name!r} {refusal}; A is {A!r}.")
    if missing := missing_sentence(chosen.name):
        raise ImportError(missing)
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
    missing = ""
    if _fills_in(A) and (why := why_missing("pardiso")):
        gain = "Pardiso would take at most three quarters of the time in a loop, and often a tenth"
        missing = f" {gain}; {why}: pip install 'backsolve[pardiso]'."
    return f"{chosen.name}, since A is {reason}. {chosen.explain(A)}.{missing}"
