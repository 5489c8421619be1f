"""Solves that tell what became of them where that leaves as tensors: inside of a graph, and in explicit derivatives."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .. import calculus
from ..errors import describe
from ..operators import AbstractLinearOperator, MatrixFree
from ..plan import Factored, Plan
from ..solution import Solution, Stats
from .tensorflow_arrays import asarray, cast, laid_out, permuted
from .tensorflow_free import refuse_graph
from .tensorflow_functions import Call, Found, Ops, kept

__all__ = ["info", "vjp"]


def info(A: AbstractLinearOperator, b: tf.Tensor, plan: Plan, factored: Factored, adjoint: bool = False) -> Solution:
    """Solve in a graph, with a verdict that leaves it as tensors."""
    if isinstance(A, MatrixFree):
        refuse_graph()
    data, columns, layout = laid_out(A, b)
    call = Call(plan, layout)
    ops = Ops(call.structure, call, factored)
    found = ops.found(data, columns, adjoint, False, stats=True)
    return _solution(call, ops.differentiable(data, columns, adjoint, found), found)


def _solution(call: Call, x: tf.Tensor, found: Found) -> Solution:
    """The Solution of what the host returned, eagerly or in a graph."""
    layout = call.layout
    if found.outcome is not None:
        return call.show(found.outcome)

    def spread(v: Any) -> tf.Tensor:
        return tf.broadcast_to(layout.per_item(v, tf.reshape), layout.batch)

    x = layout.restore(x, permuted, tf.reshape)
    return Solution(x, spread(found.status), Stats(*map(spread, found.stats)), call.method)


def vjp(A: AbstractLinearOperator, b: tf.Tensor, plan: Plan) -> tuple[Solution, Any]:
    """The solution and its pullback, whose adjoint solve has a verdict in graphs too."""
    if isinstance(A, MatrixFree):
        raise TypeError("vjp of tensors is for matrices; got a MatrixFree A: differentiate backsolve.solve itself.")
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch((A.data, b))
        data, columns, layout = laid_out(A, b)
    call, factored = Call(plan, layout), Factored()
    found = call.solve(factored, data, columns, False, False, True)
    good = kept(found)

    def pullback(g: Any) -> tuple[Any, Any, Solution]:
        g = asarray("g", g)
        if tuple(g.shape) != tuple(sol.x.shape):
            raise ValueError(f"g must have the shape of x, {tuple(sol.x.shape)}; got {describe(g)}.")
        ops = _Watched(call.structure, call, factored)
        x = found.x if good is None else found.x * good
        g = layout.columns(cast(g, x.dtype), tf.broadcast_to, permuted, tf.reshape)
        bars: Any = calculus.solve_vjp(ops, data, x, g, False, (True, True))
        bars = [bars[0], bars[1] if good is None else bars[1] * good]
        data_bar, b_bar = tape.gradient((data, columns), (A.data, b), bars)
        return data_bar, b_bar, _solution(call, ops.last.x, ops.last)

    sol = _solution(call, found.x, found)
    return sol, pullback


class _Watched(Ops):
    """Operations that keep what the latest solve found."""

    last: Any = None

    def solve(self, data, b, adjoint, backward=True):
        self.last = self.found(data, b, adjoint, backward, True)
        return self.last.x
