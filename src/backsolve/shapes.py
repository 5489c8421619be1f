"""Batches and right-hand sides: what broadcasts with what, and how it is laid out for one engine call.

The array API's ``linalg.solve`` rule: b is one vector only if it is 1-D; otherwise it is (..., n, k). Leading
axes of data and b broadcast. Axes that only b has become further columns, so a matrix is never repeated and its
gradient is summed over right-hand sides where it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

__all__ = ["Layout", "check_rhs", "layout_of"]


class Layout(NamedTuple):
    """How b of shape batch + (n, k) becomes (items, n, columns) beside data of (items, ...).

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

    def columns(self, b: Any, expand: Callable, permute: Callable) -> Any:
        """b, or its cotangent or tangent, as (items, n, columns); (n,) and (n, k) stay when `plain`."""
        if self.plain:
            return b
        if self.vector:
            b = b[..., None]
        b = expand(b, (*self.batch, self.n, self.k))
        rank = len(self.batch)
        b = permute(b, (*self.keep, rank, *self.fold, rank + 1))
        if not self.keep:
            return b.reshape((self.n, self._width))
        return b.reshape((prod(self.items), self.n, self._width))

    def restore(self, x: Any, permute: Callable) -> Any:
        """Undo `columns`."""
        if self.plain:
            return x
        x = x.reshape((*self.items, self.n, *(self.batch[a] for a in self.fold), self.k))
        where = {axis: at for at, axis in enumerate((*self.keep, "n", *self.fold, "k"))}
        order = [where[a] for a in (*range(len(self.batch)), "n", "k")]
        x = permute(x, tuple(order))
        return x[..., 0] if self.vector else x

    @property
    def _width(self) -> int:
        return prod(self.batch[a] for a in self.fold) * self.k

    def per_item(self, values: Any) -> Any:
        """Verdicts (items,) as an array of the batch axes of data, ones included, to broadcast against `batch`."""
        shape = [self.batch[a] if a in self.keep else 1 for a in range(len(self.batch))]
        return values.reshape(shape)


def layout_of(data_batch: tuple[int, ...], b_shape: tuple[int, ...]) -> Layout:
    """Lay out b beside data whose leading axes are `data_batch`.

    Raises
    ------
    ValueError
        If the leading axes do not broadcast.
    """
    vector = len(b_shape) == 1
    b_batch = () if vector else b_shape[:-2]
    batch = _broadcast(data_batch, b_batch)
    padded = (1,) * (len(batch) - len(data_batch)) + tuple(data_batch)
    keep = tuple(a for a, size in enumerate(padded) if size != 1)
    fold = tuple(a for a in range(len(batch)) if a not in keep)
    n, k = (b_shape[0], 1) if vector else (b_shape[-2], b_shape[-1])
    return Layout(batch, keep, fold, n, k, vector)


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(first), len(second))
    a, b = ((1,) * (rank - len(s)) + tuple(s) for s in (first, second))
    if any(p != q and 1 not in (p, q) for p, q in zip(a, b, strict=True)):
        raise ValueError(
            f"A and b must have leading (batch) axes that broadcast; got {first} for A and {second} for b."
        )
    return tuple(q if p == 1 else p for p, q in zip(a, b, strict=True))


def check_rhs(name: str, shape: tuple[int, ...], n: int, side: str = "rows") -> None:
    """Raise the sentence for a right-hand side or vector that does not fit a matrix with n rows (or columns)."""
    if len(shape) == 0:
        raise ValueError(f"{name} must be a vector ({n},) or (..., {n}, k); got a scalar.")
    if len(shape) == 1:
        if shape[0] != n:
            raise ValueError(f"{name} must have length {n}, the number of {side} of A; got shape {tuple(shape)}.")
        return
    if shape[-2] != n:
        hint = ""
        if shape[-1] == n:
            hint = f": only a 1-D {name} is one vector, for a batch of vectors write {name}[..., None]"
        raise ValueError(
            f"{name} must have shape (..., {n}, k), with {n} the number of {side} of A; got {tuple(shape)}{hint}."
        )
