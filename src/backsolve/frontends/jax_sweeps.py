"""What a compiled loop asks of a matrix besides its differentiable products: primitives without derivatives.

Adjoint products by values that are brought in order once, substitution, incomplete elimination. On the CPU each is a
kernel; elsewhere products are JAX's own operations, and the others calls of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.lax import linalg

from .jax_arrays import like, varying_alike
from .jax_kernels import Known, by_items, target
from .jax_products import matvec

__all__ = ["Plain", "product"]


def product(structure: Any, data: tuple, adjoint: bool) -> Callable:
    """x -> A x or Aᴴ x, for many x."""
    if structure.kind == "free":
        return structure.product(data, adjoint)
    if not adjoint or structure.kind == "dense":
        return lambda x: matvec(structure, data[0], x, adjoint)
    (turned,) = _turn.bind(data[0], pattern=structure)
    return lambda x: _multiply_turned.bind(*varying_alike(turned, x), pattern=structure)[0]


class Plain:
    """What preconditioners, and bounds of errors, ask of the structure of A, whatever that is."""

    xp = jnp

    def __init__(self, structure: Any, data: tuple):
        self.kind, self.shape = structure.kind, structure.shape
        self._structure, self._data = structure, data

    @property
    def diagonal(self) -> np.ndarray:
        """See `Pattern`."""
        return self._structure.diagonal

    def matvec(self, data: jax.Array, x: jax.Array, adjoint: bool = False) -> jax.Array:
        """A x or Aᴴ x for other values of A."""
        return matvec(self._structure, data, x, adjoint)

    def product(self, data: Any, adjoint: bool) -> Callable:
        """v -> A v or Aᴴ v."""
        return product(self._structure, self._data, adjoint)

    def like(self, b: jax.Array, array: Any) -> jax.Array:
        """A real array in the precision of b."""
        return jnp.asarray(array, jnp.finfo(b.dtype).dtype)

    def solve_triangular(self, data: jax.Array, b: jax.Array, lower: bool, adjoint: bool = False) -> jax.Array:
        """A⁻¹ b, or A⁻ᴴ b, from one triangle of A."""
        if self.kind == "dense":
            return linalg.triangular_solve(
                data, b, left_side=True, lower=lower, transpose_a=adjoint, conjugate_a=adjoint
            )
        options = {"lower": lower, "adjoint": adjoint}
        return _substitute.bind(*varying_alike(data, b), pattern=self._structure, **options)[0]

    def eliminate_incompletely(
        self, data: jax.Array, shifts: tuple[float, ...], relaxation: float, definite: bool
    ) -> tuple[jax.Array, jax.Array]:
        """L, D and U of each item; and 0 where they are lost, else -1."""
        options = {"shifts": shifts, "relaxation": relaxation, "definite": definite}
        values, lost = _eliminate.bind(data, pattern=self._structure, **options)
        return values, lost - 1


# -- the primitives, and the shapes that they give -----------------------------------------------------------


def _primitive(name: str, shapes: Callable) -> Primitive:
    made = Primitive(f"backsolve_{name}")
    made.multiple_results = True
    made.def_abstract_eval(lambda *avals, **options: shapes(*avals, options["pattern"]))
    return made


_turn = _primitive("turn", lambda data, pattern: [data])
_multiply_turned = _primitive(
    "multiply_turned", lambda data, x, pattern: [like(x, (x.shape[0], pattern.shape[1], x.shape[2]))]
)
_substitute = _primitive("substitute", lambda data, b, pattern: [b])
_eliminate = _primitive(
    "eliminate", lambda data, pattern: [data, like(data, data.shape[:1], np.dtype(np.int32))]
)  # fmt: skip


# -- where they run ---------------------------------------------------------------------------------------


def _lower(primitive: Primitive, kernel: str, elsewhere: Callable, attributes: Callable) -> None:
    """Compile a primitive as a call of a kernel on the CPU; `attributes` are those that it has for the options."""
    mlir.register_lowering(primitive, elsewhere)
    name = target(kernel)

    def on_cpu(ctx, *operands, pattern, **options):
        if name is None or ctx.module_context.lowering_parameters.for_export:  # to where nobody knows the Pattern
            return elsewhere(ctx, *operands, pattern=pattern, **options)
        known = Known(pattern)
        ctx.module_context.add_keepalive(known)
        call = jax.ffi.ffi_lowering(name, extra_attributes=by_items(ctx.avals_in, ctx.avals_out))
        return call(ctx, *operands, pattern=known.name, **attributes(**options))

    mlir.register_lowering(primitive, on_cpu, platform="cpu")


def _natively(function: Callable) -> Callable:
    return mlir.lower_fun(function, multiple_results=True)


def _by_host(function: Callable) -> Callable:
    """A call of the host, on buffers."""

    def lowered(ctx, *operands, pattern, **options):
        def host(*arrays):
            found = function(pattern, *map(np.ascontiguousarray, arrays), **options)
            return tuple(np.asarray(v, kind.dtype) for v, kind in zip(found, ctx.avals_out, strict=True))

        return mlir.emit_python_callback(
            ctx, host, None, operands, ctx.avals_in, ctx.avals_out, has_side_effect=False, returns_token=False
        )[0]

    return lowered


def _turned(data, *, pattern):
    return [data[:, pattern.t_slot].conj()]


def _turned_product(turned, x, *, pattern):
    columns = np.repeat(np.arange(pattern.shape[1]), np.diff(pattern.t_indptr))
    y = jnp.zeros((x.shape[0], pattern.shape[1], x.shape[2]), x.dtype)
    return [y.at[:, columns].add(turned[..., None] * x[:, pattern.t_indices])]


def _substituted(pattern, data, b, *, lower, adjoint):
    return (pattern.solve_triangular(data, b, lower, adjoint),)


def _eliminated(pattern, data, **options):
    values, failed = pattern.eliminate_incompletely(data, **options)
    return values, failed >= 0


_lower(_turn, "turn", _natively(_turned), dict)
_lower(_multiply_turned, "multiply_turned", _natively(_turned_product), dict)
_lower(_substitute, "substitute", _by_host(_substituted), dict)
_lower(
    _eliminate,
    "eliminate",
    _by_host(_eliminated),
    lambda shifts, **more: {"shifts": np.array(shifts), **more, "relaxation": np.float64(more["relaxation"])},
)
for _each in (_turn, _multiply_turned, _substitute, _eliminate):  # in loops that are watched, which are not compiled
    _each.def_impl(jax.jit(_each.bind, static_argnames=("pattern", "lower", "adjoint", "shifts", "relaxation",
                                                        "definite")))  # fmt: skip
