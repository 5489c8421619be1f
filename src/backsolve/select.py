"""Which method solves with a matrix, and why: the first rule that holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import reverse_cuthill_mckee

from .errors import describe
from .methods import (
    CG,
    GMRES,
    KLU,
    LU,
    METHODS,
    MINRES,
    AbstractMethod,
    BiCGStab,
    Cholesky,
    Pardiso,
    SuperLU,
    Triangular,
)
from .methods.availability import installed, missing_sentence, why_missing
from .methods.direct import DirectMethod
from .methods.iterative import IterativeMethod
from .plan import GAVE_WAY
from .preconditioners import MIC

__all__ = ["RULES", "check_method", "choose_method", "explain"]


def _dense(A: Any) -> bool:
    return A.structure.kind == "dense"


def _free(A: Any) -> bool:
    return A.structure.kind == "free"


def _is_batch(A: Any) -> bool:
    batch = tuple(A.data.shape[:-1])
    return None in batch or math.prod(batch) >= 8  # None: as many as a running program has


def _thin(A: Any) -> bool:
    """Circuits, power grids and other networks, whose factors stay thin; smaller meshes, and more where in batches.

    A step with new values on a known pattern takes a third to a half of the time with SuperLU, a new pattern at most
    twice as long, so that the third solve makes up for it; in batches, which share it, two fifths from the first on
    (benchmarks/results/choice.json). Where places of the diagonal are empty and the pattern is far from symmetric, KLU
    first permutes it to block triangular form, and thin need not be asked for: a fifth to a fifteenth in a step, 1.2
    times to a third once (benchmarks/results/circuits.json).
    """
    return (
        installed("klu")
        and KLU().refuse(A) is None
        and _might_be_thin(A)
        and not (A.shape[0] >= 50_000 and _fills_in(A))
        and (_wants_matching(A.structure) or KLU().flops_per_entry(A) < (90 if _is_batch(A) else 50))
    )


def _might_be_thin(A: Any) -> bool:
    """Whether it is worth asking: KLU's ordering takes a tenth of SuperLU's first factorization."""
    pattern, n = A.structure, A.shape[0]
    return _is_batch(A) or (n >= 500 and (pattern.nnz <= 10 * n or _wants_matching(pattern)))


def _wants_matching(pattern: Any) -> bool:
    return not pattern.has_full_diagonal and pattern.symmetry < 0.5


def _fills_in(A: Any) -> bool:
    """Large meshes, whose factors have dense blocks; not bands, nor networks with hubs, whose factors stay thin.

    There a step of training with Pardiso takes a fifth to two thirds of the time with SuperLU; the first solve takes
    between 1.9 times, where A is definite and of 10,000 unknowns, and a tenth. In three dimensions that holds from
    1,500 unknowns on, in two from 50,000, or 10,000 where only a triangle is factored, and in batches, which share the
    analysis, from 5,000 (benchmarks/results/choice.json); for the long rows of high-order and shell elements, too, from
    1,500 (benchmarks/results/compare.json).
    """
    n, pattern = A.shape[0], A.structure
    if n < 1_500 or Pardiso().refuse(A) is not None:
        return False
    mean = pattern.nnz / n
    plane = 5_000 if _is_batch(A) else 10_000 if A.assumed == "spd" else 50_000
    return _is_mesh(pattern) and (mean >= 6.4 or (mean >= 4.5 and n >= plane))


def _front(pattern: Any) -> float:
    """Mean reach of a row to the left of the diagonal after reverse Cuthill-McKee: worked out once for a pattern.

    About as many unknowns as a front that sweeps through the mesh has, and elimination has to fill in: up to √n in the
    plane, n^(2/3)/2 and more in space.
    """
    if "front" not in pattern.memo:
        n, place = pattern.shape[0], np.empty(pattern.shape[0], np.int64)
        graph = sp.csr_matrix((np.ones(pattern.nnz, np.int8), pattern.indices, pattern.indptr), shape=pattern.shape)
        place[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(n)
        first = np.minimum.reduceat(place[pattern.indices], pattern.indptr[:-1])
        pattern.memo["front"] = float(np.maximum(place - first, 0).mean())
    return pattern.memo["front"]


def _is_mesh(pattern: Any) -> bool:
    """Rows of much the same length, and no band: worked out once for a pattern."""
    if "mesh" not in pattern.memo:
        n, longest = pattern.shape[0], np.diff(pattern.indptr).max(initial=0)
        bandwidth = np.abs(pattern.rows - pattern.indices).max(initial=0)
        pattern.memo["mesh"] = bool(longest <= 6 * pattern.nnz / n and bandwidth >= math.sqrt(n) / 2)
    return pattern.memo["mesh"]


def _in_space(A: Any) -> bool:
    """Meshes in three dimensions, one at a time, in double precision: told by their fronts, whatever the rows.

    Not those on whose pattern an iteration has failed before: a loop of training would make the attempt in every step.
    """
    pattern, n = A.structure, A.shape[0]
    return (
        n >= 4_000
        and GAVE_WAY not in pattern.memo
        and pattern.nnz >= 5.5 * n
        and not _is_batch(A)
        and str(A.data.dtype).endswith("float64")
        and pattern.has_full_diagonal
        and _is_mesh(pattern)
        and pattern.nnz < 20 * n
        and pattern.symmetry == 1.0
        and _front(pattern) > 1.5 * math.sqrt(n)
    )


def _definite_in_space(A: Any) -> bool:
    """CG with MIC, where A is declared definite.

    It takes between 1.6 times of the quickest direct method in a step of 4,096 unknowns, where the coefficient is
    rough, and a sixteenth of 262,144 (benchmarks/results/choice.json). In the plane nothing that iterates is quicker by
    as much as half, and with rough coefficients it takes twenty times as long.
    """
    return A.assumed == "spd" and _in_space(A)


def _general_in_space(A: Any) -> bool:
    """BiCGStab with ILU(0), where A is not declared definite, to a residual near that of factors.

    It takes between 1.2 times of the quickest direct method in a step of 4,096 unknowns, where the coefficient is
    rough, and a twentieth of 262,144 (benchmarks/results/choice.json). Hard coefficients let it fail: iterations are
    bounded by what a factorization takes, so that the attempt about doubles the time of the first solve, and the
    pattern remembers.
    """
    return A.assumed != "spd" and _in_space(A)


RULES: list[tuple[Callable[[Any], bool], AbstractMethod, str]] = [
    (lambda A: _free(A) and A.assumed == "spd", CG(), "matrix-free and declared positive definite"),
    (_free, BiCGStab(), "matrix-free"),
    (lambda A: A.assumed in ("lower", "upper"), Triangular(), "declared triangular"),
    (lambda A: _dense(A) and A.assumed == "spd", Cholesky(), "dense and declared positive definite"),
    (_dense, LU(), "dense"),
    (
        _definite_in_space,
        CG(rtol=1e-10, maxiter=500, M=MIC(0.99)),
        "declared positive definite, and fills in as space does",
    ),
    (
        lambda A: A.shape[0] >= 100_000 and _general_in_space(A),
        BiCGStab(rtol=1e-12, maxiter=400, M="ilu0"),
        "a mesh that fills in as space does",
    ),
    (_general_in_space, BiCGStab(rtol=1e-12, maxiter=100, M="ilu0"), "a mesh that fills in as space does"),
    (_thin, KLU(), "sparse with thin factors, for whose other values one ordering, and mostly its pivots, serve again"),
    (lambda A: _fills_in(A) and installed("pardiso"), Pardiso(), "sparse and a large mesh, whose factors fill in"),
    (lambda A: True, SuperLU(), "sparse, and SuperLU is the sparse direct engine at hand"),
]
"""(predicate, method, reason), read from the top."""

ITERATING = [method for _, method, _ in RULES if isinstance(method, IterativeMethod) and method.M is not None]
"""Methods of the rules that iterate with an A whose entries are known: only for solves that may begin anew."""

_FEW = 8  # right-hand sides for which iterating takes less than a factorization

WITH_M: list[tuple[Callable[[Any], bool], AbstractMethod, str]] = [
    (lambda A: A.assumed == "spd", CG(), "declared positive definite, and M is given"),
    (lambda A: A.assumed == "her", MINRES(), "declared Hermitian, and M is given"),
    (lambda A: True, GMRES(), "not declared definite, and M is given"),
]
"""The same where a preconditioner asks for an iterative method."""


def choose_method(A: Any, method: Any = "auto", M: Any = None, columns: int | None = None) -> AbstractMethod:
    """Return the method object for A: a name, a method object, or "auto", with the preconditioner M.

    "auto" takes a direct method for an A with entries unless `columns`, the right-hand sides for each matrix, are known
    and few.

    Raises
    ------
    ValueError
        If the name is unknown, or the method cannot take A.
    ImportError
        If the method needs a package that is not there.
    """
    named = check_method(method)
    chosen = _rule(A, M, columns)[0] if named is None else named
    if M is not None:
        chosen = _with_preconditioner(chosen, M)
    if _free(A) and isinstance(chosen, DirectMethod):
        refusal = "needs the entries of A: use 'cg' or 'bicgstab', or A.toarray() if A is small"
    else:
        refusal = chosen.refuse(A)
    if refusal:
        raise ValueError(f"method {chosen.name!r} {refusal}; A is {A!r}.")
    if missing := missing_sentence(chosen.name):
        raise ImportError(missing)
    return chosen


def _rule(A: Any, M: Any, columns: int | None) -> tuple[AbstractMethod, str]:
    iterate = columns is not None and columns <= _FEW
    return next(
        (method, why)
        for holds, method, why in (RULES if M is None else WITH_M)
        if (iterate or method not in ITERATING) and holds(A)
    )


def _with_preconditioner(method: AbstractMethod, M: Any) -> AbstractMethod:
    if not isinstance(method, IterativeMethod):
        raise ValueError(
            f"M is for iterative methods; the method is {method}: leave it out, or name one such as 'cg' or 'gmres'."
        )
    given = method.M if any(f.name == "M" for f in fields(method)) else None
    if given is not None:
        raise TypeError(f"M was given twice: in {method}, and {M} in the call: give one.")
    return replace(method, M=M)


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
    if not isinstance(method, (*METHODS.values(), IterativeMethod)) or type(method) is IterativeMethod:
        raise ValueError(
            f"method must be a name or a method object such as backsolve.SuperLU(); got {describe(method)}."
        )
    return method


def explain(A: Any, method: Any = "auto", M: Any = None) -> str:
    """Say which method would solve with A, how, and why."""
    chosen = choose_method(A, method, M, columns=1)
    if method != "auto":
        return f"{chosen.name}, as named. {chosen.explain(A)}."
    reason = _rule(A, M, 1)[1]
    if chosen in ITERATING:
        direct = choose_method(A)
        return (
            f"{chosen}, since A is {reason}. {chosen.explain(A)}. {direct.name} instead in compiled programs, for "
            f"factorize and more than {_FEW} right-hand sides, and where this does not converge."
        )
    return f"{chosen.name}, since A is {reason}. {chosen.explain(A)}.{_what_is_missing(A)}"


def _what_is_missing(A: Any) -> str:
    """Which engine that is not there would have been taken, or looked at, and what it would bring."""
    if _dense(A) or _free(A) or A.assumed in ("lower", "upper"):
        return ""
    pardiso = "Pardiso would take at most three quarters of the time in a loop, and often a tenth"
    klu = "if its factors are thin, as those of networks are, KLU would factor other values several times as fast"
    gains = {"pardiso": (_fills_in, pardiso), "klu": (_might_be_thin, klu)}
    for name, (holds, gain) in gains.items():
        if holds(A) and (why := why_missing(name)):
            return f" {gain}; {why}: pip install 'backsolve[{name}]'."
    return ""
