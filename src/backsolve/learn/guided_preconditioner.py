"""A network's direction and M r, combined for the smallest residual: for matrices that are not symmetric."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import describe
from ..preconditioners import AbstractPreconditioner, Prepared
from ..preconditioners.registry import check_preconditioner
from .guided import DirectionLog, network_of

__all__ = ["GuidedPreconditioner"]


@dataclass(frozen=True)
class GuidedPreconditioner(AbstractPreconditioner):
    """z = α M r + β v with the smallest norm(r - A z), v from a network: for ``method="fgmres"`` and any square A.

    Never worse than M by that measure, and M alone where v is not finite. It varies, so FGMRES is the method for it;
    two products with A in each application.

    Parameters
    ----------
    net : NeuralDirections or Network
    M : str or preconditioner, optional
        None stands for M = I.
    log : DirectionLog, optional
        Adds up what was done in all applications.

    References
    ----------
    Saad 1993, doi:10.1137/0914028.

    Examples
    --------
    >>> from backsolve import gallery, learn, solve_with_info
    >>> p = gallery.ConvectionDiffusion(side=10)(seed=0)
    >>> M = learn.GuidedPreconditioner(learn.NeuralDirections(seed=1), "ilu0")
    >>> solve_with_info(p.A, p.b, method="fgmres", M=M).converged
    True
    """

    net: Any = None
    M: Any = None
    log: Any = field(default=None, compare=False)

    name: ClassVar[str] = "guided"
    varying: ClassVar[bool] = True

    def __post_init__(self):
        network_of("GuidedPreconditioner", self.net)
        object.__setattr__(self, "M", check_preconditioner(self.M))
        if self.log is not None and not isinstance(self.log, DirectionLog):
            raise TypeError(f"GuidedPreconditioner: log must be a DirectionLog; got {describe(self.log)}.")

    def refuse(self, A: Any) -> str | None:
        """It needs the graph of a real sparse A."""
        if A.structure.kind != "csr" or "complex" in str(A.data.dtype):
            return "is for real sparse A: use 'ilu0', or a function"
        return None if self.M is None else self.M.refuse(A)

    def explain(self, A: Any) -> str:
        """The network, and M."""
        return f"directions from a network, and {'r' if self.M is None else self.M.explain(A)}"

    def prepare(self, A: Any) -> Prepared:
        """Evaluate the edges of A, and of Aᴴ when it is first asked for."""
        return _Guided(self, A)


class _Guided(Prepared):
    """For one set of values."""

    def __init__(self, options: GuidedPreconditioner, A: Any):
        made = None if options.M is None else options.M.prepare(A)
        super().__init__(self._apply, None if made is None else made.broken, 0 if made is None else made.nbytes)
        self.M, self.A, self.log = made, A, options.log or DirectionLog()
        self.network = network_of("GuidedPreconditioner", options.net)
        self.networks: dict[bool, list[Any]] = {}

    def _of(self, adjoint: bool) -> list[Any]:
        if adjoint not in self.networks:
            pattern, data = self.A.structure, self.A.data
            if adjoint:
                turned = type(pattern)(pattern.t_indptr, pattern.t_indices, pattern.shape[::-1])
                pattern, data = turned, data[:, pattern.t_slot]
            self.networks[adjoint] = [self.network.on(pattern, np.ascontiguousarray(values)) for values in data]
        return self.networks[adjoint]

    def _apply(self, v: np.ndarray, adjoint: bool) -> np.ndarray:
        log, networks = self.log, self._of(adjoint)
        z = v if self.M is None else log.timed("preconditioner", self.M.apply, v, adjoint)
        proposed = np.zeros_like(z)
        for item, network in enumerate(networks):
            for column in range(v.shape[2]):
                found = log.timed("network", network, v[item, :, column], z[item, :, column])
                size = np.abs(found).max(initial=0.0)
                if np.isfinite(size) and size > 0:
                    proposed[item, :, column] = found / size
                elif not np.isfinite(size) and np.isfinite(v[item, :, column]).all() and not log.reason:
                    log.reason = "nonfinite"
                    logging.getLogger("backsolve").warning(
                        "GuidedPreconditioner: the network proposed what is not finite; M goes on without it"
                    )
        both = np.concatenate([z, proposed], axis=2)
        product = log.timed("matvec", self.A.structure.matvec, self.A.data, both, adjoint)
        log.iterations, log.guided, log.products = log.iterations + 1, log.guided + 1, log.products + 2
        k = v.shape[2]
        return log.timed("orthogonalisation", _combined, v, (z, product[:, :, :k]), (proposed, product[:, :, k:]))


def _combined(r: np.ndarray, first: tuple, second: tuple) -> np.ndarray:
    """α z + β v of the smallest norm(r - α A z - β A v); z itself where A z, or what A v adds to it, is lost."""
    (z, Az), (v, Av) = first, second

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sum(a * b, axis=1, keepdims=True)

    zz, vv = dot(Az, Az), dot(Av, Av)
    safe = np.isfinite(zz) & (zz > 0)
    share = np.where(safe, dot(Az, Av) / np.where(safe, zz, 1), 0)
    w, Aw = v - share * z, Av - share * Az
    ww = dot(Aw, Aw)
    useful = safe & np.isfinite(ww) & (ww > 1e-8 * vv)
    beta = np.where(useful, dot(Aw, r) / np.where(useful, ww, 1), 0)
    alpha = np.where(safe, dot(Az, r) / np.where(safe, zz, 1), 1)
    # where M r is of no use (A M r ⊥ r) and v neither, M r is what keeps FGMRES going
    alive = np.abs(alpha) * np.sqrt(dot(z, z)) + np.abs(beta) * np.sqrt(dot(w, w)) > 0
    return np.where(alive, alpha * z + np.where(useful, beta * w, 0), z)
