"""What every linear operator is."""

from __future__ import annotations

from numbers import Number
from typing import Any, Self

import numpy as np

from ..eager import as_written, eager
from ..errors import describe, dtype_name
from ..options import check_assume
from .places import is_diagonal

__all__ = ["AbstractLinearOperator", "scalar"]

_FLIPPED = {"lower": "upper", "upper": "lower"}
_SCALES_FREELY = ("sym", "lower", "upper")  # s A is what A is, for every number s


class AbstractLinearOperator:
    """A bilinear form ⟨y, A(data) x⟩: a static structure and the numbers stored on it.

    Attributes
    ----------
    data : array
        The stored numbers, in which the operator is linear and with respect to which it is differentiated.
        Leading axes are a batch of operators on one structure.
    structure : Pattern or Full
        What does not change with the numbers.
    assumed : str
        What was declared with `assume`; "general" by default.
    """

    operations: dict[str, Any] = {}  # noqa: RUF012
    """Differentiable operations on arrays of each framework; `dispatch` binds them, since it knows the frameworks."""

    __array_ufunc__ = None  # so that NumPy leaves ``array * A`` to A

    def __init__(self, structure: Any, data: Any, assumed: str = "general"):
        self.structure = structure
        self.data = data
        self.assumed = assumed

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols) of each operator of the batch."""
        return self.structure.shape

    @property
    def dtype(self):
        """dtype of `data`."""
        return self.data.dtype

    @property
    def leaves(self) -> tuple[Any, ...]:
        """The arrays of which the operator is made: its data."""
        return (self.data,)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of `data`."""
        return tuple(self.data.shape[: len(self.data.shape) - self._data_axes])

    _data_axes = 1

    @property
    def _core(self) -> tuple[int, ...]:
        """The last axes of `data`."""
        return tuple(self.data.shape[len(self.data.shape) - self._data_axes :])

    @as_written
    def with_data(self, data: Any) -> Self:
        """Return the same operator with other numbers, in the order in which the first ones were given.

        The structure is shared, so whatever was worked out from it is used again.

        Raises
        ------
        ValueError
            If the last axes of `data` differ from those of the present data.
        """
        if not hasattr(data, "shape"):
            raise ValueError(f"with_data: data must be an array; got {describe(data)}.")
        self.operations["meet"](data)
        want = self._core
        if tuple(data.shape[-self._data_axes :]) != want or len(data.shape) < self._data_axes:
            raise ValueError(
                f"with_data: data must have shape (..., {', '.join(map(str, want))}); got {describe(data)}."
            )
        return self.on(data)

    def on(self, data: Any) -> Self:
        """Return the same operator with other data, unchecked: also what engines work on, canonical plain values."""
        other = AbstractLinearOperator.__new__(type(self))
        other.structure, other.data, other.assumed = self.structure, data, self.assumed
        return other

    @as_written
    def assume(self, assume: str) -> Self:
        """Return the same operator, declared to be "spd", "sym", "her", "lower", "upper" or "general".

        A declaration chooses the method and never the answer: residuals, adjoints and gradients are those of
        the matrix as stored, and gradients are never symmetrised. "spd" of a complex matrix means Hermitian
        positive definite.
        """
        other = self.on(self.data)
        other.assumed = check_assume(assume)
        return other

    @eager("A @ x")
    def __matmul__(self, x: Any) -> Any:
        """A @ x for x of shape (n_cols,) or (..., n_cols, k); differentiable in `data` and x."""
        return self.operations["matvec"](self, x)

    # -- algebra: every result is canonical, and differentiable in all that it is made of ---------------------

    @property
    @eager("A.T")
    def T(self) -> Any:
        """The transpose, Aᵀ; "lower" becomes "upper", other declarations stay."""
        return self._transposed(conj=False, assumed=_FLIPPED.get(self.assumed, self.assumed))

    @property
    @eager("A.H")
    def H(self) -> Any:
        """The conjugate transpose, Aᴴ; declarations as for `T`."""
        return self._transposed(conj=True, assumed=_FLIPPED.get(self.assumed, self.assumed))

    @eager("-A")
    def __neg__(self) -> Any:
        """-A."""
        return self._scaled(-1, divide=False)

    @eager("s * A")
    def __mul__(self, s: Any) -> Any:
        """S A for a number, or for an array of them, one for each matrix of a batch; differentiable in s."""
        return self._scaled(s, divide=False)

    __rmul__ = __mul__

    @eager("A / s")
    def __truediv__(self, s: Any) -> Any:
        """A / s, as ``A * s``."""
        return self._scaled(s, divide=True)

    @eager("A + B")
    def __add__(self, other: Any) -> Any:
        """A + B on the same pattern, or where one of the two is diagonal, such as ``s * eye(n)``."""
        return total(self, other, "+")

    @eager("A - B")
    def __sub__(self, other: Any) -> Any:
        """A - B, as ``A + B``."""
        return total(self, other, "-")

    def __radd__(self, other: Any) -> Any:
        return total(self, other, "+")  # always the sentence: `other` is no operator

    def __rsub__(self, other: Any) -> Any:
        return total(self, other, "-")

    @eager("A.scale")
    def scale(self, rows: Any = None, columns: Any = None) -> Any:
        """Return diag(rows) A diag(columns); one that is None is the identity.

        Parameters
        ----------
        rows : array (..., n_rows), optional
        columns : array (..., n_columns), optional
            Leading axes broadcast with the batch of A; differentiable in both.
        """
        A, rows, columns = self.operations["together"](self, rows, columns)
        for name, d, n in (("rows", rows, A.shape[0]), ("columns", columns, A.shape[1])):
            shape = getattr(d, "shape", ())
            if d is not None and (len(shape) < 1 or shape[-1] != n):
                raise ValueError(
                    f"scale: {name} must have shape (..., {n}); got {describe(d)}: "
                    "for one number for the whole matrix write s * A."
                )
            _check_batch(A, shape[:-1], f"scale: {name}")
        kept = A.assumed if A.assumed in ("lower", "upper") else "general"
        return A._of(A._scaled_values(rows, columns), A.structure, kept)

    @eager("A.diagonal")
    def diagonal(self) -> Any:
        """Return the diagonal, (..., min(n_rows, n_columns)), zero where nothing is stored; differentiable."""
        A = self.operations["together"](self)[0]
        places = A.structure.diagonal
        stored = np.flatnonzero(places >= 0)
        entries = self.operations["take"](A._flat(), places[stored])
        return entries if len(stored) == len(places) else self.operations["put"](entries, stored, len(places))

    def _scaled(self, s: Any, divide: bool) -> Any:
        A, s = self.operations["together"](self, scalar(s))
        _check_batch(A, getattr(s, "shape", ()), "s in s * A")
        s = A._along(s)
        kept = A.assumed if A.assumed in _SCALES_FREELY else "general"
        return A._of(A._values() / s if divide else A._values() * s, A.structure, kept)

    def _along(self, s: Any) -> Any:
        """An array of factors with as many axes more as data has, to broadcast against values; numbers stay."""
        shape: tuple = tuple(getattr(s, "shape", ()))
        return self.operations["reshape"](s, (*shape, *(1,) * self._data_axes)) if shape else s

    def _values(self) -> Any:
        """Canonical values, with the core axes of `data`."""
        return self.operations["values"](self)

    def _flat(self) -> Any:
        """Canonical values with one core axis, in row order."""
        return self._values()

    def _transposed(self, conj: bool, assumed: str) -> Any:
        raise NotImplementedError

    def _scaled_values(self, rows: Any, columns: Any) -> Any:
        raise NotImplementedError

    def _shifted(self, diagonal: Any, assumed: str) -> Any:
        """A + diag(diagonal), for an array (..., n)."""
        raise NotImplementedError

    def _total(self, A: Any, B: Any, sign: str, assumed: str) -> Any:
        """A + B or A - B, one of them matrix-free."""
        raise NotImplementedError

    def _of(self, values: Any, structure: Any, assumed: str) -> Any:
        """The operator of the same kind with canonical values."""
        raise NotImplementedError

    # ---------------------------------------------------------------------------------------------------------

    @eager("A.toarray")
    def toarray(self) -> Any:
        """Return the dense array, (..., n_rows, n_cols), of the framework of `data`; differentiable."""
        return self.operations["toarray"](self)

    def __repr__(self) -> str:
        name, batch = type(self).__name__, f", batch {self.batch_shape}" if self.batch_shape else ""
        declared = "" if self.assumed == "general" else f", assume={self.assumed!r}"
        size = f"{self.shape[0]}x{self.shape[1]}, nnz={self.structure.nnz}"
        return f"{name}({size}, {dtype_name(self.dtype)}{batch}{declared})"


