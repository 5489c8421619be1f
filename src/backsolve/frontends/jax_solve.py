"""The solve as a JAX primitive: its derivatives are those of `calculus`, its transpose is the solve with Aᵀ.

Transforms see a primitive with rules. Outside of a compiled program it runs at once; inside it is one call of the host
for a direct method (`jax_host`), a kernel for a triangular A, and a loop of the program for an iterative method
(`jax_krylov`). Right-hand sides that a
transform maps over are groups of columns beside each other, with a verdict for each group.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import calculus
from ..methods.columns import worst
from ..plan import Plan
from ..shapes import Layout
from ..solution import Stats, watcher
from ..status import Status
from . import jax_host
from .jax_arrays import like, varying_alike
from .jax_kernels import Known
from .jax_krylov import Found, check_closure, iterate
from .jax_products import matvec, outer
from .jax_triangular import substituted, substitutes

__all__ = ["Call", "Ops", "kept", "run"]

_COUNTS = ("refinements", "iterations", "matvecs", "factorizations", "copies")


class Call:
    """What a solve and its derivatives share besides arrays; equal calls are equal programs."""

    def __init__(self, plan: Plan, layout: Layout, structure: Any):
        self.plan, self.layout, self.structure = copy.copy(plan), layout, structure
        self.plan.template = plan.template.on(None)  # so that no traced value outlives its trace, nor a function
        self.plan.template.structure = structure
        self.plan.x0 = None
        self.method = plan.method
        self.loops = getattr(plan.method, "loops", False)
        if structure.kind == "free" and not self.loops:
            raise ValueError(
                f"method {plan.method} cannot be compiled for a MatrixFree A of JAX, whose functions are not called "
                "from the host: use an iterative method such as 'cg' or 'gmres', with M a function, LowRank or "
                "Chebyshev of given bounds, if any."
            )
        self.details: dict[int, str] = {}  # what an eager forward solve found

    @property
    def _key(self) -> tuple:
        plan = self.plan
        options = tuple(plan.targets.values()), tuple(plan.on_failure.values()), plan.keep_best
        return self.structure, plan.template.assumed, plan.method, *options, self.layout, plan.callback

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Call) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def on(self, structure: Any) -> Call:
        """The same call for operands of another form."""
        other = copy.copy(self)
        other.structure = structure
        return other


class Ops:
    """The operations that `calculus` asks for, on a tuple of operands and vectors (items, n, k).

    Of a matrix-free operator, which is not linear in its operands, ``matvec(data_dot, x)`` is the derivative of A(θ) x
    along θ̇, and `outer` the pullback to the operands that are `wanted`.
    """

    def __init__(self, call: Call, data: tuple, wanted: list[bool] | None = None):
        self.call, self.data, self.wanted = call, data, wanted

    def matvec(self, data_dot, x, adjoint):
        structure = self.call.structure
        if structure.kind == "free":
            return structure.tangent(self.data, data_dot, x, adjoint)
        return matvec(structure, data_dot[0], x, adjoint)

    def outer(self, y, x):
        structure = self.call.structure
        if structure.kind == "free":
            return structure.pullback(self.data, self.wanted, y, x, False)
        return (outer(structure, y, x),)

    def solve(self, data, b, adjoint):
        return run(self.call, data, b, adjoint, backward=True)[0]


def run(
    call: Call, data: tuple, b: Any, adjoint: bool, backward: bool = False, stats: bool = False, x0: Any = None
) -> list:
    """x (items, n, k), status (items, 1), and if asked for the fields of `Stats`; x0 has no derivative."""
    if call.loops:
        check_closure(call.method, b)
    begins = x0 is not None
    alike = varying_alike(b, *((x0,) if begins else ()), *data)
    return _solve.bind(*alike, call=call, adjoint=adjoint, backward=backward, stats=stats, groups=1, begins=begins)


def _parted(operands: Any, begins: bool) -> tuple[Any, tuple]:
    """x0, if there is one, and the data."""
    return (operands[0], tuple(operands[1:])) if begins else (None, tuple(operands))


def kept(status: jax.Array, x: jax.Array) -> jax.Array:
    """One for columns that converged, NaN for others, whose derivatives mean nothing: (items, 1, k)."""
    factor = jnp.where(status > 0, 1.0, jnp.nan).astype(jnp.finfo(x.dtype).dtype)
    return jnp.repeat(factor, x.shape[2] // max(status.shape[1], 1), axis=1)[:, None, :]


_solve = Primitive("backsolve_solve")
_solve.multiple_results = True


@_solve.def_abstract_eval
def _shapes(b, *operands, call, adjoint, backward, stats, groups, begins):
    verdicts, real = (b.shape[0], groups), jax.dtypes.canonicalize_dtype(np.float64)
    fields = [like(b, verdicts, np.dtype(np.int32) if name in _COUNTS else real) for name in Stats._fields]
    return [like(b, b.shape, b.dtype), like(b, verdicts, np.dtype(np.int32)), *(fields if stats else ())]


@_solve.def_impl
def _eager(b, *operands, call, adjoint, backward, stats, groups, begins):
    x0, data = _parted(operands, begins)
    if not call.loops:
        return jax_host.eager(call, adjoint, backward, stats, groups, b, x0, data[0])
    recipe = _recipe(call, adjoint, backward, groups)
    watch = None if backward else _watch(call, recipe)
    run = _looped if watch is None else partial(_loop, watch=watch)
    with jax.enable_x64(True):
        found = run(b, x0, *data, recipe=recipe, stats=stats)
    if not (np.asarray(found[1]) > 0).all():
        with jax.enable_x64(True):
            whole = _looped(b, x0, *data, recipe=recipe, stats=True, whole=True)
        jax_host.report(whole, call, backward, b, data)
    return found


def _watch(call: Call, recipe: Any) -> Any:
    """What tells the callback of a plan, in the precision that JAX is set to have; None if nobody listens."""
    tell = watcher(call.plan.callback, call.layout, jnp.asarray, jnp.transpose)

    def watch(iteration: int, norms: Any, x: Any) -> None:
        with jax.enable_x64(recipe.double):
            tell(iteration, norms, x)

    return None if tell is None else watch


class _Recipe(NamedTuple):
    """What a loop is compiled for, besides the shapes of arrays."""

    method: Any
    structure: Any
    target: Any
    adjoint: bool
    keep_best: bool
    """Whether the best iterate stays where a column failed."""
    groups: int
    double: bool
    """Whether JAX is set to have double precision, outside of the loop: for the user's functions, and for results."""


