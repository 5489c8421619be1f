"""What became of a solve."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """Outcome of one system: positive converged, zero not run, negative failed.

    The sign rule is PETSc's ``KSPConvergedReason``. `advice` says what to do about each.
    """

    NOT_RUN = 0
    CONVERGED_RESIDUAL = 1
    CONVERGED_BACKWARD = 2
    CERTIFIED = 3
    LOCAL_DOES_NOT_PAY = 4
    WEAKLY_ACTIVE = 5
    SINGULAR = -1
    INDEFINITE = -2
    INACCURATE = -3
    NONFINITE = -4
    MAXITER = -5
    BREAKDOWN = -6
    STAGNATION = -7
    NO_CERTIFICATE = -8
    BUDGET = -9
    INFEASIBLE = -10
    UNBOUNDED = -11
    DEGENERATE = -12

    @property
    def converged(self) -> bool:
        """Whether the true residual, or the backward error made from it, met its target."""
        return self > 0

    @property
    def advice(self) -> str:
        """One sentence: what this status means and what to do."""
        return _ADVICE[self]


_ADVICE = {
    Status.NOT_RUN: "no solve has been run",
    Status.CONVERGED_RESIDUAL: "the true residual met norm(b - A x) <= max(rtol norm(b), atol)",
    Status.CONVERGED_BACKWARD: "the backward error is at rounding level: x solves a system within rounding of A x = b",
    Status.CERTIFIED: "a bound of the error, rounding included, is proved to be within atol",
    Status.LOCAL_DOES_NOT_PAY: (
        "the bound is proved to be within atol, but by a solve of the whole system, which was forecast to be quicker "
        "than more pushes: ask for less accuracy, or factorize once for many queries"
    ),
    Status.NO_CERTIFICATE: (
        "no bound can be proved, so no number is given: A must be dominant by rows or by columns with margins above "
        "rounding, or a barrier must be given; `backsolve.solve` takes any matrix"
    ),
    Status.BUDGET: (
        "the entries or seconds allowed ran out; the bound holds for the value as it stands: allow more, or refine it"
    ),
    Status.SINGULAR: (
        "A is singular, exactly or to working precision, so x is not determined: remove or ground the null space "
        "(fix one unknown, add a small multiple of the identity), or use float64 if A is float32"
    ),
    Status.INDEFINITE: (
        "A was declared or taken to be positive definite and is not: declare assume='sym' (or 'her', 'general') "
        "and use a method for such a matrix, or check the sign of A"
    ),
    Status.INACCURATE: (
        "the residual stayed above its target: loosen rtol or atol, use float64, rescale the rows of A, "
        "or check what was declared about A"
    ),
    Status.MAXITER: (
        "the iterations ran out: raise maxiter, loosen rtol or atol, or use a direct method; "
        "many iterations mean an ill-conditioned A"
    ),
    Status.BREAKDOWN: (
        "the recurrence of the method divides by zero or overflows on this A and b: use another method, "
        "such as a direct one"
    ),
    Status.STAGNATION: (
        "the true residual stopped falling above its target, at what rounding allows this method: "
        "loosen rtol or atol, use float64, or a direct method"
    ),
    Status.WEAKLY_ACTIVE: (
        "the solution is right, but a constraint is active with a multiplier of zero, where the derivative has a kink: "
        "that of one side is given, by weakly_active='inactive' or 'active'"
    ),
    Status.INFEASIBLE: "no x satisfies the constraints: loosen h or b, or give the constraints slacks with a penalty",
    Status.UNBOUNDED: (
        "the objective falls without end within the constraints: bound x, or add a small multiple of the identity to P"
    ),
    Status.DEGENERATE: (
        "the active constraints depend on each other, or leave directions in which the objective is flat, so that "
        "multipliers or x are not determined and there is no derivative: drop redundant constraints, or add a small "
        "multiple of the identity to P"
    ),
    Status.NONFINITE: "A or the right-hand side has a NaN or an infinity: look for the first step that made it",
}
