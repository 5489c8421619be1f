"""Stationary methods, and Chebyshev's semi-iteration: no inner products but those that tell when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import describe
from ..preconditioners import Jacobi as _Diagonal
from ..preconditioners import Sweep
from ..preconditioners.spectrum import check_bounds, ritz_values
from ..status import Status
from .iterative import IterativeMethod
from .recurrence import OVERFLOW, RUNNING, System, choose, mark, real_dot, started

__all__ = ["SOR", "Chebyshev", "Jacobi", "Richardson", "Stationary", "own_preconditioner"]

_GROWTH = 1e6
"""Of the norm of the residual, after which an iteration diverges."""


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    first: Any
    """rr at the start."""


class Stationary(IterativeMethod):
    """x += ω M (b - A x)."""

    traceable: ClassVar[bool] = True

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        rr = real_dot(system.xp, r, r)
        state = started(system, rr)
        return _Work(x, r, rr, state, system.xp.zeros_like(state), rr)

    def step(self, system: System, work: _Work) -> _Work:
        """One correction."""
        xp, running = system.xp, work.state == RUNNING
        d = self.weight * system.M(work.r)
        x, r = work.x + d, work.r - system.A(d)
        rr = real_dot(xp, r, r)
        ok = running & xp.isfinite(rr)
        state = mark(xp, started(system, rr), rr > _GROWTH**2 * work.first, OVERFLOW)
        return _Work(
            x=choose(xp, ok, x, work.x),
            r=choose(xp, ok, r, work.r),
            rr=xp.where(running, rr, work.rr),
            state=xp.where(running, state, work.state),
            count=work.count + xp.astype(ok, xp.int32),
            first=work.first,
        )

    @property
    def weight(self) -> float:
        """ω."""
        raise NotImplementedError

    def diagnose(self, system: System, work: Any) -> Any:
        """Divergence has a reason of its own."""
        return diverged(system, work)

    def details(self, work: Any, known: np.ndarray) -> dict[int, str]:
        """That of the spectral radius."""
        return {Status.BREAKDOWN: _DIVERGED}


def diverged(system: System, work: Any) -> Any:
    """BREAKDOWN for columns whose residual grew out of bounds."""
    return mark(system.xp, system.xp.zeros_like(work.state), work.state == OVERFLOW, Status.BREAKDOWN)


def own_preconditioner(method: Any, M: Any, what: str) -> None:
    """Give a method the M that it is made of; another one is refused."""
    if method.M is None:
        object.__setattr__(method, "M", M)
    elif method.M != M:
        raise ValueError(f"{type(method).__name__}: M is {what}; got {method.M}: use Richardson(M=...).")


def _check_positive(owner: str, omega: Any) -> None:
    if not isinstance(omega, int | float) or isinstance(omega, bool) or not 0 < omega < np.inf:
        raise ValueError(f"{owner}: omega must be a positive float; got {describe(omega)}.")


_DIVERGED = (
    "the iteration diverges, as the spectral radius of I - ω M A exceeds 1: use a smaller omega, or 'gmres', 'cg'"
)


@dataclass(frozen=True)
class Richardson(Stationary):
    """Richardson's iteration x += ω M (b - A x), with any fixed or varying M.

    Converges if all eigenvalues of ω M A lie in the disk of radius 1 about 1. One product with A in each iteration;
    three vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`.
    omega : float
        ω, positive.

    Notes
    -----
    *Fails with* MAXITER, BREAKDOWN (the residual grew a million times: it diverges), STAGNATION, NONFINITE.
    *Differentiation*: the adjoint solve is another run with Aᴴ and Mᴴ, which converges at the same rate.

    References
    ----------
    Saad, Iterative Methods for Sparse Linear Systems, 2nd edition, section 4.2.
    """

    omega: float = 1.0

    name: ClassVar[str] = "richardson"
    summary: ClassVar[str] = "Richardson's iteration: one product with A in each"
    requires: ClassVar[frozenset[str]] = frozenset({"near_identity"})
    flexible: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        _check_positive("Richardson", self.omega)

    @property
    def weight(self) -> float:
        """ω."""
        return self.omega


@dataclass(frozen=True)
class Jacobi(Stationary):
    """Jacobi's iteration x += ω D⁻¹ (b - A x); with ω = 1 its iterates are the partial sums of `Neumann`'s series.

    Converges if A is strictly diagonally dominant, by rows or by columns. One product with A in each iteration.

    Parameters
    ----------
    rtol, atol, maxiter
        See `IterativeMethod`.
    omega : float
        ω, positive; 2/3 damps what a grid can hardly represent.

    Notes
    -----
    *Requires* entries. *Fails with* MAXITER, BREAKDOWN (it diverges, or a diagonal entry is zero), STAGNATION,
    NONFINITE. *Differentiation*: as `Richardson`.

    References
    ----------
    Saad 2003, section 4.1.
    """

    omega: float = 1.0

    name: ClassVar[str] = "jacobi"
    summary: ClassVar[str] = "Jacobi's iteration: one product with A in each"
    requires: ClassVar[frozenset[str]] = frozenset({"diagonally_dominant"})

    def __post_init__(self):
        super().__post_init__()
        own_preconditioner(self, _Diagonal(), "the inverse diagonal of A")
        _check_positive("Jacobi", self.omega)

    @property
    def weight(self) -> float:
        """ω."""
        return self.omega


@dataclass(frozen=True)
class SOR(Stationary):
    """Successive over-relaxation, x += (D/ω + L)⁻¹ (b - A x); ω = 1 is Gauss and Seidel's iteration.

    Converges for every Hermitian positive definite A and 0 < ω < 2. One product with A and one sweep in each iteration.

    Parameters
    ----------
    rtol, atol, maxiter
        See `IterativeMethod`.
    omega : float
        ω, in (0, 2).

    Notes
    -----
    *Requires* entries. *Fails with* MAXITER, BREAKDOWN (it diverges, or a diagonal entry is zero), STAGNATION,
    NONFINITE. *Differentiation*: the adjoint solve sweeps the other way.

    References
    ----------
    Young 1954, doi:10.1090/S0002-9947-1954-0059635-7; Saad 2003, section 4.1.
    """

    omega: float = 1.0

    name: ClassVar[str] = "sor"
    summary: ClassVar[str] = "successive over-relaxation: a product with A and a sweep in each iteration"
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})

    def __post_init__(self):
        if not isinstance(self.omega, int | float) or not 0 < self.omega < 2:
            raise ValueError(f"SOR: omega must be a float in (0, 2); got {describe(self.omega)}.")
        super().__post_init__()
        own_preconditioner(self, Sweep(self.omega), "a sweep over A")

    @property
    def weight(self) -> float:
        """ω is in M already."""
        return 1.0


class _Semi(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    first: Any
    d: Any
    """The last correction."""
    rho: Any


@dataclass(frozen=True)
class Chebyshev(IterativeMethod):
    """Chebyshev's semi-iteration, for Hermitian positive definite operators whose spectrum is known.

    The residual after k steps is the polynomial that is smallest on [low, high]. One product with A and one with M in
    each iteration, and no inner product but the one that tells when to stop; four vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`. M must be Hermitian positive definite.
    bounds : (float, float), optional
        low and high, of the eigenvalues of M A. If None, from twenty Lanczos steps: the largest Ritz value raised by a
        tenth, the smallest lowered to half.

    Notes
    -----
    *Fails with* MAXITER, BREAKDOWN (it diverges: an eigenvalue exceeds high, or is not positive), STAGNATION,
    NONFINITE. *Differentiation*: the adjoint solve is another run with Aᴴ.

    References
    ----------
    Golub and Varga 1961, doi:10.1007/BF01386013; Saad 2003, algorithm 12.1.
    """

    bounds: tuple[float, float] | None = None

    name: ClassVar[str] = "chebyshev"
    summary: ClassVar[str] = "Chebyshev's semi-iteration: one product with A in each"
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})
    definite: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        check_bounds("Chebyshev", self.bounds)

    @property
    def traceable(self) -> bool:  # type: ignore[override]
        """If the interval is given: else it is looked for."""
        return self.bounds is not None

    def find(self, A: Any, M: Any) -> tuple[np.ndarray, np.ndarray]:
        """Centre and radius of the interval of each item."""
        if self.bounds is None:
            low, high = ritz_values(A, M, steps=20)
            low, high = 0.5 * low, 1.1 * high
        else:
            low, high = (np.full(1, float(edge)) for edge in self.bounds)
        good = np.isfinite(low) & (low > 0)
        low, high = (
            np.where(good, low, np.where(np.isfinite(high), abs(high), 1.0) / 1e4),
            np.where(high > 0, high, 1.0),
        )
        return (high + low) / 2, (high - low) / 2

    def init(self, system: System, x: Any, r: Any) -> _Semi:
        """Begin at x, whose residual is r."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        state = started(system, rr)
        return _Semi(x, r, rr, state, xp.zeros_like(state), rr, xp.zeros_like(r), xp.zeros_like(rr))

    def step(self, system: System, work: _Semi) -> _Semi:
        """Saad's algorithm; the first step of a run is that of ρ = 0."""
        xp, running = system.xp, work.state == RUNNING
        theta, delta = (xp.zeros_like(work.rr) + system.known(edge) for edge in system.found)
        sigma = theta / delta
        begun = work.rho > 0
        rho = xp.where(begun, 1 / (2 * sigma - work.rho), 1 / sigma)
        ahead, back = xp.where(begun, 2 * rho / delta, 1 / theta), xp.where(begun, rho * work.rho, xp.zeros_like(rho))
        d = back * work.d + ahead * system.M(work.r)
        x, r = work.x + d, work.r - system.A(d)
        rr = real_dot(xp, r, r)
        ok = running & xp.isfinite(rr)
        state = mark(xp, started(system, rr), rr > _GROWTH**2 * work.first, OVERFLOW)
        return _Semi(
            x=choose(xp, ok, x, work.x),
            r=choose(xp, ok, r, work.r),
            rr=xp.where(running, rr, work.rr),
            state=xp.where(running, state, work.state),
            count=work.count + xp.astype(ok, xp.int32),
            first=work.first,
            d=choose(xp, ok, d, work.d),
            rho=xp.where(running, rho, work.rho),
        )

    def diagnose(self, system: System, work: Any) -> Any:
        """Divergence has a reason of its own."""
        return diverged(system, work)

    def details(self, work: Any, known: np.ndarray) -> dict[int, str]:
        """That of the bounds."""
        bounds = "an eigenvalue of M A is not positive or exceeds the upper bound: give bounds"
        return {Status.BREAKDOWN: f"the iteration diverges: {bounds}"}