def total(A: Any, B: Any, sign: str) -> Any:
    """A + B or A - B."""
    if not isinstance(B, AbstractLinearOperator):
        raise TypeError(
            f"A {sign} B: both must be backsolve operators; got {describe(B)}: write A {sign} s * backsolve.eye(n) "
            "for a diagonal shift, and backsolve.aslinearoperator(B) for a matrix."
        )
    if A.shape != B.shape:
        raise ValueError(f"A {sign} B: both must have one shape; got {A.shape} and {B.shape}.")
    if sign == "-":
        B, kept = -B, A.assumed if A.assumed == B.assumed != "spd" else "general"
    else:
        kept = A.assumed if A.assumed == B.assumed else "general"
    for host in (A, B):
        if host.structure.kind == "free":
            return host._total(A, B, sign, kept)
    for first, second in ((A, B), (B, A)):
        shift = getattr(second, "shift", None)
        if shift is not None and getattr(first, "shift", None) is None:
            first, shift = first.operations["together"](first, shift)
            _check_batch(first, getattr(shift, "shape", ()), "s in A + s * eye(n)")
            return first._shifted(_along_diagonal(first, shift), _still_shifted(first))
    A, B = A.operations["together"](A, B)
    _check_batch(A, B.batch_shape, "B in A + B")
    if A.structure == B.structure:
        return A._of(A._values() + B._values(), A.structure, kept)
    for first, second in ((A, B), (B, A)):
        if is_diagonal(second.structure):
            return first._shifted(second._values(), _still_shifted(first))
    raise ValueError(
        f"A {sign} B: both must have the same pattern, or one be diagonal; got {A!r} and {B!r}: "
        "give backsolve.coo the triplets of both, it sums what falls on one place."
    )


