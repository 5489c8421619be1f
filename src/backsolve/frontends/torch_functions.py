"""`calculus` bound to torch: three `autograd.Function`s whose backwards are built from each other."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from .. import calculus
from ..eager import eager
from ..plan import Factored, Plan
from ..shapes import Layout, check_start, layout_of
from ..solution import Solution, solution_of, watcher
from .torch_arrays import plain
from .torch_linalg import unrounded
from .torch_vmap import Mapped, front

__all__ = [
    "Call",
    "Function",
    "Ops",
    "check_start_here",
    "is_transformed",
    "lost_columns",
    "nested_forward_mode",
    "primal",
    "recorded",
]


class Call:
    """What a solve and its derivatives share besides tensors.

    `box` receives the outcome of the latest backward solve, for `Solution.adjoint`.
    """

    def __init__(self, plan: Plan, layout: Layout, box: list | None = None):
        self.plan, self.layout, self.box = plan, layout, box
        self.structure = plan.template.structure
        self.outcome: Any = None  # taken by whoever started the solve
        self.failed: Any = None  # Outcome.failed of the forward solve
        self.outcome_seen = False

    def run(
        self, factored: Factored, data: torch.Tensor, b: torch.Tensor, adjoint: bool, backward: bool
    ) -> torch.Tensor:
        cube = _cube(self.structure, b)

        def values():
            return _values(self.structure, data, len(cube))

        return self.run_plain(factored, values, cube, b.shape, adjoint, backward)

    def run_plain(
        self, factored: Factored, values: Any, cube: Any, shape: Any, adjoint: bool, backward: bool
    ) -> torch.Tensor:
        """Solve for values, as a function that gives them, and vectors as the structure computes on them."""
        more = {} if backward else self.start(cube)
        with unrounded(cube):
            outcome = self.plan.run(factored, values, cube, adjoint=adjoint, backward=backward, show=self.show, **more)
        x = _tensor(outcome.x.reshape(shape))
        if not backward:
            self.outcome, self.failed, self.outcome_seen = outcome, outcome.failed, True
        elif self.box is not None:
            self.box[:] = [(outcome, x)]
        return x

    def start(self, cube: Any) -> dict:
        """Where an iterative method begins, and whom it tells."""
        x0, plan, layout = self.plan.x0, self.plan, self.layout
        if x0 is None and plan.callback is None:
            return {}
        if x0 is not None:
            check_start(tuple(x0.shape), layout)
            x0 = layout.columns(x0.detach(), torch.Tensor.expand, torch.permute)
            x0 = x0.reshape(cube.shape)
            x0 = x0.to(cube.dtype) if isinstance(cube, torch.Tensor) else plain(self.structure, x0).astype(cube.dtype)
        return {"x0": x0, "watch": watcher(plan.callback, layout, _tensor, torch.permute)}

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
        return recorded(_Matvec, data, x)(data, x, self.structure, adjoint)

    def outer(self, y, x):
        return recorded(_Outer, y, x)(y, x, self.structure)

    def solve(self, data, b, adjoint, backward=True):
        run = recorded(_Solve, data, b)
        if run is not _Solve.forward and self.factored is not None:
            self.factored.keep()
        return run(data, b, self.call, self.factored, adjoint, backward)


def recorded(function: Any, *tensors: torch.Tensor) -> Any:
    """How to run a Function: for a transform, recorded for autograd, or, where nobody differentiates, directly."""
    if is_transformed():
        return function.apply
    return function.record if torch.is_grad_enabled() and any(t.requires_grad for t in tensors) else function.forward


def check_start_here(plan: Plan) -> None:
    """Raise where x0 or a callback would get lost on the way through a transform."""
    if (plan.x0 is not None or plan.callback is not None) and is_transformed():
        raise TypeError("x0 and callback are not for torch.func transforms and forward mode: leave them out there.")


def is_transformed() -> bool:
    """Whether a transform of torch.func, or forward mode, is under way."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def nested_forward_mode() -> Any:
    """Let a jvp be differentiated forward again.

    Autograd runs it with forward mode off, which makes the second tangent of a nested jvp zero, without a word.
    """
    return forward_ad._set_fwd_grad_enabled(True)


