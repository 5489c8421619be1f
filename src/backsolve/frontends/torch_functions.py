"""`calculus` bound to torch: three `autograd.Function`s whose backwards are built from each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import calculus
from ..plan import Factored, Plan
from ..shapes import Layout

__all__ = ["Call", "Ops"]


class Call:
    """What a solve and its derivatives share besides tensors.

    `box` receives the outcome of the latest backward solve, for `Solution.adjoint`.
    """

    def __init__(self, plan: Plan, layout: Layout, box: list | None = None):
        self.plan, self.layout, self.box = plan, layout, box
        self.structure = plan.template.structure
        self.outcome: Any = None

    def run(
        self, factored: Factored, data: torch.Tensor, b: torch.Tensor, adjoint: bool, backward: bool
    ) -> torch.Tensor:
        items, cube = _cube(b)
        values = _plain(self.structure, data)
        values = values.reshape(
            items, *(self.structure.shape if self.structure.kind == "dense" else (self.structure.nnz,))
        )
        outcome = self.plan.run(factored, values, _plain(self.structure, cube), adjoint=adjoint, backward=backward)
        x = _tensor(outcome.x).reshape(b.shape)
        if not backward:
            self.outcome = outcome
        elif self.box is not None:
            self.box[:] = [(outcome, x)]
        return x


class Ops:
    """The three operations that `calculus` asks for, each recorded by autograd.

    data is (...,) or (items, ...) of canonical values; vectors are (n,), (n, k) or (items, n, columns).
    """

    def __init__(self, structure: Any, call: Call | None = None, factored: Factored | None = None):
        self.structure, self.call, self.factored = structure, call, factored

    def matvec(self, data, x, adjoint):
        return _Matvec.apply(data, x, self.structure, adjoint)

    def outer(self, y, x):
        return _Outer.apply(y, x, self.structure)

    def solve(self, data, b, adjoint, backward=True):
        return _Solve.apply(data, b, self.call, self.factored, adjoint, backward)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(data, b, call, factored, adjoint, backward):  # type: ignore[override]
        return call.run(factored, data, b, adjoint, backward)

    @staticmethod
    def setup_context(ctx, inputs, output):
        data, _, ctx.call, factored, ctx.adjoint, _ = inputs
        # Autograd frees saved tensors after backward unless the graph is retained: so it frees the factors.
        keeper = torch.empty(0)
        keeper.factored = factored  # type: ignore[attr-defined]
        ctx.save_for_backward(data, output, keeper)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        data, x, keeper = ctx.saved_tensors
        # Hooks on saved tensors (checkpointing, offloading) may hand back a copy: then factor again.
        factored = getattr(keeper, "factored", None) or Factored()
        lost = _lost(factored, x)
        if lost is not None:
            x = torch.where(lost, float("nan"), x)
        ops = Ops(ctx.call.structure, ctx.call, factored)
        data_bar, b_bar = calculus.solve_vjp(ops, data, x, g, ctx.adjoint, ctx.needs_input_grad[:2])
        if lost is not None and b_bar is not None:
            b_bar = torch.where(lost, float("nan"), b_bar)
        return data_bar, b_bar, None, None, None, None


class _Matvec(torch.autograd.Function):
    @staticmethod
    def forward(data, x, structure, adjoint):  # type: ignore[override]
        items, cube = _cube(x)
        core = structure.shape if structure.kind == "dense" else (structure.nnz,)
        y = structure.matvec(_plain(structure, data).reshape(items, *core), _plain(structure, cube), adjoint)
        rows = y.shape[1]
        return _tensor(y).reshape((rows, *x.shape[1:]) if x.ndim < 3 else (items, rows, x.shape[2]))

    @staticmethod
    def setup_context(ctx, inputs, output):
        data, x, ctx.structure, ctx.adjoint = inputs
        ctx.save_for_backward(data, x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        data, x = ctx.saved_tensors
        bars = calculus.matvec_vjp(Ops(ctx.structure), data, x, g, ctx.adjoint, ctx.needs_input_grad[:2])
        return *bars, None, None


class _Outer(torch.autograd.Function):
    @staticmethod
    def forward(y, x, structure):  # type: ignore[override]
        s = _tensor(structure.outer(_plain(structure, _cube(y)[1]), _plain(structure, _cube(x)[1])))
        return s if x.ndim == 3 else s[0]

    @staticmethod
    def setup_context(ctx, inputs, output):
        y, x, ctx.structure = inputs
        ctx.save_for_backward(y, x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        y, x = ctx.saved_tensors
        bars = calculus.outer_vjp(Ops(ctx.structure), y, x, g, ctx.needs_input_grad[:2])
        return *bars, None


def _cube(b: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Items, and b as contiguous (items, n, k)."""
    b = b.detach().contiguous()
    if b.ndim == 3:
        return b.shape[0], b
    return 1, b.reshape(1, b.shape[0], 1 if b.ndim == 1 else b.shape[1])


def _plain(structure: Any, tensor: torch.Tensor) -> Any:
    """What the structure computes on: the tensor itself if dense, else its NumPy view."""
    tensor = tensor.detach()
    if structure.kind == "dense":
        return tensor
    if tensor.is_complex():
        tensor = tensor.resolve_conj()
    return np.ascontiguousarray(tensor.numpy())


def _tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def _lost(factored: Factored, x: torch.Tensor) -> torch.Tensor | None:
    """Where the forward solve failed, to broadcast against x as the engine laid it out."""
    if factored.failed is None:
        return None
    lost = torch.from_numpy(factored.failed).to(x.device)
    return lost[:, None, None] if x.ndim == 3 else lost
