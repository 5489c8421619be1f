"""A solve and its backward as custom operations, opaque to compilers: tensors, numbers and strings in, tensors out.

What needs an object, the operator, each operation finds again in its own way; the factors reach backward through
`factor_cache`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.autograd import forward_ad

from .. import calculus
from ..factor_cache import CACHE
from ..methods.base import check_rtol_once
from ..operators import AbstractLinearOperator
from ..options import Adjoint
from ..plan import Plan
from ..select import choose_method
from ..shapes import layout_of
from .torch_arrays import canonical, cast, items_of, plain, result_dtype
from .torch_functions import Call, Ops, lost_columns
from .torch_linalg import to_numpy

__all__ = ["register"]

_adjoint = lru_cache(maxsize=32)(Adjoint)
_LIBRARY = torch.library.Library("backsolve", "DEF")
_OPTIONS = (
    "str method, str declared, float? rtol, float? atol, float? back_rtol, float? back_atol, "
    "str on_failure, str back_on_failure"
)


def register(name: str, arguments: str, operator: Callable, is_dense: Callable) -> Any:
    """Define an operation (data, b, the structure as `arguments`, options) -> x, with its backward, and return it.

    ``operator(data, *structure)`` is the operator, and ``is_dense(*structure)`` tells whether data is a matrix. Both
    operations return memory of their own, as a custom operation must. The low level of torch.library is half as slow
    to call as its decorator.
    """
    count = arguments.count(",") + 1
    backward_name, tags = f"{name}_backward", (torch.Tag.pt2_compliant_tag,)
    _LIBRARY.define(f"{name}(Tensor data, Tensor b, {arguments}, {_OPTIONS}) -> Tensor", tags=tags)
    _LIBRARY.define(
        f"{backward_name}(Tensor data, Tensor b, Tensor x, Tensor g, {arguments}, {_OPTIONS}) -> (Tensor, Tensor)",
        tags=tags,
    )
    space = torch.ops.backsolve
    operation, backward_operation = getattr(space, name).default, getattr(space, backward_name).default

    def forward(data, b, *rest):
        return _solve(operator(data.detach(), *rest[:count]), b, *rest[count:])

    def backward(data, b, x, g, *rest):
        return _solve_backward(operator(data.detach(), *rest[:count]), b, x, g, *rest[count:])

    def setup_context(ctx, inputs, output):
        tensors = [v if isinstance(v, torch.Tensor) else None for v in inputs]
        ctx.others = [None if isinstance(v, torch.Tensor) else v for v in inputs]
        ctx.save_for_backward(output, *tensors)

    def autograd(ctx, g):
        x, *tensors = ctx.saved_tensors
        data, b, *rest = (other if t is None else t for t, other in zip(tensors, ctx.others, strict=True))
        bars = backward_operation(data, b, x, g.contiguous(), *rest)
        return *bars, *[None] * len(rest)

    _LIBRARY.impl(name, forward, "CompositeExplicitAutograd")
    _LIBRARY.impl(backward_name, backward, "CompositeExplicitAutograd")
    for made, fake in (
        (name, lambda data, b, *rest: _empty_solution(data, b, is_dense(*rest[:count]))),
        (backward_name, lambda data, b, *rest: (data.new_empty(data.shape), b.new_empty(b.shape))),
    ):
        torch.library.register_fake(f"backsolve::{made}", fake, lib=_LIBRARY)
    torch.library.register_autograd(f"backsolve::{name}", autograd, setup_context=setup_context, lib=_LIBRARY)
    torch.library.register_autograd(f"backsolve::{backward_name}", _no_second_backward, lib=_LIBRARY)
    return operation


def _no_second_backward(ctx: Any, *_: Any) -> Any:
    """Without it the second derivative would be what does not depend on the first backward, without a word."""
    raise RuntimeError(
        "compiled and exported solves have one backward: for second derivatives call backsolve.solve in eager mode, "
        "outside of the compiled function."
    )


def _solve(A: AbstractLinearOperator, b: torch.Tensor, *options: Any) -> torch.Tensor:
    call, values, factors = _prepare(A, b, False, *options)
    columns = call.layout.columns(cast(b, values.dtype), torch.Tensor.expand, torch.permute)
    with factors as factored:
        x = call.run(factored, _kept(values, factored), columns, False, False)
        x = call.layout.restore(x, torch.permute)
    return _own(x, b)


def _solve_backward(
    A: AbstractLinearOperator, b: torch.Tensor, x: torch.Tensor, g: torch.Tensor, *options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cotangents of the data of A and of b."""
    call, values, factors = _prepare(A, b, True, *options)
    x_columns, g_columns = (call.layout.columns(v, torch.Tensor.expand, torch.permute) for v in (x, g))
    lost = lost_columns(call, x_columns)
    with torch.no_grad(), factors as factored:
        ops = Ops(A.structure, call, factored)
        values = _kept(values, factored)
        bars: Any = calculus.solve_vjp(ops, values, x_columns, g_columns, False, (True, True))
        data_bar, lam = bars
        if lost is not None:
            lam = torch.where(lost, float("nan"), lam)
        lam = call.layout.restore(lam, torch.permute)
        return _own(_as_given(A, data_bar), x, g, A.data), _own(_as_input(lam, b), x, g, A.data)


