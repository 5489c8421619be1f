"""Local queries of matrices whose values a function of TensorFlow makes: tapes get gradients to what is in theta."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record  # type: ignore[import-untyped]

from .._local.estimate import Estimate
from .._local.functional import functional_query
from .._local.gradient import Gradient
from .._local.options import Options
from .._local.session import AbstractSession
from .._local.system import Vector
from .._local.vector import VectorQuery
from .tensorflow_arrays import host, tensor
from .tensorflow_local import given, plain, refuse_forward_mode, refuse_graphs
from .tensorflow_recording import recorded, unrecorded

__all__ = ["evaluator", "functional", "solve", "weights_of"]


def functional(system: Any, model: Any, slots: Any, b: Any, t: Any, options: Options) -> Estimate:
    """t·M⁻¹b; b and t are constants."""
    left, right = _constant("t", t, model.n), _constant("b", b, model.n)
    return _Session(model, options, lambda own: functional_query(own, right, left)).start()


def solve(system: Any, model: Any, slots: Any, b: Any, options: Options) -> Estimate:
    """M⁻¹b, as a SparseTensor (n,)."""
    vector = _constant("b", b, model.n)
    return _Session(model, options, lambda own: VectorQuery(own, vector)).start()


def evaluator(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What makes values out of places, for theta as it is now."""
    return _Theta(model).evaluate


def weights_of(edge_weight: Callable, theta: Any, places: np.ndarray) -> tf.Tensor:
    """What the function makes of places, where tapes look on."""
    values = edge_weight(theta, tensor(places))
    if not isinstance(values, tf.Tensor):
        raise TypeError(
            f"edge_weight must return a tensor of TensorFlow, as theta is of TensorFlow; got {type(values).__name__}."
        )
    return values


def _constant(name: str, value: Any, n: int) -> Vector:
    found = given(name, value, n)
    if found.tensor is not None and record.should_record_backprop([found.tensor]):
        raise ValueError(
            f"{name} must be a constant, as gradients of an EdgeModel are by theta: call tf.stop_gradient({name})."
        )
    return found.vector


class _Theta:
    """The parameters of one query, which must stay as they are while it lives."""

    def __init__(self, model: Any):
        refuse_graphs()
        self.edge_weight, self.theta = model.edge_weight, model.theta
        self.leaves = list(_leaves(model.theta))
        self.now = [tf.convert_to_tensor(leaf) for leaf in self.leaves]  # read where a tape sees it
        self.known = model.structure.evaluated(self.evaluate)

    def evaluate(self, places: np.ndarray) -> np.ndarray:
        with unrecorded():
            return host(weights_of(self.edge_weight, self.theta, places))

    def check(self) -> None:
        with unrecorded():
            if not all(
                np.array_equal(host(old), host(tf.convert_to_tensor(leaf)), equal_nan=True) for old, leaf in self.pairs
            ):
                raise RuntimeError("theta was assigned to since this estimate was made: ask again.")

    @property
    def pairs(self) -> Any:
        return zip(self.now, self.leaves, strict=True)

    def pull(self, found: Gradient, scale: float) -> list:
        """Gradients by the leaves: one call of edge_weight at the entries that have one."""
        self.check()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for leaf in self.leaves:
                tape.watch(leaf)
            values = weights_of(self.edge_weight, self.theta, found.A.places)
        self.known.check(found.A.places, host(values))
        g = tf.cast(tensor(scale * found.A.values), values.dtype)
        return tape.gradient([values], self.leaves, output_gradients=[g])  # type: ignore[return-value]


def _leaves(theta: Any) -> Iterator[Any]:
    """Floating-point tensors and variables in theta; Keras has its own variables around those of TensorFlow."""
    if isinstance(theta, dict):
        theta = list(theta.values())
    elif hasattr(theta, "trainable_variables"):
        theta = list(theta.trainable_variables)
    if isinstance(theta, list | tuple):
        for part in theta:
            yield from _leaves(part)
        return
    theta = getattr(theta, "value", theta) if type(theta).__module__.startswith("keras") else theta
    if isinstance(theta, tf.Tensor | tf.Variable) and theta.dtype.is_floating:
        yield theta


class _Session(AbstractSession):
    def __init__(self, model: Any, options: Options, make: Callable[[Any], Any]):
        self.theta = _Theta(model)
        system = model._system_of(self.theta.known)
        super().__init__(system, options, lambda: make(system))

    def value(self, raw: Estimate) -> Any:
        if raw.query is None:
            return tf.constant(raw.value, tf.float64)
        age, whole, inputs = self.age, isinstance(raw.value, tuple), self.theta.now
        refuse_forward_mode(inputs)

        def pullback(g: Any, *_: Any) -> list:
            if record.should_record_backprop(inputs):
                raise RuntimeError("an EdgeModel has first derivatives only: its gradients cannot be differentiated.")
            if not whole:
                return self.theta.pull(self.plain_gradient(age), float(g))
            cotangent = np.asarray(tf.convert_to_tensor(g), np.float64)
            return self.theta.pull(self.pullback(age, (raw.value[0], cotangent), None), 1.0)

        shown = tensor(np.asarray(raw.value[1] if whole else raw.value))
        x = recorded(lambda: shown, tuple(inputs), pullback) if inputs else shown
        return tf.SparseTensor(raw.value[0][:, None], x, (self.system.n,)) if whole else x

    def refine(self, estimate: Estimate, **changes: Any) -> Estimate:
        self.theta.check()
        return super().refine(estimate, **changes)

    def shown(self, found: Gradient) -> Gradient:
        return found.mapped(tensor)

    def vector(self, name: str, value: Any) -> Vector:
        return _constant(name, value, self.system.n)

    def change(self, name: str, dA: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.among.change(name, tuple(map(plain, dA)) if isinstance(dA, tuple) else plain(dA))

    def write(self, places: np.ndarray, increments: np.ndarray) -> Callable[[], None]:
        raise ValueError("dA cannot be written into values that a function makes: change theta, and ask again.")
