"""Local queries of torch: tensors in, estimates out whose values gradients flow through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import forward_ad

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import System, Vector
from .._local.vector import DualQuery, VectorQuery
from .._local.vectors import sparse_vector
from .torch_arrays import asarray
from .torch_local_functions import Asked, Part, check_chain, recorded_number, recorded_vector
from .torch_sparse import values_of

__all__ = ["functional", "on_host", "refuse_transforms", "solve", "values"]


def values(data: Any, slots: np.ndarray | None, nnz: int) -> tuple[np.ndarray, Callable[[], int] | None]:
    """Stored values where the tensor has them, and its version, by which changes in place are known.

    Values that were given unsorted or repeated are summed, and summed again when the version is another.
    """
    refuse_transforms()
    data = on_host("values of A", asarray("A", data).detach())
    if slots is None and data.is_contiguous():
        return data.numpy(), None if data.is_inference() else lambda: data._version
    places: Any = np.arange(nnz) if slots is None else slots
    summed = np.zeros(nnz, data.numpy().dtype)
    seen = [-1]

    def stamp() -> int:
        if seen[0] != data._version:
            summed[:] = 0
            np.add.at(summed, places, data.numpy())
            seen[0] = data._version
        return seen[0]

    stamp()
    return summed, stamp


def functional(system: System, data: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    left, right = _given("t", t, system.n), _given("b", b, system.n)

    def make() -> Any:
        return functional_query(system, right.vector, left.vector)

    return _Session(system, options, make, data, slots, right.part, left.part).start()


def solve(system: System, data: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as a sparse tensor (n,)."""
    right = _given("b", b, system.n)
    return _Session(system, options, lambda: VectorQuery(system, right.vector), data, slots, right.part, None).start()


class _Session(AbstractSession):
    def __init__(self, system, options, make, data, slots, b: Part | None, t: Part | None):
        refuse_transforms()
        super().__init__(system, options, make, slots)
        self.data = data if isinstance(data, torch.Tensor) else torch.empty(0)  # NumPy's are constants
        self.parts = {"b": [b] if b else [], "t": [t] if t else []}
        self._check()

    def value(self, raw: Estimate) -> torch.Tensor:
        asked = Asked(
            self.age, self.among.count, self.options.grad == "dense", tuple(self.parts["b"]), tuple(self.parts["t"])
        )
        if isinstance(raw.value, tuple):
            index, x = map(torch.from_numpy, raw.value)
            if raw.query is not None and self._wanted(asked):
                x = recorded_vector(self, self.data, asked, raw.value)
            return torch.sparse_coo_tensor(index[None], x, (self.system.n,), is_coalesced=True, check_invariants=False)
        if raw.query is None or not self._wanted(asked):
            return torch.tensor(raw.value, dtype=torch.float64)
        if isinstance(raw.query, DualQuery) and (self.data.requires_grad or any(p.requires_grad for p in asked.t)):
            self._differentiable(raw.query)
        return recorded_number(self, self.data, asked, raw.value)

    def _check(self) -> None:
        """Say so before anything is solved if a gradient could not reach its leaf."""
        if not torch.is_grad_enabled():
            return
        if self.data.requires_grad and self.system.access.symmetric:
            raise ValueError(
                "values of a matrix that was saved with symmetric=True are read as rows and as columns, so one entry "
                "cannot change alone: save it with symmetric=False, or call detach()."
            )
        if self.options.grad == "sparse":
            check_chain("values of A", self.data)
            for part in (*self.parts["b"], *self.parts["t"]):
                if part.index is None:
                    check_chain("b or t", part.tensor)

    def _wanted(self, asked: Asked) -> bool:
        """Whether somebody may differentiate."""
        return torch.is_grad_enabled() and any(v.requires_grad for v in (self.data, *asked.b, *asked.t))

    def shown(self, found: Gradient) -> Gradient:
        return found.mapped(torch.from_numpy)

    def vector(self, name: str, value: Any) -> Vector:
        return _given(name, value, self.system.n).vector

    def took(self, name: str, step: Any) -> None:
        part = _given(name, step, self.system.n).part
        if part is not None:
            self.parts[name[1:]].append(part)

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(dA, torch.Tensor) and dA.layout == torch.sparse_coo and dA.ndim == 1:
            dA = dA.detach().coalesce()
            dA = dA.indices()[0], dA.values()
        if isinstance(dA, tuple):
            return self.among.change(name, tuple(map(_plain, dA)))
        return self.among.change(name, _plain(dA))

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        data = self.data
        if data.grad_fn is not None or not data.numel():
            raise ValueError(
                "dA must be written into the values of A, which were computed from other tensors: change those, and "
                "ask anew."
            )
        at = torch.from_numpy(places)
        old = data.detach()[at].clone()
        with torch.no_grad():
            data.index_add_(0, at, torch.from_numpy(increments).to(data.dtype))

        def undo() -> None:
            with torch.no_grad():
                data[at] = old

        return undo


class _Given(NamedTuple):
    vector: Vector
    part: Part | None


def _given(name: str, value: Any, n: int) -> _Given:
    """A vector of any kind, and where gradients by it go if it is torch's."""
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        vector = sparse_vector(name, _plain(value), n)
        return _Given(vector, Part(value, None) if value.requires_grad else None)
    if isinstance(value, torch.Tensor):
        value = _entries(name, value, n)
    if isinstance(value, tuple) and len(value) == 2:
        index, numbers = np.atleast_1d(_plain(value[0])), value[1]
        vector = sparse_vector(name, (index, _plain(numbers)), n)
        grows = isinstance(numbers, torch.Tensor) and numbers.requires_grad
        return _Given(vector, Part(numbers, index.astype(np.int64)) if grows else None)
    return _Given(sparse_vector(name, value, n), None)


def _entries(name: str, value: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(indices, values) of a sparse tensor (n,) or (n, 1); the gradient of the values has its pattern."""
    if value.layout != torch.sparse_coo or tuple(value.shape) not in ((n,), (n, 1)) or value.dense_dim():
        raise ValueError(
            f"{name} must be a dense or COO tensor of shape ({n},); got layout {value.layout} and shape "
            f"{tuple(value.shape)}: use {name}.to_sparse_coo()."
        )
    value = value.coalesce()
    return value.indices()[0], values_of(value)


def _plain(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return on_host("tensors", value.detach()).resolve_conj().resolve_neg().numpy()


def on_host(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, which kernels can read in place."""
    if not tensor.is_cpu:
        raise ValueError(f"{name} must be on the CPU, where local solves run; got {tensor.device}: call .cpu().")
    return tensor.resolve_conj().resolve_neg()


def refuse_transforms() -> None:
    """Raise inside transforms, whose tensors have no values."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        raise TypeError(
            "local solves read values, so torch.func transforms (vmap, grad, jvp) and forward mode cannot go through "
            "them: use backward(), or local.value_and_grad, and loop over problems."
        )
