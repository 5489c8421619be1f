"""A family of kernel matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .families import Family, at_least, between
from .problems import _SPD

__all__ = ["Kernel"]


@dataclass(frozen=True)
class Kernel(Family):
    """K + noise I with K_ij = exp(-|x_i - x_j|² / (2 l²)), the covariance of a Gaussian process: few large eigenvalues.

    Points are uniform in the unit cube and the same for every seed, unless `moving`; l varies with the seed. Every
    place is stored.

    Parameters
    ----------
    n : int
        Points.
    dims : int
    length : float
        Median of l.
    spread : float
        Standard deviation of log l.
    noise : float
        Added to the diagonal: the smallest eigenvalue, nearly.
    moving : bool
        Whether every seed has points of its own.
    """

    n: int = 300
    dims: int = 2
    length: float = 0.5
    spread: float = 0.1
    noise: float = 1e-3
    moving: bool = False

    name: ClassVar[str] = "kernel"
    words: ClassVar[str] = _SPD

    def __post_init__(self):
        at_least(self, 1, n=self.n, dims=self.dims)
        between(self, 1e-6, 1e6, length=self.length)
        between(self, 0, 5, spread=self.spread)
        between(self, 1e-12, 1e6, noise=self.noise)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        points = (rng if self.moving else np.random.default_rng(0)).random((self.n, self.dims))
        length = self.length * np.exp(self.spread * rng.standard_normal())
        square = np.sum((points[:, None] - points[None]) ** 2, axis=-1)
        K = np.exp(-square / (2 * length**2)) + self.noise * np.eye(self.n)
        indices = np.tile(np.arange(self.n, dtype=np.int32), self.n)
        indptr = self.n * np.arange(self.n + 1, dtype=np.int32)
        return sp.csr_array((K.ravel(), indices, indptr), shape=(self.n, self.n))
