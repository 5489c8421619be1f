"""Functions as programs: traced once for a call, what they close over made operands, and equal by what they compute.

So a value that a function closes over is differentiated, mapped over and carried like any parameter, and what was
compiled for one function serves every other that does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

__all__ = ["Program", "frozen", "traced"]


class Program:
    """What a function of arrays computes, without the arrays that it closes over: those come first in a call."""

    def __init__(self, jaxpr: Any):
        self.jaxpr = jaxpr
        self.closed_over = len(jaxpr.constvars)
        self._key = _outline(jaxpr)
        self._hash = hash(self._key)

    def __call__(self, constants: Any, *arguments: Any) -> list:
        return eval_jaxpr(self.jaxpr, constants, *arguments)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Program) and self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


def traced(function: Callable, *arguments: Any) -> tuple[Program, tuple]:
    """The program of a function for arguments of these shapes, and the arrays that it closes over."""
    closed = jax.make_jaxpr(lambda *given: function(*given))(*arguments)
    return Program(closed.jaxpr), tuple(c if isinstance(c, jax.Array) else jnp.asarray(c) for c in closed.consts)


def frozen(function: Callable, *arguments: Any) -> Callable:
    """A function as it is traced now, whatever is configured when it is called; it returns one array."""
    closed = jax.make_jaxpr(function)(*arguments)
    return lambda *given: eval_jaxpr(closed.jaxpr, closed.consts, *given)[0]


class _Itself:
    """Something that equals nothing but itself, and is kept so that its identity stays its own."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Itself) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _outline(jaxpr: Any) -> tuple:
    """A key that equal programs share: operations, their parameters, and how variables run through them."""
    names: dict[Any, int] = {}

    def name(v: Any) -> Any:
        if isinstance(v, Literal):
            return "literal", _plain(v.val), str(v.aval)
        return names.setdefault(v, len(names)), str(v.aval)

    given = tuple(map(name, (*jaxpr.constvars, *jaxpr.invars)))
    equations = tuple(
        (e.primitive.name, tuple(map(name, e.invars)), tuple(map(name, e.outvars)), _plain(e.params))
        for e in jaxpr.eqns
    )
    return len(jaxpr.constvars), given, equations, tuple(map(name, jaxpr.outvars))


def _plain(value: Any) -> Any:
    """A parameter of an operation as something that can be compared: what cannot be is nothing but itself."""
    if isinstance(value, ClosedJaxpr):
        return "closed", _outline(value.jaxpr), _plain(tuple(value.consts))
    if isinstance(value, Jaxpr):
        return _outline(value)
    if isinstance(value, dict):
        return tuple((key, _plain(value[key])) for key in sorted(value, key=str))
    if isinstance(value, tuple | list):
        return type(value), tuple(map(_plain, value))
    if isinstance(value, np.ndarray | np.generic):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, float | complex):
        return type(value), repr(value)  # so that 0.0 is not -0.0, and NaN is itself
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return type(value), value
