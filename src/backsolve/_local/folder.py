"""A matrix or a graph in a folder, opened without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import describe
from .access import Access
from .chunks import MEMORY, check_memory
from .inspection import refresh, verify
from .meta import Meta
from .npy import Stored, mapped

__all__ = ["MODES", "Folder", "open_folder"]

MODES = ("r", "r+", "c")
"""Read only; changes go to the files; changes stay in this process."""

_CHANGING = ("data", "row_margins", "column_margins", "strengths")


class Folder:
    """A matrix or graph that `backsolve.local.save` wrote, mapped from its files by `backsolve.local.open`.

    All arrays are ``numpy.memmap``: they take memory for what is read of them. The structure is always read only;
    values and margins are as the mode has it.

    Attributes
    ----------
    path : pathlib.Path
    mode : {"r", "r+", "c"}
    indptr : (n + 1,) int64
    indices : (nnz,) int32, or int64 from n = 2³¹ on
    data : (nnz,) float32 or float64, or None of a graph without weights
    t_indptr, t_indices, t_slot : like indptr, indices, indptr, or None where rows are read as columns
        Column j has the entries k from ``t_indptr[j]`` up to ``t_indptr[j + 1]``: row ``t_indices[k]``, value
        ``data[t_slot[k]]``.
    row_margins, column_margins : (n,) float64, or None of a graph
        Lower bounds, with all rounding, of |a_ii| - Σ_{j≠i} |a_ij| and of the same of columns, for the values that
        were there when the folder was saved or `refresh_margins` was last called.
    strengths : (n,) float64, or None
        Sums of the weights of each row of a weighted graph, of the same time.
    """

    def __init__(self, path: Path, meta: Meta, arrays: dict[str, np.ndarray], mode: str):
        self.path, self.meta, self.mode = path, meta, mode
        self.indptr, self.indices = arrays["indptr"], arrays["indices"]
        self.data: Any = arrays.get("data")
        self.t_indptr, self.t_indices, self.t_slot = (arrays.get(f"t_{name}") for name in ("indptr", "indices", "slot"))
        self.row_margins = arrays.get("row_margins")
        self.column_margins = arrays.get("column_margins", self.row_margins)
        self.strengths = arrays.get("strengths")

    @property
    def n(self) -> int:
        """Rows, and columns."""
        return self.meta.n

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.meta.nnz

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    @property
    def kind(self) -> str:
        """ "matrix" or "graph"."""
        return self.meta.kind

    @property
    def symmetric(self) -> bool:
        """Whether rows are read as columns; of a graph, whether it is undirected."""
        return self.meta.symmetric

    @property
    def row_gap(self) -> float | None:
        """Least row margin over |a_ii|, of the time of the margins: above 0, the matrix is strictly row dominant."""
        return self.meta.row_gap

    @property
    def column_gap(self) -> float | None:
        """The same of the columns."""
        return self.meta.column_gap

    @property
    def access(self) -> Access:
        """The arrays as kernels take them; a graph must have weights."""
        if self.data is None:
            raise ValueError(f"{self.path} is a graph without weights: it has no values to solve with.")
        return self.structure(self.data)

    def structure(self, data: np.ndarray) -> Access:
        """The arrays as kernels take them, with other values."""
        return Access(self.n, self.indptr, self.indices, data, self.t_indptr, self.t_indices, self.t_slot)

    def verify(self, memory: int = MEMORY) -> None:
        """Read everything once, in pieces within `memory`, and raise a ValueError that names the first defect.

        Pointers, indices, that columns are the transpose of the rows (or rows equal to the columns), checksums of the
        structure, that values are finite, and that margins are not above those of the values. O(nnz).
        """
        verify(self, check_memory(memory))

    def refresh_margins(self, memory: int = MEMORY) -> None:
        """Compute margins, gaps and strengths anew, after values were changed in place: O(nnz), within `memory`."""
        if self.mode == "r":
            raise ValueError(f"{self.path} was opened with mode 'r': open it with 'r+' to refresh its margins.")
        self.meta = refresh(self, check_memory(memory))
        if self.mode == "r+":
            self.flush()
            self.meta.write(self.path)

    def flush(self) -> None:
        """Hand changes of values and margins to the disk; other maps of the same files see them without."""
        if self.mode == "r+":
            for array in (self.data, self.row_margins, self.column_margins, self.strengths):
                if isinstance(array, np.memmap):
                    array.flush()

    def __reduce__(self):
        return open_folder, (self.path, self.mode)  # the files are there for other processes, too

    def __repr__(self) -> str:
        values = self.data.dtype if self.data is not None else "no weights"
        symmetric = ", symmetric" if self.symmetric else ""
        return f"Folder({str(self.path)!r}, {self.kind}, n={self.n}, nnz={self.nnz}, {values}{symmetric})"


def open_folder(path: Any, mode: str = "r") -> Folder:
    """Map the files of a folder after a look at their sizes, headers and ends: O(1)."""
    if mode not in MODES:
        raise ValueError(f"open: mode must be one of {MODES}; got {describe(mode)}.")
    path = Path(path)
    meta = Meta.read(path)
    arrays = {}
    for name, stored in meta.files.items():
        arrays[name] = _open(path / f"{name}.npy", stored, mode if name in _CHANGING else "r")
    for name in ("indptr", "t_indptr"):
        if name in arrays and (arrays[name][0] != 0 or arrays[name][-1] != meta.nnz):
            raise ValueError(
                f"{path / name}.npy is damaged: it must run from 0 to nnz = {meta.nnz}, and runs from "
                f"{arrays[name][0]} to {arrays[name][-1]}; save the matrix again."
            )
    return Folder(path, meta, arrays, mode)


def _open(path: Path, stored: Stored, mode: str) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the folder is not whole; save the matrix again.")
    size = path.stat().st_size
    if size != stored.size:
        state = "truncated" if size < stored.size else "too long"
        raise ValueError(f"{path} is {state}: it has {size} bytes of {stored.size}; save the matrix again.")
    try:
        array = mapped(path, mode)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no .npy file ({error}); save the matrix again.") from None
    if array.dtype != stored.dtype or array.shape != (stored.length,):
        raise ValueError(
            f"{path} is damaged: it must hold {stored.length} numbers of dtype {stored.dtype}, and its header says "
            f"dtype {array.dtype} and shape {array.shape}; save the matrix again."
        )
    return array
