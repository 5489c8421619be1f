"""How far a training is, on the terminal."""

from __future__ import annotations

import sys
from typing import TextIO

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """A callback that keeps a line on the terminal up to date: ``learn.fit(..., callback=learn.TrainingProgress())``.

    Parameters
    ----------
    stream : text stream, optional
        Where to write; standard error by default.

    Examples
    --------
    >>> import io
    >>> from backsolve import learn
    >>> out = io.StringIO()
    >>> learn.TrainingProgress(out)(20, -50.3, -49.7)
    >>> out.getvalue().strip()
    'step 20: loss -50.3, held out -49.7'
    """

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream

    def __call__(self, step: int, loss: float, held_out: float) -> None:
        """Write the latest loss, and that on the problems that are held out."""
        stream = self.stream or sys.stderr
        stream.write(f"\rstep {step}: loss {loss:.4g}, held out {held_out:.4g}".ljust(60))
        stream.flush()
