"""Generalised minimal residuals, restarted; and the flexible kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from array_api_compat import device, is_jax_namespace

from ..errors import describe
from ..status import Status
from .iterative import IterativeMethod
from .recurrence import BROKEN, CLAIMED, OVERFLOW, RUNNING, System, choose, mark, norm_of, real_dot, started

__all__ = ["FGMRES", "GMRES"]


class _Work(NamedTuple):
    """Within a cycle x and r wait: they are those of its start, and rr is that of the iterate that would be made."""

    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    j: Any
    """Steps of this cycle: an integer."""
    length: Any
    """Steps of this cycle that each column made: (batch, 1, k)."""
    V: Any
    """Orthonormal basis of the Krylov space, (batch, k, m, n), of which the first j rows are made."""
    v: Any
    """The next row of it, (batch, k, n), so that V is written to once in a step."""
    Z: Any
    """M V, (batch, k, m, n), kept if M varies."""
    R: Any
    """Triangular factor of the Hessenberg matrix, (batch, k, m, m), the identity where nothing is known yet."""
    Q: Any
    """Product of the rotations that made it, (batch, k, m + 1, m + 1)."""
    beta: Any
    """Norm of r: (batch, 1, k)."""
    before: Any
    """rr at the start of the cycle."""


class _Arnoldi(IterativeMethod):
    """What GMRES and FGMRES share: everything.

    NumPy and torch compute with the rows of the basis that are made, and write into it; a program with all of them.
    """

    restart: int
    traceable: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        m = self.restart
        if not isinstance(m, int) or isinstance(m, bool) or m < 1:
            raise ValueError(f"{type(self).__name__}: restart must be an integer of at least 1; got {describe(m)}.")

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r; the first step sets up the cycle."""
        xp, m = system.xp, max(1, min(self.restart, r.shape[1]))
        rr = real_dot(xp, r, r)
        state = started(system, rr)
        V, Z = _blank(xp, r, m), _blank(xp, r, m) if self.flexible else None
        none = xp.astype(xp.zeros_like(xp.matrix_transpose(rr))[..., None], r.dtype)
        R, Q = (none + xp.eye(size, dtype=r.dtype, device=device(r)) for size in (m, m + 1))
        zero = xp.zeros_like(state)
        return _Work(x, r, rr, state, zero, 0, zero, V, _rows(xp, xp.zeros_like(r)), Z, R, Q, xp.sqrt(rr), rr)

    def step(self, system: System, work: _Work) -> _Work:
        """One step of Arnoldi's process, twice orthogonalised (Giraud et al. 2005), and one rotation (Saad, 6.5.3)."""
        xp, running = system.xp, work.state == RUNNING
        work = self._begun(system, work)
        j, V = work.j, system.put(work.V, work.j, work.v)
        z = system.M(_vectors(xp, work.v))
        if self.flexible:
            work = work._replace(Z=system.put(work.Z, j, _rows(xp, z)))
        w = _rows(xp, system.A(z))[..., None]
        known = V[:, :, : _made(xp, j + 1, V.shape[2]), :]
        live_rows = xp.arange(known.shape[2], device=device(V))[:, None] <= j

        def against_basis(w: Any) -> tuple[Any, Any]:
            h = _project(xp, known, w)
            h = xp.where(live_rows, h, xp.zeros_like(h))
            return w - xp.matrix_transpose(_combined(xp, known, h)), h

        w, h = against_basis(w)
        w, more = against_basis(w)
        h = h + more
        size = xp.linalg.vector_norm(w, axis=2, keepdims=True)  # (batch, k, 1, 1)
        live = xp.matrix_transpose(running)[..., None]  # (batch, k, 1, 1)
        finite = xp.isfinite(size)
        positive = live & finite & (size > 0)
        after = xp.where(positive, w / xp.where(positive, size, xp.ones_like(size)), xp.zeros_like(w))
        work = work._replace(V=V, v=after[..., 0])
        tiny = 10 * z.shape[1] ** 0.5 * system.eps * xp.linalg.vector_norm(h, axis=2, keepdims=True)
        work, singular = self._rotated(system, work, h, size, live & finite, tiny)
        state = started(system, work.rr)
        # The space cannot grow, and what is left of the residual is not in its image.
        ended = running & (_columns(xp, size) <= _columns(xp, tiny)) & (state == RUNNING)
        state = mark(xp, state, ended | singular, BROKEN)
        state = mark(xp, state, ~_columns(xp, finite), OVERFLOW)
        made = xp.astype(running & _columns(xp, finite) & ~singular, xp.int32)
        work = work._replace(
            state=xp.where(running, state, work.state),
            count=work.count + made,
            length=work.length + made,
            j=j + 1,
        )
        return self._next_cycle(system, work)

    def _begun(self, system: System, work: _Work) -> _Work:
        """At the first step of a cycle, its first vector: r / norm(r)."""
        xp, first = system.xp, work.j == 0
        if first is False:
            return work
        beta = xp.sqrt(real_dot(xp, work.r, work.r))
        safe = xp.where(beta > 0, beta, xp.ones_like(beta))
        R, Q = (xp.zeros_like(X) + xp.eye(X.shape[-1], dtype=X.dtype, device=device(X)) for X in (work.R, work.Q))

        def now(new: Any, old: Any) -> Any:
            return new if first is True else xp.where(first, new, old)

        return work._replace(
            v=now(_rows(xp, work.r / safe), work.v),
            R=now(R, work.R),
            Q=now(Q, work.Q),
            beta=now(beta, work.beta),
            length=now(xp.zeros_like(work.length), work.length),
            before=now(beta * beta, work.before),
        )

    def _rotated(self, system: System, work: _Work, h: Any, size: Any, live: Any, tiny: Any) -> tuple[_Work, Any]:
        """Turn column j of the Hessenberg matrix to triangular form: |a| and size become rho and 0.

        Where rho is no more than tiny, A is singular on the space, and the column is left out.
        """
        xp, j, Q = system.xp, work.j, work.Q
        t = xp.matmul(Q[:, :, :, : h.shape[2]], h)  # (batch, k, m + 1, 1)
        row = xp.arange(Q.shape[2], device=device(Q))[:, None]
        upper, lower, a = Q[:, :, j, :][:, :, None], Q[:, :, j + 1, :][:, :, None], t[:, :, j, :][:, :, None]
        d = xp.astype(size, a.dtype)
        rho = xp.sqrt(xp.abs(a) ** 2 + size**2)
        turned = live & (rho > tiny)
        safe = xp.where(turned, rho, xp.ones_like(rho))
        conj_a = xp.conj(a) if xp.isdtype(a.dtype, "complex floating") else a
        Q = xp.where((row == j) & turned, (conj_a * upper + d * lower) / safe, Q)
        Q = xp.where((row == j + 1) & turned, (a * lower - d * upper) / safe, Q)
        column = xp.where(row < j, t, xp.where(row == j, xp.astype(rho, a.dtype), xp.zeros_like(t)))[:, :, :-1]
        place = row[:-1, 0] == j
        R = xp.where(place & turned, column, work.R)
        rest = xp.abs(Q[:, :, j + 1, :][:, :, None, :1])  # (batch, k, 1, 1)
        rr = (work.beta * _columns(xp, rest)) ** 2
        work = work._replace(Q=Q, R=R, rr=xp.where(_columns(xp, turned), rr, work.rr))
        return work, _columns(xp, live & ~turned)

    def finish(self, system: System, work: _Work) -> _Work:
        """x and r of every column at its own length of the cycle, which ends here."""
        x, r = system.when(work.j > 0, lambda x, r: self._moved(system, work, x, r), work.x, work.r)
        return work._replace(x=x, r=r, j=0 * work.j)

    def _moved(self, system: System, work: _Work, x: Any, r: Any) -> tuple[Any, Any]:
        """x and r after the steps of this cycle."""
        xp, m = system.xp, work.R.shape[-1]
        j = _made(xp, work.j, m)
        index = xp.arange(m + 1, device=device(work.V))[:, None]
        length = xp.matrix_transpose(work.length)[..., None]  # (batch, k, 1, 1)
        g = work.Q[:, :, :, 0:1] * xp.astype(xp.matrix_transpose(work.beta)[..., None], work.Q.dtype)
        y = xp.linalg.solve(work.R[:, :, :j, :j], xp.where(index < length, g, xp.zeros_like(g))[:, :, :j, :])
        basis = work.Z if self.flexible else work.V
        step = _vectors(xp, _combined(xp, basis[:, :, :j, :], y)[:, :, 0])
        last = xp.where(index == length, g, xp.zeros_like(g))
        adjoint_Q = xp.matrix_transpose(xp.conj(work.Q) if xp.isdtype(g.dtype, "complex floating") else work.Q)
        coefficients = xp.matmul(adjoint_Q, last)
        earlier = xp.where(index < work.j, coefficients, xp.zeros_like(coefficients))[:, :, :j, :]
        after = _combined(xp, work.V[:, :, :j, :], earlier)[:, :, 0] + coefficients[:, :, work.j, :] * work.v
        moved = work.length > 0
        x = choose(xp, moved, x + (step if self.flexible else system.M(step)), x)
        return x, choose(xp, moved, _vectors(xp, after), r)

    def _next_cycle(self, system: System, work: _Work) -> _Work:
        """Restart after m steps; a column whose residual did not fall in a whole cycle never would again."""
        xp = system.xp
        full = work.j == work.R.shape[-1]
        stuck = full & (work.state == RUNNING) & (work.rr > (1 - 64 * system.eps) * work.before)
        x, r = system.when(full, lambda x, r: self._moved(system, work, x, r), work.x, work.r)
        return work._replace(x=x, r=r, j=work.j % work.R.shape[-1], state=mark(xp, work.state, stuck, BROKEN))

    def resume(self, system: System, work: _Work, r: Any, where: Any) -> _Work:
        """Begin a cycle from the true residual."""
        xp, rr = system.xp, real_dot(system.xp, r, r)
        return work._replace(
            r=choose(xp, where, r, work.r),
            rr=xp.where(where, rr, work.rr),
            state=xp.where(where, started(system, rr), work.state),
        )

    def diagnose(self, system: System, work: _Work) -> Any:
        """Residuals that stopped falling are a matter of the restart, as long as the space could still grow."""
        xp, said, n = system.xp, work.state, work.x.shape[1]
        status = xp.zeros_like(said)
        if work.V.shape[2] < n:
            return mark(xp, status, said == BROKEN, Status.STAGNATION)
        lost = norm_of(xp, work.r) > (n * system.eps) ** 0.5
        return mark(xp, status, ((said == BROKEN) | (said == CLAIMED)) & lost, Status.SINGULAR)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """What to do about the restart."""
        m, n = work.V.shape[2], work.x.shape[1]
        return {
            Status.STAGNATION: f"no progress in cycles of restart={m}: raise restart, up to n = {n}, or give M",
            Status.SINGULAR: "the Krylov space is exhausted and the residual is not",
        }


