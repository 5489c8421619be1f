"""What breaks a graph of torch.compile: functions that Dynamo calls, and quotes a reason for where it may not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..eager import FUNCTIONS, LOOKUP
from . import (  # noqa: F401  # their derivatives are eager
    torch_determinant,
    torch_edges,
    torch_free,
    torch_local_functions,
    torch_rank,
    torch_sparse,
    torch_walk,
)

__all__ = ["OUTSIDE", "breaking"]

_TAKES_REASON = "reason" in inspect.signature(torch.compiler.disable).parameters  # since torch 2.7


def breaking(function: Callable, reason: str) -> Any:
    """The function, at which a graph breaks; with ``fullgraph=True`` the compiler raises, and says why."""
    options: Any = {"reason": reason} if _TAKES_REASON else {}
    return torch.compiler.disable(function, **options)


OUTSIDE: dict[str, Any] = {}
"""Made at import, here or of whoever decorates one more function later: the compiler cannot trace how."""

# Where a graph broke, its pieces call the decorated function, and Dynamo would begin anew with that: it cannot do so
# with the tensors of a transform, and would gain nothing.
_skip: Any = getattr(torch._dynamo.eval_frame, "skip_code", None)


def _add(label: str) -> None:
    call: Any = FUNCTIONS[label]
    OUTSIDE[label] = breaking(
        call.__wrapped__,
        f"{label} cannot be compiled: call it outside of the compiled function, or use "
        "backsolve.solve(A.with_data(w), b).",
    )
    if _skip is not None:
        _skip(call.__code__)


for _label in FUNCTIONS:
    _add(_label)
LOOKUP["late"] = _add
