"""`bs.vjp` and `bs.jvp` for JAX: derivatives with the verdict on the solve that they take."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .. import calculus
from ..errors import describe
from ..operators import AbstractLinearOperator, MatrixFree
from ..plan import Plan
from ..solution import Solution
from .jax_arrays import asarray, cube
from .jax_free import Parameters, tangent, varies
from .jax_laid import laid_out, numbers_of, solution
from .jax_solve import Call, Ops, kept, run

__all__ = ["jvp", "vjp"]


class _Watched(Ops):
    """Operations that keep what the latest solve found."""

    last: Any = None

    def solve(self, data, b, adjoint):
        self.last = run(self.call, data, b, adjoint, backward=True, stats=True)
        return self.last[0]


def vjp(A: AbstractLinearOperator, b: jax.Array, plan: Plan) -> tuple[Solution, Any]:
    """The solution and its pullback, for cotangents as `jax.vjp` has them."""
    numbers = numbers_of(A)
    which = [varies(number) for number in numbers]
    laid = laid_out(A, numbers, b)
    varied = [varies(operand) for operand in laid.data]
    call = Call(plan, laid.layout, laid.structure)
    found = run(call, laid.data, laid.b, False, stats=True)
    sol = solution(call, found)

    def operands(*given: Any) -> Any:
        now = laid_out(A, _mixed(numbers, which, given), given[-1])
        return tuple(operand for operand, v in zip(now.data, varied, strict=True) if v), now.b

    back = jax.vjp(operands, *(n for n, v in zip(numbers, which, strict=True) if v), b)[1]

    def pullback(g: Any) -> tuple[Any, Any, Solution]:
        g = asarray("g", g)
        if g.shape != sol.x.shape:
            raise ValueError(f"g must have the shape of x, {sol.x.shape}; got {describe(g)}.")
        ops, factor = _Watched(call, laid.data, varied), kept(found[1], found[0])
        columns = cube(laid.layout, g.conj().astype(found[0].dtype))
        bars: Any = calculus.solve_vjp(ops, laid.data, found[0] * factor, columns, False, (True, True))
        operand_bars = tuple(bar.conj() for bar in bars[0] if bar is not None)
        *made, b_bar = back((operand_bars, (bars[1] * factor).conj()))
        return _as_given(A, _mixed([None] * len(numbers), which, made)), b_bar, solution(call, ops.last)

    return sol, pullback


def jvp(A: AbstractLinearOperator, b: jax.Array, data_dot: Any, b_dot: Any, plan: Plan) -> tuple[Solution, Solution]:
    """The solution and its tangent, with the verdict on each."""
    if data_dot is None and b_dot is None:
        raise ValueError("jvp needs a tangent: give data_dot, b_dot or both.")
    numbers = numbers_of(A)
    dots = [None] * len(numbers) if data_dot is None else _tangents(A, data_dot)
    which = [dot is not None for dot in dots]
    laid = laid_out(A, numbers, b)
    call = Call(plan, laid.layout, laid.structure)
    found = run(call, laid.data, laid.b, False, stats=True)

    def operands(*given: Any) -> Any:
        now = laid_out(A, _mixed(numbers, which, given), given[-1])
        return now.data, now.b

    along = jnp.zeros_like(b) if b_dot is None else tangent("b_dot", b_dot, "b", b)
    primals = (*(n for n, v in zip(numbers, which, strict=True) if v), b)
    moved, columns = jax.jvp(operands, primals, (*(dot for dot in dots if dot is not None), along))[1]
    moved = tuple(dot if varies(operand) else None for operand, dot in zip(laid.data, moved, strict=True))
    ops, x = _Watched(call, laid.data), found[0] * kept(found[1], found[0])
    change = moved if any(which) else None
    calculus.solve_jvp(ops, laid.data, x, change, None if b_dot is None else columns, False)
    return solution(call, found), solution(call, ops.last)


def _mixed(numbers: Any, which: list[bool], given: Any) -> tuple:
    """`numbers`, with those `which` say from `given`."""
    rest = iter(given)
    return tuple(next(rest) if v else n for n, v in zip(numbers, which, strict=True))


def _as_given(A: AbstractLinearOperator, bars: tuple) -> Any:
    """Cotangents nested as ``A.data``; None for what cannot have one."""
    return Parameters(A.data).filled(bars, others=False) if isinstance(A, MatrixFree) else bars[0]


def _tangents(A: AbstractLinearOperator, data_dot: Any) -> list:
    if isinstance(A, MatrixFree):
        return Parameters(A.data).tangents(data_dot)
    return [tangent("data_dot", data_dot, "A.data", A.data)]
