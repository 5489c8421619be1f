"""Quadratic programs as functions of their data."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import SolveWarning, describe
from ..operators import CSR
from ..options import Adjoint, check_on_failure, check_tolerance
from ..status import Status
from .outcome import report
from .qp_data import Program, gathered
from .qp_host import clarabel, solve_items
from .qp_kkt import judged, on_active
from .setup import backend_of

__all__ = ["QPSolution", "qp", "qp_with_info"]


@dataclass(repr=False, eq=False)
class QPSolution:
    """What `qp_with_info` returns.

    Attributes
    ----------
    x : array (..., n)
        The minimiser, differentiable. NaN where the status is INFEASIBLE, UNBOUNDED, INDEFINITE or NONFINITE; of the
        other failures what the solver found, without a derivative.
    inequality_dual : array (..., m)
        Multipliers λ ≥ 0 of Gx ≤ h, differentiable, zero where a constraint is not active.
    equality_dual : array (..., p)
        Multipliers ν of Ax = b, differentiable.
    active : array (..., m)
        1 where a constraint was taken to be active, 0 elsewhere.
    status : int32 array of the batch shape
        Codes of `backsolve.Status`: CONVERGED_RESIDUAL; WEAKLY_ACTIVE, right, but where the derivative has a kink;
        INFEASIBLE, UNBOUNDED, DEGENERATE, INDEFINITE, INACCURATE, MAXITER, NONFINITE.
    stationarity, primal, dual, complementarity : arrays of the batch shape
        Relative residuals of the conditions of optimality at x and its multipliers.
    """

    x: Any
    inequality_dual: Any
    equality_dual: Any
    active: Any
    status: Any
    stationarity: Any
    primal: Any
    dual: Any
    complementarity: Any

    @property
    def converged(self) -> bool:
        """Whether every program was solved."""
        return bool((np.asarray(self.status) > 0).all())

    @property
    def message(self) -> str:
        """One line per outcome: how many programs, how accurate, and what to do."""
        status = np.asarray(self.status).reshape(-1)
        lines = []
        for code in sorted(set(status.tolist())):
            which = np.flatnonzero(status == code)
            where = "" if status.size == 1 else f" ({which.size} of {status.size} programs, first {which[0]})"
            lines.append(f"{Status(code).name}{where}: {ADVICE.get(Status(code), Status(code).advice)}.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"QPSolution: x of shape {tuple(self.x.shape)}\n{self.message}"


ADVICE = {
    Status.CONVERGED_RESIDUAL: "the conditions of optimality hold to the tolerance",
    Status.INDEFINITE: "P is not positive semidefinite, so this is not convex: check its sign, or add to its diagonal",
    Status.INACCURATE: (
        "the conditions of optimality do not hold to the tolerance: rescale the rows of G and A, loosen tol, or use "
        "float64"
    ),
    Status.MAXITER: "the interior-point iterations ran out: rescale P, G and A",
    Status.NONFINITE: "P, q, G, h, A or b has a NaN or an infinity: look for the first step that made it",
}


def qp(
    P: Any,
    q: Any,
    G: Any = None,
    h: Any = None,
    A: Any = None,
    b: Any = None,
    *,
    tol: float | None = None,
    weakly_active: str = "inactive",
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> Any:
    """Minimise ½ xᵀPx + qᵀx subject to Gx ≤ h and Ax = b, differentiably in all of them, to any order.

    Clarabel finds which constraints are active; the solution is then that of the KKT system on these, one symmetric
    linear system whose entries are those of P, G and A, by `backsolve.solve`. It is right to rounding, and a derivative
    costs one more solve with the same factors.

    Parameters
    ----------
    P : array (..., n, n), sparse array or tensor, or operator with entries
        Positive semidefinite, and symmetric: all of it, not one triangle. Its gradient is that of (P + Pᵀ)/2.
    q : array (..., n)
        Leading axes of all arguments broadcast.
    G, h : (..., m, n) and (..., m), optional
    A, b : (..., p, n) and (..., p), optional
        If one matrix is sparse, all are taken to be; gradients have one number for each stored entry.
    tol : float, optional
        For the relative residuals of the conditions of optimality: 1e-8 in double, 1e-4 in single precision.
    weakly_active : {"inactive", "active"}, optional
        What a constraint with λᵢ = sᵢ = 0 (to 1e-9, relatively) counts as in derivatives. There x is right, but its
        derivative has a kink: "inactive" gives that of data changed such that the constraint is left behind, "active"
        that of data changed such that it holds x back. Said by a warning, or by the status WEAKLY_ACTIVE.
    method : str or method object, optional
        For the KKT system, as for `backsolve.solve`.
    adjoint : Adjoint, optional
        Targets and failure policy of the solve in derivatives.
    on_failure : {"raise", "warn", "return"}, optional
        Raise `SolveError`, warn and go on, or go on. Programs that were not solved are NaN, and so are their gradients;
        the rest of the batch is right.

    Returns
    -------
    array (..., n)
        x.

    Raises
    ------
    SolveError
        If a program is infeasible, unbounded, not convex or degenerate, or the conditions of optimality do not hold.
    ImportError
        If Clarabel is missing: ``pip install 'backsolve[qp]'``.
    TypeError, ValueError
        If shapes, dtypes, frameworks or options do not fit, or P is not symmetric.

    Notes
    -----
    Compiled by JAX, nothing is raised or warned of: what failed is NaN. With P = 0 a linear program has a derivative
    where its solution is a vertex. *Differs from* OptNet, which differentiates complementarity as λᵢ(Gx - h)ᵢ = 0: the
    derivative is the same, by a smaller and symmetric system.

    References
    ----------
    Amos and Kolter 2017, arXiv:1703.00443; Fiacco 1976, doi:10.1007/BF01580677, for the derivative; Goulart and Chen
    2024, arXiv:2405.12762, for Clarabel.

    Examples
    --------
    >>> import torch
    >>> from backsolve import implicit
    >>> q = torch.tensor([-2.0, -1.0], dtype=torch.float64, requires_grad=True)
    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> x = implicit.qp(eye, q, eye, torch.ones(2, dtype=torch.float64) * 1.5)  # minus q, at most 1.5
    >>> x.tolist()
    [1.5, 1.0]
    >>> x.sum().backward()
    >>> q.grad.tolist()  # the first constraint holds x back
    [-0.0, -1.0]
    """
    return _solved(P, q, G, h, A, b, tol, weakly_active, method, adjoint, on_failure, False).x


def qp_with_info(
    P: Any,
    q: Any,
    G: Any = None,
    h: Any = None,
    A: Any = None,
    b: Any = None,
    *,
    tol: float | None = None,
    weakly_active: str = "inactive",
    method: Any = "auto",
    adjoint: Adjoint | None = None,
    on_failure: str = "raise",
) -> QPSolution:
    """Solve quadratic programs like `qp`, and tell what became of them.

    Parameters
    ----------
    P, q, G, h, A, b, tol, weakly_active, method, adjoint, on_failure
        As for `qp`.

    Returns
    -------
    QPSolution
        ``.x``, multipliers, active constraints, status and residuals for each program.

    Raises
    ------
    SolveError, ImportError, TypeError, ValueError
        As `qp`.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> from backsolve import implicit
    >>> G, h = np.array([[1.0], [-1.0]]), np.array([0.0, -1.0])  # x <= 0 and x >= 1
    >>> sol = implicit.qp_with_info(np.eye(1), np.zeros(1), G, h, on_failure="return")
    >>> bs.Status(int(sol.status)).name
    'INFEASIBLE'
    """
    return _solved(P, q, G, h, A, b, tol, weakly_active, method, adjoint, on_failure, True)


def _solved(P, q, G, h, A, b, tol, weakly_active, method, adjoint, on_failure, keep_best) -> QPSolution:
    policy = check_on_failure(on_failure)
    if weakly_active not in ("inactive", "active"):
        raise ValueError(f"qp: weakly_active must be 'inactive' or 'active'; got {describe(weakly_active)}.")
    if adjoint is not None and not isinstance(adjoint, Adjoint):
        raise TypeError(f"qp: adjoint must be a backsolve.Adjoint; got {describe(adjoint)}.")
    target = check_tolerance("qp", "tol", tol)
    clarabel()
    frontend, program = gathered(P, q, G, h, A, b)
    backend = backend_of(frontend)
    _check_symmetric(backend, program)
    if target is None:
        target = 1e-4 if "32" in str(program.q.dtype) else 1e-8
    _check_symmetric(backend, program)
    more = adjoint or Adjoint()
    options = {
        "method": method,
        "on_failure": "return",
        "adjoint": Adjoint(more.rtol, more.atol, more.on_failure or policy),
    }
    solver = partial(solve_items, program.form, weakly_active == "active")
    width = program.form.size + program.form.m + 1
    found = backend.found_on_host(solver, width, program.arrays)
    sol = _concluded(backend, program, found, target, options, keep_best)
    if backend.known(sol.status) is not None:
        report("qp", sol, policy)
        if policy != "return" and (np.asarray(sol.status) == Status.WEAKLY_ACTIVE).any():
            warnings.warn(SolveWarning(f"qp: {sol.message}"), stacklevel=3)
    return sol


def _concluded(backend: Any, program: Program, found: Any, tol: float, options: dict, keep_best: bool) -> QPSolution:
    """The solution on the active constraints that the host found, with its verdict."""
    xp, n, code = backend.xp, program.form.n, found[:, -1]
    active = found[:, program.form.size : -1]
    point = on_active(backend, program, active, options)
    told = judged(xp, program, point)
    worst = xp.max(xp.stack(list(told), axis=-1), axis=-1)
    determined = point.growth <= 0.1 / float(xp.finfo(program.q.dtype).eps)  # NaN where K has no inverse
    status = xp.where(worst <= tol, code, xp.where(determined, int(Status.INACCURATE), int(Status.DEGENERATE)))
    status = xp.where(determined, status, int(Status.DEGENERATE))
    status = xp.astype(xp.where(code > 0, status, code), xp.int32)
    ok, nan = (status > 0)[:, None], float("nan")
    best = found[:, :n] if keep_best else nan * found[:, :n]
    values = (xp.where(ok, point.x, best), xp.where(ok, point.lam, nan), xp.where(ok, point.nu, nan))
    shown = (v.reshape((*program.batch, *v.shape[1:])) for v in (*values, active, status, *told))
    return QPSolution(*shown)


def _check_symmetric(backend: Any, program: Program) -> None:
    """Raise where P is one triangle, as other packages want it, or not symmetric for another reason."""
    P = backend.known(program.P)
    if P is None:
        return
    if program.form.patterns is None:
        off, size = np.abs(P - P.swapaxes(-1, -2)), np.abs(P).max(initial=0)
    else:
        pattern = program.form.patterns[0]
        turned = CSR.from_pattern(P, pattern).T
        v = np.random.default_rng(0).standard_normal((program.form.n, 1))
        off, size = np.abs((CSR.from_pattern(P, pattern) @ v) - (turned @ v)), np.abs(P).max(initial=0)
    if off.max(initial=0) > 1e-3 * float(np.finfo(P.dtype).eps) ** 0.5 * size:
        raise ValueError(
            f"qp: P must be symmetric; it differs from its transpose by {off.max():.1e}: of a triangle give "
            "P + P.T - diag(P), of any other matrix (P + P.T) / 2, which has the same objective."
        )
