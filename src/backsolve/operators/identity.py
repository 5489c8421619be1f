"""The identity and its multiples: diagonal shifts."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

from ..eager import eager
from ..errors import describe, dtype_name
from ..pattern import Pattern
from .base import scalar
from .csr import CSR, Template

__all__ = ["Identity", "eye"]

_DTYPES = ("float32", "float64", "complex64", "complex128")


class Identity(CSR):
    """s I: a sparse diagonal matrix that, added to another matrix, takes its precision and framework.

    Made by `eye`; s is in `shift`, which may be batch-shaped and need a gradient.
    """

    shift: Any

    @classmethod
    def of(cls, pattern: Pattern, shift: Any) -> Identity:
        """s I on the pattern of the identity."""
        if isinstance(shift, int | float | complex):
            data: Any = np.full(pattern.nnz, shift, np.result_type(np.float64, type(shift)))
            data.flags.writeable = False  # it is what `shift` says
        else:
            places = np.zeros(pattern.nnz, np.int64)
            data = cls.operations["take"](cls.operations["reshape"](shift, (*shift.shape, 1)), places)
        self = cls.__new__(cls)
        self._set(Template(pattern, None), data, "eye", "the diagonal")
        self.shift = shift
        return self

    def on(self, data: Any) -> Any:
        """Return the diagonal matrix with `data`; with other data than its own it is s I no longer."""
        if data is self.data:
            other = super().on(data)
            other.shift = self.shift
            return other
        other = CSR.from_pattern(data, self.pattern)
        other.assumed = self.assumed
        return other

    def _scaled(self, s: Any, divide: bool) -> Any:
        s = scalar(s)
        _, shift, s = self.operations["together"](None, self.shift, s)
        return Identity.of(self.pattern, shift / s if divide else shift * s)


@eager("backsolve.eye")
def eye(n: int, dtype: Any = None) -> CSR:
    """Return the n x n identity as a sparse operator.

    ``A + s * eye(n)`` shifts the diagonal of A, differentiably in s, which may be batch-shaped.

    Parameters
    ----------
    n : int
    dtype : dtype of NumPy, torch or TensorFlow, optional
        Without one, a sum with A has the precision of A (and of s, if s is an array with axes of its own).

    Returns
    -------
    CSR

    Raises
    ------
    ValueError
        If n is no size, or dtype none of float32, float64, complex64, complex128.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = bs.coo(np.array([1.0, 2.0]), ([0, 1], [1, 0]), (2, 2))
    >>> (A + 3.0 * bs.eye(2)).toarray()
    array([[3., 1.],
           [2., 3.]])
    """
    try:
        size = as_int(n)
    except TypeError:
        size = -1
    if size < 0:
        raise ValueError(f"eye: n must be a size, the number of rows and columns; got {describe(n)}.")
    pattern = Pattern(np.arange(size + 1), np.arange(size), (size, size))
    if dtype is None:
        return Identity.of(pattern, 1.0)
    name = dtype_name(dtype).removeprefix("torch.")
    try:
        name = name if name in _DTYPES else np.dtype(dtype).name
    except TypeError:
        pass
    if name not in _DTYPES:
        raise ValueError(f"eye: dtype must be one of {', '.join(_DTYPES)}; got {describe(dtype)}.")
    return CSR.from_pattern(np.ones(size, name), pattern)
