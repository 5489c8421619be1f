"""How torch's autograd sees local queries: the gradients that they have found, on the touched entries alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._local.entry_errors import lookup
from .._local.gradient import Gradient
from .._local.system import Vector
from .torch_functions import Function

__all__ = ["Asked", "Part", "check_chain", "laid", "recorded_number", "recorded_vector"]

_ELEMENTWISE = frozenset(
    f"{name}Backward{k}"
    for name in (
        "Exp Exp2 Expm1 Log1P Mul Neg Add Sub Rsub Pow Abs Sin Cos Sinh Cosh Reciprocal Rsqrt Erf Clone Addcmul".split()
    )
    for k in (0, 1)
)
"""Derivatives of torch that take sparse gradients on, as sparse ones."""


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor that b, or t, is the sum of: its values at indices, or all n of them."""

    tensor: torch.Tensor
    index: np.ndarray | None

    @property
    def requires_grad(self) -> bool:
        return self.tensor.requires_grad


@dataclass(frozen=True, eq=False)
class Asked:
    """What a gradient is by, and in which layout: `age` is that of the session, `count` the number of values of A."""

    age: int
    count: int
    dense: bool
    b: tuple[Part, ...]
    t: tuple[Part, ...]


def check_chain(name: str, tensor: torch.Tensor) -> None:
    """Raise where a sparse gradient would not get to the leaves that a tensor was computed from."""
    waiting, seen = [tensor.grad_fn], set()
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen or isinstance(node, torch.autograd.function.BackwardCFunction):
            continue  # what people write themselves is theirs
        seen.add(node)
        scalar = node.name() == "DivBackward0" and _is_scalar(getattr(node, "_saved_other", None))
        if not scalar and node.name() not in _ELEMENTWISE and node.name() != "torch::autograd::AccumulateGrad":
            raise TypeError(
                f"{name} must be a leaf, or made of one by +, -, *, **, exp and such elementwise maps, as its gradient "
                f"is sparse, which {node.name()} (indexing, reshaping, conversion, some functions) cannot pass on: "
                "give grad='dense', which takes O(size of A)."
            )
        waiting += [following for following, _ in node.next_functions]


def _is_scalar(divisor: Any) -> bool:
    return divisor is None or divisor.ndim == 0


def recorded_number(session: Any, data: torch.Tensor, asked: Asked, value: float) -> torch.Tensor:
    """The value of a functional."""
    return _Number.apply(session, asked, value, data, *(part.tensor for part in (*asked.b, *asked.t)))  # type: ignore[no-any-return]


def recorded_vector(session: Any, data: torch.Tensor, asked: Asked, x: Vector) -> torch.Tensor:
    """The stored entries of a solution."""
    return _Stored.apply(session, asked, x, data, *(part.tensor for part in asked.b))  # type: ignore[no-any-return]


class _Number(Function):
    @staticmethod
    def forward(ctx, session, asked, value, data, *parts):  # type: ignore[override]
        _keep(ctx, session, asked, data)
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        session, data = _kept(ctx)
        first, of_b = ctx.needs_input_grad[3:], len(ctx.asked.b) + 1
        if not (first[0] or any(first[of_b:])):
            return _bars(ctx, Gradient(None, session.gradient_by_b(ctx.asked.age), None), float(g), data)  # type: ignore[arg-type]
        return _bars(ctx, session.plain_gradient(ctx.asked.age), float(g), data)


class _Stored(Function):
    @staticmethod
    def forward(ctx, session, asked, x, data, *parts):  # type: ignore[override]
        _keep(ctx, session, asked, data)
        ctx.index = x[0]
        return torch.from_numpy(x[1].copy())

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        session, data = _kept(ctx)
        cotangent = ctx.index, np.ascontiguousarray(g.numpy(), np.float64)
        return _bars(ctx, session.pullback(ctx.asked.age, cotangent, None), 1.0, data)


def _keep(ctx: Any, session: Any, asked: Asked, data: torch.Tensor) -> None:
    # Autograd frees saved tensors after backward unless the graph is retained: so it frees the sides of the query.
    keeper: Any = torch.empty(0)
    keeper.session = session
    ctx.asked = asked
    ctx.save_for_backward(data, keeper)  # data, so that a change in place before backward is noticed


def _kept(ctx: Any) -> tuple[Any, torch.Tensor]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "gradients of local solves cannot be differentiated (create_graph=True): for second derivatives by the "
            "values of A call backsolve.local.hvp(estimate, direction)."
        )
    data, keeper = ctx.saved_tensors
    session = getattr(keeper, "session", None)
    if session is None:
        raise RuntimeError(
            "a local solve was recorded under hooks that copy saved tensors, such as torch.autograd.graph.save_on_cpu: "
            "what its gradient needs cannot be copied; record it outside of them."
        )
    return session, data


def _bars(ctx: Any, found: Gradient, g: float, data: torch.Tensor) -> tuple:
    asked, needed = ctx.asked, ctx.needs_input_grad[3:]
    matrix = None
    if needed[0]:
        matrix = laid(found.A.places, g * found.A.values, asked.count, asked.dense, data.dtype)
    bars = [matrix]
    parts = [(part, found.b) for part in asked.b] + [(part, found.t) for part in asked.t]
    for (part, vector), wanted in zip(parts, needed[1:], strict=True):
        bars.append(_bar(part, (vector.indices, g * vector.values), asked.dense) if wanted else None)
    return None, None, None, *bars


def _bar(part: Part, vector: Vector, dense: bool) -> torch.Tensor:
    if part.index is None:
        return laid(*vector, part.tensor.shape[0], dense, part.tensor.dtype)
    return torch.from_numpy(lookup(vector, part.index)).to(part.tensor.dtype)


def laid(index: np.ndarray, value: np.ndarray, count: int, dense: bool, dtype: torch.dtype) -> torch.Tensor:
    """A vector with these entries, sparse or dense."""
    places, values = torch.from_numpy(index), torch.from_numpy(value).to(dtype)
    if dense:
        return torch.zeros(count, dtype=dtype).index_put((places,), values)
    return torch.sparse_coo_tensor(places[None], values, (count,), is_coalesced=True, check_invariants=False)
