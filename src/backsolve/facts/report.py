"""An analysis as text for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

__all__ = ["report"]

_LINES, _WIDTH = 30, 110


def report(found: Any) -> str:
    """At most 30 lines of at most 110 characters: the facts, then as much advice as fits."""
    lines = [_head(found), *(f"  {name:<18}{what}" for name, what in _facts(found))]
    lines = [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in lines]
    room = _LINES - len(lines) - 1
    told: list[str] = []
    for at, sentence in enumerate(found.advice):
        wrapped = textwrap.wrap(sentence, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
        left = len(found.advice) - at
        if len(told) + len(wrapped) + (left > 1) > room:
            told.append(f"  - {left} more in .advice")
            break
        told += wrapped
    return "\n".join([*lines, "advice", *told])


def _head(found: Any) -> str:
    shape = f"{found.shape[0]:,} x {found.shape[1]:,} matrix"
    item = f", item {found.item} of a batch {found.batch_shape}" if found.batch_shape else ""
    zeros = f", {found.stored_zeros:,} of them zero" if found.stored_zeros else ""
    declared = "" if found.assumed == "general" else f", assume={found.assumed!r}"
    per_row = found.nnz / max(found.shape[0], 1)
    return f"{shape}, {found.dtype}{item}{declared}: {found.nnz:,} entries, {per_row:.3g} per row{zeros}"


def _facts(found: Any):
    at, marks, cost = found.structure, found.dominance, found.forecast
    triangle = f"; {at.triangle}{'' if at.triangle == 'diagonal' else ' triangular'}" if at.triangle else ""
    yield "symmetry", f"{found.symmetry.kind}; {found.symmetry.pattern:.0%} of the pattern mirrored{triangle}"
    if found.definiteness.kind != "not Hermitian":
        yield "definiteness", str(found.definiteness)
    for name, gap, weak, margins in (
        ("row dominance", marks.row_gap, marks.weak_rows, marks.rows),
        ("column dominance", marks.column_gap, marks.weak_columns, marks.columns),
    ):
        least = f"smallest margin {margins.min(initial=np.inf):.3g}, relative {gap:.3g}"
        yield name, f"{least}; {'all' if not weak else f'{len(margins) - weak:,} of {len(margins):,}'} strict"
    yield "H-matrix", str(found.h_matrix)
    yield "M-matrix", str(found.m_matrix)
    yield "bandwidth", f"{at.bandwidth:,}, profile {at.profile:,}"
    yield "", f"after reverse Cuthill-McKee {at.rcm_bandwidth:,}, profile {at.rcm_profile:,}"
    blocks = f"{len(at.blocks):,}, largest {at.blocks[0]:,}" if len(at.blocks) else "none"
    yield "components", f"{at.component_count:,}; strong {at.strong_count:,}; blocks of triangular form {blocks}"
    zeros = f"{at.missing_diagonals:,} not stored, {at.zero_diagonals:,} stored zeros"
    yield "diagonal", zeros if at.missing_diagonals + at.zero_diagonals else "no zeros"
    short = f"{at.rank:,} of {found.shape[0]:,}" if at.rank < found.shape[0] else "full"
    yield "structural rank", f"{short}; empty rows {len(at.empty_rows):,}, empty columns {len(at.empty_columns):,}"
    spread = found.scaling
    yield "largest/smallest", f"rows {spread.rows:.0e}, columns {spread.columns:.0e}, entries {spread.entries:.0e}"
    if found.condition is not None:
        yield "condition", f"{found.condition:.1e} (1-norm, estimated from below)"
    ordering = f", ordering {cost.ordering}" if cost.ordering else ""
    if cost.entries is None:
        yield "factors", f"{cost.method}{ordering}: not forecast"
    else:
        size = f"{cost.entries:,} entries, {_bytes(cost.nbytes)}, {cost.flops:.0e} operations"
        yield "factors", f"{cost.method}{ordering}: {size}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
