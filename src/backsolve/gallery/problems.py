"""Named test problems, of any size, with declared properties and a dense truth made with NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..operators import CSR, coo

__all__ = ["PROPERTIES", "Problem", "names", "problem"]

PROPERTIES = {
    "symmetric": "A equals its transpose",
    "hermitian": "A equals its conjugate transpose",
    "positive_definite": "Hermitian with positive eigenvalues",
    "diagonally_dominant": "in each row the diagonal is no smaller in modulus than the sum of the others",
    "m_matrix": "off-diagonal entries are not positive and the inverse is not negative",
    "lower": "no entry lies above the diagonal",
    "upper": "no entry lies below the diagonal",
    "singular": "some vector other than zero is mapped to zero",
    "near_identity": "in each row of the identity minus A the moduli sum to at most 0.8",
    "ill_conditioned": "the condition number exceeds 1e8",
    "complex": "entries are complex",
    "nonfinite": "the right-hand side has a NaN",
}
"""What a problem may declare, and what each word means."""

_SPD = "symmetric hermitian positive_definite"
_LAPLACE = f"{_SPD} diagonally_dominant m_matrix"


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """A linear system A x = b of known nature.

    Attributes
    ----------
    name : str
        Its key in the gallery.
    A : CSR
        The matrix as a user might hand it over: possibly unsorted, or with repeated places.
    b : (n,) array
        The right-hand side, of the dtype of A.
    properties : frozenset of str
        Keys of `PROPERTIES` that hold; what is not declared does not hold, or is not known.
    rows, cols : (count,) integers
        Place of each of the values ``A.data``, in their order.
    """

    name: str
    A: CSR
    b: np.ndarray
    properties: frozenset[str]
    rows: np.ndarray
    cols: np.ndarray

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return self.A.shape[0]

    @property
    def assume(self) -> str:
        """The strongest true declaration that `solve` takes."""
        words = {"positive_definite": "spd", "lower": "lower", "upper": "upper", "hermitian": "her", "symmetric": "sym"}
        return next((word for held, word in words.items() if held in self.properties), "general")

    @property
    def solvable(self) -> bool:
        """Whether the system has exactly one finite solution."""
        return not self.properties & {"singular", "nonfinite"}

    def toarray(self) -> np.ndarray:
        """Return A as a dense array, summed from the triplets without the kernels of the package."""
        dense = np.zeros(self.A.shape, self.A.data.dtype)
        np.add.at(dense, (self.rows, self.cols), self.A.data)
        return dense

    def solution(self) -> np.ndarray:
        """Return x by dense elimination, rows scaled alike, refined once with an extended residual.

        Raises
        ------
        ValueError
            If the problem has no solution to compare with.
        """
        if not self.solvable:
            raise ValueError(f"problem {self.name!r} has no unique finite solution: it is here to be reported.")
        dense = self.toarray()
        scale = np.abs(dense).max(axis=1)
        x = np.linalg.solve(dense / scale[:, None], self.b / scale)
        residual = (self.b - dense.astype(np.result_type(dense, np.longdouble)) @ x).astype(dense.dtype)
        return x + np.linalg.solve(dense / scale[:, None], residual / scale)

    def __repr__(self) -> str:
        words = ", ".join(sorted(self.properties)) or "nothing declared"
        return f"Problem {self.name}: {self.n} unknowns, {len(self.rows)} values, {words}"


def names() -> tuple[str, ...]:
    """Return the names of all problems.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from backsolve import gallery
    >>> gallery.names()[:3]
    ('poisson2d', 'poisson3d', 'diffusion')
    """
    return tuple(_PROBLEMS)


def problem(name: str, n: int = 36, seed: int = 0) -> Problem:
    """Return a problem of the gallery.

    Parameters
    ----------
    name : str
        One of `names`.
    n : int, at least 1
        Number of unknowns wanted. Grids take the largest square or cube of no more than that, "1x1" is what it
        says, and problems that need more to show their nature have at least 4.
    seed : int
        Of the random right-hand side and coefficients: the same seed, the same numbers.

    Returns
    -------
    Problem

    Raises
    ------
    ValueError
        If the name is unknown or n is not positive.

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery
    >>> p = gallery.problem("saddle", 30)
    >>> bool(abs(bs.solve(p.A, p.b, assume=p.assume) - p.solution()).max() < 1e-12)
    True
    """
    if name not in _PROBLEMS:
        raise ValueError(f"problem: name must be one of {', '.join(map(repr, names()))}; got {name!r}.")
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"problem: n must be a positive integer; got {n!r}.")
    build, words = _PROBLEMS[name]
    rng = np.random.default_rng(seed)
    A, rows, cols, *rest = build(int(n), rng)
    size = A.shape[0]
    b = rest[0] if rest else rng.standard_normal(size) + (1j * rng.standard_normal(size) if "complex" in words else 0)
    return Problem(name, A, b.astype(A.data.dtype), frozenset(words.split()), rows, cols)


# Every builder takes (n, rng) and returns (A, rows, cols) or (A, rows, cols, b).
def _triplets(rows: Any, cols: Any, values: Any, n: int) -> tuple[CSR, np.ndarray, np.ndarray]:
    """Canonical: sorted, zeros dropped."""
    rows, cols, values = (np.concatenate(part) for part in (rows, cols, values))
    order = np.lexsort((cols, rows))
    order = order[values[order] != 0]
    rows, cols = rows[order], cols[order]
    return coo(values[order], (rows, cols), (n, n)), rows, cols


def _grid(n: int, dims: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of nodes of the largest cube of at most n, and all pairs of neighbours (before, after)."""
    side = next(s for s in range(round(n ** (1 / dims)) + 1, 0, -1) if s**dims <= n)
    nodes = np.arange(side**dims).reshape((side,) * dims)
    along = [np.moveaxis(nodes, axis, 0) for axis in range(dims)]
    return nodes.size, np.concatenate([a[:-1].ravel() for a in along]), np.concatenate([a[1:].ravel() for a in along])


