"""A comparison as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["plot"]

_FAMILIES = {
    "implicit": ("tab:blue", "o"),
    "unrolled": ("tab:orange", "s"),
    "one-step": ("tab:red", "v"),
    "Neumann": ("tab:red", "^"),
    "finite": ("tab:gray", "x"),
    "sampled": ("tab:purple", "d"),
}
_FLOOR = 1e-17


def plot(found: Any, path: Any = None) -> Any:
    """Error against time, peak memory and iterations, one mark for each row.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    axes_of = (
        ("seconds", "time, seconds"),
        ("peak_bytes", "peak memory, bytes"),
        ("iterations", "iterations or terms"),
    )
    for axes, (field, label) in zip(panels, axes_of, strict=True):
        for row in found.rows:
            where = getattr(row, field)
            if where and np.isfinite(row.error):
                colour, marker = _look(row.method)
                axes.plot(where, max(row.error, _FLOOR), marker, color=colour, label=row.method)
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.grid(True, which="major", color="0.9")
    panels[0].set_ylabel("relative error of the gradient")
    for number, line in enumerate(panels[0].lines, 1):
        for axes in panels:
            for twin in axes.lines:
                if twin.get_label() == line.get_label():
                    at = (twin.get_xdata()[0], twin.get_ydata()[0])
                    axes.annotate(str(number), at, xytext=(5, 4), textcoords="offset points", fontsize=8)
        line.set_label(f"{number}  {line.get_label()}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(found.problem, fontsize=10)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


def _look(method: str) -> tuple[str, str]:
    return next((look for name, look in _FAMILIES.items() if method.startswith(name)), ("black", "o"))
