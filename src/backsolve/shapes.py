"""Batches and right-hand sides: what broadcasts with what, and how it is laid out for one engine call.

The array API's ``linalg.solve`` rule: b is one vector only if it is 1-D; otherwise it is (..., n, k). Leading
axes of data and b broadcast. Axes that only b has become further columns, so a matrix is never repeated and its
gradient is summed over right-hand sides where it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .errors import describe

__all__ = ["Layout", "check_rhs", "check_square", "check_start", "layout_of", "plain_array"]


def _reshape(array: Any, shape: tuple) -> Any:
    return array.reshape(shape)


class Layout(NamedTuple):
    """How b of shape batch + (n, k) becomes (items, n, columns) beside data of (items, ...).

    Sizes of `batch` and k that only a running program knows are None, or numbers of that program; tensors that have no
    method `reshape` are laid out with a function for it.

    `keep` are the batch axes on which data varies, `fold` those that become columns; `plain` means that there is
    nothing to do: one matrix and a vector or (n, k).
    """

    batch: tuple[int, ...]
    keep: tuple[int, ...]
    fold: tuple[int, ...]
    n: int
    k: int
    vector: bool

    @property
    def plain(self) -> bool:
        return not self.batch

    @property
    def items(self) -> tuple[int, ...]:
        """Batch axes of data that are not one: the shape of the item axis."""
        return tuple(self.batch[a] for a in self.keep)

    def columns(self, b: Any, expand: Callable, permute: Callable, reshape: Callable = _reshape) -> Any:
        """b, or its cotangent or tangent, as (items, n, columns); (n,) and (n, k) stay when `plain`."""
        if self.plain:
            return b
        if self.vector:
            b = b[..., None]
        b = expand(b, (*self.batch, self.n, self.k))
        rank = len(self.batch)
        b = permute(b, (*self.keep, rank, *self.fold, rank + 1))
        if not self.keep:
            return reshape(b, (self.n, self._width))
        return reshape(b, (prod(self.items), self.n, self._width))

    def restore(self, x: Any, permute: Callable, reshape: Callable = _reshape) -> Any:
        """Undo `columns`."""
        if self.plain:
            return x
        x = reshape(x, (*self.items, self.n, *(self.batch[a] for a in self.fold), self.k))
        where = {axis: at for at, axis in enumerate((*self.keep, "n", *self.fold, "k"))}
        order = [where[a] for a in (*range(len(self.batch)), "n", "k")]
        x = permute(x, tuple(order))
        return x[..., 0] if self.vector else x

    def shown(self, x: Any, permute: Callable) -> Any:
        """Undo `columns` for x as engines have it, (items, n, columns)."""
        if self.plain:
            return x.reshape((self.n,) if self.vector else (self.n, self.k))
        return self.restore(x, permute)

    @property
    def _width(self) -> int:
        return prod(self.batch[a] for a in self.fold) * self.k

    def per_column(self, norms: Any, permute: Callable) -> Any:
        """Numbers (items, columns), one for each right-hand side, in the shape of x without its vectors."""
        shown = self._replace(n=1).shown(norms[:, None, :], permute)
        return shown[..., 0] if self.vector else shown[..., 0, :]

    def per_item(self, values: Any, reshape: Callable = _reshape) -> Any:
        """Verdicts (items,) as an array of the batch axes of data, ones included, to broadcast against `batch`."""
        shape = [self.batch[a] if a in self.keep else 1 for a in range(len(self.batch))]
        return reshape(values, shape)


def check_start(shape: tuple[int, ...], layout: Layout) -> None:
    """Raise unless x0 has the shape of x."""
    want = (*layout.batch, layout.n) if layout.vector else (*layout.batch, layout.n, layout.k)
    if tuple(shape) != want:
        raise ValueError(f"x0 must have the shape of x, {want}; got shape {tuple(shape)}.")


def layout_of(data_batch: tuple[Any, ...], b_shape: tuple[Any, ...]) -> Layout:
    """Lay out b beside data whose leading axes are `data_batch`; None is a size that is not known yet.

    Raises
    ------
    ValueError
        If the leading axes do not broadcast.
    """
    vector = len(b_shape) == 1
    n, k = (b_shape[0], 1) if vector else (b_shape[-2], b_shape[-1])
    b_batch = () if vector else b_shape[:-2]
    if not data_batch and not b_batch:
        return Layout((), (), (), n, k, vector)
    batch = _broadcast(data_batch, b_batch)
    padded = (1,) * (len(batch) - len(data_batch)) + tuple(data_batch)
    keep = tuple(a for a, size in enumerate(padded) if size != 1)
    fold = tuple(a for a in range(len(batch)) if a not in keep)
    return Layout(batch, keep, fold, n, k, vector)


def _broadcast(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    rank = max(len(first), len(second))
    a, b = ((1,) * (rank - len(s)) + tuple(s) for s in (first, second))
    known = [(p, q) for p, q in zip(a, b, strict=True) if p is not None and q is not None]
    if any(p != q and 1 not in (p, q) for p, q in known):
        raise ValueError(
            f"A and b must have leading (batch) axes that broadcast; got {first} for A and {second} for b: "
            "make them equal, or 1 where one side is the same for all."
        )
    return tuple(q if p == 1 or (p is None and q != 1) else p for p, q in zip(a, b, strict=True))


def check_square(shape: tuple[int, ...]) -> None:
    """Raise the sentence for a matrix that is not square."""
    if shape[0] != shape[1]:
        raise ValueError(
            f"A must be square, as many equations as unknowns; got shape {tuple(shape)}: "
            "for least squares solve the augmented system [[I, A], [A.H, 0]]."
        )


def check_rhs(name: str, shape: tuple[int, ...], n: int, side: str = "rows") -> None:
    """Raise the sentence for a right-hand side or vector that does not fit a matrix with n rows (or columns).

    A size of None is not known yet.
    """
    if len(shape) == 0:
        raise ValueError(
            f"{name} must be a vector ({n},) or (..., {n}, k); got a scalar: "
            f"give one number for each of the {side} of A."
        )
    if len(shape) == 1:
        if shape[0] not in (n, None):
            raise ValueError(
                f"{name} must have length {n}, the number of {side} of A; got shape {tuple(shape)}: "
                f"give one number for each of the {side}."
            )
        return
    if shape[-2] not in (n, None):
        hint = f": only the last axis but one runs over the {side}"
        if shape[-1] == n:
            hint = (
                f": only a 1-D {name} is one vector, for a batch of vectors write {name}[..., None], "
                f"for vectors that stand in rows {name}.T"
            )
        raise ValueError(
            f"{name} must have shape (..., {n}, k), with {n} the number of {side} of A; got {tuple(shape)}{hint}."
        )


def plain_array(name: str, value: Any) -> np.ndarray:
    """Return `value` as a NumPy array of a supported dtype in native byte order; integers become float64.

    Raises
    ------
    TypeError
        If it is no array of numbers, or of another dtype.
    """
    if type(value) is np.ndarray and value.dtype.char in "fdFD" and value.dtype.isnative:
        return value
    hint = _why_not_plain(name, value)
    if hint is None:
        try:
            array = np.asarray(value)
        except ValueError:
            hint = "give it rows of equal length"
        else:
            if array.dtype.kind in "iub":
                return array.astype(np.float64)
            if array.dtype.char in "fdFD":
                return array.astype(array.dtype.newbyteorder("="), copy=False)
            hint = f"convert it, for example with numpy.asarray({name}, 'float64')"
    raise TypeError(
        f"{name} must be an array of dtype float32, float64, complex64 or complex128; got {describe(value)}: {hint}."
    )


def _why_not_plain(name: str, value: Any) -> str | None:
    """What to do about a value that NumPy would take for something else."""
    if isinstance(value, np.ma.MaskedArray):
        return f"masks are not supported: fill them with {name}.filled()"
    if hasattr(value, "toarray"):
        return f"a sparse matrix cannot stand here: use {name}.toarray()"
    if type(value).__name__ == "KerasTensor":
        return "it stands for any while a model is put together: call backsolve in the call of a keras.layers.Layer"
    if type(value).__module__.split(".")[0] in ("torch", "jax", "jaxlib", "tensorflow"):
        return "the other arrays are NumPy's: convert one, for example with .numpy()"
    return None
