"""Quadratic programs solved on the host by Clarabel, one after the other or in threads.

min ½ xᵀPx + qᵀx with Gx ≤ h, Ax = b, in double precision whatever the dtype of the layer.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from .. import _kernels
from ..pattern import canonical_pattern
from ..status import Status
from .numpy_backend import BACKEND
from .qp_data import Form, Program
from .qp_kkt import on_active

__all__ = ["active_set", "clarabel", "solve_items"]

VERDICTS = {
    "Solved": Status.CONVERGED_RESIDUAL,
    "AlmostSolved": Status.CONVERGED_RESIDUAL,
    "PrimalInfeasible": Status.INFEASIBLE,
    "AlmostPrimalInfeasible": Status.INFEASIBLE,
    "DualInfeasible": Status.UNBOUNDED,
    "AlmostDualInfeasible": Status.UNBOUNDED,
    "MaxIterations": Status.MAXITER,
}
"""Other endings are INACCURATE. What is called solved is judged anew, by its KKT residuals."""


_NO_POINT = (Status.INFEASIBLE, Status.UNBOUNDED)
_DOUBTFUL = 1e-3
"""λᵢ and sᵢ that are both below this, relatively, do not tell by themselves whether a constraint is active."""
_WEAK = 1e-9
"""Where both are below this, relatively, at a solution that is right to rounding, a constraint is weakly active."""


def clarabel() -> ModuleType:
    """The package, or the sentence that says how to get it."""
    try:
        import clarabel
    except ImportError as error:
        raise ImportError("qp needs the package clarabel: pip install 'backsolve[qp]'.") from error
    return clarabel


def solve_items(form: Form, weak_is_active: bool, P: Any, q: Any, G: Any, h: Any, A: Any, b: Any) -> np.ndarray:
    """[x, multipliers of G, multipliers of A, active, status] for each item: (items, n + m + p + m + 1)."""
    arrays = [np.asarray(v, np.float64) for v in (P, q, G, h, A, b)]
    n, total = form.n, form.size
    found = np.full((len(arrays[1]), total + form.m + 1), np.nan)
    found[:, total:] = 0
    finite = np.ones(len(found), bool)
    for v in arrays:
        finite &= np.isfinite(v).all(axis=tuple(range(1, v.ndim)))
    found[~finite, -1] = int(Status.NONFINITE)
    convex = _Convexity(form)
    upper, stacked = _Columns.upper(form), _Columns.stacked(form)
    rough, careful = _settings(False), _settings(True)

    def solve(i: int) -> None:
        if not convex(arrays[0][i]):
            found[i, -1] = int(Status.INDEFINITE)
            return
        P, q, G, h, A, b = (v[i] for v in arrays)
        made = clarabel()
        cones = [made.ZeroConeT(form.p), made.NonnegativeConeT(form.m)]
        both = stacked.matrix(A, G)
        given = upper.matrix(P), q, both, np.concatenate([b, h]), cones
        solution = made.DefaultSolver(*given, rough).solve()
        if str(solution.status) != "Solved":
            solution = made.DefaultSolver(*given, careful).solve()
        z = np.asarray(solution.z)
        found[i, :n], found[i, n : n + form.m], found[i, n + form.m : total] = solution.x, z[form.p :], z[: form.p]
        found[i, -1] = int(VERDICTS.get(str(solution.status), Status.INACCURATE))
        if found[i, -1] > 0:
            one = Program(form, (), *(v[i : i + 1] for v in arrays))
            found[i, total:-1], weak = active_set(one, z[form.p :], np.asarray(solution.s)[form.p :], weak_is_active)
            found[i, -1] = int(Status.WEAKLY_ACTIVE if weak else Status.CONVERGED_RESIDUAL)
        elif found[i, -1] in _NO_POINT:
            found[i, :total] = np.nan

    items = np.flatnonzero(finite).tolist()
    workers = min(_kernels.thread_count(), len(items))
    if workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(solve, items))
    else:
        for i in items:
            solve(i)
    return found


def _settings(refined: bool) -> Any:
    """Clarabel's own, silent and on one thread; without refining its linear systems a fifth is saved."""
    settings = clarabel().DefaultSettings()
    settings.verbose, settings.max_threads, settings.iterative_refinement_enable = False, 1, refined
    return settings


