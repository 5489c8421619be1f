"""Families of discretized equations on uniform grids of the unit square and cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .families import Family, at_least, between
from .problems import _LAPLACE, _SPD

__all__ = ["Anisotropic", "ConvectionDiffusion", "Diffusion", "periodic_field"]


def periodic_field(shape: tuple[int, ...], correlation: float, rng: np.random.Generator) -> np.ndarray:
    """A periodic Gaussian field of unit variance and covariance exp(-r² / (2 correlation²)) on a grid."""
    square = np.zeros(())
    for side in shape:
        at = np.minimum(np.arange(side), side - np.arange(side)) / side
        square = square[..., None] + at**2
    spectrum = np.fft.fftn(np.exp(-square / (2 * correlation**2))).real.clip(0)
    return np.fft.ifftn(np.sqrt(spectrum) * np.fft.fftn(rng.standard_normal(shape))).real


def _along(axis: int, part: slice | int) -> tuple:
    return (slice(None),) * axis + (part,)


def _volumes(k: np.ndarray, flow: list[np.ndarray] | None = None) -> sp.csr_array:
    """-div(k grad u - c u) by finite volumes, k at cells, u = 0 on the boundary, half a cell away.

    Fluxes have harmonic means of k. `flow` has, for each axis, the integrals of c over the inner faces, which are
    upwinded; no flow through the boundary. Entries are those of the integrals over cells, divided by h^(dims - 2).
    """
    cells = np.arange(k.size, dtype=np.int32).reshape(k.shape)
    diagonal, entries = np.zeros(k.shape), []
    for axis in range(k.ndim):
        here, there = _along(axis, slice(None, -1)), _along(axis, slice(1, None))
        flux = 2 * k[here] * k[there] / (k[here] + k[there])
        c = np.zeros_like(flux) if flow is None else flow[axis]
        forth, back = flux + np.maximum(c, 0), flux + np.maximum(-c, 0)  # what leaves here, and what leaves there
        diagonal[here] += forth
        diagonal[there] += back
        entries += [(cells[here], cells[there], -back), (cells[there], cells[here], -forth)]
        for edge in (0, -1):
            diagonal[_along(axis, edge)] += 2 * k[_along(axis, edge)]
    entries.append((cells, cells, diagonal))
    rows, columns, values = (np.concatenate([e[i].ravel() for e in entries]) for i in range(3))
    return _canonical(values, rows, columns, k.size)


def _canonical(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, n: int) -> sp.csr_array:
    A = sp.csr_array((values, (rows, columns)), shape=(n, n))
    A.sum_duplicates()
    A.sort_indices()
    return A


@dataclass(frozen=True)
class Diffusion(Family):
    """-div(k grad u) with a log-normal k = exp(sigma g) on the unit square or cube, by cell-centred finite volumes.

    g is a periodic Gaussian field of unit variance and covariance exp(-r² / (2 correlation²)); fluxes have harmonic
    means of k, and u = 0 on the boundary. The model problem of porous media, with side**dims unknowns.

    Parameters
    ----------
    side : int
        Cells on a side.
    dims : {2, 3}
    sigma : float
        Standard deviation of log k: k varies by e^(4 sigma) or so.
    correlation : float
        Length over which k varies, of a domain of length 1.

    Examples
    --------
    >>> from backsolve import gallery
    >>> gallery.Diffusion(side=6, dims=3)(seed=0).n
    216
    """

    side: int = 64
    dims: int = 2
    sigma: float = 1.0
    correlation: float = 0.1

    name: ClassVar[str] = "diffusion"
    words: ClassVar[str] = _LAPLACE

    def __post_init__(self):
        at_least(self, 2, side=self.side, dims=self.dims)
        between(self, 2, 3, dims=self.dims)
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-6, 1e3, correlation=self.correlation)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        return _volumes(np.exp(self.sigma * periodic_field((self.side,) * self.dims, self.correlation, rng)))


@dataclass(frozen=True)
class Anisotropic(Family):
    """-div(k R diag(1, epsilon) Rᵀ grad u) on the unit square by bilinear elements, k = exp(sigma g) on each element.

    R turns by theta. u = 0 on the boundary, whose nodes are left out: (side - 1)² unknowns in stencils of nine points,
    with entries of both signs.

    Parameters
    ----------
    side : int
        Elements on a side.
    epsilon : float
        Ratio of the two conductivities; 1 is isotropic.
    theta : float
        Angle of the larger one to the direction in which neighbours are numbered.
    sigma, correlation : float
        As for `Diffusion`.
    """

    side: int = 64
    epsilon: float = 0.01
    theta: float = 0.0
    sigma: float = 0.0
    correlation: float = 0.1

    name: ClassVar[str] = "anisotropic"
    words: ClassVar[str] = _SPD

    def __post_init__(self):
        at_least(self, 2, side=self.side)
        between(self, 1e-12, 1, epsilon=self.epsilon)
        between(self, -10, 10, theta=self.theta)
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-6, 1e3, correlation=self.correlation)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        s = self.side
        k = np.exp(self.sigma * periodic_field((s, s), self.correlation, rng)).ravel()
        turn = np.array([[np.cos(self.theta), -np.sin(self.theta)], [np.sin(self.theta), np.cos(self.theta)]])
        element = bilinear_stiffness(turn @ np.diag([1.0, self.epsilon]) @ turn.T)
        nodes = np.arange((s + 1) ** 2).reshape(s + 1, s + 1)
        corners = np.stack([nodes[i : s + i, j : s + j].ravel() for i in (0, 1) for j in (0, 1)], axis=1)
        inner = np.full((s + 1, s + 1), -1)
        inner[1:-1, 1:-1] = np.arange((s - 1) ** 2).reshape(s - 1, s - 1)
        return _assembled(k[:, None, None] * element, inner.ravel()[corners], (s - 1) ** 2)


def bilinear_stiffness(K: np.ndarray) -> np.ndarray:
    """∫ ∇φ_iᵀ K ∇φ_j over a square, K in the order (x, y); corners (y, x) = 00, 01, 10, 11: (4, 4)."""
    at = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)  # Gauss' two points, exact for products of gradients
    sign, total = np.array([-1.0, 1.0]), np.zeros((4, 4))
    for y in at:
        for x in at:
            wy, wx = np.array([1 - y, y]), np.array([1 - x, x])
            gradient = np.stack([np.outer(wy, sign).ravel(), np.outer(sign, wx).ravel()])
            total += gradient.T @ K @ gradient / 4
    return (total + total.T) / 2  # symmetric to the last bit


def _assembled(elements: np.ndarray, unknowns: np.ndarray, n: int) -> sp.csr_array:
    """The sum of element matrices (count, m, m), whose unknowns (count, m) are -1 where they are given as zero."""
    m = unknowns.shape[1]
    rows, columns = np.repeat(unknowns, m, axis=1).ravel(), np.tile(unknowns, (1, m)).ravel()
    kept = (rows >= 0) & (columns >= 0)
    values = elements.reshape(len(elements), -1).ravel()
    return _canonical(values[kept], rows[kept].astype(np.int32), columns[kept].astype(np.int32), n)


@dataclass(frozen=True)
class ConvectionDiffusion(Family):
    """-div(k grad u) + c·grad u on the unit square by finite volumes, upwinded; c is random, without sources.

    c is the curl of a Gaussian stream function, scaled so that its root mean square over faces is `peclet` times the
    flux of diffusion between two cells: far from symmetric above 1. No flow through the boundary, where u = 0.

    Parameters
    ----------
    side : int
        Cells on a side.
    peclet : float
        Of a cell.
    sigma, correlation : float
        Of k, as for `Diffusion`; the stream function has the same correlation.
    """

    side: int = 64
    peclet: float = 5.0
    sigma: float = 0.0
    correlation: float = 0.1

    name: ClassVar[str] = "convection_diffusion"
    words: ClassVar[str] = "m_matrix"

    def __post_init__(self):
        at_least(self, 2, side=self.side)
        between(self, 0, 1e6, peclet=self.peclet)
        between(self, 0, 20, sigma=self.sigma)
        between(self, 1e-6, 1e3, correlation=self.correlation)

    def matrix(self, rng: np.random.Generator) -> sp.csr_array:
        """See `Family`."""
        s = self.side
        k = np.exp(self.sigma * periodic_field((s, s), self.correlation, rng))
        # The flow through a face is the difference of the stream function at its ends: what enters a cell leaves it.
        stream = np.zeros((s + 1, s + 1))
        stream[1:-1, 1:-1] = periodic_field((s, s), self.correlation, rng)[1:, 1:]
        down, right = np.diff(stream, axis=1)[1:-1], -np.diff(stream, axis=0)[:, 1:-1]
        size = np.sqrt((np.sum(down**2) + np.sum(right**2)) / (down.size + right.size))
        scale = self.peclet / size if size else 0.0
        return _volumes(k, [scale * down, scale * right])