def _recipe(call: Call, adjoint: bool, backward: bool, groups: int) -> _Recipe:
    keep_best = call.plan.keep_best and not backward
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    return _Recipe(call.method, call.structure, call.plan.targets[backward], adjoint, keep_best, groups, double)


def _loop(b, x0, *data, recipe, stats, whole=False, watch=None):
    """What the primitive gives, by a loop; of the whole, what there is to tell of a failure too."""
    options = recipe.method, recipe.structure, recipe.target, recipe.adjoint, recipe.double
    found = iterate(*options, b, x0, data, watch)
    grouped = _grouped(found, recipe, stats)
    return (grouped, found._replace(x=None)) if whole else grouped


_looped = jax.jit(_loop, static_argnames=("recipe", "stats", "whole"))


def _grouped(found: Found, recipe: _Recipe, stats: bool) -> list:
    """The verdict on each group, its worst column's; of what failed nothing is left but what was asked for."""
    groups = recipe.groups
    x, width = found.x, found.x.shape[2] // max(groups, 1)

    def by_group(v: Any) -> Any:
        return v.reshape((v.shape[0], groups, width))

    status = worst(jnp, by_group(found.verdict.status))
    misled = found.misled[:, None]
    status = jnp.where(misled, jnp.int32(Status.INACCURATE), status)
    lost = misled | (status == Status.SINGULAR) | (status == Status.NONFINITE) if recipe.keep_best else status <= 0
    x = jnp.where(jnp.repeat(lost, width, axis=1)[:, None, :], jnp.nan, x)
    if not stats:
        return [x, status]
    real = np.float64 if recipe.double else np.float32
    fields = (jnp.max(by_group(v), axis=2, initial=0) for v in found.stats)
    return [x, status, *(v.astype(np.int32 if v.dtype.kind == "i" else real) for v in fields)]


def _lowered(ctx, b, *operands, call, adjoint, backward, stats, groups, begins):
    if call.plan.callback is not None and not backward:
        raise TypeError(
            "callback is for eager solves; a compiled program calls nobody back: leave it out inside of jit."
        )
    if call.loops:
        recipe = _recipe(call, adjoint, backward, groups)

        def loop(b, *operands):
            x0, data = _parted(operands, begins)
            return _loop(b, x0, *data, recipe=recipe, stats=stats)

        with jax.enable_x64(True):  # while operations of the loop are lowered, too
            return mlir.lower_fun(loop, multiple_results=True)(ctx, b, *operands)
    return jax_host.lowered(ctx, call, adjoint, backward, stats, groups, begins, b, *operands)


def _by_kernel(ctx, b, *data, call, adjoint, backward, stats, groups, begins):
    """A triangular solve without the host, unless it is in doubt."""
    options = {"call": call, "adjoint": adjoint, "backward": backward, "stats": stats, "groups": groups}
    options["begins"] = begins
    exported = ctx.module_context.lowering_parameters.for_export  # to where nobody knows the Pattern
    if call.loops or stats or exported or not substitutes(call.plan):
        return _lowered(ctx, b, *data, **options)
    known = Known(call.structure)
    ctx.module_context.add_keepalive(known)
    run = substituted(call.plan, known, adjoint, backward, groups, lambda b, data: _asked.bind(b, data, **options))
    return mlir.lower_fun(run)(ctx, b, *data)


