"""One solve and its adjoints: the method, the targets, and the factors of one set of values."""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import SolveError, SolveWarning
from .methods import AbstractMethod, Outcome, Target
from .methods.blocks import block_of, in_blocks
from .options import Adjoint
from .solution import Solution
from .status import Status

__all__ = ["Factored", "Plan"]

_log = logging.getLogger("backsolve")

GAVE_WAY = "gave way"
"""What a pattern remembers after a method that iterates, which "auto" chose, has failed on it."""


class Factored:
    """The prepared state for one set of values: made at first use, shared by a solve and all its derivatives.

    With `once`, for one solve that no derivative follows: then the factors of a batch need not be held together.
    """

    def __init__(self, once: bool = False):
        self.once, self._state = once, None
        self._lock = threading.Lock()
        self._mapped: Factored | None = None
        self.shares: Any = None
        """A state of the `factor_cache` that lives as long as this one."""

    def state(self, method: AbstractMethod, operator: Any) -> Any:
        """Prepare `operator` unless that has been done."""
        with self._lock:
            if self._state is None:
                self._state = method.prepare(operator)
            return self._state

    @property
    def made(self) -> Any:
        """The state if it has been prepared, else None."""
        return self._state

    @property
    def nbytes(self) -> int:
        """Memory of the factors, as far as known."""
        return 0 if self._state is None else self._state.nbytes

    def keep(self) -> None:
        """Hold the state, since derivatives may ask for it."""
        self.once = False

    def forget(self) -> None:
        """Drop the state, for one of another method."""
        with self._lock:
            self._state = None

    def mapped(self) -> Factored:
        """The state for a batch of values, where a transform maps over them: again one for all derivatives."""
        with self._lock:
            if self._mapped is None:
                self._mapped = Factored()
            return self._mapped


class Plan:
    """Everything about a solve that is not a number: operator structure, method, targets, what to do on failure."""

    def __init__(
        self, A: Any, method: AbstractMethod, target: Target, adjoint: Adjoint, on_failure: str, keep_best: bool
    ):
        self.template = A
        self.method = method
        self.targets = {
            False: target,
            True: Target(
                target.rtol if adjoint.rtol is None else adjoint.rtol,
                target.atol if adjoint.atol is None else adjoint.atol,
            ),
        }
        self.on_failure = {False: on_failure, True: adjoint.on_failure or on_failure}
        self.keep_best = keep_best
        self.spare: Plan | None = None
        """What to do instead if the method, which "auto" chose and which iterates, does not arrive."""
        self.x0: Any = None
        """Where the forward solve begins, as an array of the user's; it has no derivative."""
        self.callback: Callable | None = None
        """What is told of each iteration of the forward solve."""

    def on(self, structure: Any) -> Plan:
        """The same plan for the operator on another structure."""
        other = copy.copy(self)
        other.template = self.template.bound(structure)
        return other

    def bare(self) -> Plan:
        """The same plan, holding no data: what is kept with a traced program must not keep its arrays."""
        other = copy.copy(self)
        other.template = self.template.on(None)
        return other

    def run(
        self,
        factored: Factored,
        values: Callable[[], Any],
        b: Any,
        *,
        adjoint: bool,
        backward: bool,
        show: Callable[[Outcome], Solution],
        x0: Any = None,
        watch: Callable | None = None,
    ) -> Outcome:
        """Solve on plain arrays: b (batch, n, k), and values of data (batch, ...), taken unless the state is made.

        `adjoint` says which system, A or Aᴴ; `backward` says whose targets and failure policy hold. Raises or
        warns as asked, with the outcome as `show` shows it to the user; values of failed items are NaN unless the
        best iterate was asked for. An iterative method begins at x0 (batch, n, k), and tells `watch`.
        """
        more = {} if x0 is None and watch is None else {"x0": x0, "watch": watch}
        target = self.targets[backward]
        if factored.once and factored.made is None and (size := block_of(self.method, self.template, len(b))):
            outcome = in_blocks(self.method, self.template.on(values()), b, target, adjoint, size)
        else:
            state = factored.made or factored.state(self.method, self.template.on(values()))
            outcome = self.method.apply(state, b, target, adjoint=adjoint, **more)
        if self.spare is not None and not outcome.converged:
            self._give_way(outcome, factored)
            return self.run(factored, values, b, adjoint=adjoint, backward=backward, show=show)
        if not outcome.converged:
            self._blank(outcome, np.isin(outcome.status, (Status.SINGULAR, Status.NONFINITE)))
            self.report(show(outcome), backward)
            if backward or not self.keep_best:
                self._blank(outcome, outcome.status <= 0)
        return outcome

    def _give_way(self, outcome: Outcome, factored: Factored) -> None:
        """Take the spare method, from now on, and say so."""
        spare: Any = self.spare
        why = Status(int(outcome.status.min())).name
        _log.warning(
            "%s, which 'auto' chose, ended with %s: solved by %s instead; name a method to do without the attempt",
            self.method, why, spare.method,
        )  # fmt: skip
        factored.forget()
        self.template.structure.memo[GAVE_WAY] = True
        self.method, self.targets, self.spare = spare.method, spare.targets, None

    def slogdet(self, factored: Factored, data: Any) -> tuple[Any, Any]:
        """Sign and logarithm of the modulus of the determinants of plain data (batch, ...), from the factors."""
        state = factored.state(self.method, self.template.on(data))
        return state.factors.slogdet(data.dtype)

    def report(self, solution: Solution, backward: bool) -> None:
        """Raise or warn of a solve that failed, as was asked."""
        policy = self.on_failure[backward]
        where = "the adjoint (backward) solve failed" if backward else "the solve failed"
        message = f"{where}: {solution.message}"
        _log.info(message)
        if policy == "raise":
            raise SolveError(message, solution)
        if policy == "warn":
            warnings.warn(SolveWarning(message), stacklevel=2)

    def _blank(self, outcome: Outcome, lost: np.ndarray) -> None:
        if lost.any():
            structure = self.template.structure
            mask = np.broadcast_to(lost[:, None], (lost.size, outcome.x.shape[2]))
            outcome.x = structure.choose(mask, outcome.x * float("nan"), outcome.x)
