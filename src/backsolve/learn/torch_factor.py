"""Incomplete Cholesky factors that are learned: the honest control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..api import solve
from ..errors import describe
from ..operators import CSR
from ..pattern import Pattern
from ..preconditioners import AbstractPreconditioner, Prepared
from .factor import EDGES, NODES, REACH, CorrectedFactor, corrections, eliminated
from .torch_batch import Systems, energy_errors

__all__ = ["IncompleteFactor"]

LOSSES = ("solution", "frobenius", "steps")


class _Factor:
    """T = L + D of one matrix on its lower places, as far as no weight enters."""

    def __init__(self, A: Any):
        pattern = Pattern(A.indptr, A.indices, A.shape)
        if why := _ZERO.refuse(CSR.from_pattern(A.data[None], pattern)):
            raise ValueError(f"IncompleteFactor {why}.")
        found = eliminated(pattern, A.data[None])
        if found.broken:
            raise ValueError(found.broken[0] + ".")
        rows, columns = np.asarray(pattern.rows), np.asarray(pattern.indices)
        kept = np.flatnonzero(rows >= columns)
        self.indices = columns[kept].astype(np.int32)
        self.indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=A.shape[0]))]).astype(np.int32)
        self.shape = A.shape
        where = np.full(A.nnz, -1)
        where[kept] = np.arange(len(kept))
        self.entry_places = torch.from_numpy(where[found.lower])
        self.pivot_places = torch.from_numpy(where[np.asarray(pattern.diagonal)])
        self.entries = torch.from_numpy(found.values[0, found.lower])
        self.pivots = torch.from_numpy(found.pivots[0])
        self.columns, self.growth = torch.from_numpy(found.columns).long(), torch.from_numpy(found.growth[0])
        self.nodes, self.edges = torch.from_numpy(found.nodes[0]), torch.from_numpy(found.edges[0])

    def corrected(self, entries: Any, pivots: Any) -> tuple[CSR, torch.Tensor]:
        """T and D with the corrections of some weights."""
        below = self.entries * corrections(torch, entries, self.edges, REACH[0])
        sums = torch.zeros_like(self.pivots).index_add(0, self.columns, below.abs())
        d = torch.maximum(self.pivots * corrections(torch, pivots, self.nodes, REACH[1]), sums / self.growth)
        values = torch.zeros(len(self.indices), dtype=torch.float64)
        values = values.index_put((self.entry_places,), below)
        return CSR(values.index_put((self.pivot_places,), d), self.indices, self.indptr, self.shape), d


class IncompleteFactor(torch.nn.Module, AbstractPreconditioner):
    """Incomplete Cholesky factors on the pattern of A, IC(0)'s corrected by a small network: a control, not a claim.

    Learned factors of this kind do about what relaxed modified IC does, which needs no training: hold them against
    ``MIC(0.97)``, not against IC(0). The reason is that both are bound by the pattern. Positive definite for all
    parameters; see `CorrectedFactor`, to which `export` leads.

    Parameters
    ----------
    hidden : int
        Width of the network.
    loss : {"solution", "frobenius", "steps"}
        With F = (L + D) D⁻¹ (D + Lᵀ) - A: ‖F A⁻¹ z‖² / ‖z‖² for normal z, the best of the three, as it weighs what is
        wrong for smooth x; ‖S F S z‖² / n with S = diag(A)^(-1/2), an unbiased estimate of a squared Frobenius norm,
        which makes IC(0) worse; or the mean logarithm of the squared energy error after `steps` steps of CG.
    steps : int
    vectors : int
        Of z for each matrix.
    seed : int
        Of the weights and of z.

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery, learn
    >>> family = gallery.Diffusion(side=16)
    >>> M = learn.IncompleteFactor()
    >>> found = learn.fit(M, family, steps=60, lr=0.03, train=4, batch=4, held_out=2)
    >>> p = gallery.Diffusion(side=32)(seed=99)
    >>> counts = [int(bs.solve_with_info(p.A, p.b, method="cg", M=each).stats.iterations) for each in ("ic0", M)]
    >>> counts[1] < counts[0]
    True
    """

    name = "incomplete_factor"
    hermitian = True

    def __init__(self, hidden: int = 8, loss: str = "solution", steps: int = 6, vectors: int = 4, seed: int = 0):
        super().__init__()
        for name, value in (("hidden", hidden), ("steps", steps), ("vectors", vectors)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"IncompleteFactor: {name} must be an integer of at least 1; got {describe(value)}.")
        if loss not in LOSSES:
            known = ", ".join(map(repr, LOSSES))
            raise ValueError(f"IncompleteFactor: loss must be one of {known}; got {describe(loss)}.")
        self.options = {"hidden": hidden, "loss": loss, "steps": steps, "vectors": vectors, "seed": seed}
        self.kind, self.steps, self.vectors, self.seed = loss, steps, vectors, seed
        rng = np.random.default_rng(seed)
        self.entries = self._network(rng, EDGES + 2 * NODES, hidden)
        self.pivots = self._network(rng, NODES, hidden)

    @staticmethod
    def _network(rng: np.random.Generator, inputs: int, hidden: int) -> torch.nn.ParameterList:
        """Weights with which all corrections are 1."""
        first = rng.standard_normal((inputs, hidden)) / np.sqrt(inputs)
        parts = (first, rng.standard_normal(hidden), np.zeros(hidden), np.zeros(()))
        return torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(np.asarray(w))) for w in parts])

    def forward(self, A: sp.csr_array, r: torch.Tensor) -> torch.Tensor:
        """M r for r (n,) or (n, k), differentiable in the parameters and r."""
        return _applied(*_Factor(A).corrected(self.entries, self.pivots), r)

    def batch(self, problems: Sequence[Any]) -> tuple[Systems, list[tuple[_Factor, torch.Tensor, torch.Tensor]]]:
        """The systems, their factors by IC(0), z and the vectors that F is applied to, for `loss`."""
        systems, rng, parts = Systems(problems), np.random.default_rng(self.seed), []
        for A in systems.matrices:
            z = rng.standard_normal((A.shape[0], self.vectors))
            if self.kind == "solution":
                w = solve(A, z, assume="spd")
                image, weight = z, 1 / np.sum(z**2, axis=0)
            else:
                s = 1 / np.sqrt(A.diagonal())[:, None]
                w = s * z
                image, weight = A @ w, s**2 / len(s)
            parts.append((_Factor(A), *(torch.from_numpy(np.asarray(v)) for v in (w, image, weight))))
        return systems, parts

    def loss(self, batch: Any) -> torch.Tensor:
        """Mean over the matrices."""
        systems, parts = batch
        made = [part[0].corrected(self.entries, self.pivots) for part in parts]
        if self.kind == "steps":

            def M(r: torch.Tensor) -> torch.Tensor:
                parts = zip(made, torch.split(r, systems.sizes), strict=True)
                return torch.cat([_applied(T, d, v) for (T, d), v in parts])

            return torch.log(energy_errors(systems, M, self.steps)).mean()
        losses = []
        for (T, d), (_, w, image, weight) in zip(made, parts, strict=True):
            gap = T @ ((T.T @ w) / d[:, None]) - image
            losses.append((weight * gap**2).sum() / w.shape[1])
        return torch.stack(losses).mean()

    def export(self) -> CorrectedFactor:
        """Return M with the weights as they are now, as a preconditioner that needs no torch.

        Raises
        ------
        ValueError
            If a weight is not finite.
        """
        return CorrectedFactor(*([w.detach().numpy() for w in part] for part in (self.entries, self.pivots)))

    def refuse(self, A: Any) -> str | None:
        """As `CorrectedFactor`."""
        return self.export().refuse(A)

    def explain(self, A: Any) -> str:
        """As `CorrectedFactor`."""
        return f"{self.export().explain(A)} that was trained"

    def prepare(self, A: Any) -> Prepared:
        """With the weights as they are now."""
        return self.export().prepare(A)

    def __str__(self) -> str:
        return f"IncompleteFactor(hidden={self.options['hidden']}, loss={self.kind!r})"


def _applied(T: CSR, d: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    y = solve(T, r, assume="lower")
    return solve(T.T, (d if r.ndim == 1 else d[:, None]) * y, assume="upper")


_ZERO = CorrectedFactor(
    *((np.zeros((count, 1)), np.zeros(1), np.zeros(1), 0.0) for count in (EDGES + 2 * NODES, NODES))
)
"""IC(0) itself: it says which matrices there are factors for."""