@dataclass(frozen=True)
class GMRES(_Arnoldi):
    """Generalised minimal residuals with restarts, for square operators of any kind.

    Each iterate has the smallest residual in the Krylov space of its cycle, so residuals never rise. One product
    with A and, as the basis is orthogonalised twice, four products with it in each iteration: 4 n j multiply-adds in
    the j-th; restart + 4 vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`. An iteration is one product with A.
    restart : int
        Length of a cycle. Shorter ones cost less and may stagnate.

    Notes
    -----
    *Fails with* MAXITER, STAGNATION (a whole cycle without progress: raise restart; or the true residual stays above
    the target), SINGULAR (the space is exhausted), NONFINITE, BREAKDOWN (there is no such M). *Differentiation*: the
    adjoint solve is another run with Aᴴ and Mᴴ. *Differs from* the textbook and SciPy: M acts from the right, so that
    the residual that is minimised is the true one; classical Gram-Schmidt, twice; columns are independent runs.

    References
    ----------
    Saad and Schultz 1986, doi:10.1137/0907058; Saad, Iterative Methods for Sparse Linear Systems, 2nd edition,
    algorithm 9.5; Giraud, Langou, Rozložník and van den Eshof 2005, doi:10.1007/s00211-005-0615-4.

    Examples
    --------
    >>> import numpy as np, backsolve as bs
    >>> bs.solve(np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([2.0, 3.0]), method="gmres").round(6)
    array([-3.,  2.])
    """

    restart: int = 50

    name: ClassVar[str] = "gmres"
    summary: ClassVar[str] = "restarted generalised minimal residuals: one product with A in each iteration"


