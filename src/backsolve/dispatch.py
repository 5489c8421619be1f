"""From what the user hands over to a frontend, an operator and a plan; and from an outcome to a Solution."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from importlib import import_module
from math import prod
from numbers import Number
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.sparse.linalg import LinearOperator

from .eager import LOOKUP
from .errors import describe
from .methods.base import check_rtol_once
from .methods.iterative import IterativeMethod
from .operators import AbstractLinearOperator
from .options import Adjoint, check_assume, check_on_failure
from .plan import Factored, Plan
from .select import ITERATING, choose_method
from .shapes import check_rhs, check_square
from .solution import Solution, solution_of

__all__ = ["columns_of", "frontend_of", "info", "inputs", "make_plan", "operator", "square", "start"]

_SAME_AS_FORWARD = Adjoint()
_ARRAYS = {
    "torch": {"torch": ("Tensor",)},
    "jax": {"jax": ("Array",), "jax.experimental.sparse": ("BCOO", "BCSR")},
    "tensorflow": {
        "tensorflow": ("Tensor", "Variable", "SparseTensor", "RaggedTensor", "IndexedSlices"),
        "keras.src.backend.tensorflow.core": ("Variable",),
    },
}
"""Array types of each framework, by the modules that have them."""


def frontend_of(*values: Any) -> Any:
    """The adapter for these arrays: that of their framework, else NumPy; frameworks are found, never imported."""
    found: set[Any] = set()
    for v in values:
        found.update(map(_framework, v.leaves if isinstance(v, AbstractLinearOperator) else (v,)))
    found.discard(None)
    if len(found) > 1:
        raise TypeError(
            f"A, b and other arrays must come from one framework; got {' and '.join(sorted(found))}: convert one."
        )
    return _frontend(found.pop() if found else "numpy")


@cache
def _frontend(name: str) -> Any:
    return import_module(f".frontends.{name}", __package__)


def _framework(value: Any) -> str | None:
    if type(value) is ndarray:
        return None
    for name, modules in _ARRAYS.items():
        for path, kinds in modules.items():
            module = sys.modules.get(path)
            if module is not None and isinstance(value, tuple(getattr(module, k) for k in kinds if hasattr(module, k))):
                return name
    return None


def _meet(data: Any) -> None:
    """Load JAX's frontend with the first JAX values that an operator gets: it makes operators pytrees."""
    if "jax" in sys.modules and _framework(data) == "jax":
        _frontend("jax")


def info(frontend: Any, A: Any, b: Any, plan: Plan, factored: Factored, adjoint: bool = False) -> Solution:
    """Solve and wrap the outcome; in eager torch and TensorFlow with the cell that backward will fill."""
    if frontend.name == "numpy":
        x, outcome, layout = frontend.solve(A, b, plan, factored, adjoint)
        return solution_of(plan.method, outcome, layout, x)
    if frontend.name == "jax" or (frontend.name == "tensorflow" and frontend.traced()):
        return frontend.info(A, b, plan, factored, adjoint)
    box: list = []
    x, outcome, layout = frontend.solve(A, b, plan, factored, adjoint, box)
    sol = solution_of(plan.method, outcome, layout, x, frontend.from_host)
    sol._adjoint = BackwardCell(
        box, lambda last, lam: solution_of(plan.method, last, layout, frontend.restore(layout, lam), frontend.from_host)
    )  # type: ignore[assignment]
    return sol


class BackwardCell:
    """The latest backward solve, turned into a Solution when somebody looks; holds no part of the graph."""

    def __init__(self, box: list, make: Any):
        self.box, self.make = box, make

    def __bool__(self) -> bool:
        return bool(self.box)

    def __getitem__(self, _: int) -> Solution:
        return self.make(*self.box[-1])

    def __reduce__(self) -> Any:
        return list, ([self[0]] if self else [],)  # copies and pickles hold what backward was, not how to show it


def inputs(A: Any, b: Any, assume: str | None) -> tuple[Any, AbstractLinearOperator, Any]:
    frontend = frontend_of(A, b)
    b = frontend.asarray("b", b)
    if _is_function(A):
        A = frontend.of_function(A, b, b.shape[-min(b.ndim, 2)] if b.ndim else 0)
    A = square(operator(frontend, A, assume))
    check_rhs("b", tuple(b.shape), A.shape[0])
    return frontend, A, b


def _is_function(A: Any) -> bool:
    return callable(A) and not isinstance(A, LinearOperator)


def operator(frontend: Any, A: Any, assume: str | None) -> AbstractLinearOperator:
    if _is_function(A):
        raise TypeError(
            f"A must be an array, a sparse matrix or a backsolve operator; got {describe(A)}, which does not tell "
            "its size: write backsolve.MatrixFree(fn, params, shape)."
        )
    A = frontend.asoperator(A)
    return A if assume is None else A.assume(check_assume(assume))


