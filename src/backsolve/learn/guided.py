"""Conjugate gradients that a network proposes directions to."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import describe
from ..methods.cg import curvatures, indefinite_or_singular
from ..methods.iterative import IterativeMethod
from ..methods.recurrence import NOT_POSITIVE, OVERFLOW, RUNNING, System, choose, mark, ratio, real_dot, started

__all__ = ["DirectionLog", "GuidedCG", "network_of"]


class DirectionLog:
    """What a solve by `GuidedCG` or with `GuidedPreconditioner` did: give it as ``log=``.

    Attributes
    ----------
    iterations, guided : int
        All iterations, and those to which the network was asked for directions.
    products : int
        Products with A.
    reason : str
        Why the network was switched off: "" (it was not), "no gain" or "nonfinite".
    seconds : dict
        Of the processor, in "network", "matvec", "preconditioner" and "orthogonalisation".
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Begin anew, as every solve does."""
        self.iterations = self.guided = self.products = 0
        self.reason = ""
        names = ("network", "matvec", "preconditioner", "orthogonalisation")
        self.seconds: dict[str, float] = dict.fromkeys(names, 0.0)

    def timed(self, name: str, call: Any, *arguments: Any) -> Any:
        """What a call returns, its time added to one of `seconds`."""
        begin = time.process_time()
        result = call(*arguments)
        self.seconds[name] += time.process_time() - begin
        return result

    def __repr__(self) -> str:
        spent = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in self.seconds.items())
        off = f", off: {self.reason}" if self.reason else ""
        return f"DirectionLog({self.guided} of {self.iterations} iterations guided{off}; {spent})"


class _Work(NamedTuple):
    x: Any
    r: Any
    rr: Any
    state: Any
    count: Any
    p: Any
    """The direction of M r in the latest iteration."""
    P: Any
    """Directions that are kept, (batch, k, m, n), A-orthogonal to each other."""
    AP: Any
    norms: Any
    """pᵀ A p of each, (batch, k, m, 1); 0 where there is none."""
    at: int
    """Where the next one goes."""
    on: Any
    """Whether the network is asked, (batch, 1, k)."""
    gains: tuple
    """What v and M r took off the squared energy error in the latest iterations, the latest first."""
    curvature: Any
    stiffest: Any
    softest: Any


@dataclass(frozen=True)
class GuidedCG(IterativeMethod):
    """Conjugate gradients in which a network proposes a direction in each iteration, for symmetric positive definite A.

    The step is the best one in energy among all combinations of the direction v of the network, of M r, and of the
    directions of the latest iterations. Without v that is preconditioned CG; with it the energy error falls at least as
    far as by steepest descent with M from the same point, whatever v is: it always converges. Directions that are not
    those of CG cost it its memory, which is why more than the latest are kept. If, over `patience` iterations, v takes
    off less than `least` times what M r does, or if it is not finite, the network is switched off for good.
    Two products with A in each guided iteration, in one pass, and one afterwards.

    Parameters
    ----------
    rtol, atol, maxiter, M
        See `IterativeMethod`.
    net : NeuralDirections or Network
        Or anything whose ``on(pattern, values)`` returns a function (r, M r) -> direction of arrays (n,).
    directions : int
        How many are kept; two vectors each, and two inner products and four updates for each in an iteration.
    least : float
        Where v takes off less, iterations are mostly more than those of CG; 0 never switches off.
    patience : int
    log : DirectionLog, optional
        Is told what was done.

    Notes
    -----
    *Requires* a real sparse A. *Fails with* what `CG` fails with. *Differentiation*: the adjoint solve is another run,
    as A is symmetric with the same network. Statistics count two products for each iteration; the log has their number.

    References
    ----------
    Notay 2000, doi:10.1137/S1064827599362314 (variable preconditioning); Bridson and Greif 2006, doi:10.1137/040620047
    (several directions in each iteration); Spillane 2016, doi:10.1137/15M1028534 (as many as pay); Kaneda et al.
    2023, arXiv:2205.10763 (a network that proposes them).

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery, learn
    >>> p, log = gallery.P1Mesh(side=12)(seed=0), learn.DirectionLog()
    >>> method = learn.GuidedCG(net=learn.NeuralDirections(), M="mic", log=log)
    >>> bs.solve_with_info(p.A, p.b, method=method).converged, log.reason  # not trained
    (True, 'no gain')
    """

    net: Any = None
    directions: int = 20
    least: float = 0.3
    patience: int = 4
    log: Any = field(default=None, compare=False)

    name: ClassVar[str] = "guided_cg"
    summary: ClassVar[str] = "conjugate gradients with directions from a network"
    requires: ClassVar[frozenset[str]] = frozenset({"positive_definite"})
    definite: ClassVar[bool] = True
    products: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        if self.net is not None:
            network_of("GuidedCG", self.net)
        if not isinstance(self.least, int | float) or not self.least >= 0:
            raise ValueError(f"GuidedCG: least must be a float of at least 0; got {describe(self.least)}.")
        for name in ("directions", "patience"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"GuidedCG: {name} must be an integer of at least 1; got {describe(value)}.")

    def refuse(self, A: Any) -> str | None:
        """It needs a network, and the graph of a real sparse A."""
        if self.net is None:
            return "needs a network: GuidedCG(net=...)"
        if A.structure.kind != "csr" or "complex" in str(A.data.dtype):
            return "is for real sparse A: use 'cg'"
        return super().refuse(A)

    def find(self, A: Any, M: Any) -> Any:
        """The network on the matrix of each item, and the log."""
        network = network_of("GuidedCG", self.net)
        return [network.on(A.structure, values) for values in A.data], self.log or DirectionLog()

    def init(self, system: System, x: Any, r: Any) -> _Work:
        """Begin at x, whose residual is r."""
        system.found[1].clear()
        rr = real_dot(np, r, r)
        zero, (batch, n, k) = np.zeros_like(rr), r.shape
        P = np.zeros((batch, k, self.directions, n), r.dtype)
        norms = np.zeros((batch, k, self.directions, 1), r.dtype)
        gains = ((zero, zero),) * self.patience
        state, on = started(system, rr), np.ones(rr.shape, bool)
        count, none = np.zeros_like(state), np.zeros_like(r)
        return _Work(x, r, rr, state, count, none, P, P.copy(), norms, 0, on, gains, zero, zero, zero + np.inf)

    def step(self, system: System, work: _Work) -> _Work:
        """M r, and what the network proposes; their products; then the best step."""
        running, log = work.state == RUNNING, system.found[1]
        z = log.timed("preconditioner", system.M, work.r)
        work, v = self._proposed(system, work, z, running)
        k, guided = z.shape[2], bool((work.on & running).any())
        products = log.timed("matvec", system.A, np.concatenate([z, v], axis=2) if guided else z)
        log.iterations, log.products = log.iterations + 1, log.products + 1 + guided
        log.guided += guided
        second = (v, products[:, :, k:]) if guided else None
        return log.timed("orthogonalisation", self._stepped, system, work, running, (z, products[:, :, :k]), second)

    def _proposed(self, system: System, work: _Work, z: np.ndarray, running: np.ndarray) -> tuple[_Work, np.ndarray]:
        """What the network proposes, of size one; it is switched off where that is not finite."""
        v, (networks, log) = np.zeros_like(z), system.found
        on = work.on.copy()
        for item, _, column in np.argwhere(on & running):
            found = log.timed("network", networks[item], work.r[item, :, column], z[item, :, column])
            size = np.abs(found).max(initial=0.0)
            if np.isfinite(size) and size > 0:
                v[item, :, column] = found / size
            elif not np.isfinite(size):
                on[item, 0, column], log.reason = False, "nonfinite"
                logging.getLogger("backsolve").warning(
                    "GuidedCG: the network proposed what is not finite; CG goes on without it"
                )
        return _dropped(work._replace(on=on), work.on & ~on), v

    def _stepped(self, system: System, work: _Work, running: Any, first: tuple, second: tuple | None) -> _Work:
        """Make M r A-orthogonal to what is kept, and v to both; the best step is then a sum of two."""
        q, Aq = _orthogonal(first, work)
        curvature, slope = real_dot(np, q, Aq), real_dot(np, q, work.r)
        finite, positive = np.isfinite(curvature) & np.isfinite(slope), curvature > 0
        ok = running & positive & finite
        alpha = ratio(np, ok, slope, curvature)
        step, Astep, gain = alpha * q, alpha * Aq, np.zeros_like(alpha)
        work = _kept(work, q, Aq, np.where(ok, curvature, 0))
        if second is not None:
            w, Aw = _orthogonal(second, work)
            extra, lean = real_dot(np, w, Aw), real_dot(np, w, work.r)
            # what is left of v is noise where orthogonalisation has taken nearly all of it
            useful = ok & work.on & np.isfinite(extra) & np.isfinite(lean)
            useful &= extra > 1e-8 * real_dot(np, *second)
            beta = ratio(np, useful, lean, extra)
            step, Astep = step + np.where(useful, beta * w, 0), Astep + np.where(useful, beta * Aw, 0)
            gain = beta * np.where(useful, lean, 0)
            work = _kept(work, w, Aw, np.where(useful, extra, 0))
        x, r = work.x + step, work.r - Astep
        rr = real_dot(np, r, r)
        state = mark(np, started(system, rr), ~positive, NOT_POSITIVE)
        state = mark(np, state, ~finite, OVERFLOW)
        stiffness = ratio(np, ok & (np.abs(slope) > 0), curvature, np.abs(slope))
        work = work._replace(
            x=x,
            r=r,
            rr=rr,
            state=np.where(running, state, work.state),
            count=work.count + ok.astype(np.int32),
            p=np.where(running, q, work.p),
            gains=((gain, alpha * np.where(ok, slope, 0)), *work.gains[:-1]),
            curvature=np.where(running, curvature, work.curvature),
            stiffest=np.where(ok & (stiffness > work.stiffest), stiffness, work.stiffest),
            softest=np.where(ok & (stiffness > 0) & (stiffness < work.softest), stiffness, work.softest),
        )
        return self._judged(system, work)

    def _judged(self, system: System, work: _Work) -> _Work:
        """Switch the network off where it has not paid: an iteration with v costs about twice one without."""
        network, classical = (sum(gain[i] for gain in work.gains) for i in (0, 1))
        off = work.on & (work.count >= self.patience) & (network < self.least * classical)
        if off.any() and not system.found[1].reason:
            system.found[1].reason = "no gain"
        return _dropped(work._replace(on=work.on & ~off), off)

    def resume(self, system: System, work: _Work, r: Any, where: Any) -> _Work:
        """Go on from the true residual, without what was kept."""
        rr = real_dot(np, r, r)
        return _dropped(work, where)._replace(
            r=choose(np, where, r, work.r),
            rr=np.where(where, rr, work.rr),
            state=np.where(where, started(system, rr), work.state),
        )

    def diagnose(self, system: System, work: _Work) -> Any:
        """Tell an indefinite matrix from a singular one, as CG does."""
        return indefinite_or_singular(system, work)

    def details(self, work: _Work, known: np.ndarray) -> dict[int, str]:
        """The curvatures that say so."""
        return curvatures(work, known)


def _orthogonal(pair: tuple, work: _Work) -> tuple[Any, Any]:
    """A vector and its product with A, made A-orthogonal to what is kept: twice, which is enough."""
    rows = tuple(np.ascontiguousarray(np.swapaxes(v, 1, 2))[..., None] for v in pair)  # (batch, k, n, 1)
    v, Av = rows
    for _ in range(2):
        shares = ratio(np, work.norms > 0, work.AP @ v, work.norms)
        v = v - np.swapaxes(work.P, 2, 3) @ shares
        Av = Av - np.swapaxes(work.AP, 2, 3) @ shares
    return np.swapaxes(v[..., 0], 1, 2), np.swapaxes(Av[..., 0], 1, 2)


def _kept(work: _Work, q: Any, Aq: Any, norm: Any) -> _Work:
    """Put a direction in the place of the oldest one; none where its norm is 0."""
    at, known = work.at, np.swapaxes(norm > 0, 1, 2)  # (batch, k, 1)
    for kept, new in ((work.P, q), (work.AP, Aq)):
        kept[:, :, at] = np.where(known, np.swapaxes(new, 1, 2), 0)
    work.norms[:, :, at] = np.swapaxes(norm, 1, 2)
    return work._replace(at=(at + 1) % work.P.shape[2])


def _dropped(work: _Work, where: np.ndarray) -> _Work:
    """Forget what is kept in the columns `where`: orthogonal to directions that are not its own, CG would not be CG.

    Where no network is asked any more, one direction is all that it needs.
    """
    if not where.any():
        return work
    norms = np.where(np.swapaxes(where, 1, 2)[..., None], 0.0, work.norms)
    if work.on.any() or work.P.shape[2] == 1:
        return work._replace(norms=norms)
    latest = (work.at - 1) % work.P.shape[2]
    P, AP, norms = (v[:, :, latest : latest + 1].copy() for v in (work.P, work.AP, norms))
    return work._replace(P=P, AP=AP, norms=norms, at=0)


def network_of(owner: str, net: Any) -> Any:
    """What has ``on(pattern, values)``, a `Network` mostly, or what a module exports."""
    if callable(getattr(net, "on", None)):
        return net
    if callable(getattr(net, "export", None)):
        return net.export()
    raise TypeError(f"{owner}: net must be a NeuralDirections or a Network; got {describe(net)}.")