def _stencil(n: int, dims: int, lower: Any, diagonal: Any, upper: Any):
    """A constant stencil: `lower` to the neighbour before, `upper` to the one after, zero boundary values."""
    size, here, there = _grid(n, dims)
    every, count = np.arange(size), here.size
    values = (np.full(count, lower), np.full(count, upper), np.full(size, diagonal))
    return _triplets((there, here, every), (here, there, every), values, size)


def _diffusion(n: int, rng: np.random.Generator):
    """-div(k grad u) by finite volumes: k log-normal per cell, harmonic means between cells, u = 0 outside."""
    size, here, there = _grid(n, 2)
    k = np.exp(2 * rng.standard_normal(size))
    flux = 2 * k[here] * k[there] / (k[here] + k[there])
    missing = 4 - np.bincount(here, minlength=size) - np.bincount(there, minlength=size)
    diagonal = 2 * k * missing
    diagonal += np.bincount(here, flux, size) + np.bincount(there, flux, size)
    every = np.arange(size)
    return _triplets((there, here, every), (here, there, every), (-flux, -flux, diagonal), size)


def _convection(n: int, rng: np.random.Generator, peclet: float = 20.0):
    """-Δu + c·∇u by upwind differences at a cell Péclet number of 20: far from symmetric."""
    return _stencil(n, 2, -1.0 - peclet, 4.0 + 2 * peclet, -1.0)


