"""What `compare` found, as a table."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["Comparison", "Row"]


@dataclass(frozen=True)
class Row:
    """One way to a gradient, and what it gave.

    Attributes
    ----------
    method : str
        The way, with its options.
    error : float
        norm(g - reference) / norm(reference). Where only derivatives along directions are known, of these.
    cosine : float
        Of the angle between g and the reference; NaN where one is zero.
    largest_error : float
        Of any entry, over the largest entry of the reference; NaN along directions.
    bound : float or None
        Proven bound of `largest_error`; None where there is none, infinite where its condition does not hold.
    seconds, seconds_least, seconds_most : float
        Wall time of the loss and its gradient, median and extremes of `repeats`.
    repeats : int
    peak_bytes : int or None
        The most memory that was in use at a time, above what was before.
    solves : int
        Forward and adjoint solves.
    matvecs : int
        Products with A or Aᴴ, of iterations, series and residuals.
    iterations : int or None
        Those of an iterative solve, forward or backward, the larger; of an unrolled one all; terms of a series.
    note : str
    """

    method: str
    error: float
    cosine: float
    largest_error: float
    bound: float | None
    seconds: float
    seconds_least: float
    seconds_most: float
    repeats: int
    peak_bytes: int | None
    solves: int
    matvecs: int
    iterations: int | None
    note: str = ""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The table that `compare` returns.

    Attributes
    ----------
    rows : list of Row
    reference : str
        How the gradient was made that errors are measured against.
    reference_gradient : (size,) array
        That gradient, one number per parameter, in order.
    problem : str
        What was differentiated.
    left_out : dict
        Ways that could not be run, and why.
    """

    rows: list[Row]
    reference: str
    reference_gradient: Any
    problem: str
    left_out: dict[str, str]

    def __repr__(self) -> str:
        heads = ["method", "error", "cosine", "bound", "time", "peak memory", "solves", "matvecs", "iterations", "note"]
        body = [_cells(row) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
        lines = [self.problem, f"reference: {self.reference}", _line(heads, widths)]
        lines += ["-" * len(_line(heads, widths)), *(_line(cells, widths) for cells in body)]
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)

    def to_csv(self, path: Any = None) -> str:
        """Return the rows as CSV, with a header; write them to `path`, if given."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return _kept(out.getvalue(), path)

    def to_json(self, path: Any = None) -> str:
        """Return problem, reference, rows and what was left out as JSON; write it to `path`, if given.

        What is not finite is null, as JSON has no such numbers; the reference gradient itself is not in it.
        """
        rows = [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows]
        told = {"problem": self.problem, "reference": self.reference, "rows": rows, "left_out": self.left_out}
        return _kept(json.dumps(told, indent=1, allow_nan=False) + "\n", path)

    def plot(self, path: Any = None) -> Any:
        """Draw error against time, memory and iterations; save to `path`, if given.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        from .comparison_plot import plot

        return plot(self, path)


def _kept(text: str, path: Any) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def _line(cells: list[str], widths: list[int]) -> str:
    """Names to the left, numbers to the right, the note as it is."""
    first, *numbers, note = cells
    shown = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(numbers, widths[1:-1], strict=True)), note]
    return "  ".join(shown).rstrip()


def _cells(row: Row) -> list[str]:
    return [
        row.method,
        f"{row.error:.1e}",
        f"{row.cosine:.6f}",
        "" if row.bound is None else f"{row.bound:.1e}",
        _scaled(row.seconds, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))),
        "" if row.peak_bytes is None else _scaled(row.peak_bytes, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))),
        str(row.solves) if row.solves else "",
        str(row.matvecs) if row.matvecs else "",
        "" if row.iterations is None else str(row.iterations),
        row.note,
    ]


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, size = next(((u, s) for u, s in units if value >= s), units[-1])
    return f"{value / size:.3g} {unit}"
