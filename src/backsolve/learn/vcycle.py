"""A V-cycle whose weights are given, as a preconditioner: what a trained one is exported to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from .cycle_weights import HAND_SET, LARGEST_SCALE, allowed
from .grid_layout import grid_of, layout_of
from .hierarchy import cycle_in_place, grid_levels, matrix_levels
from .stencil import Stencil

__all__ = ["VCycle"]

HIERARCHIES = ("auto", "grid", "smoothed_aggregation", "ruge_stuben")


@dataclass(frozen=True)
class VCycle(AbstractPreconditioner):
    """One V-cycle of multigrid with two smoothing weights and a coarse scale for each level; framework-free.

    On each level x is smoothed with weights a and b, corrected by `scale` times the cycle of the next level, and
    smoothed with b and a: four products with its matrix. Rows of coarse matrices of a grid have 25 entries in two
    dimensions, so beside a five-point A a cycle costs about eleven products with it. Symmetric positive definite for
    all weights that it takes, and every symmetric positive definite A.

    Parameters
    ----------
    weights : tuple of (a, b, scale), optional
        From the finest level down; the last ones serve for all levels that follow. 1/a + 1/b > 2, (a - b)² < 4 a b,
        and scale between e^-3 and e^3. By default Jacobi smoothing with 0.8, twice, set by hand.
    hierarchy : {"auto", "grid", "smoothed_aggregation", "ruge_stuben"}
        Where the coarser levels come from: the grid whose neighbours A joins (in 1 to 3 dimensions, diagonal
        neighbours too), or pyamg. "auto" takes the grid if there is one, else "smoothed_aggregation".
    grid : tuple of int, optional
        Points along each axis, the last one numbered first, at least 3 along each but the first; found from the pattern
        of A if not given.

    Notes
    -----
    *Requires* a real symmetric sparse A. On grids points are taken together by twos along each axis, interpolation is
    linear, and coarse matrices are Galerkin's, made by slicing; the grid is found from the pattern, once. In three
    dimensions rows of coarse matrices have 125 entries, and set-up takes as long as a few cycles.

    References
    ----------
    Briggs, Henson and McCormick 2000, A Multigrid Tutorial, 2nd edition; Trottenberg, Oosterlee and Schüller 2001,
    Multigrid.

    Examples
    --------
    >>> from backsolve import gallery, learn, solve_with_info
    >>> p = gallery.Diffusion(side=32)(seed=0)
    >>> int(solve_with_info(p.A, p.b, method="cg", M=learn.VCycle()).stats.iterations) < 12
    True
    """

    weights: tuple[tuple[float, float, float], ...] = (HAND_SET,)
    hierarchy: str = "auto"
    grid: tuple[int, ...] | None = None

    name: ClassVar[str] = "v_cycle"
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        weights = _triples(self.weights)
        good = allowed(*weights.T)
        if not good.all():
            level = int(np.argmin(good))
            raise ValueError(
                f"VCycle: weights must have 1/a + 1/b > 2, (a - b)² < 4 a b and |log scale| <= {LARGEST_SCALE:g}, or M "
                f"would not be positive definite; those of level {level} are {tuple(map(float, weights[level]))}."
            )
        object.__setattr__(self, "weights", tuple((a, b, scale) for a, b, scale in weights.tolist()))
        if self.hierarchy not in HIERARCHIES:
            known = ", ".join(map(repr, HIERARCHIES))
            raise ValueError(f"VCycle: hierarchy must be one of {known}; got {describe(self.hierarchy)}.")
        if self.grid is not None:
            grid = self.grid
            if not isinstance(grid, tuple) or not 1 <= len(grid) <= 3 or not all(isinstance(n, int) for n in grid):
                raise ValueError(f"VCycle: grid must be a tuple of one to three integers; got {describe(grid)}.")
            if self.hierarchy not in ("auto", "grid"):
                raise ValueError(f"VCycle: grid is for hierarchy 'grid'; got hierarchy {self.hierarchy!r}.")

    def refuse(self, A: Any) -> str | None:
        """It needs a real sparse A, symmetric in its pattern, and a grid if that is asked for."""
        if A.structure.kind != "csr":
            return "is for sparse A: give A as a scipy.sparse array or backsolve.CSR"
        if "complex" in str(A.data.dtype):
            return "is for real A: use 'amg'"
        if A.structure.symmetry < 1:
            return "is for symmetric A: use 'amg' or 'ilu0'"
        if (self.grid is not None or self.hierarchy == "grid") and layout_of(A.structure, self.grid) is None:
            shown = "no grid" if self.grid is None else f"grid={self.grid}, which is none"
            return f"has {shown} whose neighbours A joins: use hierarchy='smoothed_aggregation'"
        return None

    def explain(self, A: Any) -> str:
        """Where its levels come from."""
        kind = self.kind(A.structure)
        return f"a V cycle with {len(self.weights)} sets of weights, levels by {kind.replace('_', ' ')}"

    def kind(self, pattern: Any) -> str:
        """Where the levels of matrices on a pattern come from."""
        if self.hierarchy != "auto":
            return self.hierarchy
        return "grid" if self.grid is not None or grid_of(pattern) is not None else "smoothed_aggregation"

    def prepare(self, A: Any) -> Prepared:
        """Make the levels."""
        levels, broken = levels_of(A.structure, A.data, self.kind(A.structure), self.grid)
        weights, batch = self.weights, A.data.shape[0]

        def apply(v: np.ndarray, adjoint: bool) -> np.ndarray:
            z = np.empty_like(v)
            for column in range(v.shape[2]):
                r = np.ascontiguousarray(v[:, :, column])
                if len(levels) == 1:
                    z[:, :, column] = cycle_in_place(levels[0], weights, r.reshape(-1)).reshape(batch, -1)
                else:
                    for item, own in enumerate(levels):
                        z[item, :, column] = cycle_in_place(own, weights, r[item])
            return z

        return Prepared(apply, broken, sum(level.nbytes for own in levels for level in own))


def _triples(weights: Any) -> np.ndarray:
    try:
        found: Any = np.asarray(weights, float)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim != 2 or found.shape[-1] != 3 or not len(found):
        raise ValueError(f"VCycle: weights must be triples (a, b, scale); got {describe(weights)}.")
    return found


def levels_of(pattern: Any, data: np.ndarray, kind: str, grid: Any = None) -> tuple[list[list[Any]], dict[int, str]]:
    """Levels of a batch, all in one where they are of a grid, else for each item; and items that have none, and why."""
    if kind == "grid":
        A: Any = Stencil.of(pattern, data, grid)  # there is one, or A was refused
        gaps = A.asymmetry()
        levels = [grid_levels(A)]
        lowest = levels[0][-1].lowest
    else:
        gaps = np.abs(data - data[:, pattern.t_slot]).max(axis=1, initial=0.0)
        levels = [
            matrix_levels(sp.csr_array((d, np.array(pattern.indices), np.array(pattern.indptr)), pattern.shape), kind)
            for d in data
        ]
        lowest = np.array([own[-1].lowest[0] for own in levels])
    broken, sizes = {}, np.abs(data).max(axis=1, initial=0.0)
    for item in range(len(data)):
        if gaps[item] > 1e3 * np.finfo(data.dtype).eps * sizes[item]:
            broken[item] = f"VCycle: A must be symmetric; A - Aᵀ has an entry of {gaps[item]:.1e}: use 'ilu0' or 'amg'"
        elif lowest[item] < -1e-10:
            broken[item] = "VCycle: A must be positive definite; on the coarsest level it is not: use 'ilu0' or 'amg'"
    return levels, broken
