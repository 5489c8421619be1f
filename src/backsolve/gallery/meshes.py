"""Families of finite element matrices on triangles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .families import Family, at_least, between, scattered_field
from .grids import _assembled
from .problems import _SPD

__all__ = ["Elasticity", "P1Mesh", "gradients", "unstructured"]


def unstructured(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A Delaunay mesh of the unit square: points (n, 2), triangles (m, 3), and which points lie on the boundary (n,).

    Inner points are those of a grid of `side` a side, moved by up to 0.45 of its spacing at random.
    """
    from scipy.spatial import Delaunay

    at = np.linspace(0, 1, side + 2)
    y, x = np.meshgrid(at, at, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    edge = (points == 0).any(axis=1) | (points == 1).any(axis=1)
    points[~edge] += rng.uniform(-0.45, 0.45, (int((~edge).sum()), 2)) / (side + 1)
    triangles = Delaunay(points).simplices
    flat = np.abs(gradients(points, triangles)[1]) < 1e-12  # three points of one side
    return points, triangles[~flat], edge


def gradients(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (m, 3, 2) of the three linear functions of each triangle, and signed areas (m,)."""
    p = points[triangles]
    u, v = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    twice = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    opposite = p[:, [2, 0, 1]] - p[:, [1, 2, 0]]  # the side against each corner, in order around the triangle
    turned = np.stack([-opposite[..., 1], opposite[..., 0]], axis=-1)
    return turned / np.where(twice == 0, 1, twice)[:, None, None], twice / 2


@dataclass(frozen=True)
class P1Mesh(Family):
    """-div(k grad u) by linear elements on an unstructured mesh of the unit square, k = exp(sigma g) by triangles.

    Every seed has its own Delaunay mesh; u = 0 on the boundary, whose nodes are left out: side² unknowns.

    Parameters
    ----------
    side : int
        The square root of the number of unknowns.
    sigma, correlation : float
        Of log k, as for `Diffusion`.
    """

    side: int = 32
    sigma: float = 1.0
    correlation: float = 0.1

    name: ClassVar[str] = "p1_mesh"
    words: ClassVar[str] = _SPD

    def __post_init__(self):
        at_least(self, 2, side=self.side)
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-6, 1e3, correlation=self.correlation)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        points, triangles, edge = unstructured(self.side, rng)
        k = np.exp(self.sigma * scattered_field(points[triangles].mean(axis=1), self.correlation, rng))
        slopes, areas = gradients(points, triangles)
        elements = (k * np.abs(areas))[:, None, None] * (slopes @ slopes.transpose(0, 2, 1))
        inner = np.where(edge, -1, np.cumsum(~edge) - 1)
        return _assembled(elements, inner[triangles], int((~edge).sum()))


@dataclass(frozen=True)
class Elasticity(Family):
    """Plane strain by linear elements on a square that is held at its left side; two unknowns a node, side by side.

    Young's modulus is exp(sigma g) by triangles, Poisson's ratio `poisson`; 2 side (side + 1) unknowns on a regular
    mesh.

    Parameters
    ----------
    side : int
        Squares on a side, of two triangles each.
    poisson : float
        Below 0.5; near to it the material hardly changes its volume, and linear elements lock.
    sigma, correlation : float
        Of log E, as for `Diffusion`.
    """

    side: int = 24
    poisson: float = 0.3
    sigma: float = 1.0
    correlation: float = 0.1

    name: ClassVar[str] = "elasticity"
    words: ClassVar[str] = _SPD

    def __post_init__(self):
        at_least(self, 2, side=self.side)
        between(self, -0.9, 0.4999, poisson=self.poisson)
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-6, 1e3, correlation=self.correlation)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        s = self.side
        at = np.linspace(0, 1, s + 1)
        y, x = np.meshgrid(at, at, indexing="ij")
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        nodes = np.arange((s + 1) ** 2).reshape(s + 1, s + 1)
        a, b, c, d = nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, :-1], nodes[1:, 1:]
        triangles = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, d), (a, d, c))])
        young = np.exp(self.sigma * scattered_field(points[triangles].mean(axis=1), self.correlation, rng))
        slopes, areas = gradients(points, triangles)
        # strains (xx, yy, 2 xy) of the six unknowns of a triangle
        B = np.zeros((len(triangles), 3, 6))
        B[:, 0, 0::2], B[:, 1, 1::2] = slopes[..., 0], slopes[..., 1]
        B[:, 2, 0::2], B[:, 2, 1::2] = slopes[..., 1], slopes[..., 0]
        nu = self.poisson
        law = np.array([[1 - nu, nu, 0], [nu, 1 - nu, 0], [0, 0, 0.5 - nu]]) / ((1 + nu) * (1 - 2 * nu))
        stiffness = B.transpose(0, 2, 1) @ law @ B
        stiffness = (stiffness + stiffness.transpose(0, 2, 1)) / 2  # symmetric to the last bit
        elements = (young * np.abs(areas))[:, None, None] * stiffness
        free = np.where(points[:, 0] == 0, -1, np.cumsum(points[:, 0] > 0) - 1)
        pairs = np.where(free[:, None] < 0, -1, 2 * free[:, None] + np.arange(2))
        return _assembled(elements, pairs[triangles].reshape(-1, 6), 2 * s * (s + 1))
