"""Roots of torch functions: a `Function` whose derivatives are the rules of `problem`, made of recorded operations."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ..frontends.torch_closures import refuse_hidden, wrapped
from ..frontends.torch_functions import Function, is_transformed, nested_forward_mode, primal
from ..frontends.torch_vmap import front
from ..operators import MatrixFree, flatten

__all__ = ["BACKEND"]


def loop(going: Callable, step: Callable, state: Any) -> Any:
    """Repeat `step` while `going`."""
    while bool(going(state)):
        state = step(state)
    return state


def like(b: torch.Tensor, array: Any) -> torch.Tensor:
    """An array in the dtype of b, and where b lives."""
    return torch.as_tensor(array, dtype=b.dtype, device=b.device)


def known(tensor: torch.Tensor) -> np.ndarray | None:
    """The numbers; None inside of a transform."""
    return None if wrapped(tensor) else tensor.detach().cpu().numpy()


def index(b: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    """Integers as indices beside b."""
    return torch.as_tensor(array, device=b.device)


def flatten_params(params: tuple) -> tuple[tuple, Callable]:
    """Tensors in the parameters, and what puts others in their place."""
    leaves, rebuild = flatten(params)
    return tuple(torch.as_tensor(leaf) for leaf in leaves), rebuild


def vjp(function: Callable, *arguments: Any) -> tuple[Any, Callable]:
    """The value and the pullback."""
    return torch.func.vjp(function, *arguments)[:2]  # type: ignore[return-value]


def products(flat: Callable, z: torch.Tensor, leaves: tuple) -> MatrixFree:
    """J by products. Its transpose is what a pullback is, so that is the function, and J its transpose.

    Where nobody can differentiate what follows, F is evaluated once for all products.
    """
    n = len(z)
    if not torch.is_grad_enabled() and not is_transformed():
        _, pull = vjp(lambda z: flat(z, leaves), z)
        return MatrixFree(lambda _, g: pull(g)[0], (), (n, n)).H

    def transposed(params: tuple, g: torch.Tensor) -> torch.Tensor:
        z, leaves = params
        return vjp(lambda z: flat(z, leaves), z)[1](g)[0]

    return MatrixFree(transposed, (z, leaves), (n, n)).H


def dense(flat: Callable, z: torch.Tensor, leaves: tuple) -> torch.Tensor:
    """The Jacobian."""
    return torch.func.jacrev(lambda z: flat(z, leaves))(z)  # type: ignore[return-value]


def columns(flat: Callable, z: torch.Tensor, leaves: tuple, seeds: np.ndarray) -> torch.Tensor:
    """J s for each row s of `seeds`: forward mode by two transpositions, which any function with a backward has."""
    y, pull = vjp(lambda z: flat(z, leaves), z)
    _, push = vjp(pull, torch.zeros_like(y))
    return torch.func.vmap(lambda s: push((s,))[0])(like(z, seeds))


class Call:
    """What a root and its derivatives share besides tensors."""

    def __init__(self, problem: Any, backward: list):
        self.problem, self.backward = problem, backward
        self.found: Any = None
        """The outcome of the solver; None where a map has found several."""

    def marked(self, z: torch.Tensor, v: torch.Tensor, mark: float = float("nan")) -> torch.Tensor:
        """v (batch·n,), marked for samples that have no root: nothing is known of their derivatives."""
        by_sample = (self.problem.samples, -1)
        lost = torch.isnan(z.reshape(by_sample)).any(-1) if self.found is None else self.found.status <= 0
        return torch.where(lost[:, None], mark, v.reshape(by_sample)).reshape(-1)


class _Root(Function):
    """z0, θ -> z*, by the solver; its derivatives by the implicit function theorem."""

    @staticmethod
    def forward(call, z0, *leaves):  # type: ignore[override]
        with torch.no_grad():
            call.found = call.problem.solve(BACKEND, z0, leaves)
        return call.found.z.reshape(-1).clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, _, *leaves = inputs
        ctx.save_for_backward(output, *leaves)
        ctx.save_for_forward(output, *leaves)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        z, *leaves = ctx.saved_tensors
        call, wanted = ctx.call, ctx.needs_input_grad[2:]
        which = [at for at, wants in enumerate(wanted) if wants]
        box = None if is_transformed() else call.backward
        g = call.marked(z, g, 0.0)  # or the solve would spoil the others
        lam = call.marked(z, call.problem.inverse(BACKEND, z, tuple(leaves), g, True, box))
        _, pull = vjp(_varying(call.problem.flat, z, leaves, which), *(leaves[at] for at in which))
        bars: list[Any] = [None] * len(leaves)
        for at, bar in zip(which, pull(-lam), strict=True):
            bars[at] = bar
        return None, None, *bars

    @staticmethod
    def jvp(ctx, _0, _1, *dots):  # type: ignore[override]
        with nested_forward_mode():
            z, *leaves = map(primal, ctx.saved_tensors)
            call, which = ctx.call, [at for at, dot in enumerate(dots) if dot is not None]
            y, pull = vjp(_varying(call.problem.flat, z, leaves, which), *(leaves[at] for at in which))
            _, push = vjp(pull, torch.zeros_like(y))
            u = push(tuple(dots[at] for at in which))[0]
            return call.marked(z, call.problem.inverse(BACKEND, z, tuple(leaves), -u, False))

    @staticmethod
    def vmap(info, in_dims, call, z0, *leaves):  # type: ignore[override]
        """One root after the other: solvers look at numbers."""
        call.found, found = None, []
        for at in range(info.batch_size):
            own = zip((z0, *leaves), in_dims[1:], strict=True)
            inner = Call(call.problem, call.backward)
            z: Any = _Root.apply(inner, *(v if axis is None else v.select(axis, at) for v, axis in own))
            if inner.found is not None:
                call.problem.report(BACKEND, inner.found, z)
                z = inner.marked(z, z)
            found.append(z)
        return torch.stack(found), 0


def _varying(flat: Callable, z: torch.Tensor, leaves: Any, which: list[int]) -> Callable:
    """Those leaves that vary -> F at z."""

    def function(*varied: torch.Tensor) -> torch.Tensor:
        whole = list(leaves)
        for at, leaf in zip(which, varied, strict=True):
            whole[at] = leaf
        return flat(z, tuple(whole))

    return function


def run(problem: Any, z0: torch.Tensor, leaves: tuple, backward: list) -> tuple[torch.Tensor, Any]:
    """The root, and what became of it: None inside of vmap."""
    call = Call(problem, backward)
    z: Any = _Root.apply(call, z0.detach(), *leaves)
    _check_closure(problem, z, leaves)
    return z, call.found


def _check_closure(problem: Any, z: torch.Tensor, leaves: tuple) -> None:
    """Raise if F depends on something that is differentiated, not through params: one more evaluation."""
    plain = tuple(leaf.detach() for leaf in leaves)
    if not torch.is_grad_enabled() or any(map(wrapped, (z, *plain))):
        return
    refuse_hidden(problem.owner, "the function", problem.function, problem.flat(z.detach(), plain))


class _OnHost(Function):
    """Numbers for a function of NumPy arrays (items, ...); a mapped axis becomes items."""

    @staticmethod
    def forward(solve, *arrays):  # type: ignore[override]
        return like(arrays[1], solve(*(v.detach().cpu().numpy() for v in arrays)))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info, in_dims, solve, *arrays):  # type: ignore[override]
        size = info.batch_size
        mapped = [front(v, axis, size) for v, axis in zip(arrays, in_dims[1:], strict=True)]
        found: Any = _OnHost.apply(solve, *(v.reshape(-1, *v.shape[2:]) for v in mapped))
        return found.reshape(size, -1, found.shape[-1]), 0


def found_on_host(solve: Callable, width: int, arrays: tuple) -> torch.Tensor:
    """What a function of NumPy arrays gives, (items, width), as a constant."""
    return _OnHost.apply(solve, *(v.detach() for v in arrays))  # type: ignore[return-value]


BACKEND = SimpleNamespace(
    xp=xp,
    name="torch",
    loop=loop,
    like=like,
    index=index,
    known=known,
    flatten_params=flatten_params,
    products=products,
    dense=dense,
    columns=columns,
    vjp=vjp,
    constant=torch.Tensor.detach,
    run=run,
    found_on_host=found_on_host,
)
