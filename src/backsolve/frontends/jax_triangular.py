"""Triangular solves in compiled programs: substituted and judged by one kernel; the host is asked only in doubt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..methods import Triangular
from ..methods.judge import met_status, standard
from ..plan import Plan
from .jax_kernels import Known, target

__all__ = ["substituted", "substitutes"]

_TARGET = target("triangular")


def substitutes(plan: Plan) -> bool:
    """Whether the kernel can do what a plan asks for, as far as it is not in doubt."""
    method = plan.method
    plain = isinstance(method, Triangular) and not method.extended and not method.equilibrate
    return plain and plan.template.structure.kind == "csr" and _TARGET is not None


def substituted(plan: Plan, known: Known, adjoint: bool, backward: bool, ask: Callable) -> Callable:
    """(data, b) -> x (items, n, k) and status (items,), traceable; `ask` does it where something is left to say."""
    goal = plan.targets[backward]

    def run(data: Any, b: Any) -> tuple[jax.Array, jax.Array]:
        eps = float(np.finfo(b.dtype).eps)
        kernel = jax.ffi.ffi_call(
            str(_TARGET),
            (jax.ShapeDtypeStruct(b.shape, b.dtype), jax.ShapeDtypeStruct(b.shape[:1], np.int32)),
        )
        x, settled = kernel(
            data,
            b,
            pattern=known.name,
            lower=plan.template.assumed == "lower",
            adjoint=adjoint,
            standard=np.array(standard(b.shape[1], eps, goal)),
        )
        good = settled * int(met_status(goal))
        return jax.lax.cond((settled == 1).all(), lambda: (x, good), lambda: tuple(ask(data, b)))

    return run
