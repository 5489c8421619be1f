"""A picture of a matrix: its entries, and the dominance of its rows beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .entries import Entries
from .values import relative

__all__ = ["plot"]

_CELLS = 400


def plot(A: Entries, margins: np.ndarray, title: str, path: Any = None) -> Any:
    """Draw entries (binned where there are more rows than pixels) and relative row margins; save to `path` if given.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    spy, beside = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    _entries(figure, spy, A)
    _margins(beside, relative(margins, np.abs(A.diagonal)))
    figure.suptitle(title, fontsize=10)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


def _entries(figure: Any, axes: Any, A: Entries) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    width = max(-(-A.n // _CELLS), 1)  # rows and columns of a cell
    edges = np.arange(0, A.n + width, width) - 0.5
    cells, held = len(edges) - 1, A.size > 0
    counts = np.zeros((cells, cells))
    np.add.at(counts, (A.rows[held] // width, A.columns[held] // width), 1.0)
    share = np.ma.masked_equal(counts / width**2, 0.0)
    # From a blue that stands out from the paper.
    blues = LinearSegmentedColormap.from_list("cells", [(0.45, 0.7, 0.9), (0.03, 0.2, 0.45)])
    if width > 1 and share.count():
        drawn = axes.pcolormesh(edges, edges, share, cmap=blues, norm=LogNorm(share.min(), 1.0), rasterized=True)
        figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.6, label="share of places with an entry")
    elif cells:
        axes.pcolormesh(edges, edges, share, cmap=blues, vmin=0.0, vmax=1.0, rasterized=True)
    axes.set(xlabel="column", ylabel="row", aspect="equal")
    axes.set_xlim(-0.5, max(A.n, 1) - 0.5)
    axes.set_ylim(max(A.n, 1) - 0.5, -0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)


def _margins(axes: Any, found: np.ndarray) -> None:
    """Margins of -1 and less are drawn at -1."""
    rows, strict = np.arange(len(found)), found > 0
    axes.axvline(0.0, color="0.5", linewidth=0.8)
    for which, colour, label in ((strict, "tab:blue", "strictly dominant"), (~strict, "tab:red", "others")):
        axes.plot(
            np.maximum(found[which], -1.0),
            rows[which],
            ".",
            markersize=3 if len(found) < 5000 else 1.5,
            color=colour,
            label=f"{label}: {which.sum():,}",
            rasterized=True,
        )
    axes.set(xlabel="margin / |diagonal|", xlim=(-1.1, 1.1))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8, frameon=False, markerscale=3)
