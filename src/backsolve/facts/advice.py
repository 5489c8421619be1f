"""What follows from the facts, in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._local.forecast import PER_PUSH, global_work
from ..methods import METHODS

__all__ = ["advice"]

_SINGLE, _DOUBLE = (float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64))


def advice(found: Any) -> tuple[str, ...]:
    """Sentences about an `Analysis`, the most urgent first."""
    made = (_singular(found), _declaration(found), _accuracy(found), _scaled(found), _cost(found), _blocks(found))
    told = tuple(sentence for sentences in (*made, _local(found)) for sentence in sentences)
    return (*told, f"solve takes {found.explanation}")


def _singular(found: Any):
    if found.singularity.reason:
        word = "singular" if found.singularity.certain else "singular to rounding"
        remedy = ": fix one unknown there, or add to its diagonal" if "constants" in found.singularity.reason else ""
        yield f"A is {word}: {found.singularity.reason}{remedy}."
    elif found.condition == np.inf:
        yield "A is singular to working precision: fix one unknown, or add a multiple of the identity."


def _declaration(found: Any):
    kind, assumed, triangle = found.definiteness.kind, found.assumed, found.structure.triangle
    if assumed == "spd" and found.definiteness.holds is not None and kind != "positive definite":
        yield f"A was declared 'spd' and is not: it is {kind} ({found.definiteness.witness}); declare 'general'."
    elif assumed in ("lower", "upper") and triangle not in ("diagonal", assumed):
        yield f"A was declared {assumed!r} and has entries in the other triangle; declare 'general'."
    elif assumed in ("sym", "her") and (found.symmetry.transpose if assumed == "sym" else found.symmetry.adjoint):
        yield f"A was declared {assumed!r} and is {found.symmetry.kind}."
    elif assumed == "general" and triangle and found.shape[0] > 1:
        word = "lower" if triangle == "diagonal" else triangle
        yield (
            f"Declare assume={word!r}: A is {triangle}{'' if triangle == 'diagonal' else ' triangular'}, so nothing "
            "needs to be factored."
        )
    elif kind == "positive definite" and found.symmetry.adjoint > 0:
        yield f"A is {found.symmetry.kind}: (A + Aᴴ)/2 is positive definite, symmetrise and declare assume='spd'."
    elif assumed == "general" and kind == "positive definite":
        yield "Declare assume='spd': A is positive definite, so pivots may stay on the diagonal and CG may be used."
    elif kind == "negative definite":
        yield "Solve -A x = -b with assume='spd': -A is positive definite."
    elif assumed == "general" and found.symmetry.adjoint == 0 and kind in ("indefinite", "unknown"):
        yield "A is Hermitian: assume='her' says so ('sym' if it is real)."


def _accuracy(found: Any):
    if found.condition is None:
        yield "The condition number was not estimated: analyze(A, condition=True) does it, whatever it takes."
        return
    if not np.isfinite(found.condition):
        return
    single = found.dtype in ("float32", "complex64")
    if found.condition * _SINGLE > 0.01:
        remedy = "; use float64." if single else "."
        left = _digits(found.condition * _SINGLE)
        yield f"float32 is unsafe: condition {found.condition:.0e} leaves {left} of x{remedy}"
    if not single and found.condition * _DOUBLE > 1e-4:
        left = _digits(found.condition * _DOUBLE)
        yield f"Even float64 leaves {left} of x: scale, regularise, or ask what x is needed for."


def _digits(error: float) -> str:
    count = max(0, int(-np.log10(error)))
    return f"about {count} digit{'s' * (count != 1)}" if count else "no digit"


def _scaled(found: Any):
    rows, columns = found.scaling.rows, found.scaling.columns
    if max(rows, columns) > 1e4:
        which = "rows and columns" if min(rows, columns) > 1e4 else "rows" if rows > columns else "columns"
        yield f"Equilibrate: {which} differ in size by {max(rows, columns):.0e}; A.scale(rows=r, columns=c) does it."


def _cost(found: Any):
    expected = found.forecast
    if expected.flops is not None and expected.flops > 1e11:
        how = "'cg', as A is positive definite" if found.definiteness.kind == "positive definite" else "'bicgstab'"
        yield f"Factors take {expected.nbytes / 1e9:.1f} GB and {expected.flops:.0e} operations: try method={how}."
    zeros = found.structure.missing_diagonals + found.structure.zero_diagonals
    if zeros:
        yield f"{zeros} diagonal entries are zero: pivots must leave the diagonal, and the forecast is rough."


def _blocks(found: Any):
    sizes, n = found.structure.blocks, found.shape[0]
    if len(sizes) > 1 and sizes[0] < 0.9 * n and not found.structure.triangle:
        how = "method='klu' factors those alone" if "klu" in METHODS else "solve them one after the other"
        if found.forecast.method != "klu":
            yield f"A falls into {len(sizes)} diagonal blocks, the largest of {sizes[0]}: {how}."


def _local(found: Any):
    gaps = {"rows": found.dominance.row_gap, "columns": found.dominance.column_gap}
    best = max(gaps, key=lambda name: gaps[name])
    if found.shape[0] < 1000 or not gaps[best] > 0 or found.dtype.startswith("complex"):
        return
    accuracy = local_accuracy(found.nnz, gaps[best])
    if accuracy < 1e-2:
        yield (
            f"Local solves pay: {best} are dominant with relative gap {gaps[best]:.2g}; one entry or functional of the "
            f"solution to a relative accuracy of {accuracy:.0e} or coarser is quicker by backsolve.local.functional."
        )


def local_accuracy(nnz: int, gap: float) -> float:
    """The accuracy at which pushes on both sides read as much, 2/(gap √accuracy), as a tenth of a global solve."""
    read = global_work(nnz, gap) / PER_PUSH
    return max(float((2 / (gap * read)) ** 2), 1e-12)
