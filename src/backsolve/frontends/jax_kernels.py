"""Kernels as XLA knows them: their names, the Patterns that programs name, and how work is shared by devices."""

from __future__ import annotations

import warnings
from typing import Any

import jax
from jax.interpreters import mlir

from .. import _kernels
from ..pattern import Pattern

__all__ = ["Known", "by_items", "target"]


def target(kernel: str) -> str | None:
    """Tell XLA of a kernel for the CPU, and return its name there; None if this jaxlib refuses it."""
    name = f"backsolve_{kernel}"
    try:
        jax.ffi.register_ffi_target(name, _kernels.XLA_HANDLERS[kernel], platform="cpu")
    except RuntimeError as error:
        warnings.warn(
            f"products with a sparse A take nnz x k of memory in compiled programs: JAX {jax.__version__} refuses the "
            f"kernels of backsolve ({error}): install a version of JAX that backsolve asks for.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    jax.ffi.register_ffi_target_as_batch_partitionable(name)
    return name


class Known:
    """Makes a Pattern known to programs that name it; they keep it, and take it along where they are pickled."""

    def __init__(self, pattern: Pattern):
        self.pattern, self.name = pattern, pattern.digest.hex()
        self.core = _kernels.share(pattern._core, self.name)

    def __reduce__(self) -> tuple:
        return Known, (self.pattern,)


def by_items(operands: Any, results: Any) -> dict[str, Any]:
    """Attributes of a call: the items, axis 0 of each array, may lie on several devices, and nothing else."""
    avals = (*operands, *results)
    letters = iter("jklmnopqrstuvwxyz")
    axes = [["i", *(next(letters) for _ in aval.shape[1:])] for aval in avals]
    sizes = {a: size for aval, own in zip(avals, axes, strict=True) for a, size in zip(own, aval.shape, strict=True)}
    shown = [f"[{', '.join(own)}]" for own in axes]
    given, made = ", ".join(shown[: len(operands)]), ", ".join(shown[len(operands) :])
    factors, whole = ", ".join(f"{a}={size}" for a, size in sizes.items()), ", ".join(list(sizes)[1:])
    rule = f"<({given})->({made}) {{{factors}}} need_replication={{{whole}}}, custom>"
    return {
        "sdy.sharding_rule": mlir.ir.Attribute.parse(f"#sdy.op_sharding_rule{rule}"),
        "mhlo.frontend_attributes": mlir.ir_attribute({"num_batch_dims": "1"}),
    }
