"""What a gradient took: solves, products, iterations, as they happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Tally"]


class Tally:
    """Counts of one gradient.

    A product of a recorded iteration is counted when it is computed, forward, again by a checkpoint, or as the product
    with Aᴴ in the backward. Solves count themselves (`Stats`); their backward is asked for when all is done.
    """

    def __init__(self):
        self.solves, self.iterations, self._products = 0, 0, 0
        self._solutions: list[Any] = []

    def counted(self, product: Callable) -> Callable:
        """The product, counted, and counted again when its backward runs, where the array has hooks for that."""

        def call(v: Any) -> Any:
            self._products += 1
            y = product(v)
            if getattr(y, "requires_grad", False):
                y.register_hook(self._in_backward)
            return y

        return call

    def solved(self, solution: Any) -> None:
        """A solve, and whatever backward it will have."""
        self._solutions.append(solution)

    def products(self, count: int) -> None:
        """Products that were made where nobody could count them."""
        self._products += count

    def _in_backward(self, g: Any) -> None:
        self._products += 1

    def settle(self) -> Tally:
        """Ask the solves what they took, and let them go."""
        for forward in self._solutions:
            for sol in (forward, forward.adjoint):
                if sol is not None:
                    self.solves += 1
                    self._products += _largest(sol.stats.matvecs)
                    self.iterations = max(self.iterations, _largest(sol.stats.iterations))
        self._solutions.clear()
        return self

    @property
    def matvecs(self) -> int:
        """Products with A or Aᴴ; a direct solve has none but those of its residuals, which are not counted."""
        return self._products


def _largest(count: Any) -> int:
    return int(np.max(np.asarray(count), initial=0))
