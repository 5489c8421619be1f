"""What a local solve returns: a number, or a sparse vector, and how far from the truth it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..status import Status

__all__ = ["Estimate"]


@dataclass(frozen=True, repr=False, eq=False)
class Estimate:
    """A value and a bound that is proved, rounding included: the truth lies within `bound` of `value`.

    Attributes
    ----------
    value : float, or a sparse vector
        NaN where nothing is proved.
    bound : float
        Of |value - truth|, for vectors in the norm that the query says; infinite where nothing is proved.
    kind : str
        The dominance that the bound rests on: "rows" or "columns"; "none" where there is none.
    touched : int
        Entries of the matrix that pushes and block solves have read.
    status : Status
        CERTIFIED: the bound is within what was asked for. LOCAL_DOES_NOT_PAY: it is too, by a global solve. BUDGET,
        INACCURATE: it is not, but holds. NO_CERTIFICATE: nothing is known.
    """

    value: Any
    bound: float
    kind: str
    touched: int
    status: Status
    query: Any = field(default=None, repr=False)

    @property
    def certified(self) -> bool:
        """Whether the bound is within what was asked for."""
        return self.status > 0

    def __repr__(self) -> str:
        return (
            f"Estimate(value={self.value!r}, bound={self.bound:.3g}, kind={self.kind!r}, touched={self.touched}, "
            f"status={self.status.name})"
        )
