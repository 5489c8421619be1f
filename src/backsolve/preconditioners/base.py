"""What every preconditioner is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from array_api_compat import is_jax_namespace

__all__ = ["AbstractPreconditioner", "Prepared", "diagonal_of", "faults"]


class Prepared:
    """A preconditioner for one set of values: what `AbstractPreconditioner.prepare` returns.

    Parameters
    ----------
    apply : callable
        (v, adjoint) -> M v or Mᴴ v, for v (batch, n, k).
    broken : dict, optional
        Items of the batch for which there is no preconditioner, and a sentence that says why; in a program that is
        traced, a mask (batch,) of them.
    nbytes : int, optional
        Memory that it holds.
    """

    def __init__(self, apply: Callable, broken: Any = None, nbytes: int = 0):
        self.apply, self.broken, self.nbytes = apply, {} if broken is None else broken, nbytes

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


def faults(structure: Any, lost: Any, sentence: Callable[[int], str]) -> Any:
    """What `Prepared` takes as `broken`, for a mask (batch,) of items that are."""
    if is_jax_namespace(structure.xp):
        return lost
    return {int(item): sentence(int(item)) for item in np.flatnonzero(structure.to_numpy(lost))}


def diagonal_of(A: Any) -> tuple[Any, Any]:
    """The diagonals (batch, n, 1), 1 where they are zero or not stored, and the faults of items where one is."""
    structure, xp = A.structure, A.structure.xp
    if structure.kind == "dense":
        d = xp.linalg.diagonal(A.data)
    else:
        places = structure.diagonal
        d = xp.where(places >= 0, A.data[:, places], 0)
    zero = d == 0
    broken = faults(
        structure,
        xp.any(zero, axis=1),
        lambda item: f"the diagonal entry of row {int(xp.argmax(zero[item] * 1))} is zero or not stored",
    )
    return xp.where(d == 0, xp.ones_like(d), d)[..., None], broken
