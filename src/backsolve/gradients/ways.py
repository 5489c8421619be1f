"""The ways to differentiate a loss of a solve, as options that `compare` runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import describe
from ..options import check_tolerance
from .differences import Directional, directions_of, finite_differences
from .program import Program, check_count
from .short_adjoint import series
from .tally import Tally

__all__ = [
    "WAYS",
    "AbstractWay",
    "FiniteDifferences",
    "Found",
    "Implicit",
    "NeumannAdjoint",
    "Sampled",
    "Unrolled",
    "check_way",
]


class Found(NamedTuple):
    """A gradient, and what it took."""

    gradient: np.ndarray | None
    """All of it, or None where only `along` is known."""
    tally: Tally
    along: Directional | None = None
    note: str = ""


class AbstractWay:
    """A way to a gradient: a frozen dataclass of options. `fitted` fills in what was left open, for one problem."""

    name: ClassVar[str] = "way"

    def fitted(self, problem: Any) -> AbstractWay:
        """The way with every option set; ValueError where it is none for this problem."""
        return self

    def run(self, problem: Any) -> Found:
        """The gradient; repeatable."""
        raise NotImplementedError

    def bound(self, problem: Any) -> float | None:
        """A proven bound of the largest error of any entry; infinite where its condition fails, None without one."""
        return None

    @property
    def label(self) -> str:
        """Name and the options that matter, for a table."""
        return self.name

    @property
    def iterations_made(self) -> int | None:
        """Iterations, where the options say how many."""
        return None


@dataclass(frozen=True)
class Implicit(AbstractWay):
    """Implicit differentiation, by `backsolve.solve`: one solve with A and one with Aᴴ.

    Parameters
    ----------
    rtol : float, optional
        Target of both solves, of an iterative method; without it the solve that `compare` was given.
    method, M
        Of `backsolve.solve`; by default that of `compare`, or with `rtol` the Krylov method for what A is declared.

    Examples
    --------
    >>> from backsolve import gradients
    >>> gradients.Implicit(rtol=1e-3).label
    'implicit, rtol 1e-03'
    """

    rtol: float | None = None
    method: Any = None
    M: Any = None

    name: ClassVar[str] = "implicit"

    def __post_init__(self):
        check_tolerance("Implicit", "rtol", self.rtol, below=1)

    def fitted(self, problem: Any) -> Implicit:
        """The method that iterates for this A, where a tolerance is to mean something."""
        if self.rtol is None or self.method is not None:
            return self
        method, M = problem.krylov
        return replace(self, method=method, M=M if self.M is None else self.M)

    def run(self, problem: Any) -> Found:
        """One solve, one adjoint solve."""
        own = {"method": self.method, "M": self.M, "rtol": self.rtol}
        options = problem.solve | {key: value for key, value in own.items() if value is not None}
        tally = Tally()
        gradient = problem.differentiate(problem.implicit(options, tally))
        return Found(gradient, tally.settle())

    @property
    def label(self) -> str:
        """With the tolerance."""
        return self.name if self.rtol is None else f"{self.name}, rtol {self.rtol:.0e}"


@dataclass(frozen=True)
class Unrolled(AbstractWay):
    """The derivative of an iteration itself, by `unroll`.

    Parameters
    ----------
    iterations : int, optional
        By default as many as the method takes to a residual of 1e-6, 500 at most.
    method, M, omega, bounds
        Of `unroll`; by default "cg" with the inverse diagonal for A declared "spd", else "jacobi".
    truncate, checkpoint : int or bool, optional
        Of `unroll`; True is a tenth of the iterations, and their square root.

    Examples
    --------
    >>> from backsolve import gradients
    >>> gradients.Unrolled(iterations=50, method="cg", truncate=5).label
    'unrolled cg, 50, the last 5 recorded'
    """

    iterations: int | None = None
    method: str | None = None
    M: Any = None
    truncate: int | bool | None = None
    checkpoint: int | bool | None = None
    omega: float = 1.0
    bounds: tuple[float, float] | None = None

    name: ClassVar[str] = "unrolled"

    def __post_init__(self):
        if self.iterations is not None:
            check_count("unroll", "iterations", self.iterations, 0)
        self._program(self.method or "cg", self.iterations or 1)

    def _program(self, method: str, iterations: int) -> Program:
        truncate, checkpoint = (
            None if value is False else share if value is True else value
            for value, share in (
                (self.truncate, max(iterations // 10, 1)),
                (self.checkpoint, max(round(iterations**0.5), 1)),
            )
        )
        return Program(method, iterations, self.M, truncate, checkpoint, self.omega, self.bounds)

    def fitted(self, problem: Any) -> Unrolled:
        """The method for what A is declared to be, and iterations that solve."""
        method, M = (self.method, self.M) if self.method else problem.stepping
        iterations = problem.iterations_of(method, M) if self.iterations is None else self.iterations
        program = replace(self, M=M)._program(method, iterations)
        return replace(
            self, method=method, M=M, iterations=iterations, truncate=program.truncate, checkpoint=program.checkpoint
        )

    def run(self, problem: Any) -> Found:
        """The iterations, forward and backward."""
        program, tally = self._program(self.method or "cg", self.iterations or 0), Tally()
        gradient = problem.differentiate(problem.stepped(program, tally))
        return Found(gradient, tally.settle())

    @property
    def label(self) -> str:
        """With the number of iterations, and of those that are kept."""
        parts = [f"{self.name} {self.method or ''}".strip()]
        parts += [] if self.iterations is None else [str(self.iterations)]
        parts += [f"the last {self.truncate} recorded"] if self.truncate else []
        parts += [f"checkpoints every {self.checkpoint}"] if self.checkpoint else []
        return ", ".join(parts)

    @property
    def iterations_made(self) -> int | None:
        """All of the forward."""
        return self.iterations


@dataclass(frozen=True)
class NeumannAdjoint(AbstractWay):
    """A solve whose adjoint is a truncated series, by `neumann_adjoint`; with one term, one-step differentiation.

    Parameters
    ----------
    terms : int
        Of the series, at least 1.

    Notes
    -----
    Where A and b are themselves what is varied, an entry of the gradient is off by no more than `adjoint_bound` times
    what multiplies λ there, |x_j| for A_ij and 1 for b; the largest of these is the bound of the table, for x as it was
    solved.

    Examples
    --------
    >>> from backsolve import gradients
    >>> gradients.NeumannAdjoint(terms=1).label, gradients.NeumannAdjoint(terms=10).label
    ('one-step adjoint', 'Neumann adjoint, 10 terms')
    """

    terms: int = 10

    name: ClassVar[str] = "neumann"

    def __post_init__(self):
        check_count("NeumannAdjoint", "terms", self.terms, 1)

    def fitted(self, problem: Any) -> NeumannAdjoint:
        """The diagonal is needed."""
        if problem.kind == "free":
            raise ValueError("NeumannAdjoint: needs the diagonal of A, which a MatrixFree operator does not store.")
        return self

    def run(self, problem: Any) -> Found:
        """One solve, and a series."""
        tally, program = Tally(), series(self.terms)
        gradient = problem.differentiate(problem.shortened(program, tally))
        return Found(gradient, tally.settle())

    def bound(self, problem: Any) -> float | None:
        """Of the adjoint, times what multiplies it."""
        return problem.neumann_bound(self.terms)

    @property
    def label(self) -> str:
        """By the number of terms."""
        return "one-step adjoint" if self.terms == 1 else f"Neumann adjoint, {self.terms} terms"

    @property
    def iterations_made(self) -> int | None:
        """The terms."""
        return self.terms


@dataclass(frozen=True)
class FiniteDifferences(AbstractWay):
    """Differences of the loss: complex steps where it is analytic, else central ones with the best of ten steps.

    Parameters
    ----------
    directions : int
        Parameters up to this number are varied one by one; of more, so many random directions of signs are taken, and
        what is compared are the derivatives along these.
    complex_step : bool
        False leaves complex steps out.
    seed : int

    Examples
    --------
    >>> from backsolve import gradients
    >>> gradients.FiniteDifferences(directions=4).label
    'finite differences'
    """

    directions: int = 8
    complex_step: bool = True
    seed: int = 0

    name: ClassVar[str] = "finite_differences"

    def __post_init__(self):
        check_count("FiniteDifferences", "directions", self.directions, 1)
        if not isinstance(self.complex_step, bool):
            raise ValueError(
                f"FiniteDifferences: complex_step must be True or False; got {describe(self.complex_step)}."
            )

    def run(self, problem: Any) -> Found:
        """A solve for each value of the loss."""
        tally = Tally()
        at = problem.vector()
        directions = directions_of(problem.sizes(), self.directions, self.seed)
        analytic = problem.complex_value(tally) if self.complex_step else None
        along = finite_differences(problem.value(tally), at, directions, analytic)
        whole = len(directions) == at.size
        what = "all parameters" if whole else f"{len(directions)} random directions of {at.size:,} parameters"
        note = f"{along.kind}, step {along.step:.0e}, {what}"
        gradient = along.values / np.diag(directions) if whole else None
        return Found(gradient, tally.settle(), along, note=note)

    @property
    def label(self) -> str:
        """In words."""
        return "finite differences"


@dataclass(frozen=True)
class Sampled(AbstractWay):
    """Implicit differentiation, of which a random share of the entries of the gradient by A is computed.

    Each entry -λ_i conj(x_j) that is drawn counts for all, so that the mean is the gradient. Both solves are made in
    full: leaving out rows and columns of A instead would solve another system.

    Parameters
    ----------
    share : float
        Of the entries, in (0, 1].
    seed : int
        Of the draw.

    Examples
    --------
    >>> from backsolve import gradients
    >>> gradients.Sampled(0.1).label
    'sampled entries, 10%'
    """

    share: float = 0.1
    seed: int = 0

    name: ClassVar[str] = "sampled_entries"

    def __post_init__(self):
        if not isinstance(self.share, int | float) or isinstance(self.share, bool) or not 0 < self.share <= 1:
            raise ValueError(f"Sampled: share must be a float in (0, 1]; got {describe(self.share)}.")

    def fitted(self, problem: Any) -> Sampled:
        """Entries are needed."""
        if problem.kind == "free":
            raise ValueError("Sampled: needs the entries of A, which a MatrixFree operator does not store.")
        return self

    def run(self, problem: Any) -> Found:
        """Two solves, and some products of their entries."""
        tally = Tally()
        gradient = problem.sampled(self.share, np.random.default_rng(self.seed), tally)
        return Found(gradient, tally.settle(), note="unbiased")

    @property
    def label(self) -> str:
        """With the share."""
        return f"sampled entries, {self.share:.0%}"


WAYS: dict[str, AbstractWay] = {
    "implicit": Implicit(),
    "loose_implicit": Implicit(rtol=1e-3),
    "unrolled": Unrolled(),
    "truncated_unrolled": Unrolled(truncate=True),
    "checkpointed_unrolled": Unrolled(checkpoint=True),
    "one_step": NeumannAdjoint(terms=1),
    "neumann": NeumannAdjoint(terms=10),
    "finite_differences": FiniteDifferences(),
    "sampled_entries": Sampled(),
}
"""What `compare` runs unless it is told otherwise."""


def check_way(way: Any) -> AbstractWay:
    """Return the way for a name or an object, or raise the sentence that says what is wrong."""
    if isinstance(way, AbstractWay):
        return way
    if isinstance(way, str) and way in WAYS:
        return WAYS[way]
    known = ", ".join(map(repr, WAYS))
    raise ValueError(
        f"compare: each of methods must be one of {known}, or an object such as gradients.Unrolled(iterations=50); "
        f"got {describe(way)}."
    )
