"""A line that tells how far an iterative solve is."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import numpy as np

__all__ = ["Progress"]


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