def primal(t: torch.Tensor) -> torch.Tensor:
    """The tensor without the tangent of the innermost forward mode, with those of the outer ones."""
    return forward_ad.unpack_dual(t).primal


class Function(torch.autograd.Function):
    """A Function whose `record` is `apply` without its service to functorch, which costs more than a small solve."""

    def __init_subclass__(cls):
        """Whoever calls these, autograd or a transform, may do so in a program that is compiled in pieces."""
        for name in ("backward", "jvp", "vmap"):
            if name in vars(cls):
                setattr(cls, name, staticmethod(eager(f"{cls.__module__}.{cls.__name__}.{name}")(getattr(cls, name))))

    @classmethod
    def record(cls, *args: Any) -> Any:
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[attr-defined]


class _Solve(Function):
    @staticmethod
    def forward(data, b, call, factored, adjoint, backward):  # type: ignore[override]
        return call.run(factored, data, b, adjoint, backward)

    @staticmethod
    def setup_context(ctx, inputs, output):
        data, _, ctx.call, factored, ctx.adjoint, _ = inputs
        # Autograd frees saved tensors after backward unless the graph is retained: so it frees the factors.
        keeper = torch.empty(0)
        keeper.factored = factored  # type: ignore[attr-defined]
        # Transforms wrap what is saved and lose the attribute, but their graphs end with them.
        ctx.factored = factored if is_transformed() else None
        ctx.save_for_backward(data, output, keeper)
        if ctx.factored is not None:
            ctx.save_for_forward(data, output)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        data, x, keeper = ctx.saved_tensors
        # Hooks on saved tensors (checkpointing, offloading) may hand back a copy: then factor again.
        factored = ctx.factored or getattr(keeper, "factored", None) or Factored()
        lost = lost_columns(ctx.call, x)
        if lost is not None:
            x = torch.where(lost, float("nan"), x)
        ops = Ops(ctx.call.structure, ctx.call, factored)
        data_bar, b_bar = calculus.solve_vjp(ops, data, x, g, ctx.adjoint, ctx.needs_input_grad[:2])
        if lost is not None and b_bar is not None:
            b_bar = torch.where(lost, float("nan"), b_bar)
        return data_bar, b_bar, None, None, None, None

    @staticmethod
    def jvp(ctx, data_dot, b_dot, *_):  # type: ignore[override]
        ops = Ops(ctx.call.structure, ctx.call, ctx.factored)
        with nested_forward_mode():
            data, x = map(primal, ctx.saved_tensors[:2])
            return calculus.solve_jvp(ops, data, x, data_dot, b_dot, ctx.adjoint)

    @staticmethod
    def vmap(info, in_dims, data, b, call, factored, adjoint, backward):  # type: ignore[override]
        size, mapped_data = info.batch_size, in_dims[0] is not None
        mapped = Mapped(size, b.ndim - (in_dims[1] is not None), folded=not mapped_data)
        columns = mapped.lay_out(front(b, in_dims[1], size))
        if mapped_data:
            core = 2 if call.structure.kind == "dense" else 1
            data, factored = mapped.values(front(data, in_dims[0], size), core), factored.mapped()
        items = (data.shape[0],) if columns.ndim == 3 else ()
        inner = Call(call.plan, layout_of(items, tuple(columns.shape)))
        x = Ops(call.structure, inner, factored).solve(data, columns, adjoint, backward)
        return mapped.bring_back(x), 0


