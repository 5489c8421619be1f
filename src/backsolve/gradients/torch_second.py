"""Second derivatives in torch: a second backward through the graph of the first, which is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..errors import describe
from ..frontends.torch_closures import wrapped
from ..operators import flatten

__all__ = ["gauss_newton_parts", "hessian_parts", "leaves_of"]

BLOCK = 128
"""Unit vectors that are multiplied together."""


class _Parts:
    """The linear map leaves' directions -> products, as `second` asks for it."""

    def __init__(self, d: Any, leaves: tuple, value: torch.Tensor, grads: tuple, along: Callable):
        self.leaves, self.value, self._d, self._along = leaves, value.detach(), d, along
        self._rebuild = flatten(d)[1]
        self.raveled = torch.cat([g.detach().reshape(-1) for g in grads])
        self.gradient = self._rebuild(g.detach() for g in grads)

    def split(self, v: Any) -> tuple:
        given, rebuild = flatten(v)
        if rebuild.tree != self._rebuild.tree:
            raise ValueError(f"v must be nested as d is; got {describe(v)} for d {describe(self._d)}.")
        return given

    def product(self, v: Any) -> Any:
        return self._rebuild(iter(self._along(flatten(v)[0])))

    def flat(self, v: torch.Tensor) -> torch.Tensor:
        """The product with all numbers in one vector."""
        sizes = [leaf.numel() for leaf in self.leaves]
        parts = (p.reshape(leaf.shape) for p, leaf in zip(v.split(sizes), self.leaves, strict=True))
        return torch.cat([p.reshape(-1) for p in self._along(tuple(parts))])

    def matrix(self) -> torch.Tensor:
        eye = torch.eye(self.raveled.numel(), dtype=self.raveled.dtype, device=self.raveled.device)
        return torch.cat([_rows(self.flat, block) for block in eye.split(BLOCK)] or [eye])


def _rows(product: Callable, block: torch.Tensor) -> torch.Tensor:
    """Products with the rows of a block: solves with many right-hand sides, where f can be mapped over."""
    try:
        return torch.func.vmap(product)(block)
    except RuntimeError:  # an operation of f without a rule for vmap; if anything else, it happens again
        return torch.stack([product(row) for row in block])


def leaves_of(d: Any) -> tuple:
    """The tensors in d."""
    leaves = flatten(d)[0]
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor) or not (leaf.is_floating_point() or leaf.is_complex()):
            raise TypeError(
                f"d must hold tensors of floating point alone; got {describe(leaf)}: let f close over what is constant."
            )
        if wrapped(leaf):
            raise TypeError(
                "second derivatives keep a graph, which transforms of torch.func cannot follow: inside of them write "
                "torch.func.jvp(torch.func.grad(f), (d,), (v,))."
            )
    return leaves


def hessian_parts(f: Callable, d: Any) -> _Parts:
    """H v is the gradient of Re⟨g, v⟩, as H is symmetric: backward through λ = A⁻ᴴ ℓ_x, then through x = A⁻¹ b."""
    varied = tuple(leaf.detach().requires_grad_() for leaf in leaves_of(d))
    with torch.enable_grad():
        value = _scalar("f(d)", f(flatten(d)[1](iter(varied))))
        grads = _grads((value,), varied, None, create_graph=True)
    return _Parts(d, varied, value, grads, lambda v: _grads(grads, varied, v))


def gauss_newton_parts(model: Callable, loss: Callable, d: Any) -> _Parts:
    """Jᴴ ℓ_xx J v, where J v is the derivative of u ↦ Jᴴ u transposed: a backward through λ = A⁻ᴴ u alone.

    u is the gradient of the loss at x, so that the one solve which Jᴴ u takes gives the gradient, too.
    """
    varied = tuple(leaf.detach().requires_grad_() for leaf in leaves_of(d))
    with torch.enable_grad():
        x = model(flatten(d)[1](iter(varied)))
        if not isinstance(x, torch.Tensor) or not x.requires_grad:
            raise TypeError(f"model(d) must be one tensor that depends on d; got {describe(x)}.")
        at = x.detach().requires_grad_()
        value = _scalar("loss(x)", loss(at))
        slope = _grads((value,), (at,), None, create_graph=True)
        u = slope[0].detach().requires_grad_()
        grads = _grads((x,), varied, (u,), create_graph=True)

    def along(v: tuple) -> tuple:
        moved = _grads(grads, (u,), v)
        return _grads((x,), varied, _grads(slope, (at,), moved))

    return _Parts(d, varied, value, grads, along)


def _grads(outputs: tuple, inputs: tuple, cotangents: tuple | None, create_graph: bool = False) -> tuple:
    """Gradients, zero where outputs do not depend on an input: derivatives of a function that is linear in it."""
    given = cotangents or (None,) * len(outputs)
    pairs = [(o, g) for o, g in zip(outputs, given, strict=True) if o.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(leaf) for leaf in inputs)
    outputs, given = zip(*pairs, strict=True)
    return torch.autograd.grad(
        outputs, inputs, given, retain_graph=True, create_graph=create_graph, materialize_grads=True
    )


def _scalar(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.shape != () or not value.is_floating_point():
        raise TypeError(f"{name} must be one real number, a tensor of shape (); got {describe(value)}: sum it.")
    if not value.requires_grad:
        raise TypeError(f"{name} must depend on its argument by operations of torch; it has no graph: do not detach.")
    return value
