"""torch.compile: a solve as a custom operation, opaque to the compiler, with its backward.

A custom operation takes tensors, numbers and strings. So the structure is named by the key of its `Template`, the
options by their values, and the factors reach backward through `factor_cache`. One backward: the compiler itself has
no second one. Forward mode would get a tangent of zero from a custom operation, so it is refused. Exported programs,
which outlive this process and its keys, get the operation of `torch_export`.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from ..operators import CSR, AbstractLinearOperator, Dense
from ..operators.csr import TEMPLATES, Template
from ..options import Adjoint
from ..shapes import check_rhs, check_square
from . import torch_opaque
from .torch_eager import breaking
from .torch_export import exported_solve

__all__ = ["solve"]

# Before torch 2.7 nobody can tell: then every program gets the operation that can be exported.
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

_latest: deque[Template] = deque(maxlen=32)
"""Templates of the latest solves: a program that breaks its graph may make its operators inside, and drop them before
backward asks for the pattern."""

_made: weakref.WeakKeyDictionary[Template, tuple] = weakref.WeakKeyDictionary()


_REFUSALS = {
    "transform": (
        RuntimeError,
        "backsolve.solve under torch.compile has no forward mode and no vmap: apply them outside.",
    ),
    "method": (TypeError, "backsolve.solve under torch.compile takes the method by its name, as a string."),
    "A": (TypeError, "A must be a backsolve.CSR, a Dense or a dense tensor under torch.compile: make it outside."),
    "options": (TypeError, "backsolve.solve under torch.compile has no M, x0, callback and nullspace: leave them out."),
    "b": (TypeError, "b and the values of A must be dense tensors under torch.compile: make them outside."),
}


def _eagerly(solve, *args):
    return solve(*args)


_EAGERLY = {name: breaking(_eagerly, sentence) for name, (_, sentence) in _REFUSALS.items()}


def solve(eager, A, b, method, M, assume, rtol, atol, adjoint, on_failure, x0, callback, nullspace):
    """`backsolve.solve`, which is `eager`, while a compiler traces.

    What cannot be compiled breaks the graph, or is refused in one sentence where there must be one graph.
    """
    refused = _refused(A, b, method)
    if any(option is not None for option in (M, x0, callback, nullspace)):
        refused = "options"
    if refused is not None:
        if torch.compiler.is_dynamo_compiling():
            return _EAGERLY[refused](
                eager, A, b, method, M, assume, rtol, atol, adjoint, on_failure, x0, callback, nullspace
            )
        error, sentence = _REFUSALS[refused]
        raise error(sentence)
    if isinstance(A, CSR):
        data, key, shape = A.data, A.template.key, A.shape
    else:
        data = A.data if isinstance(A, Dense) else A
        key, shape = -1, tuple(data.shape[-2:])
    check_square(shape)
    check_rhs("b", tuple(b.shape), shape[0])
    declared = assume or (A.assumed if isinstance(A, AbstractLinearOperator) else "general")
    extra = adjoint or Adjoint()
    options = (method, declared, rtol, atol, extra.rtol, extra.atol, on_failure, extra.on_failure or on_failure)
    if not _exporting():
        return _solve(data, b, key, *options)
    arrays = (None, None, None, 0) if key < 0 else (*_arrays(key), shape[1])
    return exported_solve(data, b, *arrays, *options)


def _refused(A, b, method) -> str | None:
    """Which of the refusals stands against compiling this solve."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "transform"
    if not isinstance(method, str):
        return "method"
    if not isinstance(A, torch.Tensor | CSR | Dense) or (isinstance(A, torch.Tensor) and A.layout != torch.strided):
        return "A"
    data = A if isinstance(A, torch.Tensor) else A.data
    return None if isinstance(data, torch.Tensor) and isinstance(b, torch.Tensor) else "b"


@torch.compiler.assume_constant_result
def _arrays(key: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """indptr, indices and slots of a structure: constants of an exported program, the same for all its solves."""
    template = TEMPLATES[key]
    if template not in _made:
        pattern, slots = template.pattern, template.slots
        with _disable_current_modes():  # they hold numbers, although the rest is being traced
            made = (torch.from_numpy(np.array(a)) for a in (pattern.indptr, pattern.indices))
            _made[template] = (*made, None if slots is None else torch.from_numpy(np.array(slots)))
    return _made[template]


def _operator(data: torch.Tensor, key: int) -> AbstractLinearOperator:
    if key < 0:
        return Dense(data)
    template = TEMPLATES.get(key)
    if template is None:
        raise RuntimeError("the pattern of a compiled solve is gone: keep the operator it was made with alive.")
    if not any(template is kept for kept in _latest):
        _latest.append(template)
    return template.operator(data)


_solve = torch_opaque.register("solve", "SymInt key", _operator, lambda key: key < 0)
