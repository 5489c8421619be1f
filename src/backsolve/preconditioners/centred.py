"""A preconditioner for systems that determine x but for a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import AbstractPreconditioner, Prepared

__all__ = ["Centred"]


@dataclass(frozen=True)
class Centred(AbstractPreconditioner):
    """P M P, where P takes off the mean: keeps a Krylov method among vectors of mean zero.

    Parameters
    ----------
    M : preconditioner
    """

    M: Any

    name: ClassVar[str] = "centred"

    @property
    def hermitian(self) -> bool:  # type: ignore[override]
        """As M."""
        return self.M.hermitian

    @property
    def varying(self) -> bool:  # type: ignore[override]
        """As M."""
        return self.M.varying

    @property
    def traceable(self) -> bool:  # type: ignore[override]
        """As M."""
        return self.M.traceable

    def refuse(self, A: Any) -> str | None:
        """As M."""
        return self.M.refuse(A)

    def explain(self, A: Any) -> str:
        """What M is."""
        return f"{self.M.explain(A)}, without its mean"

    def prepare(self, A: Any) -> Prepared:
        """Make M."""
        xp, made = A.structure.xp, self.M.prepare(A)

        def centred(v: Any) -> Any:
            return v - xp.mean(v, axis=1, keepdims=True)

        prepared = Prepared(lambda v, adjoint: centred(made.apply(centred(v), adjoint)), made.broken, made.nbytes)
        prepared.observe = made.observe  # type: ignore[method-assign]
        return prepared
