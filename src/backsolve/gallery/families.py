"""What families of random problems share."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..operators import CSR
from .problems import Problem

__all__ = ["Family", "at_least", "between", "scattered_field"]


@dataclass(frozen=True)
class Family:
    """Random systems of one kind: ``family(seed)`` is a `Problem`, the same for the same seed.

    The options are fields, so `dataclasses.replace` makes the same family of another size or roughness: what learned
    solvers are held against out of distribution. Right-hand sides are standard normal.
    """

    name: ClassVar[str] = "family"
    words: ClassVar[str] = ""
    """Properties of every member, see `PROPERTIES`."""

    def matrix(self, rng: np.random.Generator) -> Any:
        """A random matrix of the family, a canonical ``scipy.sparse.csr_array``."""
        raise NotImplementedError

    def __call__(self, seed: int) -> Problem:
        """Return the system of a seed.

        Parameters
        ----------
        seed : int, at least 0

        Returns
        -------
        Problem

        Raises
        ------
        TypeError
            If seed is not an integer.
        """
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            raise TypeError(f"{type(self).__name__}: seed must be an integer; got {describe(seed)}.")
        rng = np.random.default_rng(seed)
        A = self.matrix(rng)
        b = rng.standard_normal(A.shape[0])
        operator = CSR(A.data, A.indices, A.indptr, A.shape)
        rows = np.repeat(np.arange(A.shape[0], dtype=A.indices.dtype), np.diff(A.indptr))
        return Problem(self.name, operator, b, frozenset(self.words.split()), rows, A.indices)


def at_least(owner: Any, least: int, **integers: Any) -> None:
    """Raise unless all are integers of at least `least`."""
    for name, value in integers.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(
                f"{type(owner).__name__}: {name} must be an integer of at least {least}; got {describe(value)}."
            )


def between(owner: Any, low: float, high: float, **numbers: Any) -> None:
    """Raise unless all are finite numbers with low <= value <= high."""
    for name, value in numbers.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not low <= float(value) <= high:
            raise ValueError(
                f"{type(owner).__name__}: {name} must be a number between {low:g} and {high:g}; got {describe(value)}."
            )


def scattered_field(points: np.ndarray, correlation: float, rng: np.random.Generator, waves: int = 256) -> np.ndarray:
    """A random field of mean 0, variance 1 and covariance exp(-r² / (2 correlation²)) at points (n, dims): (n,).

    A sum of plane waves whose wave vectors have the density of that covariance's Fourier transform; Gaussian as their
    number grows (Rahimi and Recht 2007).
    """
    vectors = rng.standard_normal((points.shape[1], waves)) / correlation
    phases = rng.uniform(0, 2 * np.pi, waves)
    return np.sqrt(2 / waves) * np.cos(points @ vectors + phases) @ rng.standard_normal(waves)
