"""Sparse direct engines outside SciPy: methods that another package must bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..status import Status
from .direct import DirectMethod
from .factors import Factors
from .screening import structural_deficiency, why_indefinite

__all__ = ["EngineError", "SparseEngine", "screened"]


class EngineError(Exception):
    """What an engine said of a matrix that it could not factor."""

    def __init__(self, status: Status, detail: str):
        super().__init__(detail)
        self.status, self.detail = status, detail


def screened(A: Any, usable: np.ndarray, factors: Factors) -> list[int]:
    """The usable items against which nothing is found in O(nnz); what is found is noted in `factors`."""
    items: list[int] = []
    deficiency = structural_deficiency(A.structure)
    for item in np.flatnonzero(usable).tolist():
        place = A.structure.not_definite(A.data[item]) if A.assumed == "spd" else None
        if deficiency:
            factors.fail(item, Status.SINGULAR, deficiency)
        elif place is not None:
            factors.fail(item, Status.INDEFINITE, why_indefinite(A, item, *place))
        else:
            items.append(item)
    return items


@dataclass(frozen=True)
class SparseEngine(DirectMethod):
    """Base of the methods whose engine is another package."""

    package: ClassVar[str] = ""
    """What pip installs."""

    def refuse(self, A: Any) -> str | None:
        """Engines take sparse matrices with int32 indices."""
        if A.structure.kind != "csr":
            return "takes sparse matrices only: use method='lu' for a dense one"
        if A.structure.indices.dtype != np.int32:
            return (
                "uses int32 indices, and those of this matrix are int64: it takes fewer than 2³¹ entries, "
                "on a Pattern that was not made with index_dtype='int64'"
            )
        return None
