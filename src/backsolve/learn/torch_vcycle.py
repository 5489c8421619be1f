"""A V-cycle that learns its weights."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..errors import describe
from ..pattern import Pattern
from ..preconditioners import AbstractPreconditioner, Prepared
from .cycle_weights import HAND_SET, parameters_of, weights_of
from .hierarchy import Bottom, Level, cycle
from .torch_batch import Systems, energy_errors, linear
from .vcycle import HIERARCHIES, VCycle, levels_of

__all__ = ["LearnedVCycle"]


class LearnedVCycle(torch.nn.Module, AbstractPreconditioner):
    """A multigrid V-cycle whose two smoothing weights and coarse scale on each level are learned; see `VCycle`.

    Positive definite for every value of its parameters p, q, s, so CG with it converges however it was trained:
    with m = 1 + max(e^p, 1e-6) and d = 0.98 √2 m tanh q the weights are a = 1/(m + d/2) and b = 1/(m - d/2), and the
    scale is e^s, kept between e^-3 and e^3. Trained by `fit` through steps of CG on small problems, used on large ones:
    levels beyond those of the largest problem that was trained on take the weights of the last of these.

    It is an `nn.Module` and a preconditioner, for `bs.solve(A, b, method="cg", M=cycle)` in every framework, and
    `export` gives one that needs no torch.

    Parameters
    ----------
    levels : int
        Levels with weights of their own.
    steps : int
        Steps of CG that the loss goes through, mean log(‖e_k‖²_A / ‖e_0‖²_A).
    hierarchy : {"auto", "grid", "smoothed_aggregation", "ruge_stuben"}
        See `VCycle`.
    start : (a, b, scale)
        Weights of all levels before training; by default those of `VCycle`, set by hand.

    Examples
    --------
    >>> import backsolve as bs
    >>> from backsolve import gallery, learn
    >>> family = gallery.Diffusion(side=16)
    >>> M = learn.LearnedVCycle()
    >>> found = learn.fit(M, family, steps=5, train=4, held_out=2)
    >>> problem = gallery.Diffusion(side=32)(seed=5)
    >>> sol = bs.solve_with_info(problem.A, problem.b, method="cg", M=M.export())
    >>> sol.converged, len(M.export().weights)
    (True, 1)
    """

    name = "learned_v_cycle"
    hermitian = True

    def __init__(
        self,
        levels: int = 4,
        steps: int = 6,
        hierarchy: str = "auto",
        start: tuple[float, float, float] = HAND_SET,
    ):
        super().__init__()
        for name, value in (("levels", levels), ("steps", steps)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"LearnedVCycle: {name} must be an integer of at least 1; got {describe(value)}.")
        if hierarchy not in HIERARCHIES:
            known = ", ".join(map(repr, HIERARCHIES))
            raise ValueError(f"LearnedVCycle: hierarchy must be one of {known}; got {describe(hierarchy)}.")
        VCycle((start,))  # which refuses weights that are not allowed
        self.steps, self.hierarchy = steps, hierarchy
        self.options = {"levels": levels, "steps": steps, "hierarchy": hierarchy}
        p, q, s = (torch.full((levels,), float(v), dtype=torch.float64) for v in parameters_of(*start))
        self.p, self.q, self.s = (torch.nn.Parameter(v) for v in (p, q, s))
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.tensor(0))

    def weights(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(a, b, scale) of each level."""
        return list(zip(*weights_of(self.p, self.q, self.s, torch), strict=True))

    def export(self) -> VCycle:
        """Return the cycle with the weights as they are now, as a preconditioner that needs no torch.

        Raises
        ------
        ValueError
            If a parameter is not finite.
        """
        for name, value in self.named_parameters():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"LearnedVCycle: parameters must be finite; {name} is not: train again with a smaller lr, or load "
                    "a checkpoint."
                )
        with torch.no_grad():
            rows = torch.stack(weights_of(self.p, self.q, self.s, torch), dim=1).tolist()
        known = int(self.seen) or len(rows)
        return VCycle(tuple((a, b, scale) for a, b, scale in rows[:known]), self.hierarchy)

    def batch(self, problems: Sequence[Any]) -> tuple[Systems, list[tuple[int, int, list[Any]]]]:
        """The systems, and their levels, for `loss`."""
        systems, parts, at = Systems(problems), [], 0
        for pattern, values in _alike(systems.matrices):
            if why := self.refuse(SimpleNamespace(structure=pattern, data=values)):
                raise ValueError(f"{self} {why}.")
            kind = VCycle(hierarchy=self.hierarchy).kind(pattern)
            groups, broken = levels_of(pattern, values, kind)
            if broken:
                raise ValueError(next(iter(broken.values())) + ".")
            step = pattern.shape[0] * (len(values) if kind == "grid" else 1)
            for levels in groups:
                parts.append((at, at + step, [_differentiable(level) for level in levels]))
                self.seen.clamp_(min=min(len(levels) - 1, len(self.p)))
                at += step
        return systems, parts

    def loss(self, batch: Any) -> torch.Tensor:
        """Mean logarithm of the share of the squared energy error that is left after `steps` steps of CG."""
        systems, parts = batch
        weights = self.weights()

        def M(r: torch.Tensor) -> torch.Tensor:
            return torch.cat([cycle(levels, weights, r[low:high]) for low, high, levels in parts])

        return torch.log(energy_errors(systems, M, self.steps)).mean()

    def refuse(self, A: Any) -> str | None:
        """As `VCycle`."""
        return VCycle(hierarchy=self.hierarchy).refuse(A)

    def explain(self, A: Any) -> str:
        """Where its levels come from."""
        return f"{VCycle(hierarchy=self.hierarchy).explain(A)}, learned"

    def prepare(self, A: Any) -> Prepared:
        """Make the levels, with the weights as they are now."""
        return self.export().prepare(A)

    def __str__(self) -> str:
        return f"LearnedVCycle(levels={self.options['levels']}, hierarchy={self.hierarchy!r})"


def _alike(matrices: Sequence[Any]) -> list[tuple[Pattern, np.ndarray]]:
    """Runs of matrices on one pattern: (pattern, values (batch, nnz))."""
    runs: list[tuple[Pattern, list[np.ndarray]]] = []
    for A in matrices:
        last = runs[-1][0] if runs else None
        if last is not None and last.nnz == A.nnz and last == Pattern(A.indptr, A.indices, A.shape):
            runs[-1][1].append(A.data)
        else:
            runs.append((Pattern(A.indptr, A.indices, A.shape), [A.data]))
    return [(pattern, np.stack(values)) for pattern, values in runs]


def _differentiable(level: Any) -> Any:
    """A level whose functions take tensors. The transpose of D⁻¹ A is D (D⁻¹ A) D⁻¹, as A is symmetric."""
    if isinstance(level, Bottom):
        return Bottom(linear(level.solve, level.solve), level.lowest)

    def transposed(g: np.ndarray) -> np.ndarray:
        return level.diagonal * level.scaled(level.inverse * g)

    return Level(
        scaled=linear(level.scaled, transposed),
        restrict=linear(level.restrict, level.prolong),
        prolong=linear(level.prolong, level.restrict),
        diagonal=torch.from_numpy(level.diagonal),
        inverse=torch.from_numpy(level.inverse),
    )
