"""Scaling of rows and columns before a factorization: diag(r) A diag(c), by powers of two: nothing is rounded.

Pivots are chosen for the scaled matrix; residuals, refinement and verdict stay those of the stored A, and so do the
derivatives. Rows and then columns are brought to a largest modulus near one, as LAPACK's geequb does; symmetric
matrices by sweeps that keep them so (Ruiz 2001, RAL-TR-2001-034).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .factors import Factors

__all__ = ["Equilibrated", "Rescued", "exponents", "scaled"]

_SWEEPS = 10
_REACH = 300  # largest exponent, so that products of two scalings stay in range


def exponents(A: Any, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Binary exponents of r and c, (batch, n) each; equal if `symmetric`, as a factorization LLᴴ wants it."""
    structure, n = A.structure, A.shape[0]
    size = np.abs(structure.to_numpy(A.data)).astype(float)
    if structure.kind == "dense":
        rows, columns = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
        size = size.reshape(len(size), -1)
    else:
        rows, columns = structure.rows, structure.indices
    made = [_item(np.frexp(values)[1].astype(float) + np.where(values > 0, 0, -np.inf), rows, columns, n, symmetric)
            for values in size]  # fmt: skip
    r, c = (np.array([pair[side] for pair in made]).reshape(len(size), n) for side in (0, 1))
    return r, c


def _item(logs: np.ndarray, rows: np.ndarray, columns: np.ndarray, n: int, symmetric: bool):
    """Rows and then columns brought to a largest modulus near one; both at once, by square roots, if `symmetric`."""
    r, c = np.zeros(n), np.zeros(n)
    if symmetric:
        for _ in range(_SWEEPS):
            r -= 0.5 * _tops(logs + r[rows] + r[columns], rows, n)
        c = r
    else:
        r -= _tops(logs, rows, n)
        c -= _tops(logs + r[rows], columns, n)
    return tuple(np.clip(np.rint(v), -_REACH, _REACH).astype(int) for v in (r, c))


def _tops(logs: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """The largest of each row or column, 0 where nothing is stored but zeros."""
    top = np.full(n, -np.inf)
    np.maximum.at(top, index, logs)
    return np.where(np.isfinite(top), top, 0.0)


def scaled(A: Any, r: np.ndarray, c: np.ndarray) -> Any:
    """diag(2^r) A diag(2^c)."""
    structure = A.structure
    if structure.kind == "dense":
        factor = np.ldexp(1.0, r[:, :, None] + c[:, None, :])
    else:
        factor = np.ldexp(1.0, r[:, structure.rows] + c[:, structure.indices])
    return A.on(A.data * structure.like(A.data, factor))


class Equilibrated(Factors):
    """Factors of diag(2^r) A diag(2^c), used as those of A."""

    def __init__(self, inner: Factors, structure: Any, r: np.ndarray, c: np.ndarray):
        super().__init__(inner.failed, inner.details, inner.count)
        self._inner, self._structure, self._r, self._c = inner, structure, r, c

    @property
    def nbytes(self) -> int:
        return self._inner.nbytes

    def strengthen(self, item: int) -> bool:
        made = self._inner.strengthen(item)
        self.count = self._inner.count
        return made

    def solve(self, b: Any, adjoint: bool) -> Any:
        before, after = (self._c, self._r) if adjoint else (self._r, self._c)
        before, after = (self._structure.like(b, np.ldexp(1.0, e)[:, :, None]) for e in (before, after))
        return self._inner.solve(b * before, adjoint) * after

    def slogdet(self, dtype: Any) -> tuple[Any, Any]:
        sign, size = self._inner.slogdet(dtype)
        return sign, size - np.log(2.0) * (self._r.sum(axis=1) + self._c.sum(axis=1))


class Rescued(Factors):
    """Factors of which single items are made anew, equilibrated, when their solves are in doubt.

    `again(item)` makes them, or returns None where scaling would change nothing.
    """

    def __init__(self, inner: Factors, again: Any):
        super().__init__(inner.failed, inner.details, inner.count)
        self._inner, self._again = inner, again
        self._rescued: dict[int, Factors | None] = {}

    @property
    def nbytes(self) -> int:
        return self._inner.nbytes + sum(f.nbytes for f in self._rescued.values() if f is not None)

    def strengthen(self, item: int) -> bool:
        if not self.failed[item] and self._inner.strengthen(item):
            self.count = self._inner.count
            return True
        if item in self._rescued:
            one = self._rescued[item]
            return one is not None and one.strengthen(0)
        one = self._again(item)
        self._rescued[item] = None if one is None or one.failed[0] else one
        self.count += one is not None
        if self._rescued[item] is None:
            return False
        self.failed[item] = 0
        for status in [s for s in self.details if not (self.failed == s).any()]:
            del self.details[status]
        return True

    def solve(self, b: Any, adjoint: bool) -> Any:
        x = self._inner.solve(b, adjoint)
        for item, one in self._rescued.items():
            if one is not None:
                x[item] = one.solve(b[item : item + 1], adjoint)[0]
        return x

    def slogdet(self, dtype: Any) -> tuple[Any, Any]:
        return self._inner.slogdet(dtype)
