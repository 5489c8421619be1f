"""Equations F(z, θ) = 0 with a solver, and how their solution is differentiated.

z*(θ) with F(z*(θ), θ) = 0 has, with J = ∂F/∂z at z*,

    J ż = -∂F/∂θ θ̇              forward,
    Jᴴ λ = g,  θ̄ = -(∂F/∂θ)ᴴ λ    backward.

Products with J and ∂F/∂θ at z* are differentiable functions of z* and θ, and so is `backsolve.solve`. A frontend that
applies one of these rules to the z* which it returned has therefore the derivatives of every order: differentiating the
rule meets z* again, and with it the rule.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..api import aslinearoperator, solve, solve_with_info
from ..errors import SolveError, describe
from ..operators import CSR, Dense
from ..options import Adjoint, check_tolerance
from ..status import Status
from .coloring import Coloring
from .iteration import Iterate, Run, norms, settled
from .outcome import RootSolution, report
from .saddle import Saddle

__all__ = ["Problem", "Series", "SeriesAdjoint"]


@dataclass(frozen=True)
class Series:
    """A gradient by the first terms of J⁻¹ = Σ_k (I - J)ᵏ, for a fixed point Σ_k (∂f/∂z)ᵏ, in place of a solve.

    An approximation, whose derivatives are those of the approximation. With one term, the one-step gradient, no product
    is needed: f is differentiated at z* as if its argument were constant.

    Parameters
    ----------
    terms : int, optional
    lipschitz : float, optional
        A bound below 1 of the 2-norm of ∂f/∂z at z*, which proves norm(λ - λ_K) ≤ L / (1 - L) norm(last term). Without
        it the ratio of the last two terms stands for L, and the bound is an estimate.

    Raises
    ------
    ValueError
        If an option does not fit.

    References
    ----------
    Fung et al. 2022, arXiv:2103.12803 (one term); Geng et al. 2021, arXiv:2111.05177.
    """

    terms: int = 8
    lipschitz: float | None = None

    def __post_init__(self):
        if not isinstance(self.terms, int) or isinstance(self.terms, bool) or self.terms < 1:
            raise ValueError(f"Series: terms must be an integer of at least 1; got {describe(self.terms)}.")
        check_tolerance("Series", "lipschitz", self.lipschitz, below=1)


class SeriesAdjoint(NamedTuple):
    """A backward pass by `Series`."""

    terms: int
    bound: Any
    """Of the 2-norm of the error of λ, one for each sample; NaN where there is nothing to estimate from."""
    proved: bool
    """Whether it is a bound, from a Lipschitz constant that was given, or an estimate."""


class Problem:
    """One call of `root` or `fixed_point`, without its arrays.

    Parameters
    ----------
    owner : str
        Whom messages name.
    flat : callable
        (z (batch·n,), leaves) -> F, of the same shape.
    shape : tuple
        Of z, as the user has it.
    samples : int
        Leading part of z whose equations do not depend on each other.
    """

    def __init__(self, owner: str, flat: Callable, shape: tuple[int, ...], samples: int, options: dict[str, Any]):
        self.owner, self.flat, self.shape, self.samples = owner, flat, shape, samples
        self.solver: Any = options["solver"]
        self.jacobian: Any = options["jacobian"]
        self.arrived: Callable = options["arrived"]
        self.series: Series | None = options["series"]
        self.method: Any = options["method"]
        self.adjoint: Adjoint = options["adjoint"]
        self.policy: str = options["on_failure"]
        self.batch_shape = shape[: options["batch_axes"]]
        self.function: Callable = options["function"]
        """What the user gave."""
        self.outcome: Callable = options.get("outcome", RootSolution)
        """Makes what the user gets, of the arguments of `RootSolution`."""

    def on(self, flat: Callable) -> Problem:
        """The same problem for a function that takes other leaves."""
        other = copy.copy(self)
        other.flat = flat
        return other

    # -- the solution ---------------------------------------------------------------------------------------------

    def solve(self, backend: Any, z0: Any, leaves: tuple) -> Iterate:
        """Run the solver from z0 (batch·n,), and judge what it returns by its residual, evaluated anew."""
        xp = backend.xp
        split = lambda v: xp.reshape(v, (self.samples, -1))  # noqa: E731
        residual = lambda z: split(self.flat(xp.reshape(z, (-1,)), leaves))  # noqa: E731
        operator = lambda z: self.operator(backend, xp.reshape(z, (-1,)), leaves)  # noqa: E731
        if isinstance(self.jacobian, Coloring):
            self._check_pattern(backend, z0, leaves)
        run = Run(backend, residual, self.arrived, operator, {"method": self.method_for(operator(split(z0)))})
        if not hasattr(self.solver, "solve"):
            return self._by_users_solver(run, split(z0))
        found = self.solver.solve(run, split(z0))
        z = xp.where((found.status > 0)[:, None], found.z, found.best)
        return self._judged(run, found._replace(z=z), Status.MAXITER)

    def _by_users_solver(self, run: Run, z0: Any) -> Iterate:
        xp = run.backend.xp
        back = lambda v: xp.reshape(v, self.shape)  # noqa: E731
        z = self.solver(lambda z: back(run.residual(xp.reshape(z, z0.shape))), back(z0))
        if tuple(getattr(z, "shape", ())) != self.shape:
            raise ValueError(
                f"{self.owner}: solver(residual, z0) must return an array of the shape of z0, {self.shape}; "
                f"got {describe(z)}."
            )
        z = xp.reshape(z, z0.shape)
        none = xp.astype(0 * norms(xp, z0), xp.int32)
        found = Iterate(z, z, none, none, 0 * xp.sum(none), z, norms(xp, z), ())
        return self._judged(run, found, Status.INACCURATE)

    def _judged(self, run: Run, found: Iterate, otherwise: Status) -> Iterate:
        xp = run.backend.xp
        r = run.residual(found.z)
        verdict = settled(run, found.z, r)
        status = xp.where(verdict == 0, int(otherwise), verdict)
        status = xp.astype(xp.where(found.status < 0, found.status, status), xp.int32)
        return found._replace(r=r, status=status, least=norms(xp, r), evaluations=found.evaluations + 1, memory=())

    def report(self, backend: Any, found: Iterate, z: Any) -> RootSolution:
        """What became of it, for the user; raises or warns where numbers are known."""
        numbers = (found.status, found.least, found.steps)
        status, size, steps = (v.reshape(self.batch_shape) for v in numbers)
        sol = self.outcome(z.reshape(self.shape), status, size, steps, found.evaluations, self.solver)
        if backend.known(status) is not None:
            sol.evaluations = int(found.evaluations)
            report(self.owner, sol, self.policy)
        return sol

    # -- the Jacobian ---------------------------------------------------------------------------------------------

    def operator(self, backend: Any, z: Any, leaves: tuple) -> Any:
        """J at z (batch·n,), as a differentiable function of z and the leaves; of least squares that of residuals."""
        kind, size = self.jacobian, int(z.shape[0])
        if kind == "products":
            return backend.products(self.flat, z, leaves)
        if kind == "dense":
            return Dense(backend.dense(self.flat, z, leaves))
        if isinstance(kind, Saddle):
            return kind.residuals(backend, self.flat, z, leaves)
        if isinstance(kind, Coloring):
            products = backend.columns(self.flat, z, leaves, kind.seeds)
            values = products.reshape(-1)
            return CSR.from_pattern(CSR.operations["take"](values, kind.places), kind.pattern)
        J = aslinearoperator(kind(backend.xp.reshape(z, self.shape), leaves))
        if tuple(J.shape) != (size, size) or J.batch_shape:
            raise ValueError(
                f"{self.owner}: jacobian(z, *params) must return a matrix of shape ({size}, {size}), for the unknowns "
                f"in C order; got {J!r}."
            )
        return J

    def method_for(self, J: Any) -> Any:
        """Jacobians by products are not definite: GMRES, whose residual norm never grows."""
        return "gmres" if self.method == "auto" and J.structure.kind == "free" else self.method

    def _check_pattern(self, backend: Any, z0: Any, leaves: tuple) -> None:
        """Compare one product by the entries with one by the function: an entry that is left out is found."""
        direction = np.random.default_rng(0).standard_normal((1, int(z0.shape[0])))
        given = self.operator(backend, z0, leaves) @ backend.like(z0, direction[0])
        off = backend.known(given - backend.columns(self.flat, z0, leaves, direction)[0])
        if off is None:
            return
        size, eps = np.abs(backend.known(given)).max(initial=0), float(backend.xp.finfo(z0.dtype).eps)
        if off.size and np.isfinite(off).all() and np.abs(off).max() > eps**0.4 * size:
            row = int(np.argmax(np.abs(off)))
            raise ValueError(
                f"{self.owner}: jacobian must be a pattern with all entries of the Jacobian; in row {row} of it an "
                "entry is missing: add it to the pattern, or use jacobian='products'."
            )

    # -- the derivative -------------------------------------------------------------------------------------------

    def inverse(self, backend: Any, z: Any, leaves: tuple, g: Any, adjoint: bool, box: list | None = None) -> Any:
        """J⁻¹ g or J⁻ᴴ g at z, or what `Series` makes of it; `box` receives what became of it."""
        if isinstance(self.jacobian, Saddle):  # which is symmetric
            A, g, back = self.jacobian.reduced(backend, self.flat, z, leaves, g)
            return back(self._solved(A, g, box))
        J = self.operator(backend, z, leaves)
        A = J.H if adjoint else J
        if self.series is not None:
            return self._by_series(backend, A, g, box)
        return self._solved(A, g, box)

    def _solved(self, A: Any, g: Any, box: list | None) -> Any:
        """A⁻¹ g, with the targets of derivatives."""
        more = self.adjoint
        options = {"method": self.method_for(A), "rtol": more.rtol, "atol": more.atol}
        try:
            if box is None:
                return solve(A, g, on_failure=more.on_failure or self.policy, **options)
            sol = solve_with_info(A, g, on_failure=more.on_failure or self.policy, **options)
        except SolveError as error:
            raise SolveError(
                f"{self.owner}: the derivative failed, since in its system {error}", error.solution
            ) from error
        box[:] = [sol]
        return sol.x if sol.converged else sol.x * float("nan")

    def _by_series(self, backend: Any, A: Any, g: Any, box: list | None) -> Any:
        """Σ_{k<K} (I - A)ᵏ g."""
        assert self.series is not None
        terms, L = self.series.terms, self.series.lipschitz
        total = last = before = g
        for _ in range(terms - 1):
            before, last = last, last - A @ last
            total = total + last
        if box is not None:
            xp = backend.xp
            size, earlier = (norms(xp, xp.reshape(v, (self.samples, -1))) for v in (last, before))
            ratio = size / earlier if L is None else L
            tail = xp.where(ratio < 1, ratio / (1 - ratio), float("inf")) if L is None else ratio / (1 - ratio)
            bound = tail * size
            box[:] = [
                SeriesAdjoint(terms, bound if terms > 1 or L is not None else bound * float("nan"), L is not None)
            ]
        return total
