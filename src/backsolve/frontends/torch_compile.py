"""torch.compile: a solve as a custom operation, opaque to the compiler, with its backward.

A custom operation takes tensors, numbers and strings. So the structure is named by the key of its `Template`, the
options by their values, and the factors reach backward through `factor_cache`. One backward: the compiler itself has
no second one. Forward mode would get a tangent of zero from a custom operation, so it is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from .. import calculus
from ..factor_cache import CACHE
from ..methods.base import check_rtol_once
from ..operators import CSR, AbstractLinearOperator, Dense
from ..operators.csr import TEMPLATES
from ..options import Adjoint
from ..plan import Plan
from ..select import choose_method
from ..shapes import layout_of
from .torch_arrays import canonical, items_of, plain, result_dtype
from .torch_functions import Call, Ops, lost_columns
from .torch_linalg import to_numpy

__all__ = ["solve"]


def solve(A, b, method, assume, rtol, atol, adjoint, on_failure):
    """`backsolve.solve` while the compiler traces; what cannot be compiled is refused in one sentence."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        raise RuntimeError("backsolve.solve under torch.compile has no forward mode and no vmap: apply them outside.")
    if not isinstance(method, str):
        raise TypeError("backsolve.solve under torch.compile takes the method by its name, as a string.")
    if isinstance(A, torch.Tensor):
        data, key = A, -1
    elif isinstance(A, Dense):
        data, key = A.data, -1
    elif isinstance(A, CSR):
        data, key = A.data, A.template.key
    else:
        raise TypeError("A must be a backsolve.CSR, a Dense or a dense tensor under torch.compile: make it outside.")
    declared = assume or (A.assumed if isinstance(A, AbstractLinearOperator) else "general")
    extra = adjoint or Adjoint()
    return _solve(
        data, b, key, method, declared, rtol, atol, extra.rtol, extra.atol, on_failure, extra.on_failure or on_failure
    )  # fmt: skip


def _prepare(data, b, key, method, declared, rtol, atol, back_rtol, back_atol, on_failure, back_on_failure):
    """Operator, plan, layout, plain values, and the factors of these values."""
    if key < 0:
        A: AbstractLinearOperator = Dense(data.detach())
    else:
        template = TEMPLATES.get(key)
        if template is None:
            raise RuntimeError("the pattern of a compiled solve is gone: keep the operator it was made with alive.")
        A = template.operator(data.detach())
    A = A.assume(declared)
    chosen = choose_method(A, method)
    extra = Adjoint(back_rtol, back_atol, back_on_failure)
    plan = Plan(A, chosen, check_rtol_once(chosen, rtol, atol), extra, on_failure, keep_best=False)
    layout = layout_of(A.batch_shape, tuple(b.shape))
    values = items_of(A, canonical(A, result_dtype(data, b)), layout)
    host = plain(A.structure, values)
    host = to_numpy(host) if A.structure.kind == "dense" else host
    return A, plan, layout, values, CACHE.find(A.structure, chosen, declared, host)


@torch.library.custom_op("backsolve::solve", mutates_args=())
def _solve(
    data: torch.Tensor,
    b: torch.Tensor,
    key: int,
    method: str,
    declared: str,
    rtol: float | None,
    atol: float | None,
    back_rtol: float | None,
    back_atol: float | None,
    on_failure: str,
    back_on_failure: str,
) -> torch.Tensor:
    options = (key, method, declared, rtol, atol, back_rtol, back_atol, on_failure, back_on_failure)
    _, plan, layout, values, factored = _prepare(data, b, *options)
    call = Call(plan, layout)
    columns = layout.columns(b.to(values.dtype), torch.Tensor.expand, torch.permute)
    x = layout.restore(call.run(factored, values, columns, False, False), torch.permute)
    CACHE.settle()
    return x.clone(memory_format=torch.contiguous_format)


@_solve.register_fake
def _(data, b, key, *options):
    batch = layout_of(tuple(data.shape[: data.ndim - (2 if key < 0 else 1)]), tuple(b.shape)).batch
    return b.new_empty((*batch, *b.shape[-min(b.ndim, 2) :]), dtype=result_dtype(data, b))


@torch.library.custom_op("backsolve::solve_backward", mutates_args=())
def _solve_backward(
    data: torch.Tensor,
    b: torch.Tensor,
    x: torch.Tensor,
    g: torch.Tensor,
    key: int,
    method: str,
    declared: str,
    rtol: float | None,
    atol: float | None,
    back_rtol: float | None,
    back_atol: float | None,
    on_failure: str,
    back_on_failure: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    options = (key, method, declared, rtol, atol, back_rtol, back_atol, on_failure, back_on_failure)
    A, plan, layout, values, factored = _prepare(data, b, *options)
    call = Call(plan, layout)
    x_columns, g_columns = (layout.columns(v, torch.Tensor.expand, torch.permute) for v in (x, g))
    lost = lost_columns(call, x_columns)
    with torch.no_grad():
        ops = Ops(A.structure, call, factored)
        bars: Any = calculus.solve_vjp(ops, values, x_columns, g_columns, False, (True, True))
    data_bar, lam = bars
    if lost is not None:
        lam = torch.where(lost, float("nan"), lam)
    CACHE.settle()
    return _as_given(A, data_bar, data), _as_input(layout.restore(lam, torch.permute), b)


@_solve_backward.register_fake
def _(data, b, x, g, *options):
    return data.new_empty(data.shape), b.new_empty(b.shape)


def _as_given(A: AbstractLinearOperator, data_bar: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """A cotangent of canonical values as one of the values given."""
    slots = getattr(A, "slots", None)
    if slots is not None:
        data_bar = data_bar.index_select(-1, torch.from_numpy(slots).to(data_bar.device))
    return _as_input(data_bar.reshape(data.shape), data)


def _as_input(bar: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Summed over broadcast axes, in the input's own dtype, of memory of its own."""
    bar = bar.sum_to_size(like.shape)
    bar = bar.real if bar.is_complex() and not like.is_complex() else bar
    return bar.to(like.dtype).clone(memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    data, b, *ctx.options = inputs
    ctx.save_for_backward(data, b, output)


def _backward(ctx, g):
    data_bar, b_bar = _solve_backward(*ctx.saved_tensors, g.contiguous(), *ctx.options)
    return data_bar, b_bar, *[None] * len(ctx.options)


_solve.register_autograd(_backward, setup_context=_setup_context)
