"""What is summed over the rows and columns of a folder: margins, gaps, strengths, and whether it is symmetric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import _kernels
from .access import Access
from .chunks import row_chunks
from .margins import margins
from .npy import Stored, Writer, mapped

__all__ = ["gap", "margins_and_gaps", "ranges", "strengths", "symmetric_defect", "window"]


def window(folder: Path, symmetric: bool) -> Access:
    """The arrays of a folder mapped anew, so that what was read through earlier maps does not stay resident."""
    names = ("indptr", "indices", "data") + (() if symmetric else ("t_indptr", "t_indices", "t_slot"))
    arrays = [mapped(folder / f"{name}.npy") for name in names]
    return Access(len(arrays[0]) - 1, *arrays)


def ranges(folder: Path, entries: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about so many entries."""
    yield from row_chunks(mapped(folder / "indptr.npy"), entries)


def margins_and_gaps(folder: Path, symmetric: bool, entries: int) -> tuple[dict[str, Stored], dict[str, float]]:
    """Write the margins of the rows and columns of a matrix; the worst ones relative to the diagonal."""
    sides = (False,) if symmetric else (False, True)
    names = {False: "row_margins", True: "column_margins"}
    writers = {side: Writer(folder / f"{names[side]}.npy", "float64", changes=True) for side in sides}
    worst = dict.fromkeys(sides, 1.0)
    try:
        for first, last in ranges(folder, entries):
            A = window(folder, symmetric)
            for side, writer in writers.items():
                found = margins(A, columns=side, first=first, last=last)
                worst[side] = min(worst[side], gap(A, found, first))
                writer.append(found)
        files = {names[side]: writer.close() for side, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.__exit__()
    return files, {"row_gap": worst[False], "column_gap": worst.get(True, worst[False])}


def gap(A: Access, found: np.ndarray, first: int) -> float:
    """The least margin over |a_ii| of the rows or columns from `first` on, rounded down; -inf where a_ii is zero."""
    last = first + len(found)
    begin, end = int(A.indptr[first]), int(A.indptr[last])
    row = np.repeat(np.arange(first, last, dtype=A.indices.dtype), np.diff(A.indptr[first : last + 1]))
    places = np.flatnonzero(A.indices[begin:end] == row)
    size = np.zeros(len(found))
    size[row[places] - first] = np.abs(A.data[begin:end][places])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = np.where((size > 0) & ~np.isnan(found), np.nextafter(found / size, -np.inf), -np.inf)
    return float(relative.min(initial=1.0))


def strengths(folder: Path, entries: int) -> Stored:
    """Write the sums of the weights of each row of a graph."""
    with Writer(folder / "strengths.npy", "float64", changes=True) as writer:
        for first, last in ranges(folder, entries):
            writer.append(row_sums(window_of_rows(folder), first, last))
        return writer.close()


def window_of_rows(folder: Path) -> Access:
    """The rows alone."""
    return window(folder, symmetric=True)


def row_sums(A: Access, first: int, last: int) -> np.ndarray:
    """Sums of the values of rows in double precision."""
    row = np.repeat(np.arange(last - first), np.diff(A.indptr[first : last + 1]))
    values = A.data[int(A.indptr[first]) : int(A.indptr[last])]
    return np.bincount(row, values, minlength=last - first).astype(np.float64)


def symmetric_defect(folder: Path, weighted: bool, entries: int) -> str | None:
    """Name the first entry that has no mirror image of the same value."""
    for first, last in ranges(folder, entries):
        indptr, indices = mapped(folder / "indptr.npy"), mapped(folder / "indices.npy")
        data = mapped(folder / "data.npy") if weighted else None
        i, j = _kernels.local_without_mirror(indptr, indices, data, first, last)
        if i >= 0:
            return f"the entry ({i}, {j}) has no mirror image{' of the same value' if weighted else ''} at ({j}, {i})"
    return None
