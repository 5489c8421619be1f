"""Matrices and graphs on disk."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index as as_int
from os import PathLike
from pathlib import Path
from typing import Any

from .._local.chunks import MEMORY, check_memory
from .._local.folder import Folder, open_folder
from .._local.meta import KINDS
from .._local.writing import Plan, batches_of, write
from ..api import aslinearoperator
from ..dispatch import frontend_of
from ..errors import describe
from ..operators import CSR, AbstractLinearOperator

__all__ = ["open", "save"]


def save(
    folder: str | PathLike,
    A: Any,
    *,
    kind: str = "matrix",
    symmetric: bool = False,
    n: int | None = None,
    overwrite: bool = False,
    memory: int = MEMORY,
) -> None:
    """Save a square matrix or a graph as a folder of .npy files, which `open` maps in no time.

    Beside the rows (CSR) it holds the columns, as a permutation of the same values, and margins of dominance with all
    rounding. It is written beside its place and moved there when it is whole. O(nnz) time; input that is mapped from
    files, or made batch by batch, is read in pieces, within `memory`.

    Parameters
    ----------
    folder : path
        Made by this call; the folder above it must be there.
    A : CSR, scipy.sparse array, sparse tensor, Folder, arrays (data, indices, indptr), or iterable of batches
        Arrays as SciPy's CSR has them, also of ``numpy.memmap``. A batch is a triple (lengths, indices, data) of the
        next rows. Repeated entries of operators and SciPy's arrays are summed; rows of arrays and batches must be
        sorted, without repeats. Values are float32 or float64, and finite. The numbers are saved as they are now: no
        gradient reaches what they were made of.
    kind : {"matrix", "graph"}
        Of a graph, row i holds the edges from i. Weights must not be negative; in arrays and batches data may be None.
    symmetric : bool
        That A equals its transpose (a graph: that it is undirected), so that no columns are stored, which saves half
        of the bytes in double precision and more in single. It is checked.
    n : int, optional
        Rows in all; needed for batches only.
    overwrite : bool
        Replace a folder that was saved before.
    memory : int
        Bytes of working memory; a row longer than a 64th of it takes more.

    Raises
    ------
    ValueError, TypeError
        If A is not square, real, finite, sorted or symmetric as said.
    FileExistsError
        If the folder exists and `overwrite` is False, or something else is there.

    Examples
    --------
    >>> import tempfile, numpy as np, scipy.sparse as sp, backsolve as bs
    >>> A = sp.diags_array([-np.ones(9), np.full(10, 3.0), -np.ones(9)], offsets=[-1, 0, 1]).tocsr()
    >>> with tempfile.TemporaryDirectory() as place:
    ...     bs.local.save(f"{place}/A", A)
    ...     B = bs.local.open(f"{place}/A")
    >>> B.n, B.nnz, B.row_margins[0], round(B.row_gap, 6)
    (10, 28, np.float64(2.0), 0.333333)
    """
    if kind not in KINDS:
        raise ValueError(f"save: kind must be one of {KINDS}; got {describe(kind)}.")
    memory = check_memory(memory)
    batches, rows = _batches(A, n, memory)
    write(Path(folder), batches, Plan(rows, kind, bool(symmetric), memory, bool(overwrite)))


def open(folder: str | PathLike, mode: str = "r") -> Folder:
    """Open a folder of `save`: its files are mapped after a look at their sizes and ends, in O(1).

    Damage that shows only inside of the files is named by what meets it; `Folder.verify` reads everything.

    Parameters
    ----------
    folder : path
    mode : {"r", "r+", "c"}
        Read only; changes of values go to the files; changes stay in this process. With "r+" or "c" the values serve as
        a leaf: ``torch.from_numpy(folder.data).requires_grad_()``.

    Returns
    -------
    Folder

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, truncated, or not as meta.json says, or that is of a newer format.

    Examples
    --------
    >>> import tempfile, numpy as np, backsolve as bs
    >>> with tempfile.TemporaryDirectory() as place:
    ...     bs.local.save(f"{place}/ring", (None, [1, 2, 0], [0, 1, 2, 3]), kind="graph")
    ...     ring = bs.local.open(f"{place}/ring")
    >>> ring.indices.tolist(), ring.t_indices.tolist(), ring.symmetric
    ([1, 2, 0], [2, 0, 1], False)
    """
    return open_folder(folder, mode)


def _batches(A: Any, n: int | None, memory: int) -> tuple[Iterable[tuple], int]:
    """Batches of rows, and the number of rows in all."""
    if isinstance(A, Folder):
        A = A.data, A.indices, A.indptr
    if not (isinstance(A, tuple) and len(A) == 3):
        if not isinstance(A, AbstractLinearOperator) and not hasattr(A, "shape") and isinstance(A, Iterable):
            return A, _size(n)
        A = _parts(aslinearoperator(A))
    data, indices, indptr = A
    rows = len(indptr) - 1
    if n is not None and n != rows:
        raise ValueError(f"save: n must be the number of rows of A, {rows}; got {describe(n)}: leave it out.")
    return batches_of(data, indices, indptr, memory), rows


def _parts(A: AbstractLinearOperator) -> tuple[Any, Any, Any]:
    if not isinstance(A, CSR):
        raise TypeError(f"save: A must be sparse; got {A!r}: give scipy.sparse.csr_array(A).")
    if A.batch_shape or A.shape[0] != A.shape[1]:
        raise ValueError(f"save: A must be one square matrix; got {A!r} with values {describe(A.data)}.")
    frontend = frontend_of(A)
    return frontend.to_host(frontend.values(A)), A.pattern.indices, A.pattern.indptr


def _size(n: Any) -> int:
    try:
        rows = as_int(n)
    except TypeError:
        rows = -1
    if not 0 <= rows < 2**63 - 1:
        raise ValueError(f"save: n must be the number of rows in all, for batches of rows; got {describe(n)}.")
    return rows