def _empty_solution(data: torch.Tensor, b: torch.Tensor, dense: bool) -> torch.Tensor:
    """Shape and dtype of the solution, for tracing; sizes may be symbols."""
    batch = layout_of(tuple(data.shape[: data.ndim - (2 if dense else 1)]), tuple(b.shape)).batch
    return b.new_empty((*batch, *b.shape[-min(b.ndim, 2) :]), dtype=result_dtype(data, b))


def _prepare(
    A: AbstractLinearOperator,
    b: torch.Tensor,
    backward: bool,
    method: str,
    declared: str,
    rtol: float | None,
    atol: float | None,
    back_rtol: float | None,
    back_atol: float | None,
    on_failure: str,
    back_on_failure: str,
) -> tuple[Call, torch.Tensor, Any]:
    """The call, canonical values, and a context with the factors of these values."""
    if forward_ad._current_level >= 0:  # an operation without a rule gets a tangent of zero, without a word
        raise RuntimeError("compiled and exported solves have no forward mode: apply it to the function itself.")
    A = A if declared == A.assumed else A.assume(declared)
    chosen = choose_method(A, method)
    extra = _adjoint(back_rtol, back_atol, back_on_failure)
    plan = Plan(A, chosen, check_rtol_once(chosen, rtol, atol), extra, on_failure, keep_best=False)
    layout = layout_of(A.batch_shape, tuple(b.shape))
    values = items_of(A, canonical(A, result_dtype(A.data, b)), layout)
    host = plain(A.structure, values)
    host = to_numpy(host) if A.structure.kind == "dense" else host
    return Call(plan, layout), values, CACHE.factors(A.structure, chosen, declared, host, spend=backward)


def _kept(values: torch.Tensor, factored: Any) -> torch.Tensor:
    """The values, as a copy if a state will be made of them: it stays in the cache while theirs may change in place."""
    return values.clone() if factored.made is None else values


def _as_given(A: AbstractLinearOperator, data_bar: torch.Tensor) -> torch.Tensor:
    """A cotangent of canonical values as one of the values given."""
    slots = getattr(A, "slots", None)
    if slots is not None:
        data_bar = data_bar.index_select(-1, torch.from_numpy(slots).to(data_bar.device))
    return _as_input(data_bar.reshape(A.data.shape), A.data)


def _as_input(bar: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Summed over broadcast axes, in the input's own dtype."""
    bar = bar.sum_to_size(like.shape)
    bar = bar.real if bar.is_complex() and not like.is_complex() else bar
    return cast(bar, like.dtype)


def _own(tensor: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """The tensor, contiguous and in memory that it shares with no input."""
    start = tensor.untyped_storage().data_ptr()
    if tensor.is_contiguous() and all(start != t.untyped_storage().data_ptr() for t in inputs):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