def _saddle(n: int, rng: np.random.Generator):
    """[[H, Bᵀ], [B, 0]] with H definite and B of full rank: no diagonal to pivot on in the last third."""
    m = max(n // 3, 1)
    size = max(n, 3 * m)
    first = np.arange(size - m)
    i, j = np.arange(m), 2 * np.arange(m)
    weight = 1 + rng.random(m)
    rows = (first, first[1:], first[:-1], size - m + i, size - m + i, j, j + 1)
    cols = (first, first[:-1], first[1:], j, j + 1, size - m + i, size - m + i)
    off = np.full(size - m - 1, -1.0)
    values = (np.full(size - m, 3.0), off, off, weight, -weight / 2, weight, -weight / 2)
    return _triplets(rows, cols, values, size)


def _indefinite(n: int, rng: np.random.Generator):
    """-u'' - s u with s between two eigenvalues 2 - 2 cos(jπ/(n+1)) of the first part."""
    n = max(n, 4)
    below, above = 2 - 2 * np.cos(np.pi * (n // 3 + np.arange(2)) / (n + 1))
    return _stencil(n, 1, -1.0, 2.0 - (below + above) / 2, -1.0)


def _floating(n: int, rng: np.random.Generator, ground: float = 0.0):
    """The graph Laplacian of a grid: constants are mapped to zero, or to `ground` times themselves."""
    size, here, there = _grid(max(n, 4), 2)
    every, off = np.arange(size), np.full(here.size, -1.0)
    degree = np.bincount(here, minlength=size) + np.bincount(there, minlength=size)
    return _triplets((there, here, every), (here, there, every), (off, off, degree + ground), size)


def _empty_row(n: int, rng: np.random.Generator):
    A, rows, cols = _convection(max(n, 4), rng)
    keep = rows != A.shape[0] // 2
    return coo(A.data[keep], (rows[keep], cols[keep]), A.shape), rows[keep], cols[keep]


def _unsorted(n: int, rng: np.random.Generator):
    """Columns of each row in descending order, as a CSR user may have them."""
    A, rows, cols = _convection(max(n, 4), rng)
    order = np.lexsort((-cols, rows))
    rows, cols = rows[order], cols[order]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=A.shape[0]))))
    return CSR(A.data[order], cols, indptr, A.shape), rows, cols


def _duplicates(n: int, rng: np.random.Generator):
    """Every entry in two parts of unlike size, in random order, as assembly by elements leaves them."""
    A, rows, cols = _convection(n, rng)
    part = rng.random(rows.size)
    order = rng.permutation(2 * rows.size)
    values = np.concatenate((part * A.data, (1 - part) * A.data))[order]
    rows, cols = np.tile(rows, 2)[order], np.tile(cols, 2)[order]
    return coo(values, (rows, cols), A.shape), rows, cols


def _badly_scaled(n: int, rng: np.random.Generator):
    """Rows and columns in units that differ by up to twelve orders of magnitude; b in the units of the rows."""
    A, rows, cols = _convection(max(n, 4), rng)
    size = A.shape[0]
    left, right = 10.0 ** rng.integers(-6, 7, size), 10.0 ** rng.integers(-6, 7, size)
    left[0], left[-1] = 1e-6, 1e6
    return coo(left[rows] * A.data * right[cols], (rows, cols), A.shape), rows, cols, left * rng.standard_normal(size)


def _contraction(n: int, rng: np.random.Generator, turn: complex = 1.0):
    """I - N: a walk to the next node and the seventh, which stops with probability 0.2; far from symmetric."""
    every = np.arange(n)
    share = 0.2 + 0.4 * rng.random(n)
    steps = {0: np.ones(n) + 0 * turn, 1: -turn * share, (7 if n > 7 else 2): -turn * (0.8 - share)}
    parts = [(every, (every + step) % n, value) for step, value in steps.items() if step < n]
    rows, cols, values = zip(*parts, strict=True)
    return _triplets(rows, cols, values, n)


def _half(word: str, build: Callable) -> Callable:
    """One triangle of another problem, its values in the same order."""

    def build_half(n: int, rng: np.random.Generator):
        A, rows, cols, *rest = build(n, rng)
        kept = rows >= cols if word == "lower" else rows <= cols
        return coo(A.data[kept], (rows[kept], cols[kept]), A.shape), rows[kept], cols[kept], *rest

    return build_half


