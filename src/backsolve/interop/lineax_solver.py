"""The methods of backsolve as a solver of lineax."""

from __future__ import annotations

from typing import Any

import equinox
import lineax
from lineax import RESULTS
from lineax.internal import (
    PackedStructures,
    pack_structures,
    ravel_vector,
    transpose_packed_structures,
    unravel_solution,
)

from ..errors import describe
from ..factorization import factorize
from ..options import Adjoint, check_tolerance
from ..select import check_method
from ..status import Status
from .lineax_matrix import matrix_of

__all__ = ["LineaxSolver"]

_FAILED = {
    Status.SINGULAR: RESULTS.singular,
    Status.INDEFINITE: RESULTS.singular,
    Status.INACCURATE: RESULTS.singular,
    Status.NONFINITE: RESULTS.nonfinite_input,
    Status.MAXITER: RESULTS.max_steps_reached,
    Status.BREAKDOWN: RESULTS.breakdown,
    Status.STAGNATION: RESULTS.stagnation,
}
"""The nearest of lineax's results: its text about "singular" also has false declarations and lost accuracy."""


class State(equinox.Module):
    """A matrix, and which of A, Aᵀ, conj(A) and Aᴴ the system has. Its factors are found again by its values."""

    A: Any
    structures: PackedStructures
    transposed: bool = equinox.field(static=True)
    conjugated: bool = equinox.field(static=True)


class LineaxSolver(lineax.AbstractLinearSolver):
    """What `as_lineax_solver` returns."""

    method: Any = equinox.field(static=True)
    rtol: float | None = equinox.field(static=True)
    atol: float | None = equinox.field(static=True)
    adjoint: Adjoint | None = equinox.field(static=True)

    def __check_init__(self):
        check_method(self.method)
        check_tolerance("as_lineax_solver", "rtol", self.rtol, below=1)
        check_tolerance("as_lineax_solver", "atol", self.atol)
        if self.adjoint is None:
            return
        if not isinstance(self.adjoint, Adjoint):
            raise TypeError(f"adjoint must be a backsolve.Adjoint; got {describe(self.adjoint)}.")
        if self.adjoint.on_failure is not None:
            raise ValueError(
                f"as_lineax_solver: adjoint.on_failure must be None; got {self.adjoint.on_failure!r}: "
                "lineax raises wherever a derivative cannot be solved for."
            )

    def init(self, operator: Any, options: dict[str, Any]) -> State:
        """The matrix of the operator, factored at once if its values are known."""
        if options:
            raise ValueError(f"options must be empty for the methods of backsolve; got {describe(options)}.")
        state = State(matrix_of(operator), pack_structures(operator), False, False)
        self._factors(state)
        return state

    def compute(self, state: State, vector: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Solve with the system of the state."""
        b = ravel_vector(vector, state.structures)
        outside = state.transposed != state.conjugated  # Aᵀ x = b is Aᴴ conj(x) = conj(b)
        sol = self._factors(state).solve_with_info(b.conj() if outside else b)
        x = unravel_solution(sol.x.conj() if outside else sol.x, state.structures)
        return x, _result(sol.status), {"status": sol.status, **sol.stats._asdict()}

    def transpose(self, state: State, options: dict[str, Any]) -> tuple[State, dict[str, Any]]:
        """The state of Aᵀ, with the same factors."""
        structures = transpose_packed_structures(state.structures)
        return State(state.A, structures, not state.transposed, state.conjugated), {}

    def conj(self, state: State, options: dict[str, Any]) -> tuple[State, dict[str, Any]]:
        """The state of conj(A), with the same factors."""
        return State(state.A, state.structures, state.transposed, not state.conjugated), {}

    def assume_full_rank(self) -> bool:
        """True: a matrix without full rank is an error."""
        return True

    def _factors(self, state: State) -> Any:
        rtol, atol = self.rtol, self.atol
        if state.transposed and self.adjoint is not None:
            rtol = rtol if self.adjoint.rtol is None else self.adjoint.rtol
            atol = atol if self.adjoint.atol is None else self.adjoint.atol
        F = factorize(state.A, method=self.method, rtol=rtol, atol=atol, on_failure="return")
        return F.adjoint if state.transposed else F


def _result(status: Any) -> Any:
    result: Any = RESULTS.where(status > 0, RESULTS.successful, RESULTS.singular)
    for code, failed in _FAILED.items():
        result = RESULTS.where(status == code, failed, result)
    return result
