"""From what the user hands over to a `Problem`; arguments are checked here, once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any

import scipy.sparse as sp

from ..dispatch import frontend_of
from ..errors import describe
from ..operators import CSR, flatten
from ..options import Adjoint, check_on_failure
from ..pattern import Pattern
from .coloring import color
from .newton import Newton
from .outcome import RootSolution
from .problem import Problem
from .solvers import AbstractSolver, Anderson, Broyden, Picard

__all__ = ["backend_of", "check_adjoint", "prepare", "solved", "taken", "tolerance"]

SOLVERS: dict[str, AbstractSolver] = {
    "newton": Newton(),
    "anderson": Anderson(),
    "broyden": Broyden(),
    "picard": Picard(),
}
DENSE_UP_TO = 64
"""Unknowns below which "auto" makes the whole Jacobian."""


def backend_of(frontend: Any) -> Any:
    """The half of this package for the framework that the arrays are of."""
    if frontend.name == "tensorflow":
        raise TypeError("backsolve.implicit is for torch, JAX and NumPy; got arrays of TensorFlow: convert them.")
    return import_module(f".{frontend.name}_backend", __package__).BACKEND


def prepare(owner: str, make: Callable, function: Any, z0: Any, params: Any, **options: Any) -> tuple:
    """The backend, the problem, z0 flat, the leaves.

    ``make(z, y) -> F`` gives the residual from z and what `function` returned.
    """
    backend, z0, leaves, rebuild = taken(owner, function, z0, params)
    shape, kind = tuple(z0.shape), str(z0.dtype).removeprefix("torch.")
    samples = _samples(owner, shape, options["batch_axes"])

    def flat(z: Any, leaves: tuple) -> Any:
        z = z.reshape(shape)
        y: Any = function(z, *rebuild(leaves))
        if tuple(getattr(y, "shape", (None,))) != shape or y.dtype != z.dtype:
            raise ValueError(
                f"{owner}: the function must return an array of the shape and dtype of z0, {shape} and {kind}; "
                f"got {describe(y)}."
            )
        return make(z, y).reshape(-1)

    options["solver"] = _solver(owner, options["solver"])
    options["jacobian"] = _jacobian(owner, options["jacobian"], prod(shape), samples, rebuild)
    options["adjoint"] = check_adjoint(owner, options["adjoint"])
    options["on_failure"] = check_on_failure(options["on_failure"])
    options["function"] = function
    return backend, Problem(owner, flat, shape, samples, options), z0.reshape(-1), leaves


def taken(owner: str, function: Any, z0: Any, params: Any) -> tuple:
    """The backend, z0, the leaves of the parameters, and what puts other leaves in their place."""
    if not callable(function):
        raise TypeError(f"{owner}: the first argument must be a function (z, *params); got {describe(function)}.")
    if not isinstance(params, tuple | list):
        raise TypeError(
            f"{owner}: params must be a tuple of what the function takes after z; got {describe(params)}: "
            "write (params,) for one."
        )
    frontend = frontend_of(z0, *(_arrays(params)))
    backend = backend_of(frontend)
    z0 = frontend.asarray("z0", z0)
    kind = str(z0.dtype).removeprefix("torch.")
    if kind not in ("float32", "float64"):
        raise TypeError(f"{owner}: z0 must be of dtype float32 or float64; got {describe(z0)}: split complex unknowns.")
    return backend, z0, *backend.flatten_params(tuple(params))


def solved(prepared: tuple, keep_best: bool) -> RootSolution:
    """Run the problem, and raise, warn or blank what failed."""
    backend, problem, z0, leaves = prepared
    backward: list = []
    z, found = backend.run(problem, z0, leaves, backward)
    if found is None:
        if keep_best:
            raise RuntimeError(
                f"{problem.owner}_with_info has no verdict for each example of torch.func.vmap: "
                f"call {problem.owner} there."
            )
        return problem.outcome(z.reshape(problem.shape), None, None, None, None, problem.solver)
    sol = problem.report(backend, found, z)
    sol._backward = backward
    if not keep_best:
        lost = (sol.status <= 0).reshape(sol.status.shape + (1,) * (sol.z.ndim - sol.status.ndim))
        known = backend.known(lost)
        if known is None or known.any():
            sol.z = backend.xp.where(lost, float("nan"), sol.z)
    return sol


def _arrays(params: Any) -> list:
    """Whatever is an array in the parameters; of nestings that are not known here, nothing."""
    return list(flatten(tuple(params))[0])


def _samples(owner: str, shape: tuple, batch_axes: Any) -> int:
    if not isinstance(batch_axes, int) or isinstance(batch_axes, bool) or not 0 <= batch_axes <= len(shape):
        raise ValueError(
            f"{owner}: batch_axes must be an integer from 0 to the number of axes of z0, {len(shape)}; "
            f"got {describe(batch_axes)}."
        )
    return prod(shape[:batch_axes])


def _solver(owner: str, solver: Any) -> Any:
    if isinstance(solver, str) and solver in SOLVERS:
        return SOLVERS[solver]
    if isinstance(solver, AbstractSolver) or (callable(solver) and not isinstance(solver, type)):
        return solver
    raise ValueError(
        f"{owner}: solver must be one of {', '.join(map(repr, SOLVERS))}, an object such as Newton(maxiter=20), or a "
        f"function (residual, z0) -> z; got {describe(solver)}."
    )


def _jacobian(owner: str, kind: Any, size: int, samples: int, rebuild: Callable) -> Any:
    if isinstance(kind, str) and kind == "auto":
        return "dense" if size <= DENSE_UP_TO and samples == 1 else "products"
    if isinstance(kind, str) and kind in ("products", "dense"):
        return kind
    if isinstance(kind, CSR):
        kind = kind.pattern
    if sp.issparse(kind):
        csr: Any = sp.csr_array(kind)
        csr.sort_indices()
        csr.sum_duplicates()
        kind = Pattern(csr.indptr, csr.indices, csr.shape)
    if isinstance(kind, Pattern):
        if kind.shape != (size, size):
            raise ValueError(f"{owner}: jacobian must be a pattern of shape ({size}, {size}); got one of {kind.shape}.")
        return color(kind)
    if callable(kind):
        return lambda z, leaves: kind(z, *rebuild(leaves))
    raise ValueError(
        f"{owner}: jacobian must be 'auto', 'products', 'dense', a sparsity pattern (Pattern, CSR or scipy.sparse), or "
        f"a function (z, *params) -> matrix; got {describe(kind)}."
    )


def check_adjoint(owner: str, adjoint: Any) -> Adjoint:
    if adjoint is not None and not isinstance(adjoint, Adjoint):
        raise TypeError(f"{owner}: adjoint must be a backsolve.Adjoint; got {describe(adjoint)}.")
    return adjoint or Adjoint()


def tolerance(z0: Any, double: float, single: float) -> float:
    """A default by the dtype of z0."""
    return single if "32" in str(getattr(z0, "dtype", "")) else double
