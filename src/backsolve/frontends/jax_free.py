"""Matrix-free operators in JAX: programs that map one vector, columns by vmap, adjoints by transposition.

Whatever a function uses is an operand of its program: parameters, and what it closes over. Hence gradients and maps
reach both.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe
from ..free import Free, Map, check_linear
from ..operators import MatrixFree
from ..shapes import Layout, layout_of
from .jax_arrays import asarray, concrete, cube
from .jax_programs import Program, traced

__all__ = ["JaxFree", "Parameters", "identity", "laid_out", "of_function", "tangent", "varies"]

_LINALG = SimpleNamespace(xp=jnp, to_numpy=np.asarray, like=lambda _, array: jnp.asarray(array))


class JaxFree(Free):
    """`Free` on JAX arrays. Data are the operands of the programs: what fn and adjoint close over, and the parameters.

    Parameters
    ----------
    map : Map
        Whose functions are programs.
    mapped : tuple of bool
        Which operands have an axis of items in front, where a transform maps over them.
    """

    map: Any

    def __init__(self, map: Map, mapped: tuple[bool, ...]):
        super().__init__(map, tuple, _LINALG)
        self.mapped = mapped
        self._key = (*map, mapped)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, JaxFree) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def columns(self, data: tuple, adjoint: bool) -> Callable:
        """All columns of all items at once by vmap; a single one by a plain call, which any function allows."""

        def item(data: tuple, x: jax.Array) -> jax.Array:
            single = self.single(data, adjoint, x.dtype)
            if x.shape[1] == 0:
                return jnp.zeros((self.inner[1 if adjoint else 0], 0), x.dtype)
            return single(x[:, 0])[:, None] if x.shape[1] == 1 else jax.vmap(single, 1, 1)(x)

        if any(self.mapped):
            over = jax.vmap(item, (tuple(0 if m else None for m in self.mapped), 0))
            return lambda x: over(data, x)
        return lambda x: item(data, x[0])[None] if len(x) == 1 else jax.vmap(item, (None, 0))(data, x)

    def single(self, data: tuple, adjoint: bool, dtype: Any) -> Callable:
        """v -> A v or Aᴴ v, for one vector. A program is transposed where v = 0: it is linear, so anywhere will do."""
        forward, given = self.map.fn, self.map.adjoint
        first, second = forward.closed_over, 0 if given is None else given.closed_over
        leaves = data[first + second :]
        apply = lambda v: forward(data[:first], *leaves, v)[0]  # noqa: E731
        if not adjoint:
            return apply
        if given is not None:
            return lambda g: given(data[first : first + second], *leaves, g)[0]

        def transposed(g: jax.Array) -> jax.Array:
            pull = jax.vjp(apply, jnp.zeros(self.inner[1], dtype))[1]
            return pull(g.conj())[0].conj()  # JAX transposes without conjugation

        return transposed

    def tangent(self, data: tuple, data_dot: tuple, x: jax.Array, adjoint: bool) -> jax.Array:
        """The derivative of A(θ) x along θ̇; None in place of a tangent is zero."""
        varied, product = self._varying(data, [dot is not None for dot in data_dot], x, adjoint)
        dots = tuple(dot for dot in data_dot if dot is not None)
        try:
            return jax.jvp(product, varied, dots)[1]
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
        # Forward mode made of two transpositions, for functions that have a backward alone.
        y, pull = jax.vjp(product, *varied)
        return jax.linear_transpose(pull, y)(dots)[0]

    def pullback(self, data: tuple, wanted: list[bool], y: jax.Array, x: jax.Array, adjoint: bool) -> tuple:
        """The θ̄ with Re⟨θ̄, θ̇⟩ = Re⟨y, derivative of A(θ) x along θ̇⟩; None where it is not wanted."""
        varied, product = self._varying(data, wanted, x, adjoint)
        bars = iter(jax.vjp(product, *varied)[1](y.conj()))
        return tuple(next(bars).conj() if wants else None for wants in wanted)

    def _varying(self, data: tuple, which: list[bool], x: jax.Array, adjoint: bool) -> tuple[tuple, Callable]:
        """The operands that vary, and the product with x as a function of them."""

        def product(*varied: Any) -> jax.Array:
            rest = iter(varied)
            return self.matvec(tuple(next(rest) if v else d for v, d in zip(which, data, strict=True)), x, adjoint)

        return tuple(d for v, d in zip(which, data, strict=True) if v), product

    def mapping(self, data: tuple, axes: tuple, size: int) -> tuple[JaxFree, tuple]:
        """The structure and operands of a batch over one more axis, which comes before an axis of items."""
        now = tuple(had or axis is not None for had, axis in zip(self.mapped, axes, strict=True))
        given = zip(data, axes, self.mapped, strict=True)
        items = next((d.shape[int(axis == 0)] for d, axis, had in given if had), 1)
        made = []
        for d, axis, had, has in zip(data, axes, self.mapped, now, strict=True):
            if has:
                d = jnp.broadcast_to(d, (size, *d.shape)) if axis is None else jnp.moveaxis(d, axis, 0)
                d = d if had else jnp.broadcast_to(d[:, None], (size, items, *d.shape[1:]))
                d = d.reshape((size * items, *d.shape[2:]))
            made.append(d)
        return JaxFree(self.map, now), tuple(made)


class Parameters:
    """The parameters of a `MatrixFree`, any pytree: the arrays in it, and what puts others in their place."""

    def __init__(self, params: Any):
        self._leaves, self._tree = jax.tree.flatten(params, is_leaf=_is_none)
        self._places = [at for at, leaf in enumerate(self._leaves) if isinstance(leaf, jax.Array | np.ndarray)]
        self.arrays = tuple(_as_array(self._leaves[at]) for at in self._places)

    def filled(self, arrays: Any, others: bool = True) -> Any:
        """The same nesting of other arrays; what is no array stays, or is None."""
        leaves = list(self._leaves) if others else [None] * len(self._leaves)
        for at, array in zip(self._places, arrays, strict=True):
            leaves[at] = array
        return jax.tree.unflatten(self._tree, leaves)

    def tangents(self, dots: Any) -> list:
        """Tangents nested as the parameters, one for each array; None where there is none."""
        leaves, tree = jax.tree.flatten(dots, is_leaf=_is_none)
        if tree != self._tree:
            raise ValueError(
                f"data_dot must be nested as A.data; got {describe(dots)}: give an array for each array, and None for "
                "what stays."
            )
        found = []
        for at, array in zip(self._places, self.arrays, strict=True):
            dot = leaves[at]
            if dot is not None and not varies(array):
                raise ValueError(f"data_dot must be None where A.data has {describe(array)}, which cannot vary.")
            found.append(None if dot is None else tangent("data_dot", dot, "A.data", array))
        return found


def tangent(label: str, dot: Any, name: str, of: jax.Array) -> jax.Array:
    """`dot`, if it can be a tangent of an array."""
    dot = asarray(label, dot)
    if dot.shape != of.shape:
        raise ValueError(f"{label} must have the shape of {name}, {of.shape}; got {describe(dot)}.")
    if jnp.iscomplexobj(dot) and not jnp.iscomplexobj(of):
        raise ValueError(f"{label} must be real, as {name} is; got {describe(dot)}: convert {name} to {dot.dtype}.")
    return dot.astype(of.dtype)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _as_array(leaf: Any) -> jax.Array:
    """An array of parameters: of floating point without a loss of precision, others, such as indices, as they are."""
    return asarray("params", leaf) if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc" else jnp.asarray(leaf)


def varies(array: Any) -> bool:
    """Whether an array can have a tangent."""
    return jnp.issubdtype(array.dtype, jnp.inexact)


def result_dtype(A: MatrixFree, b: jax.Array) -> Any:
    """The dtype of a product with b: arrays with axes count, numbers do not."""
    arrays = Parameters(A.data).arrays
    return np.result_type(b.dtype, *(a.dtype for a in arrays if a.ndim and varies(a)))


def laid_out(A: MatrixFree, arrays: tuple, b: jax.Array) -> tuple[JaxFree, tuple, Layout, jax.Array]:
    """The structure, its operands for these arrays of parameters, the layout, and b as (items, n, columns)."""
    params, old, dtype = Parameters(A.data), A.map, result_dtype(A, b)
    real = jnp.finfo(dtype).dtype
    wide = tuple(a.astype(dtype if jnp.iscomplexobj(a) else real) if a.ndim and varies(a) else a for a in arrays)
    free = Free(old, tuple, _LINALG)

    def program(function: Callable, adjoint: bool) -> tuple[Program, tuple]:
        def apply(*given: Any) -> Any:
            *leaves, v = given
            return free.checked(function(params.filled(leaves), v), v, adjoint)

        return traced(apply, *wide, jax.ShapeDtypeStruct((free.inner[1 if not adjoint else 0],), dtype))

    forward, constants = program(old.fn, False)
    given, more = program(old.adjoint, True) if old.adjoint is not None else (None, ())
    data = (*constants, *more, *wide)
    structure = JaxFree(old._replace(fn=forward, adjoint=given), (False,) * len(data))
    layout = layout_of((), tuple(b.shape))
    return structure, data, layout, cube(layout, b.astype(dtype))


def identity(A: MatrixFree) -> jax.Array:
    """The columns of which A makes its own."""
    dtype = jnp.float32 if A.dtype is not None else jnp.zeros(0).dtype
    return jnp.eye(A.shape[1], dtype=result_dtype(A, jnp.zeros(0, dtype)))


def of_function(function: Callable, b: jax.Array, n: int) -> MatrixFree:
    """A function v -> A v as an operator; seen to be linear first, unless that has to be traced."""
    v = jnp.linspace(1, 2, n).astype(b.dtype)
    y, z = function(v), function(-2 * v)
    if all(isinstance(t, jax.Array) and concrete(t) and t.shape == v.shape for t in (y, z)) and n:
        check_linear(float(abs(z + 2 * y).max()), float(abs(y).max()), float(jnp.finfo(b.dtype).eps))
    return MatrixFree(lambda _, v: function(v), (), (n, n))
