"""Determinants of sparse matrices, on the host, with derivatives through the inverse on the stored places.

ℓ = log det A has dℓ = tr(A⁻¹ dA): one number of A⁻ᵀ for each stored entry. Those come from n solves with unit vectors,
by the primitive of `jax_solve`, hence every order. The derivative of sign = exp(i Im ℓ) is i Im(dℓ) sign.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..factor_cache import CACHE
from ..plan import Plan
from ..shapes import layout_of
from .jax_arrays import concrete
from .jax_solve import Call, run

__all__ = ["sparse_slogdet"]

_BLOCK = 2**22  # numbers in one block of solutions


def sparse_slogdet(plan: Plan, structure: Any, data: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sign and logarithm of the modulus, (items,), for canonical values (items, nnz)."""
    n = structure.shape[0]
    sign, size = _slogdet.bind(data, call=Call(plan, layout_of((), (n, 1)), structure))
    return sign, size


_slogdet = Primitive("backsolve_slogdet")
_slogdet.multiple_results = True


@_slogdet.def_abstract_eval
def _shapes(data, *, call):
    return [ShapedArray(data.shape[:1], data.dtype), ShapedArray(data.shape[:1], jnp.finfo(data.dtype).dtype)]


def _on_host(call: Call, data: Any) -> tuple[np.ndarray, np.ndarray]:
    data = np.array(data)  # the factors outlive the memory that XLA lends to a call
    with CACHE.factors(call.structure, call.method, call.plan.template.assumed, data) as factored:
        sign, size = call.plan.slogdet(factored, data)
    return np.asarray(sign, data.dtype), np.asarray(size, np.finfo(data.dtype).dtype)


@_slogdet.def_impl
def _eager(data, *, call):
    return [jnp.asarray(v) for v in _on_host(call, data)]


def _lowered(ctx, data, *, call):
    found, _, _ = mlir.emit_python_callback(
        ctx,
        lambda data: _on_host(call, data),
        None,
        [data],
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return found


mlir.register_lowering(_slogdet, _lowered)


def _jvp(primals, tangents, *, call):
    (data,), (data_dot,) = primals, tangents
    sign, size = _slogdet.bind(data, call=call)
    change = (_inverse_transposed(call, data) * data_dot).sum(-1)
    if not jnp.iscomplexobj(data):
        return [sign, size], [ad.Zero(jax.typeof(sign).to_tangent_aval()), change]
    return [sign, size], [1j * change.imag * sign, change.real]


ad.primitive_jvps[_slogdet] = _jvp


def _batch(arguments, axes, *, call):
    data = jnp.moveaxis(arguments[0], axes[0], 0)
    found = _slogdet.bind(data.reshape((-1, data.shape[2])), call=call)
    return [v.reshape(data.shape[:2]) for v in found], [0, 0]


batching.primitive_batchers[_slogdet] = _batch


def _inverse_transposed(call: Call, data: jax.Array) -> jax.Array:
    """The entries of A⁻ᵀ on the stored places, (items, nnz): Aᴴ Z = E for a block of unit vectors after the other."""
    pattern, items = call.structure, data.shape[0]
    n = pattern.shape[0]
    if pattern.nnz == 0:
        return jnp.zeros_like(data)
    width = max(1, min(n, _BLOCK // max(1, n * max(1, items))))
    starts, rows, columns, place = _blocks(pattern, width)

    def block(at: Any) -> jax.Array:
        start, row, column = at
        units = jnp.equal(np.arange(n)[:, None], start + np.arange(width)).astype(data.dtype)
        z = run(call, (data,), jnp.broadcast_to(units, (items, n, width)), True, backward=True)[0]
        return z[:, row, column]

    if concrete(data):  # so that a failure raises
        found = jnp.stack([block(at) for at in zip(starts, rows, columns, strict=True)])
    else:
        found = jax.lax.map(block, tuple(map(jnp.asarray, (starts, rows, columns))))
    return jnp.moveaxis(found, 1, 0).reshape(items, -1)[:, place].conj()


def _blocks(pattern: Any, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where blocks of columns start, rows and columns of their entries, and where among those each stored place is.

    Blocks are padded to one number of entries, so that a compiled program has code for one.
    """
    starts = np.arange(0, pattern.shape[0], width)
    block = pattern.indices // width
    order = np.argsort(block, kind="stable")
    counts = np.bincount(block, minlength=len(starts))
    offset = np.arange(pattern.nnz) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, columns = np.zeros((2, len(starts), counts.max()), np.int64)
    rows[block[order], offset] = pattern.rows[order]
    columns[block[order], offset] = pattern.indices[order] % width
    place = np.empty(pattern.nnz, np.int64)
    place[order] = block[order] * counts.max() + offset
    return starts, rows, columns, place
