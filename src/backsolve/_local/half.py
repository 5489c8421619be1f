"""Pushes on one side, N x = b with N = M or Mᵀ, in epochs of geometrically falling thresholds."""

from __future__ import annotations

import weakref

import numpy as np

from .block import solve_block
from .budget import Budget
from .system import System, Vector

__all__ = ["Half"]

_FACTOR = 4.0
"""By which thresholds fall from epoch to epoch."""
_ROUNDS, _PILE = 2, 20
"""Times that each entry is read before pushes over-relax, and before a Krylov method takes over."""
_GROWTH = 1.5
"""By which sums of residuals may grow before over-relaxation is taken for the reason."""
_CHUNK = 1 << 22
"""Entries read, at most, between two looks at the clock and at signals."""


class Half:
    """One side of a query.

    `by_rows` chooses the sense: thresholds by margins, and the bound max |r|/margin; or thresholds by the lengths of
    columns, and the bound Σ|r|. `size` is that bound without rounding, as the pushes left it.
    """

    def __init__(self, system: System, b: Vector, dual: bool, by_rows: bool):
        self.system, self.dual, self.by_rows, self.b = system, dual, by_rows, b
        self.setting = system.setting(dual, by_rows)
        self.side = system.take()
        self._finalizer = weakref.finalize(self, system.give, self.side)
        self._version, self._read = system.version, 0
        self.fresh = True  # values have just been looked at
        self.side.load(self.setting, *b)
        self.omega = 1.3 if (system.gap or 0) > 0.05 else 1.5
        self.epoch_work, self._lowest = 1, np.inf
        self._piled_from = 0
        self._least: float | None = None
        self._measure()

    def _measure(self) -> None:
        self.largest, self.sum = self.side.standing(self.setting)
        self.size = self.largest if self.by_rows else self.sum

    @property
    def least(self) -> float:
        """The smallest margin of the columns of N, in the sense of which entries are bounded by sums; 0 if unknown."""
        if self._least is None:
            self._least = self.system.least(not self.dual, anew=True)
        return self._least

    @property
    def weights(self) -> np.ndarray | None:
        """Barrier by the rows of N; None: 1."""
        return self.system.v if self.dual else self.system.w

    @property
    def scale(self) -> float:
        """By how much `size` is to be multiplied to bound the error of every entry; infinite where nothing is known."""
        if self.by_rows:
            return 1.0 if self.weights is None else float(np.max(self.weights, initial=0.0))
        return 1 / self.least if self.least > 0 else np.inf

    @property
    def touched(self) -> int:
        """Entries of M that have been read by pushes and block solves, and for margins that were not known."""
        return self._read + self.side.work

    @property
    def stale(self) -> bool:
        """Whether values have changed, or may have, since pushes began."""
        return not self.fresh and (self.system.version is None or self.system.version != self._version)

    def reduce(self, budget: Budget, aim: float = 0.0) -> bool:
        """One epoch; whether it got anywhere. In the sense of rows, never below `aim`."""
        if not self.largest > 0 or not self.system.pushes(self.dual):
            return False
        pushes, largest = self.side.pushes, self.largest
        eps = self.largest / _FACTOR
        if self.by_rows:
            eps = max(eps, aim)
        first, done = self.touched, False
        while not done and not budget.empty:
            start = self.side.work
            # Over-relaxation helps where pushes go round; where they spread, it only makes them spread further.
            omega = self.omega if start - self._piled_from > _ROUNDS * self.side.volume else 1.0
            done = self.side.push(self.setting, eps, omega, min(self._chunk(), budget.left))
            budget.spend(self.side.work - start)
            self._measure()
            self._guard()
            if not budget.empty and self.side.work - self._piled_from > _PILE * max(self.side.volume, 1):
                self._krylov(budget)
                done = done or not self.largest > eps
        self.epoch_work = max(self.touched - first, 1)
        # Columns that are fetched may turn out to be longer, and their thresholds higher, than they were taken for.
        return self.side.pushes > pushes or self.largest < largest

    def _guard(self) -> None:
        """Give over-relaxation up where it diverges.

        Sums of residuals are guaranteed to fall only for omega < 2/(2 - gap), and by columns; a push beyond may raise
        them by omega, and a few do so at first. Where they have grown more than that, they go on growing.
        """
        self._lowest = min(self._lowest, self.sum)
        if self.omega > 1 and self.sum > _GROWTH * self._lowest:
            self.omega = 1.0

    def _chunk(self) -> int:
        """Entries to read before looking at what it came to, at the clock and at signals."""
        return min(max(4 * self.side.volume, 1 << 12), _CHUNK)

    def _krylov(self, budget: Budget) -> None:
        start = self.side.work
        index, step, cost = solve_block(self.side, self.setting, self.largest / _FACTOR, self.system.access.symmetric)
        self.side.add(self.setting, index, step)
        self._read += cost
        budget.spend(self.side.work - start + cost)
        self._piled_from = self.side.work
        self._measure()

    def settle(self) -> None:
        """Make the residual anew, so that nothing that rounding did to it is left out."""
        self.side.recompute(self.setting, *self.b)
        self.system.check_mirror(self.side)
        self._measure()

    def add_right_hand_side(self, index: np.ndarray, value: np.ndarray) -> None:
        """b += the sparse vector."""
        every, place = np.unique(np.concatenate([self.b[0], index]), return_inverse=True)
        total = np.zeros(len(every))
        np.add.at(total, place, np.concatenate([self.b[1], value]))
        self.b = (every, total)
        self.side.load(self.setting, index, value)
        self._measure()
        self._lowest = np.inf

    def replace(self, x: np.ndarray) -> None:
        """Take the x of another solver, for all unknowns, and make the residual of it."""
        self._clear()
        self.side.load(self.setting, *self.b)
        index = np.flatnonzero(x)
        self.side.add(self.setting, index, np.ascontiguousarray(x[index], np.float64))
        self.settle()

    def renew(self, by_rows: bool | None = None) -> None:
        """Take values that have changed: margins and the residual anew, x stays."""
        self.by_rows = self.by_rows if by_rows is None else by_rows
        index, x, _, _ = self.side.support()
        self._clear()
        self.setting = self.system.setting(self.dual, self.by_rows)
        self._version = self.system.version
        self.side.load(self.setting, *self.b)
        self.side.add(self.setting, index, x)
        self._least = None
        self.settle()
        self.fresh = True

    def _clear(self) -> None:
        self._read += self.side.work
        self.side.clear()
        self._piled_from, self._lowest = 0, np.inf

    def bounds(self) -> tuple[float, float]:
        """(max (|r| + τ)/margin, Σ (|r| + τ)), rounded upwards; infinite in the sense that N is not dominant in."""
        rows, columns, _ = self.side.bounds(self.setting)
        return rows, columns
