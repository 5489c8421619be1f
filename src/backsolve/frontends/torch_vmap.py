"""How `torch.func.vmap` maps onto one engine call: a mapped axis of values becomes items, one of b columns.

Values are (...,) or (items, ...) with one or two core axes; vectors are (n,), (n, k) or (items, n, k). A mapped
tensor has its axis in front here; an axis that only the vectors have is folded into the columns, so that one
factorization serves them all.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Mapped", "front"]


def front(tensor: torch.Tensor, axis: int | None, size: int) -> torch.Tensor:
    """The mapped axis in front; a tensor that is not mapped is repeated, without a copy."""
    return tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


class Mapped:
    """Vectors under a map of `size`: laid out for an engine, and back.

    Parameters
    ----------
    size : int
        Length of the mapped axis.
    form : int
        Axes of one vector without it: 1 for (n,), 2 for (n, k), 3 for (items, n, k).
    folded : bool
        Whether the values are not mapped, so that the axis becomes columns.
    """

    def __init__(self, size: int, form: int, folded: bool):
        self.size, self.form, self.folded = size, form, folded

    def lay_out(self, v: torch.Tensor) -> torch.Tensor:
        """(size, ...) to (n, columns) or (items, n, columns)."""
        if self.form == 1:
            v = v[..., None]
        if not self.folded:
            return v.reshape(-1, *v.shape[-2:]) if self.size else v.reshape(0, *v.shape[-2:])
        v = v.movedim(0, -2)
        return v.reshape(*v.shape[:-2], v.shape[-2] * v.shape[-1])

    def bring_back(self, v: torch.Tensor) -> torch.Tensor:
        """Undo `lay_out`, for vectors of any length n."""
        if self.folded:
            v = v.reshape(*v.shape[:-1], self.size, v.shape[-1] // self.size if self.size else 0).movedim(-2, 0)
        elif self.form == 3:
            v = v.reshape(self.size, v.shape[0] // self.size if self.size else 0, *v.shape[1:])
        return v[..., 0] if self.form == 1 else v

    def values(self, data: torch.Tensor, core: int) -> torch.Tensor:
        """Mapped values (size, [items], core) as items."""
        return data.reshape(-1, *data.shape[data.ndim - core :])

    def values_back(self, data: torch.Tensor, core: int) -> torch.Tensor:
        """Values of all items as (size, [items], core)."""
        items: tuple[Any, ...] = (-1,) if self.form == 3 else ()
        return data.reshape(self.size, *items, *data.shape[data.ndim - core :])