def _with_rhs(b: float) -> Callable:
    def build(n: int, rng: np.random.Generator):
        A, rows, cols = _stencil(n, 2, -1.0, 4.0, -1.0)
        rhs = np.zeros(A.shape[0])
        rhs[-1] = b
        return A, rows, cols, rhs

    return build


_PROBLEMS: dict[str, tuple[Callable, str]] = {
    "poisson2d": (lambda n, rng: _stencil(n, 2, -1.0, 4.0, -1.0), _LAPLACE),
    "poisson3d": (lambda n, rng: _stencil(n, 3, -1.0, 6.0, -1.0), _LAPLACE),
    "diffusion": (_diffusion, _LAPLACE),
    "convection": (_convection, "diagonally_dominant m_matrix"),
    "saddle": (_saddle, "symmetric hermitian"),
    "indefinite": (_indefinite, "symmetric hermitian"),
    "singular": (_floating, "symmetric hermitian diagonally_dominant singular"),
    "nearly_singular": (lambda n, rng: _floating(n, rng, 1e-10), f"{_LAPLACE} ill_conditioned"),
    "zero_rhs": (_with_rhs(0.0), _LAPLACE),
    "nan_rhs": (_with_rhs(np.nan), f"{_LAPLACE} nonfinite"),
    "1x1": (lambda n, rng: _triplets(([0],), ([0],), ([-3.0],), 1), "symmetric hermitian diagonally_dominant"),
    "empty_row": (_empty_row, "singular"),
    "unsorted": (_unsorted, "diagonally_dominant m_matrix"),
    "duplicates": (_duplicates, "diagonally_dominant m_matrix"),
    "complex_symmetric": (lambda n, rng: _stencil(n, 2, -1.0, 3.0 + 0.5j, -1.0), "symmetric complex"),
    "hermitian": (
        lambda n, rng: _stencil(n, 2, -np.exp(0.7j), 4.5 + 0j, -np.exp(-0.7j)),
        "hermitian positive_definite diagonally_dominant complex",
    ),
    "contraction": (_contraction, "near_identity diagonally_dominant m_matrix"),
    "complex_contraction": (
        lambda n, rng: _contraction(n, rng, np.exp(1j)),
        "near_identity diagonally_dominant complex",
    ),
    "contraction_nan": (
        lambda n, rng: (*_contraction(n, rng), np.full(n, np.nan)),
        "near_identity diagonally_dominant m_matrix nonfinite",
    ),
    "lower_contraction": (_half("lower", _contraction), "lower near_identity diagonally_dominant m_matrix"),
    "upper_contraction": (_half("upper", _contraction), "upper near_identity diagonally_dominant m_matrix"),
    "upper_complex_contraction": (
        _half("upper", lambda n, rng: _contraction(n, rng, np.exp(1j))),
        "upper near_identity diagonally_dominant complex",
    ),
    "badly_scaled": (_badly_scaled, "ill_conditioned"),
    "lower_convection": (_half("lower", _convection), "lower diagonally_dominant m_matrix"),
    "upper_diffusion": (_half("upper", _diffusion), "upper diagonally_dominant m_matrix"),
    "lower_unsorted": (_half("lower", _unsorted), "lower diagonally_dominant m_matrix"),
    "upper_duplicates": (_half("upper", _duplicates), "upper diagonally_dominant m_matrix"),
    "upper_badly_scaled": (_half("upper", _badly_scaled), "upper ill_conditioned"),
    "lower_complex": (_half("lower", lambda n, rng: _stencil(n, 2, -1.0, 3.0 + 0.5j, -1.0)), "lower complex"),
    "lower_saddle": (_half("lower", _saddle), "lower singular"),
    "upper_nan_rhs": (_half("upper", _with_rhs(np.nan)), "upper diagonally_dominant m_matrix nonfinite"),
}
