"""Solutions as what tf.function can return and tf.nest takes apart: numbers are components, the method is static."""

from __future__ import annotations

from typing import Any

from ..solution import Solution, Stats

__all__: list[str] = []


def _flatten(sol: Solution) -> tuple[tuple, tuple]:
    return (sol.method,), (sol.x, sol.status, tuple(sol.stats))


def _unflatten(cls: type, metadata: tuple, components: Any) -> Solution:
    x, status, stats = components
    return Solution(x, status, Stats(*stats), *metadata)


# The protocol of tf.nest for dataclasses of others.
Solution.__tf_flatten__ = _flatten  # type: ignore[attr-defined]
Solution.__tf_unflatten__ = classmethod(_unflatten)  # type: ignore[attr-defined]
