"""Algebraic multigrid; the hierarchy is pyamg's."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from .base import AbstractPreconditioner, Prepared

__all__ = ["AMG"]

_KINDS = ("smoothed_aggregation", "ruge_stuben")
_SETUP = threading.Lock()


@dataclass(frozen=True, eq=False)
class AMG(AbstractPreconditioner):
    """One cycle of algebraic multigrid, for large sparse A that come from elliptic problems.

    Set-up costs some tens of products with A, a cycle about ten, and the iterations hardly grow with the size of the
    problem. Where A is not Hermitian, backward solves have a hierarchy of their own, made from Aᴴ at first use.

    Parameters
    ----------
    kind : {"smoothed_aggregation", "ruge_stuben"}
        Ruge and Stüben's is for real A with one unknown at each node, and often the quicker one there.
    near_nullspace : array (n, m), optional
        Vectors that A nearly maps to zero, such as the rigid motions in elasticity; constants by default.
        "smoothed_aggregation" only.
    cycle : {"V", "W", "F"}

    Notes
    -----
    Hermitian positive definite if A is. Two `AMG` objects are equal only if they are the same.

    References
    ----------
    Vaněk, Mandel and Brezina 1996, doi:10.1007/BF02238511; Ruge and Stüben 1987, doi:10.1137/1.9781611971057.ch4;
    Bell, Olson, Schroder and Southworth 2023, doi:10.21105/joss.05495.

    Examples
    --------
    >>> from backsolve import gallery, solve_with_info
    >>> p = gallery.problem("poisson2d", 10_000)
    >>> [int(solve_with_info(p.A, p.b, method="cg", M=M).stats.iterations) < limit for M, limit in (("amg", 15),)]
    [True]
    """

    kind: str = "smoothed_aggregation"
    near_nullspace: Any = None
    cycle: str = "V"

    name: ClassVar[str] = "amg"
    hermitian: ClassVar[bool] = True

    def __post_init__(self):
        if self.kind not in _KINDS:
            raise ValueError(f"AMG: kind must be one of {', '.join(map(repr, _KINDS))}; got {self.kind!r}.")
        if self.cycle not in ("V", "W", "F"):
            raise ValueError(f"AMG: cycle must be 'V', 'W' or 'F'; got {self.cycle!r}.")
        B = self.near_nullspace
        if B is not None and self.kind != "smoothed_aggregation":
            raise ValueError("AMG: near_nullspace is for kind 'smoothed_aggregation'; got kind 'ruge_stuben'.")
        if B is not None and (getattr(B, "ndim", 0) != 2 or not np.isfinite(np.asarray(B)).all()):
            raise ValueError(f"AMG: near_nullspace must be a finite array of shape (n, m); got {describe(B)}.")

    def refuse(self, A: Any) -> str | None:
        """It needs a sparse A that pyamg can index."""
        kind, B = A.structure.kind, self.near_nullspace
        if kind == "free":
            return "needs the entries of A: use 'chebyshev', or a function"
        if kind == "dense":
            return "is for sparse A: give A as a scipy.sparse array or backsolve.CSR"
        if A.structure.indices.dtype != np.int32:
            return "takes matrices whose indices fit 32 bits only: use 'mic' or 'ilu0'"
        if self.kind == "ruge_stuben" and np.dtype(str(A.data.dtype).removeprefix("torch.")).kind == "c":
            return "of kind 'ruge_stuben' is for real A: use kind 'smoothed_aggregation'"
        if B is not None and len(B) != A.shape[0]:
            return f"has near_nullspace of {len(B)} rows, but A has {A.shape[0]}"
        return None

    def explain(self, A: Any) -> str:
        """Which hierarchy, and cycle."""
        return f"a {self.cycle} cycle of {self.kind.replace('_', ' ')} multigrid by pyamg"

    def prepare(self, A: Any) -> Prepared:
        """Make a hierarchy for each item."""
        return _Hierarchies(self, A)

    def hierarchy(self, A: sp.csr_array, hermitian: bool) -> Any:
        """Pyamg's hierarchy for one matrix, the same in every run: its estimates of spectra begin at random."""
        from pyamg import ruge_stuben_solver, smoothed_aggregation_solver

        with _SETUP:
            before = np.random.get_state()
            np.random.seed(0)
            try:
                if self.kind == "ruge_stuben":
                    return ruge_stuben_solver(A)
                B = None if self.near_nullspace is None else np.asarray(self.near_nullspace, A.dtype)
                return smoothed_aggregation_solver(A, B=B, symmetry="hermitian" if hermitian else "nonsymmetric")
            finally:
                np.random.set_state(before)