@dataclass(frozen=True)
class FGMRES(_Arnoldi):
    """Flexible GMRES: M may differ from one iteration to the next, as an inner solver or a network does.

    As `GMRES`, and keeps M v for every vector v of the basis: 2 restart + 4 vectors.

    Parameters
    ----------
    rtol, atol, maxiter, M, restart
        See `GMRES`.

    Notes
    -----
    *Fails with* MAXITER, STAGNATION, SINGULAR, NONFINITE, BREAKDOWN, as `GMRES`. *Differentiation*: as `GMRES`; the
    adjoint solve asks a function for Mᴴ.

    References
    ----------
    Saad 1993, doi:10.1137/0914028; Saad, Iterative Methods for Sparse Linear Systems, 2nd edition, algorithm 9.6.
    """

    restart: int = 50

    name: ClassVar[str] = "fgmres"
    summary: ClassVar[str] = "flexible restarted GMRES: one product with A in each iteration"
    flexible: ClassVar[bool] = True


def _made(xp: Any, count: Any, most: int) -> int:
    """Rows of an array to compute with, if `count` hold something: all of them in a program, which masks the others."""
    return most if is_jax_namespace(xp) else count


def _blank(xp: Any, v: Any, count: int) -> Any:
    """Zeros (batch, k, count, n) where v (batch, n, k) lies, of which NumPy writes no memory before it is used."""
    if is_jax_namespace(xp):
        return xp.zeros_like(_rows(xp, v))[:, :, None, :] + xp.zeros((count, 1), v.dtype)
    return xp.zeros((v.shape[0], v.shape[2], count, v.shape[1]), dtype=v.dtype, device=device(v))


