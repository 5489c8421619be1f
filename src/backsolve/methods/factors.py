"""Factorizations of the matrices of a batch, as direct methods use them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..status import Status

__all__ = ["Factors"]


class Factors:
    """Factorizations of the matrices of a batch.

    Attributes
    ----------
    failed : (batch,) int32
        `Status` of each factorization that failed, 0 for the others.
    details : dict
        What was found about the first failure of each `Status`.
    count : int
        Numeric factorizations made per matrix.
    """

    def __init__(self, failed: np.ndarray, details: dict[int, str] | None = None, count: int = 1):
        self.failed, self.count = failed, count
        self.details: dict[int, str] = {} if details is None else details

    @property
    def nbytes(self) -> int:
        """Memory of all factors."""
        raise NotImplementedError

    def fail(self, item: int, status: Status, detail: str) -> None:
        """Note that an item has no factors, and why."""
        self.failed[item] = status
        self.details.setdefault(status, detail)

    def strengthen(self, item: int) -> bool:
        """Replace the factors of an item by more accurate ones; False if there are none."""
        return False

    def solve(self, b: Any, adjoint: bool) -> Any:
        """Solve for b (batch, n, k); NaN for the items that failed."""
        raise NotImplementedError

    def slogdet(self, dtype: Any) -> tuple[Any, Any]:
        """Sign and logarithm of the modulus of the determinants, (batch,): (0, -inf) if singular, else NaN if failed.

        Only where the factors are triangular and a dense determinant is out of reach.
        """
        raise NotImplementedError
