"""`calculus` bound to TensorFlow: three operations with custom gradients that are made of each other.

Eagerly they run on the host at once. In a graph each is one call of the host, which never raises for numerical reasons,
and factors reach the backward through `factor_cache`. No operation of TensorFlow runs inside of such a call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from .. import calculus
from ..factor_cache import CACHE
from ..methods import Outcome
from ..plan import Factored, Plan
from ..shapes import Layout, check_start
from ..solution import Solution, Stats, solution_of, watcher
from .tensorflow_arrays import host, tensor
from .tensorflow_recording import here, is_eager, recorded, traced, unrecorded

__all__ = ["Call", "Found", "Ops", "from_host", "kept", "on_host"]

_COUNTS = ("refinements", "iterations", "matvecs", "factorizations", "copies")
_STATS = tuple(tf.int32 if name in _COUNTS else tf.float64 for name in Stats._fields)


class Found(NamedTuple):
    """What the host returned: x, the status of each item, and its outcome if eager, or its statistics if asked for."""

    x: tf.Tensor
    status: Any
    outcome: Outcome | None = None
    stats: tuple = ()


class Call:
    """What a solve and its derivatives share besides tensors.

    `box` receives the outcome of the latest eager backward solve, for `Solution.adjoint`.
    """

    def __init__(self, plan: Plan, layout: Layout, box: list | None = None):
        self.plan, self.layout, self.box = plan.bare(), layout, box
        self.structure, self.method = plan.template.structure, plan.method
        if traced() and (plan.x0 is not None or plan.callback is not None):
            raise TypeError("x0 and callback are for eager TensorFlow: leave them out inside of tf.function.")
        self.quiet = copy.copy(self.plan)
        self.quiet.on_failure = {False: "return", True: "return"}

    def solve(self, factored: Factored, data: Any, b: Any, adjoint: bool, backward: bool, stats: bool = False) -> Found:
        """Solve on the host, without a gradient."""
        if traced():
            return self._in_graph(factored, data, b, adjoint, backward, stats)
        cube = _cube(host(b))
        more = {} if backward else self.start(cube)
        outcome = self.plan.run(
            factored,
            lambda: data if self.structure.kind == "free" else _items(self.structure, host(data), len(cube)),
            cube,
            adjoint=adjoint,
            backward=backward,
            show=self.show,
            **more,
        )
        x = outcome.x.reshape(b.shape)
        if backward and self.box is not None:
            self.box[:] = [(outcome, x)]
        return Found(tensor(x), outcome.status, outcome)

    def start(self, cube: np.ndarray) -> dict:
        """Where an iterative method begins, and whom it tells."""
        x0, callback, self.plan.x0 = self.plan.x0, self.plan.callback, None
        if x0 is not None:
            check_start(tuple(x0.shape), self.layout)
            x0 = self.layout.columns(host(x0).astype(cube.dtype), np.broadcast_to, np.transpose)
            x0 = np.ascontiguousarray(x0).reshape(cube.shape)
        if callback is None:
            return {} if x0 is None else {"x0": x0}
        return {"x0": x0, "watch": watcher(callback, self.layout, np.asarray, np.transpose, tensor)}

    def _in_graph(self, factored: Factored, data: Any, b: Any, adjoint: bool, backward: bool, stats: bool) -> Found:
        # Derivatives of an eager solve may be traced, by Tape.jacobian: its factors are at hand.
        made = factored if is_eager(data) else None

        def run(data, b):
            cube = _cube(b)
            values = _items(self.structure, data, len(cube))
            if made is not None:
                return packed(self._quietly(made, values, cube, adjoint, backward), b.shape)
            assumed = self.plan.template.assumed
            with CACHE.factors(self.structure, self.method, assumed, values, spend=backward) as kept:
                return packed(self._quietly(kept, values, cube, adjoint, backward), b.shape)

        def packed(outcome, shape):
            found = (outcome.x.reshape(shape), outcome.status, *(outcome.stats if stats else ()))
            return [np.asarray(v, kind.as_numpy_dtype) for v, kind in zip(found, kinds, strict=True)]

        kinds = (b.dtype, tf.int32, *(_STATS if stats else ()))
        items = (b.shape[0] if b.shape.rank == 3 else 1,)
        x, status, *rest = on_host(run, (data, b), kinds, (b.shape, *[items] * (len(kinds) - 1)))
        return Found(x, status, None, tuple(rest))

    def _quietly(self, factored: Factored, values: Any, cube: Any, adjoint: bool, backward: bool) -> Outcome:
        # A state outlives the memory that TensorFlow lends to a call.
        show = lambda outcome: _by_item(self, outcome)  # noqa: E731
        return self.quiet.run(factored, values.copy, cube, adjoint=adjoint, backward=backward, show=show)

    def show(self, outcome: Any) -> Solution:
        """The outcome as the user knows it, forward or backward."""
        x = tensor(self.layout.shown(outcome.x, np.transpose))
        return solution_of(self.method, outcome, self.layout, x, from_host)


class Ops:
    """The three operations that `calculus` asks for, recorded by tapes.

    data is (...,) or (items, ...) of canonical values; vectors are (n,), (n, k) or (items, n, columns).
    """

    def __init__(self, structure: Any, call: Call | None = None, factored: Factored | None = None):
        self.structure, self.call, self.factored = structure, call, factored

    def matvec(self, data, x, adjoint):
        if self.structure.kind == "dense":
            y = tf.linalg.matmul(data, x if x.shape.rank > 1 else x[:, None], adjoint_a=adjoint)
            return y if x.shape.rank > 1 else y[:, 0]

        def run(data, x):
            cube = _cube(x)
            y = self.structure.matvec(_items(self.structure, data, len(cube)), cube, adjoint)
            return y if x.ndim == 3 else y.reshape(y.shape[1], *x.shape[1:])

        (y,) = on_host(run, (data, x), (x.dtype,), (_with_rows(x, self.structure.shape[1 if adjoint else 0]),))

        def gradient(g, data, x):
            return calculus.matvec_vjp(self, data, x, g, adjoint, (True, True))

        return recorded(lambda: y, (data, x), gradient)

    def outer(self, y, x):
        if self.structure.kind == "dense":
            y, x = (v if v.shape.rank > 1 else v[:, None] for v in (y, x))
            return tf.linalg.matmul(y, x, adjoint_b=True)

        def run(y, x):
            s = self.structure.outer(_cube(y), _cube(x))
            return s if x.ndim == 3 else s[0]

        shape = (x.shape[0], self.structure.nnz) if x.shape.rank == 3 else (self.structure.nnz,)
        (s,) = on_host(run, (y, x), (x.dtype,), (shape,))
        return recorded(lambda: s, (y, x), lambda g, y, x: calculus.outer_vjp(self, y, x, g, (True, True)))

    def solve(self, data, b, adjoint, backward=True):
        return self.differentiable(data, b, adjoint, self.found(data, b, adjoint, backward))

    def found(self, data, b, adjoint, backward, stats=False) -> Found:
        """The solution as the host returns it, which tapes do not see."""
        call: Any = self.call
        if self.factored is not None:
            self.factored.keep()
        return call.solve(self.factored, data, b, adjoint, backward, stats)

    def differentiable(self, data: Any, b: Any, adjoint: bool, found: Found) -> tf.Tensor:
        """The x that was found, as a function of data and b.

        Its gradient is made of the x that this returns: for tapes, the one inside of the custom gradient is another
        tensor, a constant, and second derivatives would lack the terms that go through it.
        """
        returned: list[tf.Tensor] = []

        def gradient(g, data, b):
            # Forward mode transposes the gradient before x is returned, so for it x is recorded once more.
            x = here(returned[0] if returned else self.differentiable(data, b, adjoint, found))
            good: Any = kept(found)
            x = x if good is None else x * good
            data_bar, b_bar = calculus.solve_vjp(self, data, x, g, adjoint, (True, True))
            return data_bar, b_bar if good is None else b_bar * good

        x = recorded(lambda: found.x, (data, b), gradient)
        returned.append(x)
        return x


def on_host(run: Callable, tensors: tuple, dtypes: tuple[Any, ...], shapes: tuple) -> list[tf.Tensor]:
    """The results of a function of NumPy arrays: at once, or in a graph by one call of the host, a pure one."""
    if not traced():
        found = run(*map(host, tensors))
        return [tensor(v) for v in (found if isinstance(found, list) else (found,))]
    with unrecorded():
        found: Any = tf.numpy_function(run, tensors, list(dtypes), stateful=False)
    for v, shape in zip(found, shapes, strict=True):
        v.set_shape(shape)
    return found


def kept(found: Found) -> tf.Tensor | None:
    """1 for items that converged and NaN for others, to be multiplied with x; None where all did, if known."""
    if found.outcome is not None and found.outcome.failed is None:
        return None
    ones = tf.cast(tf.where(found.status > 0, tf.ones((), tf.float64), np.nan), found.x.dtype)
    return ones[:, None, None] if found.x.shape.rank == 3 else ones


def from_host(array: np.ndarray) -> tf.Tensor:
    """A status or statistic as a tensor."""
    return tf.convert_to_tensor(array)


def _by_item(call: Call, outcome: Any) -> Solution:
    """The outcome item by item, as NumPy arrays: a call of the host knows no layout."""
    items, n, k = outcome.x.shape
    return solution_of(call.method, outcome, Layout((items,), (0,), (), n, k, False), outcome.x)


def _with_rows(x: Any, rows: int) -> tuple:
    shape: tuple = tuple(x.shape)
    return (shape[0], rows, shape[2]) if len(shape) == 3 else (rows, *shape[1:])


def _cube(b: np.ndarray) -> np.ndarray:
    """Vectors as contiguous (items, n, k)."""
    b = np.ascontiguousarray(b) if b.ndim else b
    return b if b.ndim == 3 else b.reshape(1, b.shape[0], 1 if b.ndim == 1 else b.shape[1])


def _items(structure: Any, data: np.ndarray, items: int) -> np.ndarray:
    """Values as contiguous (items, nnz) or (items, n_rows, n_cols)."""
    core = structure.shape if structure.kind == "dense" else (structure.nnz,)
    return np.ascontiguousarray(data).reshape(items, *core)
