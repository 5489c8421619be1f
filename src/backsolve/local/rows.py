"""Matrices that are stored nowhere: functions that make rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._local.fetching import Fetcher, checked_lists
from .._local.implicit import ImplicitSystem
from ..errors import describe

__all__ = ["Rows"]

_LARGEST = 1 << 62


class Rows:
    """A diagonally dominant matrix given by a function that makes any of its rows, also with n = 10¹⁸.

    It serves wherever a `DiagonallyDominant` does. A query asks for the rows that its frontier has come to, all of
    them in one call; what it has fetched stays for later queries (`forget` drops it). Time and memory are those of
    what is touched. There is no global solver to hand over to: a query that is too hard runs until its budget ends.

    Parameters
    ----------
    fn : ids (k,) int64 -> (counts, columns, values)
        Counts (k,) of entries of these rows, then the columns and the values of all entries, row after row; pointers
        (k + 1,) serve as well as counts. Ids are ascending. Values are float64 or float32, each column at most once in
        a row.
    n : int
        Rows and columns, at most 2⁶².
    columns : ids (k,) int64 -> (counts, rows, values), optional
        The same for columns. Rows alone suffice for `functional` and `entry`, from the side of t alone.
    symmetric : bool
        The matrix equals its transpose, so `fn` serves for columns too.
    promise : {"rows", "columns", "both"}
        The sense in which all of the matrix is dominant. Every row or column that is met is checked.
    margin : float, optional
        A lower bound of |a_ii| - Σ_{j≠i} |a_ij| for all rows (columns) of the promised sense; what is met is checked.
        `solve` needs it if dominance is promised by columns alone.

    Attributes
    ----------
    calls : int
        How often the functions have been called.
    fetched : (int, int)
        Rows and columns that are kept, and their entries.

    Raises
    ------
    ValueError, TypeError
        By queries: if a list has an index out of range or twice, a value that is not finite, no diagonal, a margin
        below what was promised, or if rows and columns that were both fetched disagree.

    Examples
    --------
    A ring of 10¹⁸ nodes:

    >>> import numpy as np
    >>> from backsolve import local
    >>> n = 10**18
    >>> def ring(i):
    ...     columns = np.stack([(i - 1) % n, i, (i + 1) % n], axis=1)
    ...     return np.full(len(i), 3), columns.ravel(), np.tile([-1.0, 3.0, -1.0], len(i))
    >>> M = local.Rows(ring, n, symmetric=True, promise="both")
    >>> est = local.entry(M, ([5 * 10**17], [1.0]), 5 * 10**17 + 1, atol=1e-8)
    >>> abs(est.value - 0.1708203932) < 1e-8, M.fetched[0] < 100
    (True, True)
    """

    operator = _data = _slots = None

    def __init__(
        self,
        fn: Callable[[np.ndarray], Any],
        n: int,
        *,
        columns: Callable[[np.ndarray], Any] | None = None,
        symmetric: bool = False,
        promise: str = "rows",
        margin: float | None = None,
    ):
        if not callable(fn) or not (columns is None or callable(columns)):
            raise TypeError(f"Rows: fn and columns must be functions; got {describe(fn)} and {describe(columns)}.")
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or not 1 <= n <= _LARGEST:
            raise ValueError(f"Rows: n must be an integer in [1, 2**62]; got {describe(n)}.")
        if promise not in ("rows", "columns", "both"):
            raise ValueError(f"Rows: promise must be one of 'rows', 'columns', 'both'; got {describe(promise)}.")
        if margin is not None and (not isinstance(margin, int | float | np.number) or not 0 < margin < np.inf):
            raise ValueError(f"Rows: margin must be a positive number; got {describe(margin)}.")
        if symmetric and columns is not None:
            raise ValueError("Rows: a symmetric matrix has its rows for columns; leave columns out.")
        if promise == "columns" and not symmetric and columns is None:
            raise ValueError(
                "Rows: dominance by columns can only be checked with columns; give them, or symmetric=True."
            )
        self.n, self.promise = int(n), promise
        self._make: Any = (_of("fn", fn), _of("columns", columns) if columns else None, bool(symmetric))
        self._margin = float(margin) if margin is not None else 0.0
        self._calls = 0
        self.forget()

    def forget(self) -> None:
        """Drop the rows and columns that were fetched; estimates that are there keep theirs."""
        if hasattr(self, "system"):
            self._calls += self.system.fetcher.calls
        rows, columns, symmetric = self._make
        by_rows = self.promise in ("rows", "both") or symmetric
        by_columns = self.promise in ("columns", "both") or symmetric
        fetcher = Fetcher(
            self.n, rows, columns, symmetric, by_rows, by_columns and bool(columns or symmetric), self._margin
        )
        by_columns = by_columns and fetcher.functions[True] is not None
        self.system = ImplicitSystem(fetcher, by_rows, by_columns, self._margin)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self.n, self.n

    @property
    def calls(self) -> int:
        """How often the functions have been called."""
        return self._calls + self.system.fetcher.calls

    @property
    def fetched(self) -> tuple[int, int]:
        """Rows and columns that are kept, and their entries."""
        return self.system.matrix.size

    def __repr__(self) -> str:
        lists, entries = self.fetched
        return (
            f"Rows({self.n}x{self.n}, dominance by {self.promise} promised, {lists} lists of {entries} entries fetched)"
        )


def _of(name: str, fn: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    return lambda ids: checked_lists(name, fn(ids), ids)
