"""Matrices that local solves can give a certificate for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import scipy.sparse

from .. import api, dispatch
from .._local.access import Access
from .._local.folder import Folder
from .._local.system import System
from ..eager import eager
from ..errors import describe
from ..operators import CSR
from .edges import EdgeModel
from .rows import Rows

__all__ = ["DiagonallyDominant", "wrap"]


class DiagonallyDominant:
    """A diagonally dominant matrix, prepared for many local solves.

    M is dominant by rows if |M_ii| > Σ_{j≠i}|M_ij| in every row, by columns if Mᵀ is; either is enough. The margins
    of all rows and columns are made once, O(nnz), as lower bounds that hold in floating point. Signs and scale are
    free; M need not be symmetric.

    Parameters
    ----------
    A : CSR operator, scipy.sparse matrix, dense array, or Folder (n, n), real
        With float32 or float64 values of NumPy, torch, JAX or TensorFlow. Values are not copied unless the operator
        was made of unsorted or repeated triplets: changes in place are seen. Margins are kept while the values are
        known to be the same (read-only arrays, torch tensors of the same version), and made anew for what a query
        touches else; that no other row or column has lost its dominance is then taken for granted until `refresh`.
    promise : {"rows", "columns", "both"}, optional
        Take dominance for granted where nothing is touched, and do not read the matrix now. Rows or columns that a
        query meets are checked; one that is not dominant is an error.
    values : array or tensor (nnz,), optional
        Of a Folder: what stands for its values, as a torch leaf for which gradients are wanted, such as
        ``torch.from_numpy(folder.data).requires_grad_()``.
    barrier : {"solve"} or (n,) array, optional
        Positive weights w with ⟨M⟩w > 0, where ⟨M⟩ is the comparison matrix (|M_ii| on, -|M_ij| off the diagonal): for
        matrices with margins of zero, such as grounded Laplacians. "solve" makes them by one solve with ⟨M⟩.

    Raises
    ------
    ValueError
        If A is not square, complex, or has values that are not finite.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from backsolve import local
    >>> M = sp.diags_array([-np.ones(9), np.full(10, 3.0), -np.ones(9)], offsets=[-1, 0, 1])
    >>> D = local.DiagonallyDominant(M)
    >>> D.by_rows, D.by_columns
    (True, True)
    """

    @eager("backsolve.local.DiagonallyDominant")
    def __init__(self, A: Any, *, promise: str | None = None, values: Any = None, barrier: Any = None):
        if promise not in (None, "rows", "columns", "both"):
            raise ValueError(f"promise must be one of 'rows', 'columns', 'both'; got {describe(promise)}.")
        self._slots: Any = None
        if isinstance(A, Folder):
            self.system, self._data = _of_folder(A, promise, values)
        else:
            if values is not None:
                raise ValueError("values are for a Folder: give other values to an operator by A.with_data(values).")
            self.system, self._data, self._slots = _of_operator(A, promise)
        if barrier is not None:
            _add_barrier(self.system, barrier)

    @property
    def n(self) -> int:
        """Rows, and columns."""
        return self.system.n

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return self.system.nnz

    @property
    def by_rows(self) -> bool:
        """Whether every row is dominant, as proved or promised."""
        return self.system.rows

    @property
    def by_columns(self) -> bool:
        """Whether every column is dominant, as proved or promised."""
        return self.system.columns

    @property
    def gap(self) -> float | None:
        """Smallest margin over the diagonal; None where dominance was promised and nothing measured."""
        return self.system.gap

    def refresh(self) -> None:
        """Make all margins anew, O(nnz): after values have been changed in place where no query will look."""
        self.system.refresh()

    def __repr__(self) -> str:
        senses = [s for s, holds in (("rows", self.by_rows), ("columns", self.by_columns)) if holds]
        gap = "" if self.gap is None else f", gap {self.gap:.3g}"
        return f"DiagonallyDominant({self.n}x{self.n}, nnz={self.nnz}, by {' and '.join(senses) or 'nothing'}{gap})"


def wrap(A: Any) -> Any:
    """A itself if it is prepared, or given by a function; else prepared now."""
    return A if isinstance(A, DiagonallyDominant | Rows | EdgeModel) else DiagonallyDominant(A)


def _of_folder(folder: Folder, promise: str | None, values: Any) -> tuple[System, Any]:
    kept: Any = (folder.row_margins, folder.column_margins) if folder.row_margins is not None else None
    gaps = folder.row_gap, folder.column_gap
    if values is None:
        return System(folder.access, promise=promise, kept=kept, gaps=gaps), folder.data
    array, stamp = _host(values, None, folder.nnz, "values")
    if array.shape != (folder.nnz,):
        raise ValueError(f"values must have shape ({folder.nnz},), one for each entry of A; got {describe(values)}.")
    if folder.data is None or not np.shares_memory(array, folder.data):
        kept = gaps = None  # those of other values
    return System(folder.structure(array), promise=promise, kept=kept, gaps=gaps, stamp=stamp), values


def _of_operator(A: Any, promise: str | None) -> tuple[System, Any, np.ndarray | None]:
    frontend = dispatch.frontend_of(A)
    operator: Any = dispatch.square(dispatch.operator(frontend, A, None))
    if not isinstance(operator, CSR):
        if frontend.name != "numpy":
            raise TypeError(f"A must be sparse for local solves of {frontend.name}; got {operator!r}: give a CSR.")
        operator = dispatch.operator(frontend, scipy.sparse.csr_array(np.asarray(frontend.toarray(operator))), None)
    values, stamp = _host(operator.data, operator.slots, operator.pattern.nnz, "A")
    if promise is None and not np.all(operator.pattern.finite_items(values[None])):
        raise ValueError("A has a value that is NaN or infinite: look for the first step that made it.")
    data = A.data if isinstance(A, CSR) else operator.data  # a variable of TensorFlow is read again in each query
    return System(Access.of_pattern(operator.pattern, values), promise=promise, stamp=stamp), data, operator.slots


def _host(data: Any, slots: Any, nnz: int, name: str) -> tuple[np.ndarray, Any]:
    """Stored values in memory of the host, not copied if that can be, and what tells whether they have changed."""
    frontend = dispatch.frontend_of(data)
    if len(data.shape) != 1:
        raise ValueError(f"{name} must be one matrix; got a batch, {describe(data)}: solve them one by one.")
    array, stamp = import_module(f"..frontends.{frontend.name}_local", __package__).values(data, slots, nnz)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} must be real: local solves take no complex matrices; use backsolve.solve.")
    return array, stamp


def _add_barrier(system: System, barrier: Any) -> None:
    if isinstance(barrier, str):
        if barrier != "solve":
            raise ValueError(
                f"barrier must be 'solve' or an array of {system.n} positive numbers; got {describe(barrier)}."
            )
        rows, columns = _solved_barrier(system, False), _solved_barrier(system, True)
    else:
        rows = np.ascontiguousarray(barrier, np.float64)
        if rows.shape != (system.n,) or not np.all(np.isfinite(rows)) or not np.all(rows > 0):
            raise ValueError(f"barrier must be an array of {system.n} positive numbers; got {describe(barrier)}.")
        columns = rows if system.access.symmetric else None
    system.weigh(rows, columns)


def _solved_barrier(system: System, transposed: bool) -> np.ndarray | None:
    """Solution of ⟨M⟩w = |diagonal|, positive if M is a nonsingular H-matrix; what it is worth, margins will tell."""
    A = system.access
    M: Any = scipy.sparse.csr_array((np.asarray(A.data, np.float64), A.indices, A.indptr), shape=(A.n, A.n))
    compared = -abs(M)
    diagonal = np.abs(M.diagonal())
    compared.setdiag(diagonal)
    sol = api.solve_with_info(compared.T.tocsr() if transposed else compared.tocsr(), diagonal, on_failure="return")
    w = np.asarray(sol.x)
    return w if np.all(np.isfinite(w)) and np.all(w > 0) else None