def active_set(program: Program, lam: np.ndarray, s: np.ndarray, weak_is_active: bool) -> tuple[np.ndarray, bool]:
    """Which constraints are active, (m,), and whether some are weakly so.

    λᵢ > sᵢ tells where one of them is clearly not zero. Where both are small the KKT system is solved on the active
    constraints, and they are chosen anew by the same rule, as in the primal-dual active set method (Hintermüller, Ito
    and Kunisch 2002, doi:10.1137/S1052623401383558), until they stay: then both are right to rounding.
    """
    active = lam > s
    small, big = (np.maximum(1.0, np.abs(v).max(initial=0)) for v in (lam, s))
    doubtful = (lam < _DOUBTFUL * small) & (s < _DOUBTFUL * big)
    if not doubtful.any():
        return active.astype(float), False
    for _ in range(5):
        point = on_active(BACKEND, program, active[None].astype(float), {"on_failure": "return"})
        if not np.isfinite(point.x).all():
            return active.astype(float), False
        lam, s = point.lam[0], (program.h - program.apply("G", point.x))[0]
        before, active = active, np.where(doubtful, lam > s, active)
        if (before == active).all():
            break
    weak = doubtful & (np.abs(lam) < _WEAK * small) & (np.abs(s) < _WEAK * big)
    return np.where(weak, weak_is_active, active).astype(float), bool(weak.any())


class _Columns:
    """How values become a CSC matrix of Clarabel: indices are made once for all items."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], weights: np.ndarray | None = None):
        by_columns, slots = canonical_pattern(cols, rows, shape[::-1])
        self.indices, self.indptr = by_columns.indices, by_columns.indptr
        self.shape, self.slots, self.weights = shape, slots, weights

    def matrix(self, *parts: np.ndarray) -> sp.csc_matrix:
        """Of values of the parts, one after the other."""
        values = np.concatenate([part.reshape(-1) for part in parts])
        if self.weights is not None:
            values = values * self.weights
        if self.slots is not None:
            values = np.bincount(self.slots, values, len(self.indices))
        return sp.csc_matrix((values, self.indices, self.indptr), shape=self.shape)

    @classmethod
    def upper(cls, form: Form) -> _Columns:
        """The upper triangle of (P + Pᵀ)/2."""
        rows, cols = places(form, 0)
        low, high = np.minimum(rows, cols), np.maximum(rows, cols)
        return cls(low, high, (form.n, form.n), np.where(rows == cols, 1.0, 0.5))

    @classmethod
    def stacked(cls, form: Form) -> _Columns:
        """[A; G]."""
        (above, left), (below, right) = places(form, 2), places(form, 1)
        rows, cols = np.concatenate([above, below + form.p]), np.concatenate([left, right])
        return cls(rows, cols, (form.p + form.m, form.n))


def places(form: Form, which: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the values of P, G or A."""
    if form.patterns is not None:
        pattern = form.patterns[which]
        return np.asarray(pattern.rows, np.int64), np.asarray(pattern.indices, np.int64)
    rows = (form.n, form.m, form.p)[which]
    return np.repeat(np.arange(rows), form.n), np.tile(np.arange(form.n), rows)


class _Convexity:
    """Whether (P + Pᵀ)/2, shifted by rounding, has a Cholesky factorization: else the objective is not convex."""

    def __init__(self, form: Form):
        self.form, self.places = form, places(form, 0)

    def __call__(self, values: np.ndarray) -> bool:
        n = self.form.n
        size = np.abs(values).max(initial=0)
        if size == 0:
            return True
        shift = 1e-10 * size * n
        if self.form.patterns is None:
            try:
                np.linalg.cholesky((values + values.T) / 2 + shift * np.eye(n))
            except np.linalg.LinAlgError:
                return False
            return True
        half = sp.csc_array((values / 2, self.places), shape=(n, n))
        try:
            lu = sla.splu(
                sp.csc_matrix(half + half.T + shift * sp.eye_array(n)),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError:  # a pivot is zero
            return False
        # LU without interchanges of rows is LDLᵀ, whose D has the signs of the eigenvalues.
        return bool((lu.perm_r == lu.perm_c).all() and (lu.U.diagonal() > 0).all())