_asked = Primitive("backsolve_solve_by_host")
_asked.multiple_results = True


@_asked.def_abstract_eval
def _plain_shapes(b, *data, call, adjoint, backward, stats, groups, begins):
    """Where programs are lowered, nothing is said any more of the axes of a mesh."""
    return [ShapedArray(b.shape, b.dtype), ShapedArray((b.shape[0], groups), np.dtype(np.int32))]


mlir.register_lowering(_asked, _lowered)
mlir.register_lowering(_solve, _lowered)
mlir.register_lowering(_solve, _by_kernel, platform="cpu")


def _jvp(primals, tangents, *, call, adjoint, backward, stats, groups, begins):
    """The rule of `calculus`; of systems that failed the derivative is NaN, forward and transposed."""
    data = _parted(primals[1:], begins)[1]
    found = _solve.bind(
        *primals, call=call, adjoint=adjoint, backward=backward, stats=stats, groups=groups, begins=begins
    )
    b_dot, *rest = (None if isinstance(t, ad.Zero) else t for t in tangents)
    data_dot = _parted(rest, begins)[1]
    data_dot = tuple(None if t is None or t.dtype == jax.dtypes.float0 else t for t in data_dot)
    ops = _Grouped(call, data, groups)
    dots = None if all(t is None for t in data_dot) else data_dot
    if dots is None and b_dot is None:
        x_dot = ad.Zero(jax.typeof(found[0]).to_tangent_aval())
    else:
        x_dot = kept(found[1], found[0]) * calculus.solve_jvp(ops, data, found[0], dots, b_dot, adjoint)
    return found, [x_dot, *(ad.Zero(jax.typeof(v).to_tangent_aval()) for v in found[1:])]


class _Grouped(Ops):
    """Operations whose solves keep groups of columns apart."""

    def __init__(self, call: Call, data: tuple, groups: int):
        super().__init__(call, data)
        self.groups = groups

    def solve(self, data, b, adjoint):
        options = {"adjoint": adjoint, "backward": True, "stats": False, "groups": self.groups, "begins": False}
        return _solve.bind(b, *data, call=self.call, **options)[0]


ad.primitive_jvps[_solve] = _jvp


def _transpose(cotangents, b, *data, call, adjoint, backward, stats, groups, begins):
    """A⁻ᵀ g = conj(A⁻ᴴ conj(g)): JAX transposes without conjugation."""
    g = cotangents[0]
    if isinstance(g, ad.Zero):
        return [ad.Zero(b.aval), *(None for _ in data)]
    x = _Grouped(call, data, groups).solve(data, g.conj(), not adjoint)
    return [x.conj(), *(None for _ in data)]


ad.primitive_transposes[_solve] = _transpose


def _batch(arguments, axes, *, call, adjoint, backward, stats, groups, begins):
    """A mapped axis of the data becomes items; one that vectors alone have becomes columns of the same factors.

    The vectors are b, and x0 if there is one.
    """
    if call.plan.callback is not None and not backward:
        raise TypeError("callback is not for vmap, which has no one solve to tell of: leave it out there.")
    count = 1 + begins
    vectors, data, vector_axes, data_axes = arguments[:count], arguments[count:], axes[:count], axes[count:]
    options = {"adjoint": adjoint, "backward": backward, "stats": stats, "begins": begins}
    size = next(v.shape[axis] for v, axis in zip(arguments, axes, strict=True) if axis is not None)

    def in_front(v: Any, axis: int | None) -> Any:
        return jnp.broadcast_to(v, (size, *v.shape)) if axis is None else jnp.moveaxis(v, axis, 0)

    vectors = [in_front(v, axis) for v, axis in zip(vectors, vector_axes, strict=True)]
    _, items, n, k = vectors[0].shape
    if all(axis is None for axis in data_axes):
        columns = [jnp.moveaxis(v, 0, 2).reshape((items, n, size * k)) for v in vectors]
        x, *rest = _solve.bind(*columns, *data, call=call, groups=size * groups, **options)
        return [x.reshape((items, n, size, k)), *(v.reshape((-1, size, groups)) for v in rest)], [2] + [1] * len(rest)
    if call.structure.kind == "free":
        structure, data = call.structure.mapping(tuple(data), tuple(data_axes), size)
        call = call.on(structure)
    else:
        values = jnp.moveaxis(data[0], data_axes[0], 0)
        data = (values.reshape((size * items, *values.shape[2:])),)
    vectors = [v.reshape((size * items, n, k)) for v in vectors]
    found = _solve.bind(*vectors, *data, call=call, groups=groups, **options)
    return [v.reshape((size, items, *v.shape[1:])) for v in found], [0] * len(found)


batching.primitive_batchers[_solve] = _batch
