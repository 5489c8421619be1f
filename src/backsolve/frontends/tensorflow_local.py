"""Local queries of TensorFlow, eagerly: tapes get the gradients of the touched entries as IndexedSlices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record  # type: ignore[import-untyped]

from .._local.entry_errors import lookup
from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import System, Vector
from .._local.vector import DualQuery, VectorQuery
from .._local.vectors import sparse_vector
from .tensorflow_arrays import asarray, host, tensor
from .tensorflow_recording import traced

__all__ = ["functional", "given", "plain", "refuse_forward_mode", "refuse_graphs", "solve", "values"]


def values(data: Any, slots: np.ndarray | None, nnz: int) -> tuple[np.ndarray, Callable[[], int]]:
    """Stored values of a tensor, which never change; of a variable those that it has now."""
    refuse_graphs()
    plain = host(asarray("A", data))
    if slots is not None:
        summed = np.zeros(nnz, plain.dtype)
        np.add.at(summed, slots, plain)
        plain = summed
    return np.ascontiguousarray(plain), lambda: 0


def functional(system: System, data: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b."""
    refuse_graphs()
    left, right = given("t", t, system.n), given("b", b, system.n)

    def make() -> Any:
        return functional_query(system, right.vector, left.vector)

    return _Session(system, options, make, data, slots, right, left).start()


def solve(system: System, data: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as a SparseTensor (n,)."""
    refuse_graphs()
    right = given("b", b, system.n)
    return _Session(system, options, lambda: VectorQuery(system, right.vector), data, slots, right, None).start()


class _Given(NamedTuple):
    """A vector, and the tensor that gradients by it belong to: its values at places, or all n of them."""

    vector: Vector
    tensor: Any
    places: np.ndarray | None


class _Session(AbstractSession):
    def __init__(self, system, options, make, data, slots, b: _Given, t: _Given | None):
        super().__init__(system, options, make, slots)
        self.data: Any = None if isinstance(data, np.ndarray) else _now(data, slots, system)
        self.b, self.t = [b], [t] if t is not None else []

    def value(self, raw: Estimate) -> Any:
        if raw.query is None:
            return tf.constant(raw.value, tf.float64)
        inputs = [("A", None)] if self.data is not None else []
        inputs += [(name, given) for name in ("b", "t") for given in getattr(self, name) if given.tensor is not None]
        tensors = [self.data if given is None else given.tensor for _, given in inputs]
        if isinstance(raw.query, DualQuery) and any(
            record.should_record_backprop([of]) for (name, _), of in zip(inputs, tensors, strict=True) if name != "b"
        ):
            self._differentiable(raw.query)
        refuse_forward_mode(tensors)
        age, whole = self.age, isinstance(raw.value, tuple)

        def pullback(g: Any) -> list:
            if record.should_record_backprop(tensors):
                raise RuntimeError(
                    "gradients of local solves cannot be differentiated by a tape: for second derivatives by the "
                    "values of A call backsolve.local.hvp(estimate, direction)."
                )
            if whole:
                found, size = (
                    self.pullback(age, (raw.value[0], np.asarray(tf.convert_to_tensor(g), np.float64)), None),
                    1.0,
                )
            elif isinstance(raw.query, DualQuery):
                found, size = Gradient(None, self.gradient_by_b(age), None), float(g)  # type: ignore[arg-type]
            else:
                found, size = self.plain_gradient(age), float(g)
            return [self._bar(name, given, found, size) for name, given in inputs]

        shown = tensor(np.asarray(raw.value[1] if whole else raw.value))
        x = tf.custom_gradient(lambda *_: (shown, pullback))(*tensors) if tensors else shown
        return tf.SparseTensor(raw.value[0][:, None], x, (self.system.n,)) if whole else x

    def _bar(self, name: str, given: _Given | None, found: Gradient, g: float) -> Any:
        if given is None:
            return self._slices(found.A.places, g * found.A.values, self.among.count, self.data.dtype)
        part = found.b if name == "b" else found.t
        if given.places is None:
            return self._slices(part.indices, g * part.values, self.system.n, given.tensor.dtype)
        return tf.cast(tensor(g * lookup((part.indices, part.values), given.places)), given.tensor.dtype)

    def _slices(self, index: np.ndarray, value: np.ndarray, count: int, dtype: Any) -> Any:
        slices = tf.IndexedSlices(tf.cast(tensor(value), dtype), tensor(index), tf.constant([count], tf.int64))
        return tf.convert_to_tensor(slices) if self.options.grad == "dense" else slices

    def shown(self, found: Gradient) -> Gradient:
        return found.mapped(tensor)

    def vector(self, name: str, value: Any) -> Vector:
        return given(name, value, self.system.n).vector

    def took(self, name: str, step: Any) -> None:
        getattr(self, name[1:]).append(given(name, step, self.system.n))

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.among.change(name, tuple(map(plain, dA)) if isinstance(dA, tuple) else plain(dA))

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        raise ValueError(
            "dA must be written into the values of A, and tensors of TensorFlow cannot be changed: assign to the "
            "variable, and ask anew."
        )


def given(name: str, value: Any, n: int) -> _Given:
    """A vector of any kind."""
    if isinstance(value, tf.SparseTensor):
        value = value.indices[:, 0], value.values
    if isinstance(value, tuple) and len(value) == 2:
        index = np.atleast_1d(plain(value[0]))
        numbers = tf.convert_to_tensor(value[1]) if _of_tensorflow(value[1]) else None
        vector = sparse_vector(name, (index, plain(value[1] if numbers is None else numbers)), n)
        return _Given(vector, numbers, index.astype(np.int64))
    numbers = tf.convert_to_tensor(value) if _of_tensorflow(value) else None
    return _Given(sparse_vector(name, value if numbers is None else plain(numbers), n), numbers, None)


def _now(data: Any, slots: Any, system: System) -> tf.Tensor:
    """The tensor, or what the variable holds, read where a tape sees it."""
    now = asarray("A", data)
    if not isinstance(data, tf.Tensor):
        found = values(now, slots, system.nnz)[0]
        if not np.shares_memory(found, system.access.data) and not np.array_equal(found, system.access.data):
            raise RuntimeError(
                "the variable has been assigned to since local.DiagonallyDominant was made of it: make it anew in each "
                "step."
            )
    return now


def _of_tensorflow(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, tf.Variable)


def plain(value: Any) -> Any:
    """The numbers of a tensor; other things as they are."""
    return np.asarray(tf.convert_to_tensor(value)) if _of_tensorflow(value) else value


def refuse_graphs(names: str = "local.functional, local.entry and local.solve") -> None:
    """Raise inside of tf.function, whose tensors have no values."""
    if traced():
        raise TypeError(f"local solves read values, so they run eagerly only: call {names} outside of tf.function.")


def refuse_forward_mode(tensors: list) -> None:
    """Raise if an accumulator follows one of them."""
    if tensors and forwardprop_util.pack_tangents(tensors).tangents:
        raise TypeError(
            "local solves have no forward mode: use a GradientTape, or estimate.gradient().directional(dA, db, dt)."
        )
