"""Sparse direct engines outside SciPy: methods that another package must bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..status import Status
from .direct import DirectMethod
from .screening import storage_refusal

__all__ = ["EngineError", "SparseEngine"]


class EngineError(Exception):
    """What an engine said of a matrix that it could not factor."""

    def __init__(self, status: Status, detail: str):
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class SparseEngine(DirectMethod):
    """Base of the methods whose engine is another package."""

    package: ClassVar[str] = ""
    """What pip installs."""

    def refuse(self, A: Any) -> str | None:
        """Engines take sparse matrices with int32 indices."""
        return storage_refusal(A)
