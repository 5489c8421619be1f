"""The solve as a JAX primitive: its derivatives are those of `calculus`, its transpose is the solve with Aᵀ.

Transforms see a primitive with rules; outside of a compiled program it runs at once, inside it is one call of the host,
or for a triangular A of a kernel.
Factors reach derivatives through `factor_cache`, since nothing but arrays travels there.
"""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import calculus
from ..factor_cache import CACHE
from ..plan import Plan
from ..shapes import Layout
from ..solution import Solution, Stats, solution_of
from .jax_arrays import as_columns, as_items, like, varying_alike
from .jax_kernels import Known
from .jax_products import Products
from .jax_triangular import substituted, substitutes

__all__ = ["Call", "Ops", "run"]

_COUNTS = ("refinements", "iterations", "matvecs", "factorizations", "copies")


class Call:
    """What a solve and its derivatives share besides arrays; equal calls are equal programs."""

    def __init__(self, plan: Plan, layout: Layout):
        self.plan, self.layout = copy.copy(plan), layout
        self.plan.template = plan.template.on(None)  # so that no traced value outlives its trace
        self.structure, self.method = plan.template.structure, plan.method
        self.details: dict[int, str] = {}  # what an eager forward solve found
        self._key = (
            self.structure,
            plan.template.assumed,
            plan.method,
            tuple(plan.targets.values()),
            tuple(plan.on_failure.values()),
            plan.keep_best,
            layout,
        )
        self.quiet = copy.copy(self.plan)
        self.quiet.on_failure = {False: "return", True: "return"}

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Call) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def run(self, plan: Plan, data: Any, b: Any, adjoint: bool, backward: bool, stats: bool) -> tuple[np.ndarray, ...]:
        """Solve on the host, with the factors of these values if there are any."""
        data, b = np.ascontiguousarray(data), np.ascontiguousarray(b)
        assumed = plan.template.assumed
        with CACHE.factors(self.structure, self.method, assumed, data, spend=backward) as factored:
            # a state outlives the memory that XLA lends to a call
            outcome = plan.run(factored, data.copy, b, adjoint=adjoint, backward=backward, show=self.show)
        if plan is self.plan and not backward:
            self.details = outcome.details
        found = (outcome.x, outcome.status, *(outcome.stats if stats else ()))
        kinds = _result_types(data, b, stats)
        return tuple(np.asarray(v, kind.dtype).reshape(kind.shape) for v, kind in zip(found, kinds, strict=True))

    def show(self, outcome: Any) -> Solution:
        """The outcome as the user knows it, or item by item under a map."""
        layout, (items, n, k) = self.layout, outcome.x.shape
        if (items, k) != (int(np.prod(layout.items, dtype=int)), layout._width):
            layout = Layout((items,), (0,), (), n, k, False)
        return solution_of(self.method, outcome, layout, layout.shown(outcome.x, np.transpose))


class Ops(Products):
    """The three operations that `calculus` asks for, on data (items, ...) and vectors (items, n, k)."""

    def __init__(self, call: Call):
        super().__init__(call.structure)
        self.call = call

    def solve(self, data, b, adjoint):
        return run(self.call, data, b, adjoint, backward=True)[0]


def run(call: Call, data: Any, b: Any, adjoint: bool, backward: bool = False, stats: bool = False) -> Any:
    """x (items, n, k), status (items,), and if asked for the fields of `Stats`."""
    data, b = varying_alike(data, b)
    return _solve.bind(data, b, call=call, adjoint=adjoint, backward=backward, stats=stats)


_solve = Primitive("backsolve_solve")
_solve.multiple_results = True


def _result_types(data: Any, b: Any, stats: bool) -> tuple[jax.ShapeDtypeStruct, ...]:
    items, real = (data.shape[0],), jax.dtypes.canonicalize_dtype(np.float64)
    fields = (jax.ShapeDtypeStruct(items, np.int32 if name in _COUNTS else real) for name in Stats._fields)
    return (
        jax.ShapeDtypeStruct(b.shape, b.dtype),
        jax.ShapeDtypeStruct(items, np.int32),
        *(fields if stats else ()),
    )


