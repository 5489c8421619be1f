"""What every method is, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ..options import check_tolerance
from ..solution import Stats

__all__ = ["AbstractMethod", "Outcome", "Target", "check_rtol_once"]


class Target(NamedTuple):
    """What the true residual has to meet: max(rtol norm(b), atol); with neither given, the backward error judges."""

    rtol: float | None = None
    atol: float | None = None


@dataclass
class Outcome:
    """A batch of systems solved and judged; `stats` is worked out when somebody asks."""

    x: Any
    status: np.ndarray  # (batch,) int32
    make_stats: Any  # () -> Stats of (batch,) arrays
    details: dict[int, str]  # what was found about the first system of each failed status

    def __post_init__(self):
        self.converged: bool = min(self.status.tolist(), default=1) > 0

    @cached_property
    def stats(self) -> Stats:
        return self.make_stats()

    @property
    def failed(self) -> np.ndarray | None:
        """Items that failed, (batch,) booleans; None if none did. Their gradients are NaN."""
        return None if self.converged else self.status <= 0


class AbstractMethod(Protocol):
    """A frozen dataclass of options with the two halves of a solve.

    ``prepare(A)`` does what depends on A alone; ``apply(state, b, target, adjoint)`` solves A x = b or
    Aᴴ x = b with it, any number of times. A holds plain arrays with one batch axis, and b is (batch, n, k).
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]]
    """Properties that A must have, in the words of `gallery.PROPERTIES`; what `refuse` can see is not repeated."""

    @property
    def rtol(self) -> float | None: ...

    @property
    def atol(self) -> float | None: ...

    def refuse(self, A: Any) -> str | None:
        """Why this method cannot take A, as the end of a sentence; None if it can."""
        ...

    def explain(self, A: Any) -> str:
        """What the method will do with A, and why."""
        ...

    def prepare(self, A: Any) -> Any: ...

    def apply(self, state: Any, b: Any, target: Target, *, adjoint: bool = False) -> Outcome: ...


def check_rtol_once(method: AbstractMethod, rtol: float | None, atol: float | None) -> Target:
    """Take tolerances from the call or from the method object; from both is a TypeError."""
    if rtol is None and atol is None:
        return Target(method.rtol, method.atol)
    chosen = []
    for name, given, own in (("rtol", rtol, method.rtol), ("atol", atol, method.atol)):
        if given is not None and own is not None:
            raise TypeError(
                f"{name} was given twice: {own} in {type(method).__name__} and {given} in the call: give one."
            )
        chosen.append(
            check_tolerance("solve", name, given if given is not None else own, 1 if name == "rtol" else np.inf)
        )
    return Target(*chosen)
