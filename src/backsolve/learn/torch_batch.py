"""Systems to train on, several in one: block-diagonal, vectors one after another, products by SciPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..api import solve
from ..errors import describe

__all__ = ["Systems", "energy_errors", "linear"]


class _Linear(torch.autograd.Function):
    """x -> A x for a constant A that NumPy applies; the derivative is Aᵀ, and that of it A again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, apply: Callable, transpose: Callable) -> torch.Tensor:  # type: ignore[override]
        ctx.maps = apply, transpose
        return torch.from_numpy(np.ascontiguousarray(apply(x.detach().numpy())))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        apply, transpose = ctx.maps
        return _Linear.apply(gradients[0].contiguous(), transpose, apply), None, None


def linear(apply: Callable, transpose: Callable) -> Callable[[torch.Tensor], torch.Tensor]:
    """A differentiable x -> A x, made of functions of NumPy that apply A and Aᵀ."""

    def product(x: torch.Tensor) -> torch.Tensor:
        return _Linear.apply(x, apply, transpose)  # type: ignore[return-value]

    return product


class Systems:
    """A few `gallery.Problem`s with their solutions.

    Parameters
    ----------
    problems : sequence of gallery.Problem
        With real sparse A and one solution each.

    Attributes
    ----------
    A : callable
        The product with all matrices, differentiable.
    matrix : scipy.sparse.csr_array
        The block-diagonal matrix of them.
    b, x : tensors (count,)
        Right-hand sides and solutions, one after another.
    matrices : list of scipy.sparse.csr_array
    sizes : list of int
    """

    def __init__(self, problems: Sequence[Any]):
        if not problems:
            raise ValueError("Systems: problems must not be empty; a family gives one for each seed: family(seed).")
        matrices = []
        for p in problems:
            if not getattr(p, "solvable", False) or np.iscomplexobj(p.A.data):
                raise ValueError(f"Systems: problems must be real ones with one solution each; got {describe(p)}.")
            matrices.append(sp.csr_array((p.A.data, (p.rows, p.cols)), shape=p.A.shape))
        self.matrices, self.sizes = matrices, [A.shape[0] for A in matrices]
        self.matrix = sp.csr_array(sp.block_diag(matrices, format="csr"))
        turned = sp.csr_array(self.matrix.T)
        self.A = linear(self.matrix.__matmul__, turned.__matmul__)
        self.b = torch.from_numpy(np.concatenate([p.b for p in problems]))
        truth = [solve(A, p.b, assume=p.assume) for A, p in zip(matrices, problems, strict=True)]
        self.x = torch.from_numpy(np.concatenate(truth))
        self._item = torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))
        self._even = len(set(self.sizes)) == 1

    def dots(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """u · v of each system: (systems,)."""
        products = u * v
        if self._even:
            return products.view(len(self.sizes), -1).sum(dim=1)
        return torch.zeros(len(self.sizes), dtype=products.dtype).index_add(0, self._item, products)

    def spread(self, scalars: torch.Tensor) -> torch.Tensor:
        """A number of each system for each of its unknowns: (count,)."""
        return scalars[self._item]


def energy_errors(systems: Systems, M: Callable, steps: int) -> torch.Tensor:
    """‖x - x_k‖²_A / ‖x‖²_A of each system after k = `steps` steps of CG with M from zero, differentiable in M.

    A column whose residual vanishes on the way stays where it is: divisions are by 1 where they would be by 0, in the
    function and in its derivative.
    """
    r, x = systems.b, torch.zeros_like(systems.b)
    start = systems.dots(systems.x, r)
    z = M(r)
    p, rz = z, systems.dots(r, z)
    for _ in range(steps):
        q = systems.A(p)
        alpha = systems.spread(_ratio(rz, systems.dots(p, q)))
        x, r = x + alpha * p, r - alpha * q
        z = M(r)
        after = systems.dots(r, z)
        p, rz = z + systems.spread(_ratio(after, rz)) * p, after
    # ‖e‖²_A = e · A e = e · r
    return systems.dots(systems.x - x, r).clamp_min(1e-300) / start


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    safe = below > 0
    return torch.where(safe, above / torch.where(safe, below, torch.ones_like(below)), torch.zeros_like(above))