def _along_diagonal(A: Any, shift: Any) -> Any:
    """A number, or one for each matrix of a batch, repeated along the diagonal, in the precision of A."""
    shift = A.operations["weakly"](shift, A.data)
    shift = A.operations["reshape"](shift, (*shift.shape, 1))
    return A.operations["take"](shift, np.zeros(A.shape[0], np.int64))


def _still_shifted(A: Any) -> str:
    return A.assumed if A.assumed in _SCALES_FREELY else "general"


def scalar(s: Any) -> Any:
    """A factor of a matrix: a Python number, or an array with or without axes."""
    if isinstance(s, np.ndarray | np.generic) and s.ndim == 0:
        s = s.item()
    if isinstance(s, Number) or (hasattr(s, "dtype") and not isinstance(s, AbstractLinearOperator)):
        return s
    raise TypeError(
        f"s in s * A must be a number, or an array with one for each matrix; got {describe(s)}: "
        "products with vectors are A @ x."
    )


def _check_batch(A: Any, shape: Any, name: str) -> None:
    try:  # sizes of None are not known yet
        np.broadcast_shapes(*(tuple(1 if size is None else size for size in s) for s in (A.batch_shape, shape)))
    except ValueError:
        raise ValueError(
            f"{name}: leading axes must broadcast with those of A, {A.batch_shape}; got {tuple(shape)}."
        ) from None