def square(A: AbstractLinearOperator) -> AbstractLinearOperator:
    check_square(A.shape)
    return A


def make_plan(A, method, rtol, atol, adjoint, on_failure, keep_best, M=None, columns=None) -> Plan:
    """The plan of one solve; with `columns` right-hand sides for each matrix "auto" may take a method that iterates."""
    if adjoint is not None and not isinstance(adjoint, Adjoint):
        raise TypeError(f"adjoint must be a backsolve.Adjoint; got {describe(adjoint)}.")
    chosen: Any = choose_method(A, method, M, columns)
    if chosen in ITERATING and not (rtol is None and atol is None):
        chosen = replace(chosen, rtol=None)  # what was asked for is the target
    target = check_rtol_once(chosen, rtol, atol)
    plan = Plan(A, chosen, target, adjoint or _SAME_AS_FORWARD, check_on_failure(on_failure), keep_best)
    if columns is not None and method == "auto" and M is None and A.structure.kind == "csr":
        direct = choose_method(A)
        if direct is not chosen:
            plan.spare = make_plan(A, direct, rtol, atol, adjoint, on_failure, keep_best)
    return plan


def columns_of(frontend: Any, A: AbstractLinearOperator, b: Any) -> int | None:
    """Right-hand sides for each matrix; None where the method cannot be exchanged later, as in traced programs."""
    if frontend.name not in ("numpy", "torch") or A.structure.kind != "csr":
        return None
    return max(prod(b.shape) // max(A.shape[0] * prod(A.batch_shape), 1), 1)


def start(frontend: Any, plan: Plan, x0: Any, callback: Any) -> None:
    """Give a plan what only iterative methods take."""
    if x0 is None and callback is None:
        return
    for name, value in (("x0", x0), ("callback", callback)):
        if value is not None and not isinstance(plan.method, IterativeMethod):
            raise ValueError(
                f"{name} is for iterative methods; the method is {plan.method}: leave it out, or name one such as 'cg'."
            )
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function (iteration, residual_norm, x); got {describe(callback)}.")
    plan.callback = callback
    if x0 is not None:
        plan.x0 = frontend.asarray("x0", x0)
        if (host := frontend.known(plan.x0)) is not None and not np.isfinite(host).all():
            raise ValueError("x0 must be finite; got a NaN or an infinity: leave it out to begin at zero.")


def _matvec(A: AbstractLinearOperator, x: Any) -> Any:
    frontend = frontend_of(A, x)
    A, x = frontend.asoperator(A), frontend.asarray("x", x)
    check_rhs("x", tuple(x.shape), A.shape[1], "columns")
    return frontend.matvec(A, x)


def _together(*values: Any) -> list[Any]:
    """Operators and arrays of one framework; numbers and None stay as they are."""
    frontend = frontend_of(*values)
    made = []
    for v in values:
        if isinstance(v, AbstractLinearOperator):
            made.append(frontend.asoperator(v))
        else:
            made.append(v if v is None or isinstance(v, Number) else frontend.asarray("factors of A", v))
    return frontend.promoted(made) if frontend.name == "tensorflow" else made


def _method(name: str) -> Any:
    """A method of arrays, or of the frontend where they lack it, as TensorFlow's tensors do."""

    def call(values: Any, *arguments: Any) -> Any:
        own = getattr(values, name, None)
        return getattr(frontend_of(values), name)(values, *arguments) if own is None else own(*arguments)

    return call


def _outside(label: str) -> Any:
    """What keeps Dynamo out of an eager function; None while Dynamo is not loaded.

    It must be kept out of calls in which it does not trace the caller, too: it would begin with what they call.
    """
    if sys.modules.get("torch._dynamo") is None:
        return None
    if sys.modules["torch"].compiler.is_dynamo_compiling():  # and cannot trace a cache
        from .frontends import torch_eager

        return torch_eager.OUTSIDE[label]
    return _torch_eager().OUTSIDE[label]


@cache
def _torch_eager() -> Any:
    from .frontends import torch_eager

    return torch_eager


LOOKUP["outside"] = _outside
AbstractLinearOperator.operations.update(
    matvec=_matvec,
    toarray=lambda A: frontend_of(A).toarray(A),
    full=lambda data: frontend_of(data).full(data),
    together=_together,
    meet=_meet,
    values=lambda A: frontend_of(A).values(A),
    take=lambda values, places: frontend_of(values).take(values, places),
    put=lambda values, places, size: frontend_of(values).put(values, places, size),
    largest=lambda values: frontend_of(values).largest(values),
    constant=lambda array, values: frontend_of(values).constant(array, values),
    weakly=lambda s, values: frontend_of(values).weakly(s, values),
    conj=_method("conj"),
    reshape=_method("reshape"),
    swapaxes=_method("swapaxes"),
)
