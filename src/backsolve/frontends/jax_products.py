"""Products with a Pattern as JAX primitives: on the CPU, XLA calls the kernels that NumPy and torch use.

A program names its Pattern by a digest of its content, and keeps it alive. On other platforms, and in programs that are
exported to other processes, products are JAX's own operations, those of `jax_arrays`, which gather nnz × k numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import calculus
from ..pattern import Pattern
from . import jax_arrays
from .jax_arrays import as_columns, as_items, like, varying_alike
from .jax_kernels import Known, by_items, target

__all__ = ["Products", "matvec", "outer"]


def matvec(structure: Any, data: jax.Array, x: jax.Array, adjoint: bool) -> jax.Array:
    """A x or Aᴴ x for data (items, ...) and x (items, n, k)."""
    if structure.kind == "dense":
        return jax_arrays.matvec(structure, data, x, adjoint)
    return _matvec.bind(*varying_alike(data, x), pattern=structure, adjoint=adjoint)


def outer(structure: Any, y: jax.Array, x: jax.Array) -> jax.Array:
    """Σ_k y_ik conj(x_jk) on the stored places."""
    if structure.kind == "dense":
        return jax_arrays.outer(structure, y, x)
    return _outer.bind(*varying_alike(y, x), pattern=structure)


class Products:
    """The operations that `calculus` asks for in the rules of products."""

    def __init__(self, structure: Any):
        self.structure = structure

    def matvec(self, data, x, adjoint):
        return matvec(self.structure, data, x, adjoint)

    def outer(self, y, x):
        return outer(self.structure, y, x)


_matvec, _outer = Primitive("backsolve_matvec"), Primitive("backsolve_outer")


def _check(name: str, pattern: Pattern, *pairs: tuple[Any, tuple[int, ...]]) -> None:
    for value, shape in pairs:
        if value.shape != shape or value.dtype != pairs[0][0].dtype or value.dtype.char not in "fdFD":
            raise TypeError(
                f"{name}: operands must have shapes {[s for _, s in pairs]} and one floating-point dtype for "
                f"{pattern!r}; got {[(v.shape, str(v.dtype)) for v, _ in pairs]}."
            )


@_matvec.def_abstract_eval
def _matvec_shape(data: Any, x: Any, *, pattern: Pattern, adjoint: bool) -> Any:
    (items, _, k), (n_out, n_in) = x.shape, pattern.shape[:: -1 if adjoint else 1]
    _check("matvec", pattern, (data, (items, pattern.nnz)), (x, (items, n_in, k)))
    return like(x, (items, n_out, k))


@_outer.def_abstract_eval
def _outer_shape(y: Any, x: Any, *, pattern: Pattern) -> Any:
    items, _, k = y.shape
    _check("outer", pattern, (y, (items, pattern.shape[0], k)), (x, (items, pattern.shape[1], k)))
    return like(y, (items, pattern.nnz))


# -- where they run ---------------------------------------------------------------------------------------


@_matvec.def_impl
def _matvec_now(data, x, *, pattern, adjoint):
    if not _on_one_cpu(data, x):
        return jax_arrays.matvec(pattern, data, x, adjoint)
    return _beside((data, x), pattern.matvec(_host(data), _host(x), adjoint))


@_outer.def_impl
def _outer_now(y, x, *, pattern):
    if not _on_one_cpu(y, x):
        return jax_arrays.outer(pattern, y, x)
    return _beside((y, x), pattern.outer(_host(y), _host(x)))


def _on_one_cpu(*arrays: Any) -> bool:
    devices = frozenset().union(*(a.devices() for a in arrays if isinstance(a, jax.Array)))
    return len(devices) <= 1 and all(d.platform == "cpu" for d in devices)


def _host(array: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(array))  # no copy of an array that JAX keeps on the host


def _beside(arrays: tuple[Any, ...], made: np.ndarray) -> jax.Array:
    for a in arrays:
        if isinstance(a, jax.Array) and a.committed:
            return jax.device_put(made, next(iter(a.devices())))
    return jnp.asarray(made)


def _lower(primitive: Primitive, kernel: str, native: Callable) -> None:
    """Compile a primitive as a call of a kernel on the CPU, and as JAX's own operations elsewhere."""
    elsewhere = mlir.lower_fun(native, multiple_results=False)
    mlir.register_lowering(primitive, elsewhere)
    name = target(kernel)

    def on_cpu(ctx, *operands, pattern, **options):
        if name is None or ctx.module_context.lowering_parameters.for_export:  # to where nobody knows the Pattern
            return elsewhere(ctx, *operands, pattern=pattern, **options)
        known = Known(pattern)
        ctx.module_context.add_keepalive(known)
        call = jax.ffi.ffi_lowering(name, extra_attributes=by_items(ctx.avals_in, ctx.avals_out))
        return call(ctx, *operands, pattern=known.name, **options)

    mlir.register_lowering(primitive, on_cpu, platform="cpu")


_lower(_matvec, "matmat", lambda data, x, *, pattern, adjoint: jax_arrays.matvec(pattern, data, x, adjoint))
_lower(_outer, "outer", lambda y, x, *, pattern: jax_arrays.outer(pattern, y, x))


# -- derivatives: the rules of `calculus`, transposed between two conjugations, as JAX transposes without -----


def _tangents(tangents: Any) -> list[Any]:
    return [None if isinstance(t, ad.Zero) else t for t in tangents]


def _matvec_jvp(primals, tangents, *, pattern, adjoint):
    (data, x), (data_dot, x_dot) = primals, _tangents(tangents)
    y_dot = calculus.matvec_jvp(Products(pattern), data, x, data_dot, x_dot, adjoint)
    return matvec(pattern, data, x, adjoint), y_dot


def _outer_jvp(primals, tangents, *, pattern):
    (y, x), (y_dot, x_dot) = primals, _tangents(tangents)
    return outer(pattern, y, x), calculus.outer_jvp(Products(pattern), y, x, y_dot, x_dot)


def _transposed(rule: Callable) -> Callable:
    def transpose(g, *operands, pattern, **options):
        linear = tuple(ad.is_undefined_primal(v) for v in operands)
        if isinstance(g, ad.Zero):
            return [ad.Zero(v.aval) if wanted else None for v, wanted in zip(operands, linear, strict=True)]
        bars = rule(Products(pattern), *operands, g.conj(), *options.values(), linear)
        return [None if bar is None else bar.conj() for bar in bars]

    return transpose


ad.primitive_jvps[_matvec], ad.primitive_jvps[_outer] = _matvec_jvp, _outer_jvp
ad.primitive_transposes[_matvec] = _transposed(calculus.matvec_vjp)
ad.primitive_transposes[_outer] = _transposed(calculus.outer_vjp)


# -- maps -------------------------------------------------------------------------------------------------


def _matvec_batch(operands, axes, *, pattern, adjoint):
    """A mapped axis of the data becomes items; one that x alone has becomes columns, and the data is not repeated."""
    (data, x), (data_axis, x_axis) = operands, axes
    if data_axis is None:
        columns, apart = as_columns(x, x_axis)
        return apart(matvec(pattern, data, columns, adjoint)), 2
    (data, x), apart = as_items(operands, axes)
    return apart(matvec(pattern, data, x, adjoint)), 0


def _outer_batch(operands, axes, *, pattern):
    (y, x), apart = as_items(operands, axes)
    return apart(outer(pattern, y, x)), 0


batching.primitive_batchers[_matvec], batching.primitive_batchers[_outer] = _matvec_batch, _outer_batch
