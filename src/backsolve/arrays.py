"""The small things that methods need of arrays of any namespace, as `Pattern` has them for NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import is_jax_namespace

__all__ = ["OnArrays", "put"]


def put(xp: Any, array: Any, places: Any, values: Any) -> Any:
    """The array with other values at some places; the array itself is changed, unless it is JAX's, which cannot be."""
    if is_jax_namespace(xp):
        return array.at[places].set(values)
    array[places] = values
    return array


class OnArrays:
    """Mixed into structures whose vectors are arrays of the namespace ``linalg.xp``.

    Parameters
    ----------
    linalg : namespace
        ``xp`` (an array namespace), ``to_numpy``, ``like`` and ``widen``; see `methods.lapack`.
    """

    def __init__(self, linalg: Any):
        self.linalg = linalg
        self.xp = linalg.xp

    def product(self, data, adjoint: bool):
        """x -> A x or Aᴴ x, for many x."""
        return lambda x: self.matvec(data, x, adjoint)  # type: ignore[attr-defined]

    def to_numpy(self, array) -> np.ndarray:
        """A host copy."""
        return self.linalg.to_numpy(array)

    def eps(self, data) -> float:
        """Spacing of 1.0 in the precision of `data`."""
        return float(self.xp.finfo(data.dtype).eps)

    def size(self, d) -> np.ndarray:
        """Largest modulus in each item: (batch,)."""
        flat = self.xp.reshape(self.xp.abs(d), (d.shape[0], -1))
        return self.to_numpy(self.xp.max(flat, axis=1))

    def sizes(self, d) -> np.ndarray:
        """Largest modulus in each column: (batch, k)."""
        return self.to_numpy(self.xp.max(self.xp.abs(d), axis=1))

    def choose(self, mask: np.ndarray, yes, no):
        """Columns of `yes` where the (batch, k) mask holds, else of `no`."""
        return self.xp.where(self.linalg.like(no, mask[:, None, :]), yes, no)

    def like(self, b, array: np.ndarray):
        """A real array in the precision and on the device of b."""
        real = self.xp.real(b) if self.xp.isdtype(b.dtype, "complex floating") else b
        return self.xp.astype(self.linalg.like(b, array), real.dtype)

    def first_nonfinite(self, array) -> tuple[Any, tuple[int, ...]]:
        """The first NaN or infinity, and its index; (None, ()) if there is none."""
        host = self.to_numpy(array)
        places = np.argwhere(~np.isfinite(host))
        return (host[tuple(places[0])], tuple(places[0].tolist())) if len(places) else (None, ())