def _rows(xp: Any, v: Any) -> Any:
    """(batch, n, k) as (batch, k, n)."""
    return xp.matrix_transpose(v)


def _vectors(xp: Any, rows: Any) -> Any:
    """(batch, k, n) as (batch, n, k), contiguous."""
    if rows.shape[1] == 1:
        return xp.reshape(rows, (rows.shape[0], rows.shape[2], 1))
    return xp.asarray(xp.matrix_transpose(rows), copy=True)


def _columns(xp: Any, scalars: Any) -> Any:
    """(batch, k, 1, 1) as (batch, 1, k)."""
    return xp.matrix_transpose(scalars[..., 0])


def _combined(xp: Any, V: Any, h: Any) -> Any:
    """The rows of V (batch, k, j, n), h (batch, k, j, 1) times: (batch, k, 1, n).

    XLA takes 20 times as long for a product with the transpose of V.
    """
    return xp.matmul(xp.matrix_transpose(h), V)


def _project(xp: Any, V: Any, w: Any) -> Any:
    """conj(V) w for V (batch, k, j, n) and w (batch, k, n, 1), without a copy of V."""
    if xp.isdtype(w.dtype, "complex floating"):
        return xp.conj(xp.matmul(V, xp.conj(w)))
    return xp.matmul(V, w)
