"""A loss of a solve, whatever framework it is written in: what the ways to differentiate it ask for."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..api import solve_with_info
from ..methods import LU, METHODS, SuperLU
from ..methods.iterative import IterativeMethod
from ..operators import AbstractLinearOperator
from .program import Program
from .short_adjoint import bound_of, solved
from .tally import Tally

__all__ = ["AbstractProblem", "places"]

_MOST_ITERATIONS = 500
_DENSE_UP_TO = 500
_DIRECT: dict[str, Any] = {"csr": SuperLU(), "dense": LU()}


class AbstractProblem:
    """loss(A(p)⁻¹ b(p)) for parameters p, which are seen from outside as one vector of real numbers.

    A framework says how `gradient_of` and the like are computed.
    """

    def __init__(self, build: Callable, loss: Callable, params: list[Any], solve: dict[str, Any], direct: bool):
        self.build, self.loss, self.params, self.solve, self.direct = build, loss, params, solve, direct
        self.A, self.b = self.constants()
        self.kind = self.A.structure.kind
        self.assumed = solve.get("assume") or self.A.assumed

    # -- what a framework says --------------------------------------------------------------------------------

    def constants(self) -> tuple[AbstractLinearOperator, Any]:
        """A and b at the parameters, as constants."""
        raise NotImplementedError

    def vector(self) -> np.ndarray:
        """The parameters."""
        raise NotImplementedError

    def differentiate(self, solver: Callable) -> np.ndarray:
        """The gradient of loss(solver(A, b)), which the framework makes of what `solver` recorded."""
        raise NotImplementedError

    def cotangent(self, x: Any) -> np.ndarray:
        """The gradient of the loss by x."""
        raise NotImplementedError

    def loss_at(self, vector: np.ndarray, options: dict[str, Any], tally: Tally) -> Any:
        """The loss at other parameters, real or complex, as a number."""
        raise NotImplementedError

    def sampled(self, share: float, rng: np.random.Generator, tally: Tally) -> np.ndarray:
        """See `Sampled`."""
        raise NotImplementedError

    def precise(self) -> AbstractProblem:
        """The same problem in double precision."""
        raise NotImplementedError

    def host(self, value: Any) -> np.ndarray:
        """Numbers of the framework as a NumPy array."""
        raise NotImplementedError

    def peak_bytes(self, run: Callable) -> int | None:
        """Peak memory of a computation; None where nobody keeps account."""
        raise NotImplementedError

    # -- what follows from it ---------------------------------------------------------------------------------

    def implicit(self, options: dict[str, Any], tally: Tally) -> Callable:
        """A solver that `backsolve` differentiates."""

        def solver(A: Any, b: Any) -> Any:
            sol = solve_with_info(A, b, **options)
            tally.solved(sol)
            return sol.x

        return solver

    def stepped(self, program: Program, tally: Tally) -> Callable:
        """A solver that is unrolled."""
        return lambda A, b: program.run(A, b, tally)

    def shortened(self, program: Program, tally: Tally) -> Callable:
        """A solver whose adjoint is a truncated series."""
        return lambda A, b: solved(A, b, program, self.solve, tally)

    @property
    def krylov(self) -> tuple[Any, Any]:
        """A method that iterates, and its M: the one that was given, else one for what A is declared to be."""
        given = self.solve.get("method")
        kind = METHODS.get(given) if isinstance(given, str) else type(given)
        if kind is not None and issubclass(kind, IterativeMethod):
            return given, self.solve.get("M")
        diagonal = None if self.kind == "free" else "jacobi"
        name = {"spd": "cg", "her": "minres", "sym": "minres"}.get(self.assumed, "bicgstab")
        return name, None if name == "minres" else diagonal

    @property
    def stepping(self) -> tuple[str, Any]:
        """An iteration that can be unrolled, and its M."""
        if self.assumed == "spd":
            return "cg", None if self.kind == "free" else "jacobi"
        if self.kind == "free":
            raise ValueError(
                "Unrolled: no iteration is known to fit a MatrixFree operator that is not declared 'spd': "
                "declare it, or give method='richardson' with M and omega."
            )
        return "jacobi", None

    def iterations_of(self, method: str, M: Any) -> int:
        """Iterations to a residual of 1e-6; the most that are allowed, where they do not suffice or M is a function."""
        if callable(M):
            return _MOST_ITERATIONS
        named: Any = METHODS[method]
        options = {} if method == "jacobi" else {"M": M}
        iterating = named(maxiter=_MOST_ITERATIONS, **options)
        sol = solve_with_info(self.A, self.b, method=iterating, rtol=1e-6, on_failure="return")
        return max(int(np.max(np.asarray(sol.stats.iterations))), 1)

    def sizes(self) -> np.ndarray:
        """How large each parameter is; those that are zero as large as others of their array."""
        parts = []
        for p in self.params:
            size = np.abs(self.host(p).astype(float).reshape(-1))
            parts.append(np.where(size > 0, size, size.max(initial=0.0) or 1.0))
        return np.concatenate(parts)

    def value(self, tally: Tally) -> Callable[[np.ndarray], float]:
        """The loss as a function of parameters, for differences: solved as well as can be, nothing assumed."""
        options: dict[str, Any] = {"assume": "general"}
        if self.kind == "free":
            method, M = self.krylov
            rtol = 10 * float(np.finfo(self.b_dtype).eps) ** 0.8
            options = {"method": method, "M": M, "rtol": rtol} | self._assumed
        else:
            options["method"] = _DIRECT[self.kind]
        return lambda vector: float(self.loss_at(vector, options, tally))

    def complex_value(self, tally: Tally) -> Callable[[np.ndarray], complex | None] | None:
        """The same of complex parameters; None of a MatrixFree A: no residual tells of so small an imaginary part."""
        if self.kind == "free":
            return None
        options = {"method": _DIRECT[self.kind], "assume": "general"}
        return lambda vector: self.loss_at(vector, options, tally)

    @property
    def _assumed(self) -> dict[str, Any]:
        return {"assume": self.solve["assume"]} if self.solve.get("assume") else {}

    @property
    def b_dtype(self) -> np.dtype:
        """Precision of the solve."""
        return np.result_type(self.host(self.b).dtype, *(self.host(leaf).dtype for leaf in self.A.leaves))

    def neumann_bound(self, terms: int) -> float | None:
        """A proven bound of the error of every entry of the gradient, for x as it is; None of upstream parameters."""
        if not self.direct or self.kind == "free":
            return None
        x = solve_with_info(self.A, self.b, **self.solve).x
        data = self.host(self.A.data)
        plain = self.A.with_data(data) if self.kind == "csr" else data
        bound = bound_of(plain, self.cotangent(x), terms)
        columns = np.abs(self.host(x)).reshape(self.A.shape[0], -1).sum(axis=1)
        return bound * max(1.0, float(columns.max(initial=0.0)))

    def reference(self) -> tuple[np.ndarray, str]:
        """The most accurate gradient that is to be had, and how it was made."""
        exact = self.precise()
        method: Any = {"csr": SuperLU(extended=True), "dense": LU(extended=True)}.get(exact.kind)
        if method is not None:
            gradient = exact.differentiate(exact.implicit({"method": method, "assume": "general"}, Tally()))
            return gradient, "implicit, direct solves refined with residuals in extended precision"
        if exact.A.shape[0] <= _DENSE_UP_TO:

            def solver(A: Any, b: Any) -> Any:
                return solve_with_info(A.toarray(), b, method=LU(extended=True)).x

            return exact.differentiate(
                solver
            ), "implicit, A written out, LU refined with residuals in extended precision"
        return self._tightest(exact)

    def _tightest(self, exact: AbstractProblem) -> tuple[np.ndarray, str]:
        """The smallest tolerance that is reached."""
        method, M = exact.krylov
        for rtol in (1e-13, 1e-12, 1e-11, 1e-10):
            options = {"method": method, "M": M, "rtol": rtol} | exact._assumed
            try:
                gradient = exact.differentiate(exact.implicit(options, Tally()))
            except RuntimeError:  # SolveError, at the tolerances that rounding forbids
                continue
            return gradient, f"implicit, {method} to a relative residual of {rtol:.0e}"
        raise ValueError(
            f"compare: no reference, as {method} does not reach a residual of 1e-10: give one with reference=, "
            "or a preconditioner in solve={'M': ...}."
        )


def places(A: AbstractLinearOperator) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each number of `data`, in its order."""
    if A.structure.kind == "dense":
        return np.divmod(np.arange(prod(A.shape)), A.shape[1])
    pattern, slots = A.structure, getattr(A, "slots", None)
    rows, columns = np.asarray(pattern.rows), np.asarray(pattern.indices)
    return (rows, columns) if slots is None else (rows[slots], columns[slots])
