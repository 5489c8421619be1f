"""Solutions of M x = b and Mᵀ λ = t in integers, to hold certified answers to.

Every double is a whole multiple of 2^-1074, so that matrices, vectors, bounds and residuals are Python integers and
nothing rounds. Solutions are multiples of 2^-Q: the inverse in floating point of the scaled matrix improves them by the
exact residual, until a step is less than one unit, so that each entry is within a slack of some units of the truth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import bicgstab, splu

UNIT = 1074
_SLACK = 4
_DENSE = 64


def whole(x: float) -> int:
    """x in units of 2^-1074."""
    numerator, denominator = float(x).as_integer_ratio()
    return numerator << (UNIT + 1 - denominator.bit_length())


def _shifted(x: int, by: int) -> int:
    return x << by if by >= 0 else x >> -by


class Solution(NamedTuple):
    """Entries in units of 2^-Q, and how many units they may be off."""

    x: list[int]
    slack: list[int]
    Q: int


class Truth:
    """M, given by triplets (repeats are summed), of which M diag(w) is dominant by rows or diag(v) M by columns."""

    def __init__(self, n: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, w=None, v=None):
        self.n = n
        entries: dict[tuple[int, int], int] = {}
        for i, j, value in zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True):
            entries[i, j] = entries.get((i, j), 0) + whole(value)
        self.entries = {place: value for place, value in entries.items() if value}
        diagonal = [self._size(entries.get((i, i), 0)) for i in range(n)]
        # Powers of two 2^p_i M_ij 2^q_j with a diagonal of about 1 and margins like those of M.
        if v is None:
            self.q = [0 if w is None else math.frexp(x)[1] for x in (range(n) if w is None else w)]
            self.p = [-d - q for d, q in zip(diagonal, self.q, strict=True)]
        else:
            self.p = [math.frexp(x)[1] for x in v]
            self.q = [-d - p for d, p in zip(diagonal, self.p, strict=True)]
        self._inverse = self._invert()
        # Short numbers multiply faster: all entries are multiples of 2^zeros units.
        self._zeros = min(((value & -value).bit_length() - 1 for value in self.entries.values()), default=0)
        self._short = [(i, j, value >> self._zeros) for (i, j), value in self.entries.items()]

    @staticmethod
    def _size(value: int) -> int:
        return value.bit_length() - UNIT

    def _invert(self):
        place = np.array(list(self.entries), np.int64).reshape(-1, 2)
        scaled = np.array(
            [
                math.ldexp(_shifted(v, UNIT + self.p[i] + self.q[j] + 80 - 2 * UNIT), -80)
                for (i, j), v in self.entries.items()
            ]
        )
        if self.n > _DENSE:
            return _sparse_inverse(sp.csc_array((scaled, (place[:, 0], place[:, 1])), shape=(self.n, self.n)))
        dense = np.zeros((self.n, self.n))
        dense[place[:, 0], place[:, 1]] = scaled
        inverse = np.linalg.inv(dense)
        return lambda r, transposed: (inverse.T if transposed else inverse) @ r

    def solve(self, b: dict[int, float], transposed: bool = False, bits: int = 300) -> Solution:
        """Each entry right to about `bits` bits of the largest, as scaled."""
        p, q = (self.q, self.p) if transposed else (self.p, self.q)
        low = min(q, default=0)
        right = [0] * self.n
        for i, value in b.items():
            right[i] += whole(value)
        slack = [_SLACK << (power - low) for power in q]
        if not any(right):
            return Solution([0] * self.n, [0] * self.n, UNIT)
        # M x = b in units of 2^-1074, x = 2^q y: y is the step times 2^(exponent - 1074).
        first, exponent = self._float_step(right, p, transposed)
        top = math.frexp(float(np.max(np.abs(first))))[1] + exponent - UNIT
        Q = max(bits - top - low, UNIT)
        x = [0] * self.n
        for _ in range(40 + bits):
            r = self._residual(right, x, Q, transposed)
            if not any(r):
                return Solution(x, slack, Q)
            step, exponent = self._float_step(r, p, transposed)
            changes = [_shifted(int(math.ldexp(y, 60)), low + exponent - UNIT - 60) for y in step.tolist()]
            x = [a + (change << (power - low)) for a, change, power in zip(x, changes, q, strict=True)]
            if max(map(abs, changes)) <= 1:
                return Solution(x, slack, Q)
        raise ArithmeticError("the truth does not converge: the matrix is too close to a singular one")

    def _residual(self, right: list[int], x: list[int], Q: int, transposed: bool) -> list[int]:
        product = [0] * self.n
        for i, j, value in self._short:
            if transposed:
                product[j] += value * x[i]
            else:
                product[i] += value * x[j]
        return [(b << Q) - (m << self._zeros) for b, m in zip(right, product, strict=True)]

    def _float_step(self, r: list[int], p: list[int], transposed: bool) -> tuple[np.ndarray, int]:
        """Inverse times 2^p r, over 2^exponent."""
        exponent = max(value.bit_length() + power for value, power in zip(r, p, strict=True) if value)
        scaled = [math.ldexp(_shifted(v, power - exponent + 62), -62) for v, power in zip(r, p, strict=True)]
        return self._inverse(np.array(scaled), transposed), exponent


def _sparse_inverse(S: sp.csc_array):
    """Of a matrix with a diagonal of about 1: by iterations while they reach some digits, else by its factors."""
    factors: list = []
    sides = S.tocsr(), S.T.tocsr()

    def solve(r: np.ndarray, transposed: bool) -> np.ndarray:
        if not factors:
            y, failed = bicgstab(sides[transposed], r, rtol=1e-9, atol=0.0, maxiter=200)
            if not failed and np.all(np.isfinite(y)):
                return y
            factors.append(splu(S))
        return factors[0].solve(r, trans="T" if transposed else "N")

    return solve
