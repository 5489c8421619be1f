"""Sparse operators."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Self

import numpy as np

from .. import _kernels
from ..eager import eager
from ..errors import describe
from ..indices import check_shape, defect_sentence, integers, narrow
from ..pattern import Pattern, canonical_pattern
from .base import AbstractLinearOperator
from .places import transposed, with_diagonal

__all__ = ["CSR", "coo"]


class Template:
    """What a `CSR` is without its values. Compiled programs, which carry no objects, know it by `key`."""

    _keys = itertools.count()

    def __init__(self, pattern: Pattern, slots: np.ndarray | None):
        self.pattern, self.slots = pattern, slots
        self.count = pattern.nnz if slots is None else len(slots)
        self.key = next(self._keys)
        TEMPLATES[self.key] = self

    def operator(self, data: Any) -> CSR:
        """The operator with values, in the order in which they were given first."""
        A = CSR.__new__(CSR)
        A._set(self, _values("CSR", data), "CSR", "the pattern")
        return A

    def __deepcopy__(self, memo: dict) -> Template:
        return self  # so that what was compiled for a model serves its copies

    def __reduce__(self):
        return Template, (self.pattern, self.slots)


TEMPLATES: weakref.WeakValueDictionary[int, Template] = weakref.WeakValueDictionary()
"""Those in use, by key."""


class CSR(AbstractLinearOperator):
    """A sparse matrix in compressed sparse row form, or a batch of them on one `Pattern`.

    Unsorted columns are sorted and repeated ones summed inside; `data` and its gradient keep the order and
    the length in which they were given.

    Parameters
    ----------
    data : array (..., nnz), float32, float64, complex64 or complex128
        Values; of NumPy or of a framework, where they may need gradients.
    indices : (nnz,) integers
        Column of each value.
    indptr : (n_rows + 1,) integers
        Where each row starts.
    shape : (n_rows, n_cols)

    Raises
    ------
    ValueError
        If the index arrays are malformed, out of range, or swapped.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = bs.CSR(np.array([2.0, 1.0, 4.0]), [0, 1, 1], [0, 2, 3], (2, 2))
    >>> bs.solve(A, np.array([3.0, 4.0]))
    array([1., 1.])
    """

    @eager("backsolve.CSR")
    def __init__(self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int]):
        data = _values("CSR", data)
        self.operations["meet"](data)
        pattern, slots = _csr_pattern(_host(indices), _host(indptr), check_shape("CSR: shape", shape))
        self._set(Template(pattern, slots), data, "CSR", "indices")

    def _set(self, template, data, owner, index_name):
        if data.shape[-1] != template.count:
            raise ValueError(
                f"{owner}: values must have shape (..., {template.count}), one per entry of {index_name}; "
                f"got {describe(data)}: do they belong to another pattern?"
            )
        super().__init__(template.pattern, data)
        self.template = template

    @property
    def _core(self) -> tuple[int, ...]:
        return (self.template.count,)  # not from `data`: a compiler that saw it read would watch it

    @property
    def slots(self) -> np.ndarray | None:
        """Place of each given value among the canonical ones; None where they are the same."""
        return self.template.slots

    def on(self, data: Any) -> Self:
        """Return the operator with other data, of the same order or canonical as the caller has it."""
        other = super().on(data)
        other.template = self.template
        return other

    @property
    def pattern(self) -> Pattern:
        """The canonical structure: sorted rows, no repeats."""
        return self.structure

    @classmethod
    @eager("backsolve.CSR.from_pattern")
    def from_pattern(cls, data: Any, pattern: Pattern, slots: np.ndarray | None = None) -> CSR:
        """Return the operator with `data` on a Pattern that exists already.

        Parameters
        ----------
        data : array (..., nnz), or (..., len(slots)) where `slots` is given
        pattern : Pattern
        slots : (count,) integers, optional
            Place of each value among the canonical ones; values with the same place are summed.
        """
        if not isinstance(pattern, Pattern):
            raise TypeError(f"CSR.from_pattern: pattern must be a backsolve.Pattern; got {describe(pattern)}.")
        if slots is not None:
            slots = integers("slots", _host(slots))
            if slots.size and (slots.min() < 0 or slots.max() >= pattern.nnz):
                raise ValueError(
                    f"CSR.from_pattern: slots must lie in [0, {pattern.nnz}); got {slots.min()} to {slots.max()}."
                )
        self = cls.__new__(cls)
        self.operations["meet"](data)
        self._set(Template(pattern, slots), _values("CSR.from_pattern", data), "CSR.from_pattern", "the pattern")
        return self

    def _of(self, values: Any, structure: Any, assumed: str) -> CSR:
        other = CSR.from_pattern(values, structure)
        other.assumed = assumed
        return other

    def _transposed(self, conj: bool, assumed: str) -> CSR:
        pattern, places = transposed(self.pattern)
        values = self.operations["take"](self._values(), places)
        return self._of(self.operations["conj"](values) if conj else values, pattern, assumed)

    def _scaled_values(self, rows: Any, columns: Any) -> Any:
        values, take = self._values(), self.operations["take"]
        if rows is not None:
            values = values * take(rows, self.pattern.rows)
        return values if columns is None else values * take(columns, self.pattern.indices)

    def _shifted(self, diagonal: Any, assumed: str) -> CSR:
        values, put = self._values(), self.operations["put"]
        pattern, places = with_diagonal(self.pattern)
        if places is not None:
            values = put(values, places, pattern.nnz)
        return self._of(values + put(diagonal, pattern.diagonal, pattern.nnz), pattern, assumed)


@eager("backsolve.coo")
def coo(values: Any, index: Any, shape: tuple[int, int]) -> CSR:
    """Return the sparse operator with ``A[rows[t], cols[t]] += values[t]``.

    Triplets come in any order; repeated places are summed, differentiably, and the gradient has one number
    per triplet. Sorting costs O(count + n) once: in a loop, build it once and call ``A.with_data(values)``.

    Parameters
    ----------
    values : array (..., count), float32, float64, complex64 or complex128
    index : pair (rows, cols) of (count,) integers
        Also one array of shape (2, count), as PyTorch and JAX have it.
    shape : (n_rows, n_cols)

    Raises
    ------
    ValueError
        If an index is out of range, or the lengths differ.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> A = bs.coo(np.array([1.0, 1.0, 4.0]), ([0, 0, 1], [0, 0, 1]), (2, 2))
    >>> A.toarray()
    array([[2., 0.],
           [0., 4.]])
    """
    values = _values("coo", values)
    index = _host(index) if hasattr(index, "shape") else index
    try:
        rows, cols = index
    except (TypeError, ValueError):
        raise ValueError(f"coo: index must be a pair (rows, cols) of integer arrays; got {describe(index)}.") from None
    pattern, slots = canonical_pattern(_host(rows), _host(cols), shape)
    self = CSR.__new__(CSR)
    self.operations["meet"](values)
    self._set(Template(pattern, slots), values, "coo", "rows and cols")
    return self


def _values(owner: str, data: Any) -> Any:
    if not hasattr(data, "shape"):
        data = np.asarray(data, dtype=None)
    if len(data.shape) < 1:
        raise ValueError(f"{owner}: values must have shape (..., nnz); got {describe(data)}: give one per entry.")
    return data


def _host(index: Any) -> Any:
    """Index arrays of any framework as NumPy arrays: they are static."""
    if getattr(index, "is_meta", False):
        raise ValueError("indices must hold numbers; got a tensor on the meta device: make it on another device.")
    try:
        return index.detach().cpu().numpy() if hasattr(index, "detach") else np.asarray(index)
    except (RuntimeError, TypeError) as error:
        if not any(hasattr(index, known) for known in ("detach", "aval", "graph")):
            raise
        raise ValueError(
            f"indices must hold numbers; got a {type(index).__name__}, which stands for any while a program is traced: "
            "make the operator outside, and call A.with_data(values) inside."
        ) from error


def _csr_pattern(indices, indptr, shape) -> tuple[Pattern, np.ndarray | None]:
    indices, indptr = integers("indices", indices), integers("indptr", indptr)
    narrow_indptr, narrow_indices = narrow(indptr, indices, shape)
    code, position, value = _kernels.diagnose(narrow_indptr, narrow_indices, *shape)
    if code < 0:
        if _kernels.diagnose(narrow_indices, narrow_indptr, *shape)[0] >= 0:
            raise ValueError(
                "CSR: indices and indptr must come in this order, SciPy's: CSR(data, indices, indptr, shape); "
                f"got indices of length {indices.size} and indptr of length {indptr.size}, which fit when swapped."
            )
        raise ValueError("CSR: " + defect_sentence(code, position, value, shape, indices.size, indptr.size))
    if code == 0:
        return Pattern(narrow_indptr, narrow_indices, shape), None
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    return canonical_pattern(rows, indices, shape)
