"""A network that learns to propose search directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..errors import describe
from ..pattern import Pattern
from ..preconditioners.registry import check_preconditioner
from .network import Layer, Network, edge_features
from .torch_batch import Systems, linear

__all__ = ["NeuralDirections"]

_KEPT = 8
"""Directions that steps are kept orthogonal to while training."""


class NeuralDirections(torch.nn.Module):
    """A message-passing network on the graph of A that proposes directions to `GuidedCG` or `GuidedPreconditioner`.

    Edges have the values a_ij/√(a_ii a_jj) and a_ji/√(a_ii a_jj), nodes the residual r and M r, both in scaled unknowns
    and divided by their size. It takes no notice of the scale of A and b, of a symmetric diagonal scaling, or of the
    numbering of unknowns, and serves matrices of any size. Each layer costs `kinds` products of sparse matrices with
    `channels` columns.

    Parameters
    ----------
    channels, layers, hidden, kinds : int
        Numbers of each node, layers, hidden units of the edge functions, and edge functions in each layer.
    M : str
        The preconditioner that it is trained beside, and its partner in use: "mic", "ic0", "ilu0", "jacobi", ...
    steps : int
        Steps that the loss goes through, from states of the classical method in its first, 4th, 8th and 16th iteration.
    symmetric : bool
        Whether the systems are symmetric positive definite: then steps are best in energy, else in the residual norm.
    seed : int
        Of the first weights.

    References
    ----------
    Kaneda et al. 2023, arXiv:2205.10763; Gilmer et al. 2017, arXiv:1704.01212 (message passing).

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery, learn
    >>> net = learn.NeuralDirections(channels=4, layers=2)
    >>> p = gallery.GeometricGraph(n=200)(seed=0)
    >>> bs.solve_with_info(p.A, p.b, method=learn.GuidedCG(net=net, M="mic")).converged
    True
    """

    def __init__(
        self,
        channels: int = 8,
        layers: int = 4,
        hidden: int = 8,
        kinds: int = 2,
        M: str = "mic",
        steps: int = 3,
        symmetric: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        numbers = {"channels": channels, "layers": layers, "hidden": hidden, "kinds": kinds, "steps": steps}
        for name, value in numbers.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"NeuralDirections: {name} must be an integer of at least 1; got {describe(value)}.")
        if not isinstance(M, str):
            raise TypeError(f"NeuralDirections: M must be the name of a preconditioner; got {describe(M)}.")
        check_preconditioner(M)
        self.options = numbers | {"M": M, "symmetric": bool(symmetric), "seed": seed}
        self.M, self.steps, self.symmetric = M, steps, bool(symmetric)
        made = torch.Generator().manual_seed(seed)

        def normal(*shape: int, size: float) -> torch.nn.Parameter:
            return torch.nn.Parameter(size * torch.randn(*shape, generator=made, dtype=torch.float64))

        c, k, h = channels, kinds, hidden
        self.lift, self.out = normal(2, c, size=1.0), normal(c, size=c**-0.5)
        self.u, self.T = normal(layers, k, 2, size=0.5), normal(layers, k, 2, h, size=2.0)
        self.t, self.v = normal(layers, k, h, size=1.0), normal(layers, k, h, size=0.5 * h**-0.5)
        self.W, self.W_own = normal(layers, k, c, c, size=(k * c) ** -0.5), normal(layers, c, c, size=0.3 * c**-0.5)

    def export(self) -> Network:
        """Return the weights as they are now, as a `Network` that needs no torch."""
        w = {name: value.detach().numpy().copy() for name, value in self.named_parameters()}
        rows = zip(*(w[name] for name in ("u", "T", "t", "v", "W", "W_own")), strict=True)
        return Network(w["lift"], tuple(Layer(*row) for row in rows), w["out"])

    def batch(self, problems: Sequence[Any]) -> _Batch:
        """The systems with M, their edges, and states of the classical method to begin at."""
        systems = Systems(problems)
        A = systems.matrix
        pattern = Pattern(A.indptr, A.indices, (len(systems.b), len(systems.b)))
        made: Any = check_preconditioner(self.M)
        plain = SimpleNamespace(structure=pattern, data=A.data[None], shape=A.shape)
        if why := made.refuse(plain):
            raise ValueError(f"NeuralDirections: M={self.M!r} {why}.")
        prepared = made.prepare(plain)
        if prepared.broken:
            raise ValueError(f"NeuralDirections: {next(iter(prepared.broken.values()))}.")
        M = linear(
            lambda r: prepared.apply(r[None, :, None], False)[0, :, 0],
            lambda r: prepared.apply(r[None, :, None], True)[0, :, 0],
        )
        scale, edges = edge_features(pattern, A.data)
        rows, columns = torch.from_numpy(np.array(pattern.rows)).long(), torch.from_numpy(A.indices.astype(np.int64))
        batch = _Batch(systems, M, torch.from_numpy(scale), torch.from_numpy(edges), rows, columns, [])
        with torch.no_grad():
            state = _State(torch.zeros_like(systems.b), systems.b, [])
            for iteration in range(17):
                if iteration in (0, 4, 8, 16):
                    batch.states.append(state)
                state = self._step(batch, state, None)
        return batch

    def loss(self, batch: _Batch) -> torch.Tensor:
        """Mean logarithm of the share of squared error (in energy, or of the residual) left after `steps` steps.

        Without a gradient from all states, with one from a random one of them.
        """
        states = batch.states
        if torch.is_grad_enabled():
            states = [states[int(torch.randint(len(states), ()))]]
        weights = self._edge_matrices(batch)
        total = torch.zeros((), dtype=torch.float64)
        for state in states:
            before = self._error(batch, state)
            for _ in range(self.steps):
                state = self._step(batch, state, weights)
            # what is solved to rounding has nothing more to teach
            left = (self._error(batch, state) / before.clamp_min(1e-300)).clamp_min(1e-24)
            total = total + torch.log(left).mean()
        return total / len(states)

    def _error(self, batch: _Batch, state: _State) -> torch.Tensor:
        dots = batch.systems.dots
        return dots(batch.systems.x - state.x, state.r) if self.symmetric else dots(state.r, state.r)

    def _edge_matrices(self, batch: _Batch) -> torch.Tensor:
        """φ_k of every edge in every layer: (layers, kinds, edges)."""
        hidden = torch.tanh(torch.einsum("ef,lkfh->lkeh", batch.edges, self.T) + self.t[:, :, None, :])
        return torch.einsum("ef,lkf->lke", batch.edges, self.u) + torch.einsum("lkeh,lkh->lke", hidden, self.v)

    def _directions(self, batch: _Batch, r: torch.Tensor, z: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        systems = batch.systems

        def scaled(v: torch.Tensor) -> torch.Tensor:
            count = torch.tensor(systems.sizes, dtype=v.dtype)
            return v / systems.spread((systems.dots(v, v) / count).clamp_min(1e-300).sqrt())

        H = torch.stack([scaled(r * batch.scale), scaled(z / batch.scale)], dim=1) @ self.lift
        for layer in range(len(phi)):
            total = H @ self.W_own[layer]
            for k in range(phi.shape[1]):
                messages = phi[layer, k][:, None] * (H @ self.W[layer, k])[batch.columns]
                total = total.index_add(0, batch.rows, messages)
            H = H + torch.tanh(total)
        return (H @ self.out) * batch.scale

    def _step(self, batch: _Batch, state: _State, phi: torch.Tensor | None) -> _State:
        """The best step in span{M r, v, latest directions}; without phi, which has the edge functions, without v.

        Directions are orthogonal in energy, or, where A is not symmetric, in the images A d. With w = d or w = A d the
        inner product of d and e is w · A e, and the coefficient of d in the best step w · r / w · A d.
        """
        systems, dots, spread = batch.systems, batch.systems.dots, batch.systems.spread
        z = batch.M(state.r)
        candidates = [z] if phi is None else [z, self._directions(batch, state.r, z, phi)]
        x, r, kept = state.x, state.r, state.kept
        for d in candidates:
            Ad = systems.A(d)
            for q, Aq in kept:
                w = q if self.symmetric else Aq
                share = spread(_ratio(dots(w, Ad), dots(w, Aq)))
                d, Ad = d - share * q, Ad - share * Aq
            w = d if self.symmetric else Ad
            alpha = spread(_ratio(dots(w, r), dots(w, Ad)))
            x, r, kept = x + alpha * d, r - alpha * Ad, [*kept, (d, Ad)]
        return _State(x, r, kept[-_KEPT:])


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    safe = below > 0
    return torch.where(safe, above / torch.where(safe, below, torch.ones_like(below)), torch.zeros_like(above))


@dataclass(frozen=True, eq=False)
class _State:
    """Of one iteration: x, its residual, and the latest directions with their products."""

    x: torch.Tensor
    r: torch.Tensor
    kept: list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Systems, and what the network and the method need of them."""

    systems: Systems
    M: Any
    scale: torch.Tensor
    edges: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    states: list[_State]
