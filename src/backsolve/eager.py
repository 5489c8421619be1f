"""Functions that stay eager: a compiler which traces the program around them calls them, and does not look inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["FUNCTIONS", "LOOKUP", "as_written", "eager"]

P = ParamSpec("P")
R = TypeVar("R")

FUNCTIONS: dict[str, Callable] = {}
"""Those decorated, by their labels."""

LOOKUP: dict[str, Callable[[str], Callable | None]] = {}
"""``LOOKUP["outside"](label)`` is what a program that is being traced has to call, None where nobody traces; `dispatch`
binds it, since it knows the frameworks. ``LOOKUP["late"](label)`` tells a compiler of one more function."""


def eager(label: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep compilers out of a function, which `label` names in their messages."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            outside = LOOKUP["outside"](label)
            return (function if outside is None else outside)(*args, **kwargs)

        # A code object of its own: by it compilers know what they may skip, and people read tracebacks.
        made: Any = call
        made.__code__ = made.__code__.replace(co_name=function.__name__, co_qualname=function.__qualname__)
        FUNCTIONS[label] = made
        if "late" in LOOKUP:
            LOOKUP["late"](label)
        return as_written(made)

    return decorate


def as_written(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a function as tf.autograph.experimental.do_not_convert does, without TensorFlow.

    AutoGraph would rewrite the source of all that a tf.function calls, which takes long, and gains nothing here.
    """
    function.autograph_info__ = {}  # type: ignore[attr-defined]
    return function
