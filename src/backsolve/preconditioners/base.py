"""What every preconditioner is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

__all__ = ["AbstractPreconditioner", "Prepared", "diagonal_of"]


class Prepared:
    """A preconditioner for one set of values: what `AbstractPreconditioner.prepare` returns.

    Parameters
    ----------
    apply : callable
        (v, adjoint) -> M v or Mᴴ v, for v (batch, n, k).
    broken : dict, optional
        Items of the batch for which there is no preconditioner, and a sentence that says why.
    nbytes : int, optional
        Memory that it holds.
    """

    def __init__(self, apply: Callable, broken: dict[int, str] | None = None, nbytes: int = 0):
        self.apply, self.broken, self.nbytes = apply, broken or {}, nbytes

    def observe(self, iterations: int) -> None:
        """How many iterations a solve took: for those that decide by it when to be made anew."""


class AbstractPreconditioner:
    """M ≈ A⁻¹: a frozen dataclass of options, from which `prepare` makes M for the values of one A.

    Convergence depends on M, the solution and its derivatives never do. A backward solve uses Mᴴ.
    """

    name: ClassVar[str] = "preconditioner"
    varying: ClassVar[bool] = False
    """Whether M may differ from one application to the next: then only flexible methods take it."""
    traceable: ClassVar[bool] = False
    """Whether M is made without a look at any number, so that a compiled loop can have it."""
    hermitian: ClassVar[bool] = False
    """Whether M is Hermitian positive definite for every such A."""

    def __str__(self) -> str:
        given = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if callable(value) or hasattr(value, "shape"):
                given.append(f"{f.name}=...")
            elif value != f.default:
                given.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(given)})"

    def refuse(self, A: Any) -> str | None:
        """Why there is no such M for this A, as the end of a sentence; None if there is."""
        return None

    def explain(self, A: Any) -> str:
        """What M is, in a few words."""
        raise NotImplementedError

    def prepare(self, A: Any) -> Prepared:
        """Make M for plain data with one batch axis."""
        raise NotImplementedError


def diagonal_of(A: Any) -> tuple[Any, dict[int, str]]:
    """The diagonals (batch, n, 1), 1 where they are zero or not stored, and a sentence for each item where one is."""
    structure, xp = A.structure, A.structure.xp
    if structure.kind == "dense":
        d = xp.linalg.diagonal(A.data)
    else:
        places = structure.diagonal
        d = np.where(places >= 0, A.data[:, places], 0)
    zero = structure.to_numpy(d == 0)
    broken = {
        int(item): f"the diagonal entry of row {int(np.argmax(zero[item]))} is zero or not stored"
        for item in np.flatnonzero(zero.any(axis=1))
    }
    return xp.where(d == 0, xp.ones_like(d), d)[..., None], broken