class _Hierarchies(Prepared):
    """Hierarchies of the items of a batch, and, made at first use, of their adjoints where these differ."""

    def __init__(self, options: AMG, A: Any):
        super().__init__(self._apply)
        self.options, self.pattern = options, A.structure
        self.data = A.data.astype(np.result_type(A.data.dtype, np.float64))
        self.hermitian = _hermitian(A.structure, self.data)
        self._lock = threading.Lock()
        self.solvers = {False: self._made(adjoint=False)}
        if self.hermitian:
            self.solvers[True] = self.solvers[False]
        self.nbytes = sum(_nbytes(s) for s in self.solvers[False] if s is not None)

    def _made(self, adjoint: bool) -> list[Any]:
        pattern, made = self.pattern, []
        for item, values in enumerate(self.data):
            if not np.isfinite(values).all():
                made.append(None)  # reported as what it is
                continue
            if adjoint:
                arrays = values[pattern.t_slot].conj(), pattern.t_indices, pattern.t_indptr
            else:
                arrays = values, pattern.indices, pattern.indptr
            A = sp.csr_array(tuple(map(np.array, arrays)), pattern.shape)
            made.append(self._hierarchy(A, item))
        return made

    def _hierarchy(self, A: sp.csr_array, item: int) -> Any:
        """The hierarchy of one item, once a cycle has shown that it can be used; None, and why, if it cannot."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of singular coarse matrices and the like: what comes of it is seen
                solver = self.options.hierarchy(A, self.hermitian)
                z = solver.solve(np.ones(self.pattern.shape[0], A.dtype), maxiter=1, cycle=self.options.cycle)
            reason = "" if np.isfinite(z).all() else "a cycle gives what is not finite"
        except (ValueError, IndexError, ZeroDivisionError, ArithmeticError, RuntimeError) as error:
            reason, solver = str(error).rstrip("."), None
        if reason:
            self.broken[item] = f"AMG: pyamg found no hierarchy ({reason}): use 'mic' or 'ilu0'"
        return None if reason else solver

    def _apply(self, v: np.ndarray, adjoint: bool) -> np.ndarray:
        with self._lock:
            if adjoint not in self.solvers:
                self.solvers[adjoint] = self._made(adjoint)
        z = np.empty_like(v)
        for item, solver in enumerate(self.solvers[adjoint]):
            for column in range(v.shape[2]):
                r = v[item, :, column]
                if solver is None or not np.isfinite(r).all() or not r.any():
                    z[item, :, column] = r
                else:
                    z[item, :, column] = solver.solve(r.astype(self.data.dtype), maxiter=1, cycle=self.options.cycle)
        return z


def _hermitian(pattern: Any, data: np.ndarray) -> bool:
    """Whether A equals Aᴴ to rounding."""
    if pattern.symmetry < 1:
        return False
    difference = np.abs(data - data[:, pattern.t_slot].conj())
    return bool(difference.max(initial=0.0) <= 1e-13 * np.abs(data).max(initial=0.0))


def _nbytes(hierarchy: Any) -> int:
    kept = (getattr(level, name, None) for level in hierarchy.levels for name in ("A", "P", "R"))
    return sum(m.data.nbytes + m.indices.nbytes + m.indptr.nbytes for m in kept if m is not None)
