"""The vocabulary of recurrences: systems, what columns say of themselves, and arithmetic column by column.

Vectors are (batch, n, k) and scalars (batch, 1, k): every column is a run of its own. Everything is a pure function of
arrays over an array namespace.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import is_jax_namespace

__all__ = [
    "BROKEN",
    "CLAIMED",
    "NOT_POSITIVE",
    "OVERFLOW",
    "RUNNING",
    "Iterate",
    "System",
    "choose",
    "dot",
    "mark",
    "norm_of",
    "put",
    "ratio",
    "real_dot",
    "residual_in_null_space",
    "size_of",
    "started",
    "when",
]

RUNNING, CLAIMED, BROKEN, NOT_POSITIVE, OVERFLOW = range(5)
"""What a column says of itself: going on, small enough by its recursive residual, or why it cannot go on."""


class System(NamedTuple):
    """A x = b (or Aᴴ x = b) as a recurrence sees it."""

    xp: Any
    """Array namespace."""
    A: Any
    """v -> A v, for (batch, n, k)."""
    M: Any
    """v -> M v, the preconditioner M ≈ A⁻¹."""
    limit: Any
    """Square of the residual norm at which a column stops: (batch, 1, k)."""
    eps: float
    """Spacing of 1.0."""
    AH: Any = None
    """v -> Aᴴ v."""
    MH: Any = None
    """v -> Mᴴ v."""
    found: Any = None
    """What `IterativeMethod.find` found."""
    known: Any = None
    """Numbers (batch,) of NumPy -> scalars (batch, 1, 1)."""
    put: Any = None
    """(array, at, rows) -> the (batch, k, m, n) array with other rows (batch, k, n) at a place of its third axis."""
    when: Any = None
    """(condition, function, *operands) -> function(*operands), or the first operands where the condition is false.

    A program that is compiled has both, and takes one.
    """


class Iterate(NamedTuple):
    """The part of a recurrence's state that the loop knows; scalars are (batch, 1, k)."""

    x: Any
    r: Any
    rr: Any
    """Square of the norm of r, the recursive residual."""
    state: Any
    """RUNNING, CLAIMED, ...: int32."""
    count: Any
    """Iterations made: int32."""


def dot(xp: Any, a: Any, b: Any) -> Any:
    """Aᴴ b of each column: (batch, 1, k)."""
    return xp.vecdot(a, b, axis=1)[:, None, :]


def real_dot(xp: Any, a: Any, b: Any) -> Any:
    """Re aᴴ b of each column: (batch, 1, k)."""
    value = dot(xp, a, b)
    return xp.real(value) if xp.isdtype(value.dtype, "complex floating") else value


def choose(xp: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` where the (batch, 1, k) mask holds, else `no`; without a copy where that is one of them.

    JAX traces the choice, since there a mask has no truth while a program is compiled.
    """
    if is_jax_namespace(xp):
        return xp.where(mask, yes, no)
    if bool(xp.all(mask)):
        return yes
    return xp.where(mask, yes, no) if bool(xp.any(mask)) else no


def when(condition: bool, function: Any, *operands: Any) -> Any:
    """`System.when` for conditions that have a truth."""
    return function(*operands) if condition else operands


def put(array: Any, at: int, rows: Any) -> Any:
    """`System.put` for arrays that can be changed."""
    array[:, :, at] = rows
    return array


def ratio(xp: Any, ok: Any, above: Any, below: Any) -> Any:
    """above / below where `ok`, else 0."""
    return xp.where(ok, above / xp.where(ok, below, xp.ones_like(below)), xp.zeros_like(above))


def mark(xp: Any, state: Any, where: Any, code: int) -> Any:
    """`state`, with `code` in the columns `where`."""
    return xp.where(where, xp.full_like(state, int(code)), state)


def residual_in_null_space(system: System, r: Any, A: Any) -> Any:
    """Whether A r vanishes beside norm(A) norm(r), where A stands for Aᴴ: (batch, 1, k).

    Then r cannot be made smaller, and, as it is not zero, A is singular. What a run has found of r is right to about
    two thirds of the digits.
    """
    xp = system.xp
    size, norm = size_of(system, r, A), norm_of(xp, r)
    return (norm > 0) & (size > 0) & (norm_of(xp, A(r)) <= system.eps ** (2 / 3) * size * norm)


def size_of(system: System, like: Any, A: Any) -> Any:
    """norm(A) as far as four power steps tell, from below: (batch, 1, k)."""
    xp = system.xp
    w = xp.ones_like(like) + xp.cumulative_sum(xp.ones_like(like), axis=1) / max(like.shape[1], 1)
    largest = xp.zeros_like(norm_of(xp, w))
    for _ in range(4):
        size = norm_of(xp, w)
        w = A(w / xp.where(size > 0, size, xp.ones_like(size)))
        found = norm_of(xp, w)
        largest = xp.where(found > largest, found, largest)
    return largest


def norm_of(xp: Any, v: Any) -> Any:
    """Norm of each column: (batch, 1, k)."""
    return xp.sqrt(real_dot(xp, v, v))


def started(system: System, rr: Any) -> Any:
    """What columns say when the square of the norm of their residual is rr."""
    xp = system.xp
    state = mark(xp, xp.astype(xp.zeros_like(rr), xp.int32), ~xp.isfinite(rr), OVERFLOW)
    return mark(xp, state, rr <= system.limit, CLAIMED)
