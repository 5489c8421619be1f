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


def substituted(plan: Plan, known: Known, adjoint: bool, backward: bool, groups: int, ask: Callable) -> Callable:
    """(b, data) -> x (items, n, k) and status (items, groups), traceable; `ask` does what is left to do or to say."""
    goal = plan.targets[backward]

    def run(b: Any, data: Any) -> tuple[jax.Array, jax.Array]:
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
        good = jax.numpy.repeat(settled[:, None] * int(met_status(goal)), groups, axis=1)
        return jax.lax.cond((settled == 1).all(), lambda: (x, good), lambda: tuple(ask(b, data)))

    return run
