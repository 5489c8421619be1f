"""Local queries of matrices whose values a function of JAX makes: plain values, and gradients by name down to theta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import Vector
from .._local.vector import VectorQuery
from .._local.vectors import column
from .jax_batches import Weighing, array
from .jax_local import plain, vector_of

__all__ = ["evaluator", "functional", "solve"]


def functional(system: Any, model: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    left, right = vector_of("t", t, model.n), vector_of("b", b, model.n)
    return _Session(model, options, lambda own: functional_query(own, right, left)).start()


def solve(system: Any, model: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as an (n, 1) sparse array of SciPy."""
    vector = vector_of("b", b, model.n)
    return _Session(model, options, lambda own: VectorQuery(own, vector)).start()


def evaluator(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What makes values out of places, for theta as it is now."""
    return Weighing(model.edge_weight, model.theta).evaluate


class _Session(AbstractSession):
    def __init__(self, model: Any, options: Options, make: Callable[[Any], Any]):
        self.weighing = Weighing(model.edge_weight, model.theta)
        self.known = model.structure.evaluated(self.weighing.evaluate)
        system = model._system_of(self.known)
        super().__init__(system, options, lambda: make(system))

    def value(self, raw: Estimate) -> Any:
        return column(raw.value, self.system.n)

    def shown(self, found: Gradient) -> Gradient:
        shown = found.rounded(self.weighing.dtype).mapped(array)
        return replace(shown, _pull=lambda: self._pull(found.A.places, found.A.values))

    def _pull(self, places: np.ndarray, g: np.ndarray) -> Any:
        values, bars = self.weighing.pull(places, g)
        self.known.check(places, values)
        return bars

    def vector(self, name: str, value: Any) -> Vector:
        return vector_of(name, value, self.system.n)

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.among.change(name, tuple(map(plain, dA)) if isinstance(dA, tuple) else plain(dA))

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        raise ValueError("dA cannot be written into values that a function makes: set model.theta, and ask again.")