class _Matvec(Function):
    @staticmethod
    def forward(data, x, structure, adjoint):  # type: ignore[override]
        cube = _cube(structure, x)
        y = structure.matvec(_values(structure, data, len(cube)), cube, adjoint)
        return _tensor(y.reshape((y.shape[1], *x.shape[1:])) if x.ndim < 3 else y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        data, x, ctx.structure, ctx.adjoint = inputs
        ctx.save_for_backward(data, x)
        ctx.save_for_forward(data, x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        data, x = ctx.saved_tensors
        bars = calculus.matvec_vjp(Ops(ctx.structure), data, x, g, ctx.adjoint, ctx.needs_input_grad[:2])
        return *bars, None, None

    @staticmethod
    def jvp(ctx, data_dot, x_dot, *_):  # type: ignore[override]
        with nested_forward_mode():
            data, x = map(primal, ctx.saved_tensors)
            return calculus.matvec_jvp(Ops(ctx.structure), data, x, data_dot, x_dot, ctx.adjoint)

    @staticmethod
    def vmap(info, in_dims, data, x, structure, adjoint):  # type: ignore[override]
        size, mapped_data = info.batch_size, in_dims[0] is not None
        mapped = Mapped(size, x.ndim - (in_dims[1] is not None), folded=not mapped_data)
        columns = mapped.lay_out(front(x, in_dims[1], size))
        if mapped_data:
            data = mapped.values(front(data, in_dims[0], size), 2 if structure.kind == "dense" else 1)
        return mapped.bring_back(Ops(structure).matvec(data, columns, adjoint)), 0


class _Outer(Function):
    @staticmethod
    def forward(y, x, structure):  # type: ignore[override]
        s = structure.outer(_cube(structure, y), _cube(structure, x))
        return _tensor(s if x.ndim == 3 else s[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        y, x, ctx.structure = inputs
        ctx.save_for_backward(y, x)
        ctx.save_for_forward(y, x)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        y, x = ctx.saved_tensors
        bars = calculus.outer_vjp(Ops(ctx.structure), y, x, g, ctx.needs_input_grad[:2])
        return *bars, None

    @staticmethod
    def jvp(ctx, y_dot, x_dot, *_):  # type: ignore[override]
        with nested_forward_mode():
            y, x = map(primal, ctx.saved_tensors)
            return calculus.outer_jvp(Ops(ctx.structure), y, x, y_dot, x_dot)

    @staticmethod
    def vmap(info, in_dims, y, x, structure):  # type: ignore[override]
        size = info.batch_size
        mapped = Mapped(size, y.ndim - (in_dims[0] is not None), folded=False)
        y, x = (mapped.lay_out(front(v, axis, size)) for v, axis in ((y, in_dims[0]), (x, in_dims[1])))
        s = Ops(structure).outer(y, x)
        return mapped.values_back(s, 2 if structure.kind == "dense" else 1), 0


def _cube(structure: Any, b: torch.Tensor) -> Any:
    """Vectors as plain (items, n, k)."""
    array = plain(structure, b)
    return array if array.ndim == 3 else array.reshape(1, b.shape[0], 1 if b.ndim == 1 else b.shape[1])


def _values(structure: Any, data: torch.Tensor, items: int) -> Any:
    """Values as plain (items, nnz) or (items, n_rows, n_cols)."""
    core = structure.shape if structure.kind == "dense" else (structure.nnz,)
    return plain(structure, data).reshape(items, *core)


def _tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def lost_columns(call: Call, x: torch.Tensor) -> torch.Tensor | None:
    """Where the forward solve failed, to broadcast against x as the engine laid it out."""
    if call.failed is not None:
        lost = torch.from_numpy(call.failed).to(x.device)
        return lost[:, None, None] if x.ndim == 3 else lost
    if call.outcome_seen or call.plan.on_failure[False] == "raise":
        return None
    # Solved under vmap, where verdicts are not at hand: what failed is NaN.
    return torch.isnan(x).any(dim=-2, keepdim=True) if x.ndim > 1 else torch.isnan(x).any()