@_solve.def_impl
def _eager(data, b, *, call, adjoint, backward, stats):
    found = call.run(call.plan, data, b, adjoint, backward, stats)
    return [jnp.asarray(v) for v in found]


@_solve.def_abstract_eval
def _shapes(data, b, *, call, adjoint, backward, stats):
    return [like(b, v.shape, v.dtype) for v in _result_types(data, b, stats)]


def _by_host(ctx, data, b, *, call, adjoint, backward, stats):
    """One call of the host, on buffers: a JAX array inside of it could wait for the program that waits for it."""

    def host(data, b):
        return call.run(call.quiet, data, b, adjoint, backward, stats)

    found, _, _ = mlir.emit_python_callback(
        ctx, host, None, [data, b], ctx.avals_in, ctx.avals_out, has_side_effect=False, returns_token=False
    )
    return found


def _by_kernel(ctx, data, b, *, call, adjoint, backward, stats):
    """A triangular solve without the host, unless it is in doubt."""
    exported = ctx.module_context.lowering_parameters.for_export  # to where nobody knows the Pattern
    options = {"call": call, "adjoint": adjoint, "backward": backward, "stats": stats}
    if stats or exported or not substitutes(call.plan):
        return _by_host(ctx, data, b, **options)
    known = Known(call.structure)
    ctx.module_context.add_keepalive(known)
    run = substituted(call.plan, known, adjoint, backward, lambda data, b: _asked.bind(data, b, **options))
    return mlir.lower_fun(run)(ctx, data, b)


_asked = Primitive("backsolve_solve_by_host")
_asked.multiple_results = True


@_asked.def_abstract_eval
def _plain_shapes(data, b, *, call, adjoint, backward, stats):
    """Where programs are lowered, nothing is said any more of the axes of a mesh."""
    return [ShapedArray(v.shape, v.dtype) for v in _result_types(data, b, stats)]


mlir.register_lowering(_asked, _by_host)
mlir.register_lowering(_solve, _by_host)
mlir.register_lowering(_solve, _by_kernel, platform="cpu")


def _jvp(primals, tangents, *, call, adjoint, backward, stats):
    """The rule of `calculus`; of systems that failed the derivative is NaN, forward and transposed."""
    data, b = primals
    data_dot, b_dot = (None if isinstance(t, ad.Zero) else t for t in tangents)
    found = run(call, data, b, adjoint, backward, stats)
    x, status = found[:2]
    real = jnp.finfo(x.dtype).dtype
    kept = jnp.where(status > 0, 1.0, jnp.nan).astype(real)[:, None, None]
    x_dot = kept * calculus.solve_jvp(Ops(call), data, x, data_dot, b_dot, adjoint)
    return found, [x_dot, *(ad.Zero(jax.typeof(v).to_tangent_aval()) for v in found[1:])]


ad.primitive_jvps[_solve] = _jvp


def _transpose(cotangents, data, b, *, call, adjoint, backward, stats):
    """A⁻ᵀ g = conj(A⁻ᴴ conj(g)): JAX transposes without conjugation."""
    g = cotangents[0]
    if isinstance(g, ad.Zero):
        return None, ad.Zero(b.aval)
    return None, run(call, data, g.conj(), not adjoint, backward=True)[0].conj()


ad.primitive_transposes[_solve] = _transpose


def _batch(arguments, axes, *, call, adjoint, backward, stats):
    """A mapped axis of the data becomes items; one that b alone has becomes columns of the same factors."""
    (data, b), (data_axis, b_axis) = arguments, axes
    options = {"call": call, "adjoint": adjoint, "backward": backward, "stats": stats}
    if data_axis is None:
        columns, apart = as_columns(b, b_axis)
        x, *rest = _solve.bind(data, columns, **options)
        return [apart(x), *rest], [2] + [None] * len(rest)
    (data, b), apart = as_items(arguments, axes)
    found = _solve.bind(data, b, **options)
    return [apart(v) for v in found], [0] * len(found)


batching.primitive_batchers[_solve] = _batch
