"""Callbacks of iterative solves: how far one is, and how its residuals fell."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import numpy as np

__all__ = ["History", "Progress"]


class Progress:
    """A callback that keeps a line on the terminal up to date: ``bs.solve(A, b, M="amg", callback=bs.Progress())``.

    Parameters
    ----------
    seconds : float
        Shortest time between two updates.
    stream : text stream, optional
        Where to write; standard error by default.

    Examples
    --------
    >>> import io, numpy as np, backsolve as bs
    >>> out = io.StringIO()
    >>> x = bs.solve(np.diag([1.0, 2.0]), np.ones(2), method="cg", callback=bs.Progress(0, out))
    >>> out.getvalue().split("\\r")[1].strip()
    'iteration 0: residual norm 1.41e+00'
    """

    def __init__(self, seconds: float = 0.1, stream: TextIO | None = None):
        self.seconds, self.stream = seconds, stream
        self._latest = -np.inf

    def __call__(self, iteration: int, residual_norm: Any, x: Any) -> None:
        """Write, unless the last line is young."""
        now = time.monotonic()
        if iteration and now - self._latest < self.seconds:
            return
        self._latest = now
        worst = float(np.max(np.asarray(residual_norm), initial=0.0))
        stream = self.stream or sys.stderr
        stream.write(f"\riteration {iteration}: residual norm {worst:.2e}".ljust(50))
        stream.flush()


class History:
    """A callback that keeps the residual norms of a solve: ``bs.solve(A, b, method="cg", callback=history)``.

    Attributes
    ----------
    norms : array (iterations + 1, ...)
        Norms of the recursive residuals from iteration 0 on, before the first step, one for each right-hand side: of x
        without its axis of unknowns. They are those of the latest solve. A run that goes on from its true residual,
        where the recursive one had drifted from it, is one run here.

    Notes
    -----
    Of the forward solve; `Solution.adjoint` has the counts of the backward one. For eager solves, as all callbacks.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> history = bs.History()
    >>> sol = bs.solve_with_info(np.diag([1.0, 2.0]), np.ones(2), method="cg", callback=history)
    >>> history.norms.shape, int(sol.stats.iterations)
    ((3,), 2)
    >>> bool(history.norms[0] == np.sqrt(2)), bool(history.norms[-1] < 1e-8 * np.sqrt(2))
    (True, True)
    """

    def __init__(self):
        self._norms: list[np.ndarray] = []

    @property
    def norms(self) -> np.ndarray:
        """Residual norms of the latest solve."""
        return np.array(self._norms)

    def __call__(self, iteration: int, residual_norm: Any, x: Any) -> None:
        """Keep the norms; iteration 0 begins anew."""
        if iteration == 0:
            self._norms.clear()
        self._norms.append(np.array(residual_norm))
