"""A query that can be refined, updated and differentiated after its first answer."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import SolveError, describe
from .entry_errors import Errors
from .estimate import Estimate
from .gradient import Gradient, VectorGradient, by_vector, gradient
from .options import Options
from .places import Places, Triples
from .second import along
from .system import System, Vector
from .vector import DualQuery, VectorQuery
from .vectors import column

__all__ = ["AbstractSession"]


class AbstractSession(ABC):
    """A query under its options. Frontends say how its answers are shown, and how values are written.

    One thread at a time works with it; others wait.
    """

    def __init__(self, system: System, options: Options, make: Callable[[], Any], slots: np.ndarray | None = None):
        self.system, self.options, self._make = system, options, make
        self.among: Any = Places(system.access, slots) if system.placed else Triples(system.n)
        self.query: Any = None
        self.adjoint: Estimate | None = None
        self.age, self._version = 0, system.version
        self._lock = threading.RLock()

    # -- what a frontend says ---------------------------------------------------------------------------

    @abstractmethod
    def value(self, raw: Estimate) -> Any:
        """The value as users of the framework have it."""

    @abstractmethod
    def shown(self, found: Gradient) -> Gradient:
        """A gradient in arrays of the framework."""

    @abstractmethod
    def vector(self, name: str, value: Any) -> Vector:
        """A vector of the framework."""

    @abstractmethod
    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        """(places, increments) that a user of the framework gave."""

    @abstractmethod
    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        """Add to the user's values in place, and return what undoes it."""

    def took(self, name: str, step: Any) -> None:  # noqa: B027  (only those that record gradients remember it)
        """A change of b or t was made."""

    # -- what users ask ---------------------------------------------------------------------------------

    def start(self) -> Estimate:
        """The first answer."""
        with self._lock:
            self._version = self.system.version
            query = self._make() if self.system.dominant else None
            return self._finish(self.options, query)

    def refine(self, estimate: Estimate, **changes: Any) -> Estimate:
        """Go on."""
        with self.working("refine", estimate) as query:
            options = replace(self.options, **changes)
            self.options = replace(self.options, atol=options.atol, gradient_atol=options.gradient_atol)
            if self._maybe_changed():
                self._renew(query)
            return self._finish(options, query)

    def update(self, estimate: Estimate, dA: Any, db: Any, dt: Any, atol: float | None) -> Estimate:
        """Go on with other numbers."""
        with self.working("update", estimate) as query:
            if atol is not None:
                self.options = replace(self.options, atol=atol)
            given = [(name, step) for name, step in (("db", db), ("dt", dt)) if step is not None]
            steps = {name: self.vector(name, step) for name, step in given}
            if dA is not None:
                self._change(dA)
            self.age += 1
            if dA is not None or self._maybe_changed():
                self._renew(query)
            query.add(steps.get("db"), steps.get("dt"))
            for name, step in given:
                self.took(name, step)
            return self._finish(self.options, query)

    def gradient(self, estimate: Estimate) -> Gradient:
        """Of a functional, in arrays of the framework."""
        return self.shown(self.plain_gradient(estimate._age))

    def vjp(self, estimate: Estimate, g: Any, atol: float | None) -> Gradient:
        """Of a vector, in arrays of the framework."""
        with self.working("vjp", estimate) as query:
            if not isinstance(query, VectorQuery):
                raise TypeError("vjp is for estimates of local.solve: those of functional and entry have a gradient().")
            return self.shown(self.pullback(estimate._age, self._cotangent(query, g), atol))

    def hvp(self, estimate: Estimate, direction: Any, atol: float | None) -> Gradient:
        """How the gradient of a functional changes along a direction of the values."""
        change = self.change("direction", direction)
        with self.working("hvp", estimate) as query:
            self._differentiable(query)
            return self.shown(along(query.primal, query.dual, self.among, change, atol, self._inner))

    # -- how --------------------------------------------------------------------------------------------

    @contextmanager
    def working(self, what: str, estimate: Estimate | int) -> Iterator[Any]:
        """The query, for one thread, if the estimate (or its age) is of now."""
        with self._lock:
            age = estimate if isinstance(estimate, int) else estimate._age
            if age != self.age:
                raise RuntimeError(f"{what}: this estimate has been updated: use the one that update returned.")
            if self.query is None:
                raise RuntimeError(f"{what}: nothing is certified that could go on: ask again.")
            yield self.query

    def plain_gradient(self, age: int) -> Gradient:
        """Of a functional, in plain arrays."""
        with self.working("gradient", age) as query:
            self._differentiable(query)
            return gradient(query.primal, query.dual, self.among)

    def gradient_by_b(self, age: int) -> VectorGradient:
        """Of a functional, by b alone: known for a dense b, too."""
        with self.working("gradient", age) as query:
            self._unchanged("gradient")
            return by_vector(Errors.of(query.dual))

    def pullback(self, age: int, g: Vector, atol: float | None) -> Gradient:
        """Of a vector, for a cotangent, by one query of the other side."""
        with self.working("vjp", age) as query:
            self._unchanged("vjp")
            if atol is None:
                b, size = query.half.b[1], float(np.max(np.abs(g[1]), initial=0.0))
                of_b = float(np.max(np.abs(b), initial=0.0))
                atol = self.options.atol * (size / of_b if of_b > 0 else 1.0)
            other = VectorQuery(self.system, g, dual=not query.half.dual, partial=True)
            self.adjoint = self._inner(other, atol, True)
            return gradient(query.half, other.half, self.among)

    def _inner(self, query: VectorQuery, atol: float, strict: bool) -> Estimate:
        policy = self.options.on_failure if strict else "return"
        options = replace(self.options, atol=atol, gradient_atol=None, on_failure=policy)
        found = options.answer(self.system, query)
        return replace(found, value=column(found.value, self.system.n), query=None)

    def _finish(self, options: Options, query: Any) -> Estimate:
        self.query = None
        try:
            raw = options.answer(self.system, query)
        except SolveError:
            self.query = query  # which holds, as far as it came
            raise
        self.query = query
        return replace(raw, value=self.value(raw), _session=self, _age=self.age)

    def _renew(self, query: Any) -> None:
        self.query = None  # unless it comes to an end
        self._version = self.system.version
        query.renew()
        self.query = query

    def _maybe_changed(self) -> bool:
        """Whether values may have changed since the query looked."""
        return self._version is None or self.system.version != self._version

    def _unchanged(self, what: str) -> None:
        if self._version is None:
            self._renew(self.query)  # nobody knows: bounds are then those of the values as they are
        elif self._maybe_changed():
            raise RuntimeError(f"{what}: the values of A have been changed since: call estimate.update() first.")

    def _differentiable(self, query: Any) -> None:
        self._unchanged("gradient")
        if isinstance(query, VectorQuery):
            raise TypeError("gradient is for functionals and entries: of local.solve take estimate.vjp(g).")
        if isinstance(query, DualQuery):
            raise ValueError(
                "b must be sparse for a gradient by the values of A, which takes x where λ is not zero, and x is "
                "known nowhere for a dense b: give a sparse b, or take backsolve.vjp."
            )

    def _change(self, dA: Any) -> None:
        if self.among.slots is not None:
            raise ValueError(
                "dA must be written into the values of A, and they were summed from triplets that were unsorted or "
                "repeated: ask anew with other values."
            )
        places, increments = self.change("dA", dA)
        rows, columns = self.among.entries(places)
        self._check_symmetric(rows, columns, increments)
        current = self.system.current() is not None
        undo = self.write(places, increments)
        try:
            self.system.changed(np.unique(rows), np.unique(columns), current)
        except ValueError:
            undo()
            raise

    def _check_symmetric(self, rows: np.ndarray, columns: np.ndarray, increments: np.ndarray) -> None:
        if not self.system.access.symmetric:
            return
        order, mirrored = np.lexsort((columns, rows)), np.lexsort((rows, columns))
        same = (rows[order] == columns[mirrored]) & (columns[order] == rows[mirrored])
        if not np.all(same & (increments[order] == increments[mirrored])):
            raise ValueError(
                "dA must be symmetric, as A was saved with symmetric=True and its rows are read as columns: give both "
                "entries (i, j) and (j, i)."
            )

    def _cotangent(self, query: VectorQuery, g: Any) -> Vector:
        shape = tuple(getattr(g, "shape", ()))
        if len(shape) == 1 and shape != (self.system.n,):
            nodes = np.sort(query.half.side.support()[0])
            if shape != nodes.shape:
                raise ValueError(
                    f"g must have one number for each of the {self.system.n} unknowns, or of the {len(nodes)} entries "
                    f"of the value; got {describe(g)}."
                )
            return self.vector("g", (nodes, g))
        return self.vector("g", g)
