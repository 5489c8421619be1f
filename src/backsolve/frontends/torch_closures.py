"""Functions that use tensors beside their arguments: constants are fine, what needs a gradient would be lost."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["check_closure", "refuse_hidden", "wrapped"]


def check_closure(structure: Any, leaves: tuple, b: torch.Tensor) -> None:
    """Raise if the functions of a matrix-free operator depend on something that is differentiated, not on params.

    Costs a product for each function. What is differentiated shows in the result for arguments that are not.
    """
    leaves = tuple(leaf.detach() for leaf in leaves)
    if any(map(wrapped, leaves)):
        return  # inside a transform: seen again at its bottom, where arguments are plain
    for name, function, size in (
        ("fn", structure.map.fn, structure.inner[1]),
        ("adjoint", structure.map.adjoint, structure.inner[0]),
    ):
        if function is not None:
            v = torch.zeros(size, dtype=b.dtype, device=b.device)
            with torch.enable_grad():
                y = function(structure.rebuild(leaves), v)
            refuse_hidden("MatrixFree", name, function, y)


def refuse_hidden(owner: str, name: str, function: Any, y: Any) -> None:
    """Raise if y, which `function` returned for constant arguments, is differentiated nevertheless."""
    if not isinstance(y, torch.Tensor) or not (y.requires_grad or wrapped(y) or _has_tangent(y)):
        return
    names = sorted(set(_culprits(function)))
    what = " and ".join(names) if names else "a tensor"
    raise ValueError(
        f"{owner}: {name} must depend on what is differentiated or mapped over through params alone; it closes over "
        f"{what}, whose gradient would be lost: pass it in params, or detach it."
    )


def wrapped(t: torch.Tensor) -> bool:
    """Whether a transform of torch.func follows the tensor."""
    return torch._C._functorch.is_functorch_wrapped_tensor(t)  # type: ignore[attr-defined]


def _has_tangent(t: torch.Tensor) -> bool:
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(t).tangent is not None


def _culprits(function: Any) -> Iterator[str]:
    """Names by which a function reaches tensors that are differentiated."""
    function = inspect.unwrap(function)
    found: dict[str, Any] = {}
    try:
        closure = inspect.getclosurevars(function)
        found.update(closure.globals)
        found.update(closure.nonlocals)
    except TypeError:
        pass
    for owner in (function, getattr(function, "__self__", None)):
        if isinstance(owner, torch.nn.Module):
            found[""] = owner
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and (value.requires_grad or wrapped(value) or _has_tangent(value)):
            yield f"'{name}'"
        elif isinstance(value, torch.nn.Module):
            for inner, parameter in value.named_parameters():
                if parameter.requires_grad:
                    yield f"'{name}.{inner}'" if name else f"'{inner}'"
        elif inspect.isfunction(value) and value is not function:
            yield from _culprits(value)
