"""Options of a solve, checked once and carried unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from .errors import describe

__all__ = ["ASSUMPTIONS", "Adjoint", "check_assume", "check_on_failure", "check_tolerance"]

ASSUMPTIONS = ("general", "spd", "sym", "her", "lower", "upper")
_ON_FAILURE = ("raise", "warn", "return")


def check_tolerance(owner: str, name: str, value: object, below: float = float("inf")) -> float | None:
    """Return a tolerance as a float (None stays None) or raise the sentence that names what is wrong."""
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < below:
        bound = "1)" if below == 1 else "inf)"
        raise ValueError(f"{owner}: {name} must be a float in [0, {bound}; got {describe(value)}.")
    return float(value)


def check_on_failure(value: object) -> str:
    """Return `value` if it is one of "raise", "warn", "return"."""
    if not isinstance(value, str) or value not in _ON_FAILURE:
        raise ValueError(f"on_failure must be one of 'raise', 'warn', 'return'; got {describe(value)}.")
    return str(value)


def check_assume(value: object) -> str:
    """Return `value` if it names a property that a solve can use."""
    if not isinstance(value, str) or value not in ASSUMPTIONS:
        raise ValueError(f"assume must be one of {', '.join(map(repr, ASSUMPTIONS))}; got {describe(value)}.")
    return str(value)


@dataclass(frozen=True)
class Adjoint:
    """Options of the backward solve; what is None is taken from the forward solve.

    Parameters
    ----------
    rtol, atol : float, optional
        Target of the adjoint residual, relative to the norm of the cotangent and absolute.
    on_failure : {"raise", "warn", "return"}, optional
        What a failed adjoint solve does.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> sol = bs.solve_with_info(np.eye(2), np.ones(2), adjoint=bs.Adjoint(rtol=1e-8))
    >>> sol.converged
    True
    """

    rtol: float | None = None
    atol: float | None = None
    on_failure: str | None = None

    def __post_init__(self):
        check_tolerance("Adjoint", "rtol", self.rtol, below=1)
        check_tolerance("Adjoint", "atol", self.atol)
        if self.on_failure is not None:
            check_on_failure(self.on_failure)
