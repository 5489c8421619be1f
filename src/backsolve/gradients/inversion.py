"""Determinant and inverse entries of one sparse matrix on the host, from one factorization."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import SolveError
from ..factorization import factorize
from ..methods import SuperLU
from ..methods.equilibrate import exponents, scaled
from ..operators import CSR
from .takahashi import inverse_entries, settled

__all__ = ["HostFactors"]

_BLOCK = 2**22  # numbers in one block of solutions


class HostFactors:
    """A sparse LU of canonical values (nnz,) on a Pattern.

    Attributes
    ----------
    logabsdet : float
    solves : int
        Right-hand sides solved for so far: n where selected inversion was of no use, else 0.
    """

    def __init__(self, pattern: Any, data: np.ndarray):
        self.pattern, self.data, self.solves = pattern, np.ascontiguousarray(data), 0
        self._batch: Any = CSR.from_pattern(self.data[None], pattern)
        if not pattern.finite_items(self._batch.data)[0]:
            raise SolveError("the determinant needs finite values; A has a NaN or an infinity.")
        self._factors = self._factor(self._batch)
        self.logabsdet = float(self._factors.slogdet(self.data.dtype)[1][0])
        if not np.isfinite(self.logabsdet):
            raise SolveError(f"A must be nonsingular; log|det A| is {self.logabsdet}: fix or ground its null space.")

    @staticmethod
    def _factor(batch: Any) -> Any:
        return SuperLU(equilibrate=False).factor(batch, np.ones(1, bool))

    def inverse_entries(self) -> np.ndarray:
        """The entries of A⁻ᴴ on the stored places, (nnz,)."""
        entries = self._selected(self._factors, self.data)
        if entries is None and self._factors.strengthen(0):
            entries = self._selected(self._factors, self.data)
        if entries is None:
            r, c = exponents(self._batch, False)
            if r.any() or c.any():
                even = scaled(self._batch, r, c)
                entries = self._selected(self._factor(even), even.data[0])
                if entries is not None:  # (2^r A 2^c)⁻ᴴ = 2^-r A⁻ᴴ 2^-c
                    entries = entries * np.ldexp(1.0, r[0, self.pattern.rows] + c[0, self.pattern.indices])
        return (self._solved() if entries is None else entries).astype(self.data.dtype, copy=False)

    def _selected(self, factors: Any, data: np.ndarray) -> np.ndarray | None:
        """By selected inversion; None where it does not pay, or is not accurate."""
        if factors.items[0] is None:
            return None
        with np.errstate(all="ignore"):
            entries = inverse_entries(self.pattern, factors.items[0].held)
            return None if entries is None or settled(self.pattern, data, entries) > 1 else entries

    def _solved(self) -> np.ndarray:
        """By n solves, refined and judged: column j of A⁻ᴴ solves Aᴴ z = e_j."""
        pattern, n = self.pattern, self.pattern.shape[0]
        F = factorize(CSR.from_pattern(self.data, pattern), method="superlu").adjoint
        entries, width = np.empty(pattern.nnz, self.data.dtype), max(1, _BLOCK // max(n, 1))
        for start in range(0, n, width):
            stop = min(start + width, n)
            z = F.solve(np.eye(n, stop - start, -start, dtype=self.data.dtype))
            at = slice(pattern.t_indptr[start], pattern.t_indptr[stop])
            columns = np.repeat(np.arange(stop - start), np.diff(pattern.t_indptr[start : stop + 1]))
            entries[pattern.t_slot[at]] = z[pattern.t_indices[at], columns]
            self.solves += stop - start
        return entries
