"""Exceptions, and the one form in which bad arguments are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .solution import Solution

__all__ = ["SolveError", "SolveWarning", "describe", "dtype_name"]


class SolveError(RuntimeError):
    """A solve, forward or backward, did not reach what was asked of it.

    Attributes
    ----------
    solution : Solution
        The failed solve: best iterate, status per system, residuals.
    """

    def __init__(self, message: str, solution: Solution | None = None):
        super().__init__(message)
        self.solution = solution

    def __reduce__(self):
        return type(self), (str(self), None)


class SolveWarning(UserWarning):
    """The same as `SolveError`, said as a warning under ``on_failure="warn"``."""


def describe(value: object) -> str:
    """Name a value for an error message: short values as they are, arrays by type, dtype and shape."""
    kind, text = type(value).__name__, repr(value)
    shape: Any = getattr(value, "shape", None)
    if type(shape).__name__ == "TensorShape" and shape.rank is not None:
        shape = tuple(shape)
    if hasattr(value, "dtype") and isinstance(shape, tuple) and (shape or len(text) > 60):
        module = type(value).__module__.split(".")[0]
        return f"{module} {kind} of dtype {dtype_name(value.dtype)} and shape {tuple(shape)}"  # type: ignore[attr-defined]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"the {'class' if isinstance(value, type) else kind} {value.__qualname__}"
    return text if len(text) <= 60 else f"{kind} {text[:50]}..."


def dtype_name(dtype: object) -> str:
    """What a dtype is called, also where TensorFlow writes "<dtype: 'float32'>"."""
    return str(dtype).removeprefix("<dtype: '").removesuffix("'>")
