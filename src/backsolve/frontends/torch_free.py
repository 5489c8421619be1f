"""Matrix-free operators in torch: columns by vmap, adjoints by transposition, parameters by the function's own VJP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import calculus
from ..errors import describe
from ..free import Free, Map, check_linear
from ..operators import MatrixFree, flatten
from ..plan import Factored
from ..shapes import Layout, layout_of
from . import torch_linalg
from .torch_arrays import asarray
from .torch_closures import check_closure, wrapped
from .torch_functions import Call, Function, lost_columns, nested_forward_mode, primal, recorded
from .torch_vmap import Mapped, front

__all__ = ["TorchFree", "asoperator", "laid_out", "matvec", "of_function", "result_dtype", "run", "toarray"]


class TorchFree(Free):
    """`Free` on tensors of any device; differentiable as the function is.

    Parameters
    ----------
    mapped : tuple of bool
        Which leaves have an axis of items in front, where a transform maps over parameters.
    """

    def __init__(self, map: Map, rebuild: Callable, mapped: tuple[bool, ...] = ()):
        super().__init__(map, rebuild, torch_linalg)
        self.mapped = mapped
        self.mappable = True

    def columns(self, data: tuple, adjoint: bool) -> Callable:
        """All columns of all items at once by vmap; a single column by a plain call, which any function allows."""
        if any(self.mapped):
            axes = tuple(0 if m else None for m in self.mapped)
            inner = lambda leaves, x: self.by_columns(self.single(leaves, adjoint, x), x)  # noqa: E731
            return lambda x: torch.func.vmap(inner, (axes, 0))(data, x)
        single: Any = None

        def apply(x: torch.Tensor) -> torch.Tensor:
            nonlocal single  # transposed once, for all the products of a solve
            if single is None:
                single = self.single(data, adjoint, x)
            return torch.stack([self.by_columns(single, item) for item in x])

        return apply

    def single(self, leaves: tuple, adjoint: bool, like: torch.Tensor) -> Callable:
        """v -> A v or Aᴴ v, for one vector. A map is transposed where v = 0: it is linear, so anywhere will do."""
        fn, given, params = self.map.fn, self.map.adjoint, self.rebuild(leaves)
        if not adjoint:
            return lambda v: self.checked(fn(params, v), v, False)
        if given is not None:
            return lambda g: self.checked(given(params, g), g, True)
        zero = torch.zeros(self.inner[1], dtype=like.dtype, device=like.device)
        _, pull = _vjp(lambda v: self.checked(fn(params, v), v, False), zero)
        return lambda g: pull(g)[0]

    def by_columns(self, single: Callable, x: torch.Tensor) -> torch.Tensor:
        """Apply to each column: all at once, or one by one where the function allows no vmap."""
        if x.shape[1] == 1:
            return single(x[:, 0])[:, None]
        if self.mappable:
            try:
                return torch.func.vmap(single, 1, 1)(x)
            except RuntimeError:  # of the function's own doing, if it happens again below
                self.mappable = False
        return torch.stack([single(column) for column in x.unbind(1)], 1)


def _vjp(function: Callable, *arguments: Any) -> tuple[Any, Callable]:
    """The value and the pullback."""
    return torch.func.vjp(function, *arguments)[:2]  # type: ignore[return-value]


class _Ops:
    """What `calculus` asks for, of an operator that is not linear in its data.

    ``matvec(data_dot, x)`` is the derivative of A(θ) x along θ̇, and ``outer(y, x)`` the θ̄ with
    Re⟨θ̄, θ̇⟩ = Re⟨y, derivative⟩: of a linear operator they would be A(θ̇) x and the sampled outer product.
    """

    def __init__(self, call: Call, factored: Factored, leaves: tuple, wanted: tuple[bool, ...]):
        self.call, self.factored, self.leaves = call, factored, leaves
        self.which = [at for at, wants in enumerate(wanted) if wants]

    def solve(self, data, b, adjoint, backward=True):
        return _solve(self.call, self.factored, adjoint, backward, b, data)

    def outer(self, y, x):
        _, pull = _vjp(self._product(x, False), *self._varied())
        bars: list[Any] = [None] * len(self.leaves)
        for at, bar in zip(self.which, pull(y), strict=True):
            bars[at] = bar
        return bars

    def matvec(self, data_dot, x, adjoint):
        # Forward mode made of two transpositions: any function that has a backward has it, nested as one likes.
        y, pull = _vjp(self._product(x, adjoint), *self._varied())
        _, push = _vjp(pull, torch.zeros_like(y))
        return push(tuple(data_dot[at] for at in self.which))[0]

    def _varied(self):
        return [self.leaves[at] for at in self.which]

    def _product(self, x, adjoint):
        """Those leaves that vary -> A x or Aᴴ x, in the form of x."""

        def product(*varied):
            leaves = list(self.leaves)
            for at, leaf in zip(self.which, varied, strict=True):
                leaves[at] = leaf
            y = self.call.structure.matvec(tuple(leaves), _cube(x), adjoint)
            return y if x.ndim == 3 else y.reshape(y.shape[1], *x.shape[1:])

        return product


def _solve(call: Call, factored: Factored, adjoint: bool, backward: bool, b: torch.Tensor, leaves: tuple) -> Any:
    return recorded(_SolveFree, b, *leaves)(call, factored, adjoint, backward, b, *leaves)


class _SolveFree(Function):
    @staticmethod
    def forward(call, factored, adjoint, backward, b, *leaves):  # type: ignore[override]
        plain = tuple(leaf.detach() for leaf in leaves)
        with torch.no_grad():
            return call.run_plain(factored, lambda: plain, _cube(b.detach()), b.shape, adjoint, backward)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, ctx.factored, ctx.adjoint, _, _, *leaves = inputs
        ctx.save_for_backward(output, *leaves)
        ctx.save_for_forward(output, *leaves)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        x, *leaves = ctx.saved_tensors
        lost = lost_columns(ctx.call, x)
        if lost is not None:
            x = torch.where(lost, float("nan"), x)
        wanted = ctx.needs_input_grad[5:]
        ops = _Ops(ctx.call, ctx.factored, tuple(leaves), wanted)
        wants = (any(wanted), ctx.needs_input_grad[4])
        bars, b_bar = calculus.solve_vjp(ops, tuple(leaves), x, g, ctx.adjoint, wants)
        if lost is not None and b_bar is not None:
            b_bar = torch.where(lost, float("nan"), b_bar)
        return None, None, None, None, b_bar, *(bars or [None] * len(leaves))

    @staticmethod
    def jvp(ctx, _0, _1, _2, _3, b_dot, *leaves_dot):  # type: ignore[override]
        with nested_forward_mode():
            x, *leaves = map(primal, ctx.saved_tensors)
            wanted = tuple(dot is not None for dot in leaves_dot)
            ops = _Ops(ctx.call, ctx.factored, tuple(leaves), wanted)
            dots = leaves_dot if any(wanted) else None
            return calculus.solve_jvp(ops, tuple(leaves), x, dots, b_dot, ctx.adjoint)

    @staticmethod
    def vmap(info, in_dims, call, factored, adjoint, backward, b, *leaves):  # type: ignore[override]
        size, axes = info.batch_size, in_dims[5:]
        any_mapped = any(axis is not None for axis in axes)
        mapped = Mapped(size, b.ndim - (in_dims[4] is not None), folded=not any_mapped)
        columns = mapped.lay_out(front(b, in_dims[4], size))
        structure = call.structure
        if any_mapped:
            structure, leaves = _mapped(structure, leaves, axes, size)
        items = (columns.shape[0],) if columns.ndim == 3 else ()
        inner = Call(call.plan.on(structure), layout_of(items, tuple(columns.shape)))
        return mapped.bring_back(_solve(inner, factored, adjoint, backward, columns, leaves)), 0


def _mapped(structure: TorchFree, leaves: tuple, axes: tuple, size: int) -> tuple[TorchFree, tuple]:
    """The structure and leaves of a batch over one more axis, which comes before an axis of items."""
    before = structure.mapped or (False,) * len(leaves)
    now = tuple(had_items or axis is not None for had_items, axis in zip(before, axes, strict=True))
    made = [front(leaf, axis, size) if m else leaf for leaf, axis, m in zip(leaves, axes, now, strict=True)]
    items = next((leaf.shape[1] for leaf, had_items in zip(made, before, strict=True) if had_items), None)
    if items is not None:
        for at, (leaf, had_items) in enumerate(zip(made, before, strict=True)):
            if now[at]:
                leaf = leaf if had_items else leaf[:, None].expand(size, items, *leaf.shape[1:])
                made[at] = leaf.reshape(size * items, *leaf.shape[2:])
    return TorchFree(structure.map, structure.rebuild, now), tuple(made)


def _cube(x: torch.Tensor) -> torch.Tensor:
    """Vectors as (items, n, k)."""
    return x if x.ndim == 3 else x.reshape(1, x.shape[0], 1 if x.ndim == 1 else x.shape[1])


# -- what the frontend asks for ------------------------------------------------------------------------------


def asoperator(A: MatrixFree) -> MatrixFree:
    """A on the structure that applies it here, its NumPy parameters made tensors."""
    if isinstance(A.structure, TorchFree):
        return A
    leaves, rebuild = flatten(A.data)
    if any(not isinstance(leaf, torch.Tensor) for leaf in leaves):
        leaves = tuple(leaf if isinstance(leaf, torch.Tensor) else asarray("params", leaf) for leaf in leaves)
        A = A.on(rebuild(leaves))
    return A.bound(TorchFree(A.map, rebuild))


def result_dtype(A: MatrixFree, b: torch.Tensor) -> torch.dtype:
    """The dtype of a product with b: tensors with axes count, numbers do not."""
    dtype = b.dtype
    for leaf in A.leaves:
        if leaf.ndim and (leaf.is_floating_point() or leaf.is_complex()):
            dtype = torch.promote_types(dtype, leaf.dtype)
    return dtype


def laid_out(A: MatrixFree, b: torch.Tensor) -> tuple[tuple, Layout, torch.Tensor]:
    """Leaves in the precision of the solve, layout, and b as columns."""
    dtype = result_dtype(A, b)
    leaves = []
    for leaf in A.leaves:
        if leaf.ndim and leaf.device != b.device:
            raise ValueError(
                f"params and b must be on one device; got {describe(leaf)} on {leaf.device} and b on {b.device}: "
                "move one with .to()."
            )
        if leaf.ndim and (leaf.is_floating_point() or leaf.is_complex()):
            leaf = leaf.to(dtype if leaf.is_complex() else dtype.to_real())
        leaves.append(leaf)
    layout = layout_of((), tuple(b.shape))
    return tuple(leaves), layout, layout.columns(b.to(dtype), torch.Tensor.expand, torch.permute)


def run(A: MatrixFree, leaves: tuple, columns: torch.Tensor, call: Call, factored: Factored, adjoint: bool) -> Any:
    """Solve, recorded."""
    if torch.is_grad_enabled():
        check_closure(A.structure, leaves, columns)
    return _solve(call, factored, adjoint, False, columns, leaves)


def matvec(A: MatrixFree, x: torch.Tensor) -> torch.Tensor:
    """A @ x, by the function itself: autograd and transforms know what it does."""
    leaves, layout, columns = laid_out(A, x)
    y = A.structure.matvec(leaves, _cube(columns))
    y = y if columns.ndim == 3 else y.reshape(y.shape[1], *columns.shape[1:])
    return layout._replace(n=A.shape[0]).restore(y, torch.permute)


def toarray(A: MatrixFree) -> torch.Tensor:
    """A applied to the columns of the identity."""
    first = next((leaf for leaf in A.leaves if leaf.ndim), torch.empty(0))
    dtype = result_dtype(A, torch.empty(0, dtype=torch.float32 if A.dtype is not None else torch.float64))
    return matvec(asoperator(A), torch.eye(A.shape[1], dtype=dtype, device=first.device))


def of_function(function: Callable, b: torch.Tensor, n: int) -> MatrixFree:
    """A function v -> A v as an operator, once it has been seen to be linear."""
    with torch.no_grad():
        v = torch.linspace(1, 2, n, dtype=b.dtype, device=b.device)
        y, z = function(v), function(-2 * v)
        if all(isinstance(t, torch.Tensor) and t.shape == v.shape and not wrapped(t) for t in (y, z)) and n:
            check_linear(float((z + 2 * y).abs().max()), float(y.abs().max()), torch.finfo(b.dtype).eps)
    fn = lambda _, v: function(v)  # noqa: E731
    fn.__wrapped__ = function  # type: ignore[attr-defined]
    return MatrixFree(fn, (), (n, n))
