"""`calculus` bound to torch: three `autograd.Function`s whose backwards are built from each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import calculus
from ..plan import Factored, Plan
from ..shapes import Layout
from ..solution import Solution, solution_of

__all__ = ["Call", "Ops"]


class Call:
    """What a solve and its derivatives share besides tensors.

    `box` receives the outcome of the latest backward solve, for `Solution.adjoint`.
    """

    def __init__(self, plan: Plan, layout: Layout, box: list | None = None):
        self.plan, self.layout, self.box = plan, layout, box
        self.structure = plan.template.structure
        self.outcome: Any = None  # taken by whoever started the solve
        self.failed: Any = None  # Outcome.failed of the forward solve

    def run(
        self, factored: Factored, data: torch.Tensor, b: torch.Tensor, adjoint: bool, backward: bool
    ) -> torch.Tensor:
        cube = _cube(self.structure, b)
        values = _values(self.structure, data, len(cube))
        outcome = self.plan.run(factored, values, cube, adjoint=adjoint, backward=backward, show=self.show)
        x = _tensor(outcome.x.reshape(tuple(b.shape)))
        if not backward:
            self.outcome, self.failed = outcome, outcome.failed
        elif self.box is not None:
            self.box[:] = [(outcome, x)]
        return x

    def show(self, outcome: Any) -> Solution:
        """The outcome as the user knows it, forward or backward."""
        x = self.layout.shown(_tensor(outcome.x), torch.permute)
        return solution_of(self.plan.method, outcome, self.layout, x, torch.from_numpy)


class Ops:
    """The three operations that `calculus` asks for, recorded by autograd where somebody may differentiate them.

    data is (...,) or (items, ...) of canonical values; vectors are (n,), (n, k) or (items, n, columns).
    """

    def __init__(self, structure: Any, call: Call | None = None, factored: Factored | None = None):
        self.structure, self.call, self.factored = structure, call, factored

    def matvec(self, data, x, adjoint):
        return _recorded(_Matvec, data, x)(data, x, self.structure, adjoint)

    def outer(self, y, x):
        return _recorded(_Outer, y, x)(y, x, self.structure)

    def solve(self, data, b, adjoint, backward=True):
        return _recorded(_Solve, data, b)(data, b, self.call, self.factored, adjoint, backward)


def _recorded(function: Any, *tensors: torch.Tensor) -> Any:
    """How to run a Function: for a transform, recorded for autograd, or, where nobody differentiates, directly."""
    if torch._C._are_functorch_transforms_active():
        return function.apply
    return function.record if torch.is_grad_enabled() and any(t.requires_grad for t in tensors) else function.forward


class _Function(torch.autograd.Function):
    """A Function whose `record` is `apply` without its service to functorch, which costs more than a small solve."""

    @classmethod
    def record(cls, *args: Any) -> Any:
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[attr-defined]


class _Solve(_Function):
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
        lost = _lost(ctx.call.failed, x)
        if lost is not None:
            x = torch.where(lost, float("nan"), x)
        ops = Ops(ctx.call.structure, ctx.call, factored)
        data_bar, b_bar = calculus.solve_vjp(ops, data, x, g, ctx.adjoint, ctx.needs_input_grad[:2])
        if lost is not None and b_bar is not None:
            b_bar = torch.where(lost, float("nan"), b_bar)
        return data_bar, b_bar, None, None, None, None


class _Matvec(_Function):
    @staticmethod
    def forward(data, x, structure, adjoint):  # type: ignore[override]
        cube = _cube(structure, x)
        y = structure.matvec(_values(structure, data, len(cube)), cube, adjoint)
        return _tensor(y.reshape((y.shape[1], *x.shape[1:])) if x.ndim < 3 else y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        data, x, ctx.structure, ctx.adjoint = inputs
        ctx.save_for_backward(data, x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        data, x = ctx.saved_tensors
        bars = calculus.matvec_vjp(Ops(ctx.structure), data, x, g, ctx.adjoint, ctx.needs_input_grad[:2])
        return *bars, None, None


class _Outer(_Function):
    @staticmethod
    def forward(y, x, structure):  # type: ignore[override]
        s = structure.outer(_cube(structure, y), _cube(structure, x))
        return _tensor(s if x.ndim == 3 else s[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        y, x, ctx.structure = inputs
        ctx.save_for_backward(y, x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        y, x = ctx.saved_tensors
        bars = calculus.outer_vjp(Ops(ctx.structure), y, x, g, ctx.needs_input_grad[:2])
        return *bars, None


def _plain(structure: Any, tensor: torch.Tensor) -> Any:
    """What the structure computes on: the tensor itself if dense, else its NumPy view; contiguous."""
    tensor = tensor.detach()
    if structure.kind == "dense":
        return tensor.contiguous()
    if tensor.is_complex():
        tensor = tensor.resolve_conj()
    return np.ascontiguousarray(tensor.numpy())


def _cube(structure: Any, b: torch.Tensor) -> Any:
    """Vectors as plain (items, n, k)."""
    plain = _plain(structure, b)
    return plain if plain.ndim == 3 else plain.reshape(1, b.shape[0], 1 if b.ndim == 1 else b.shape[1])


def _values(structure: Any, data: torch.Tensor, items: int) -> Any:
    """Values as plain (items, nnz) or (items, n_rows, n_cols)."""
    core = structure.shape if structure.kind == "dense" else (structure.nnz,)
    return _plain(structure, data).reshape(items, *core)


def _tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def _lost(failed: Any, x: torch.Tensor) -> torch.Tensor | None:
    """Where the forward solve failed, to broadcast against x as the engine laid it out."""
    if failed is None:
        return None
    lost = torch.from_numpy(failed).to(x.device)
    return lost[:, None, None] if x.ndim == 3 else lost
