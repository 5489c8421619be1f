"""How exactly the systems inside of an ODE are solved, and what they must look like; for every framework."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import describe, dtype_name
from ..methods.iterative import IterativeMethod
from ..options import check_tolerance
from ..select import check_method

__all__ = ["SHARE", "check_rates", "inner_tolerance"]

SHARE = 0.1
"""Part of the relative tolerance of the ODE that solves may use up."""


def inner_tolerance(owner: str, rtol: Any, atol: Any, method: Any, inner_rtol: Any) -> float | None:
    """The rtol of the solves: a tenth of that of the ODE for an iterative method, None (rounding) for a direct one."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if check_tolerance(owner, name, value, below=1 if name == "rtol" else float("inf")) is None:
            raise ValueError(f"{owner}: {name} must be a float; got None: it is the tolerance of the ODE.")
    inner = check_tolerance(owner, "inner_rtol", inner_rtol, below=1)
    if inner is not None and inner > SHARE * rtol * (1 + 1e-12):
        raise ValueError(
            f"{owner}: inner_rtol must be at most {SHARE} rtol = {SHARE * rtol:.3g}, or errors of the solves rule "
            f"those of the integrator; got {inner:.3g}."
        )
    chosen = check_method(method)
    if not isinstance(chosen, IterativeMethod):
        return inner
    if getattr(chosen, "rtol", None) is not None:
        raise ValueError(
            f"{owner}: the tolerance of the solves follows that of the ODE; got {chosen}: leave its rtol out, or give "
            "inner_rtol."
        )
    return SHARE * rtol if inner is None else inner


def check_rates(owner: str, A: Any, y: Any, f: Any) -> None:
    """Raise unless A and f fit the state y (..., n)."""
    n = y.shape[-1] if len(y.shape) else None
    if A.shape != (n, n):
        raise ValueError(f"{owner}: A must be {n} x {n} for y of shape {tuple(y.shape)}; got {A!r}.")
    if tuple(getattr(f, "shape", ())) != tuple(y.shape) or not hasattr(f, "dtype"):
        raise ValueError(f"{owner}: f must return an array of the shape of y, {tuple(y.shape)}; got {describe(f)}.")
    kinds = {"A": A.dtype, "y": y.dtype, "f": f.dtype}
    if A.structure.kind != "free" and len({dtype_name(kind) for kind in kinds.values()}) > 1:
        given = ", ".join(f"{name} is {dtype_name(kind)}" for name, kind in kinds.items())
        raise TypeError(f"{owner}: A, y and f must have one dtype; {given}: convert what A and f are made of.")
    batch = tuple(y.shape[:-1])
    try:
        fits = np.broadcast_shapes(A.batch_shape, batch) == batch
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{owner}: A must be one matrix or one for each state; y has leading axes {batch} and A {A.batch_shape}."
        )
