"""A preconditioner that serves for more than one matrix."""

from __future__ import annotations

import threading
from typing import Any

from ..errors import describe
from .base import AbstractPreconditioner, Prepared
from .registry import check_preconditioner

__all__ = ["Kept"]


class Kept(AbstractPreconditioner):
    """A preconditioner made for one matrix, and kept for those that follow: training loops, time steps.

    It is made anew when its policy says so: after so many matrices, or when solves take that much longer than the
    first one after it was made. Solutions and derivatives never depend on it.

    Parameters
    ----------
    M : str or preconditioner
        What is made.
    every : int, optional
        Make it anew for every so many-th matrix; never, if None.
    growth : float, optional
        Make it anew when a solve took more than so many times the iterations of the first one, or failed; never, if
        None.

    Attributes
    ----------
    made : int
        How often it has been made.

    Notes
    -----
    Has a state: give the same object to each solve. Matrices must have one shape; those of a batch share in it.

    Examples
    --------
    >>> import backsolve as bs
    >>> p = bs.gallery.problem("poisson2d", 900)
    >>> M = bs.preconditioners.Kept("amg", growth=1.5)
    >>> for step in range(5):
    ...     x = bs.solve(p.A.with_data(p.A.data * (1 + step)), p.b, method="cg", M=M)
    >>> M.made
    1
    """

    name = "kept"

    def __init__(self, M: Any, every: int | None = None, growth: float | None = 1.5):
        made = check_preconditioner(M)
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise ValueError(f"Kept: every must be an integer of at least 1, or None; got {describe(every)}.")
        if growth is not None and (not isinstance(growth, int | float) or not growth >= 1):
            raise ValueError(f"Kept: growth must be a float of at least 1, or None; got {describe(growth)}.")
        if made is None or isinstance(made, Kept):
            raise TypeError(f"Kept: M must be the name of a preconditioner, or one; got {describe(M)}.")
        self.M, self.every, self.growth = made, every, growth
        self.made = 0
        self._lock = threading.Lock()
        self.refresh()

    @property
    def hermitian(self) -> bool:  # type: ignore[override]
        """As that of what is kept."""
        return self.M.hermitian

    @property
    def varying(self) -> bool:  # type: ignore[override]
        """As that of what is kept."""
        return self.M.varying

    def refresh(self) -> None:
        """Make it anew at the next matrix."""
        with self._lock:
            self._prepared: Prepared | None = None
            self._shape: Any = None
            self._age, self._first, self._stale = 0, 0, False

    def refuse(self, A: Any) -> str | None:
        """As what is kept."""
        return self.M.refuse(A)

    def explain(self, A: Any) -> str:
        """What is kept."""
        return f"{self.M.explain(A)}, kept"

    def prepare(self, A: Any) -> Prepared:
        """What was made for an earlier matrix, unless it is time for another one."""
        shape = (A.structure, _batch(A))
        with self._lock:
            due = self._stale or (self.every is not None and self._age >= self.every)
            if self._prepared is None or due or shape != self._shape:
                self._prepared, self._shape = self.M.prepare(A), shape
                self._age, self._first, self._stale = 0, 0, False
                self.made += 1
            self._age += 1
            return _Watched(self, self._prepared)

    def _observe(self, prepared: Prepared, iterations: int) -> None:
        with self._lock:
            if prepared is not self._prepared:
                return
            if not self._first:
                self._first = max(1, iterations)
            elif self.growth is not None and iterations > self.growth * self._first:
                self._stale = True

    def __str__(self) -> str:
        return f"Kept({self.M}, every={self.every}, growth={self.growth})"

    def __deepcopy__(self, memo: dict) -> Kept:
        return Kept(self.M, self.every, self.growth)

    def __reduce__(self) -> Any:
        return Kept, (self.M, self.every, self.growth)


class _Watched(Prepared):
    """What is kept, as one solve sees it."""

    def __init__(self, owner: Kept, prepared: Prepared):
        super().__init__(prepared.apply, prepared.broken, prepared.nbytes)
        self.owner, self.prepared = owner, prepared

    def observe(self, iterations: int) -> None:
        self.owner._observe(self.prepared, iterations)


def _batch(A: Any) -> Any:
    return 1 if A.structure.kind == "free" else A.data.shape[0]
