"""The loop of the iterative methods as a `lax.while_loop`: in compiled programs and out of them, on any device.

It is the loop of `methods.iterative`, with its parts: recurrences are pure functions, and what is decided about columns
is in `methods.columns`. Nothing in it calls the host.

What the loop decides by is in double precision, whether or not JAX is set to have it: products with matrices that
make the true residual, its norms, and targets. So a column that has converged in single precision has by the
residual that NumPy would find.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..methods.base import Target
from ..methods.columns import REACH, Verdict, accounted, blamed, goals, judged
from ..methods.iterative import Watch
from ..methods.recurrence import RUNNING, System, when
from ..pattern import largest_summable
from ..preconditioners import Function
from ..solution import Stats
from .jax_arrays import concrete, varying_alike
from .jax_products import matvec
from .jax_programs import frozen
from .jax_sweeps import Plain, product

__all__ = ["Found", "check_closure", "iterate"]


class Found(NamedTuple):
    """What a loop leaves; scalars are (items, 1, k)."""

    x: Any
    verdict: Verdict
    known: Any
    """What the method diagnosed."""
    work: Any
    """The last state of the recurrence, for columns scaled to size one."""
    stats: Stats
    """Of each column."""
    misled: Any
    """Whether the adjoint that was given is none: (items,)."""


class _Run(NamedTuple):
    """What the loop carries."""

    work: Any
    steps: Any
    again: Any
    """Columns that go on from the true residual."""
    going: Any
    r: Any
    last: Any
    misses: Any
    best: Any
    best_square: Any
    lowest: Any
    """The smallest recursive residual, squared, and where it was."""
    at_lowest: Any
    residuals: Any


class _Maps(NamedTuple):
    """What a recurrence applies: A, Aᴴ, M and Mᴴ as the direction of the solve has them, and items without an M."""

    A: Any
    AH: Any
    M: Any
    MH: Any
    broken: Any


def iterate(
    method: Any,
    structure: Any,
    target: Target,
    adjoint: bool,
    double: bool,
    b: jax.Array,
    x0: jax.Array | None,
    data: tuple,
    watch: Watch | None = None,
) -> Found:
    """Solve A x = b, or with Aᴴ, for data on the structure and b of (items, n, k), from x0 or zero.

    To be called where JAX has double precision; the functions of a MatrixFree are applied as if it was set to `double`.
    With `watch`, which is told of every iteration, it is not to be traced.
    """
    misled = jnp.zeros(b.shape[0], bool)
    with jax.enable_x64(double), jax.default_matmul_precision("highest"):
        apply = frozen(product(structure, data, adjoint), b)
        flipped = frozen(product(structure, data, not adjoint), b) if method.two_sided else None
        maps = _Maps(apply, flipped, *_preconditioners(method, structure, data, adjoint, b))
        uses_given = structure.kind == "free" and (method.two_sided or adjoint != structure.map.flipped)
        if uses_given and structure.map.adjoint is not None:
            misled = structure.dot_test(data, b)[2]
    with jax.default_matmul_precision("highest"):
        return _Loop(method, structure, target, adjoint, b, data, maps, watch).found(x0)._replace(misled=misled)


def _preconditioners(method: Any, structure: Any, data: tuple, adjoint: bool, b: jax.Array) -> tuple[Any, Any, Any]:
    """v -> M v and v -> Mᴴ v, as the direction of the solve has them, and a mask (items,) of those without an M."""
    if method.M is None:
        return (lambda v: v), (lambda v: v), None
    A = _plain(structure, data)
    made, several = method.M.prepare(A), method.two_sided
    apply = frozen(lambda v: made.apply(v, adjoint), b)
    broken = jnp.zeros(b.shape[0], bool) if isinstance(made.broken, dict) else made.broken
    return apply, frozen(lambda v: made.apply(v, not adjoint), b) if several else None, broken


def _plain(structure: Any, data: tuple) -> SimpleNamespace:
    """A as preconditioners see it."""
    values = data if structure.kind == "free" else data[0]
    return SimpleNamespace(structure=Plain(structure, data), shape=structure.shape, data=values)


def check_closure(method: Any, b: jax.Array) -> None:
    """Raise if M is a function that closes over a traced value: the loop is compiled apart from what traces it."""
    if isinstance(method.M, Function):
        v = jax.ShapeDtypeStruct(b.shape[1:2], b.dtype)
        if not concrete(*jax.make_jaxpr(lambda v: method.M.apply(v))(v).consts):
            raise ValueError(
                "M must not close over values that a transform of JAX traces: it changes no derivative, so make it of "
                "arrays outside of the transform."
            )


def _while(condition: Callable, body: Callable, state: Any) -> Any:
    """`lax.while_loop`, of which every step is seen."""
    while condition(state):
        state = body(state)
    return state


def _put(array: jax.Array, at: Any, rows: jax.Array) -> jax.Array:
    """`System.put` of a program; of arrays on a mesh every device has its items."""
    return lax.dynamic_update_index_in_dim(array, rows, at, 2)


def _when(condition: Any, function: Callable, *operands: Any) -> Any:
    """`System.when` of a program that is compiled."""
    return lax.cond(condition, function, lambda *operands: operands, *operands)


class _Loop:
    """One solve, columns scaled to size one by powers of two."""

    def __init__(self, method, structure, target, adjoint, b, data, maps, watch):
        self.method, self.structure, self.adjoint, self.maps, self.watch = method, structure, adjoint, maps, watch
        self.repeat, self.when = (lax.while_loop, _when) if watch is None else (_while, when)
        self.eps = float(jnp.finfo(b.dtype).eps)
        largest = jnp.max(jnp.abs(b), axis=1, keepdims=True, initial=0)
        reach = REACH[self.eps < 1e-10]
        exponents = jnp.where(jnp.isfinite(largest), jnp.clip(jnp.frexp(largest)[1], -reach, reach), 0)
        self.back = jnp.ldexp(jnp.float64(1), exponents)
        self.scale = self.back.astype(largest.dtype)
        self.b, self.data = b / self.scale, data
        self.wide: tuple = () if structure.kind == "free" else (_widened(data[0]),)
        self.b_square = _squares(self.b)
        self.goal, floor = goals(jnp, target, self.eps, jnp.sqrt(self.b_square), self.back)
        limit = jnp.square(floor).astype(largest.dtype)
        A = _plain(structure, data)
        self.system = System(
            jnp, maps.A, maps.M, limit, self.eps, maps.AH, maps.MH, method.find(A, None), self.known, _put, self.when
        )
        self.most = method.limit(b.shape[1])

    def known(self, values: Any) -> jax.Array:
        """See `System`."""
        return jnp.asarray(values[:, None, None], self.scale.dtype)

    def found(self, x0: jax.Array | None) -> Found:
        run = self.repeat(lambda run: run.going, self.body, self.on_mesh(self.start(x0)))
        run = lax.cond(jnp.all(self.met(run)), lambda run: run, self.try_lowest, run)
        met, work = self.met(run), run.work
        known = lax.cond(jnp.all(met), lambda w: jnp.zeros_like(w.state), lambda w: self.diagnose(w, run.best), work)
        b_max, x_max = (jnp.max(jnp.abs(v), axis=1, keepdims=True, initial=0) for v in (self.b, run.best))
        x_max = (x_max * self.back).astype(self.scale.dtype)
        verdict = judged(jnp, work.state, work.count, met, known, b_max, x_max, self.usable())
        if self.maps.broken is not None:
            verdict = blamed(jnp, verdict, self.usable(), self.maps.broken[:, None, None])[0]
        return Found(run.best * self.scale, verdict, known, work, self.stats(run), None)

    def diagnose(self, work: Any, best: jax.Array) -> jax.Array:
        """What the method knows of failures, given the true residual of the best iterate."""
        return self.method.diagnose(self.system, work._replace(r=self.residual(best)[0]))

    def start(self, x0: jax.Array | None) -> _Run:
        x, r, square, zero = jnp.zeros_like(self.b), self.b, self.b_square, jnp.int32(0)
        if x0 is not None:
            x = x0 / self.scale
            r, square = self.residual(x)
        work = self.method.init(self.system, x, r)
        self.tell(zero, work)
        none, misses = jnp.zeros(self.goal.shape, bool), jnp.zeros(self.goal.shape, jnp.int32)
        return _Run(
            work, zero, none, jnp.bool_(True), r, jnp.sqrt(square), misses, x, square, work.rr, x,
            zero + (x0 is not None),
        )  # fmt: skip

    def on_mesh(self, run: _Run) -> _Run:
        """What the loop begins with varies inside of `jax.shard_map` as what it will compute."""
        if self.watch is not None:
            return run
        leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, run))
        return jax.tree.unflatten(tree, varying_alike(*leaves, self.b, *self.data)[: len(leaves)])

    def tell(self, iteration: Any, work: Any) -> None:
        """Norms of the recursive residuals, and x, to who watches."""
        if self.watch is not None:
            norms = np.asarray(jnp.sqrt(work.rr) * self.back)[:, 0, :]
            self.watch(int(iteration), norms, self.method.finish(self.system, work).x * self.scale)

    def body(self, run: _Run) -> _Run:
        """Go on from the true residual where that helps, iterate until every column stops, and look."""
        work = self.method.resume(self.system, run.work, run.r, run.again)
        inner = work, run.steps, run.lowest, run.at_lowest
        work, steps, lowest, at_lowest = self.repeat(self.is_running, self.step, inner)
        work = self.method.finish(self.system, work)
        r, square = self.residual(work.x)
        best, best_square = _better(work.x, square, run.best, run.best_square)
        misses, last, again = accounted(jnp, work.state, jnp.sqrt(square), self.goal, run.last, run.misses)
        going = jnp.any(again) & (steps < self.most)
        residuals = run.residuals + 1
        return _Run(work, steps, again, going, r, last, misses, best, best_square, lowest, at_lowest, residuals)

    def is_running(self, inner: tuple) -> jax.Array:
        return (inner[1] < self.most) & jnp.any(inner[0].state == RUNNING)

    def step(self, inner: tuple) -> tuple:
        work, steps, lowest, at_lowest = inner
        work = self.method.step(self.system, work)
        self.tell(steps + 1, work)
        lower = work.rr < lowest
        lowest, at_lowest = jnp.where(lower, work.rr, lowest), jnp.where(lower, work.x, at_lowest)
        return work, steps + 1, lowest, at_lowest

    def try_lowest(self, run: _Run) -> _Run:
        square = self.residual(run.at_lowest)[1]
        best, best_square = _better(run.at_lowest, square, run.best, run.best_square)
        return run._replace(best=best, best_square=best_square, residuals=run.residuals + 1)

    def met(self, run: _Run) -> jax.Array:
        return jnp.sqrt(run.best_square) <= self.goal

    def residual(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """b - A x in the precision of b, and its squared norm as it was before it was rounded to that."""
        if self.wide:
            r = _widened(self.b) - matvec(self.structure, self.wide[0], _widened(x), self.adjoint)
        else:
            r = self.b - self.maps.A(x)
        return r.astype(self.b.dtype), _squares(r)

    def usable(self) -> Any:
        """Whether all numbers of A are finite, and so are sums of a row of them: (items, 1, 1)."""
        if not self.wide:
            return jnp.ones((1, 1, 1), bool)
        limit = largest_summable(self.data[0].dtype, max(self.structure.shape))
        fits = (jnp.abs(self.data[0]) <= limit).reshape((len(self.data[0]), -1))
        return jnp.all(fits, axis=1)[:, None, None]

    def stats(self, run: _Run) -> Stats:
        """What is known of each column; errors of entries where there are entries."""
        r_norm, b_norm = jnp.sqrt(run.best_square), jnp.sqrt(self.b_square)
        unknown = jnp.full_like(r_norm, jnp.nan)
        backward = componentwise = bound = unknown
        if self.wide and self.b.shape[1]:
            backward, componentwise = self.errors(run.best)
            bound = self.bound(run.best)
        count = run.work.count
        none = jnp.zeros_like(count)
        return Stats(
            residual_norm=r_norm * self.back,
            relative_residual=jnp.where(r_norm == 0, 0.0, r_norm / b_norm),
            backward_error=backward,
            componentwise_error=componentwise,
            correction=unknown,
            refinements=none,
            iterations=count,
            matvecs=count * self.method.products + self.method.products_at_start + run.residuals,
            factorizations=none,
            copies=none,
            error_bound=bound,
        )

    def bound(self, x: jax.Array) -> jax.Array:
        """What the method can prove of the error; NaN if nothing."""
        A = _plain(self.structure, self.data)
        found = self.method.bound(A, x, self.b, self.residual(x)[0], self.adjoint)
        return jnp.full(self.b_square.shape, jnp.nan) if found is None else found * self.back

    def errors(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Normwise and componentwise backward errors."""
        x, b, A = _widened(x), _widened(self.b), self.wide[0]
        r = jnp.abs(b - matvec(self.structure, A, x, self.adjoint))
        size = jnp.abs(A).astype(x.dtype)
        ones = jnp.ones((len(A), self.b.shape[1], 1), x.dtype)
        sums, weight = (matvec(self.structure, size, v, self.adjoint).real for v in (ones, jnp.abs(x).astype(x.dtype)))
        weight = weight + jnp.abs(b)
        r_max, x_max, b_max = (jnp.max(jnp.abs(v), axis=1, keepdims=True) for v in (r, x, b))
        below = jnp.max(sums, axis=1, keepdims=True) * x_max + b_max
        worst = jnp.max(jnp.where(r == 0, 0.0, r / jnp.where(weight > 0, weight, 1.0)), axis=1, keepdims=True)
        return jnp.where(r_max == 0, 0.0, r_max / below), worst


def _better(x: jax.Array, square: jax.Array, best: jax.Array, best_square: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Column by column the iterate with the smaller true residual."""
    mask = square <= best_square
    return jnp.where(mask, x, best), jnp.where(mask, square, best_square)


def _widened(v: jax.Array) -> jax.Array:
    return v.astype(jnp.complex128 if jnp.iscomplexobj(v) else jnp.float64)


def _squares(v: jax.Array) -> jax.Array:
    """The squared norm of each column, in double precision."""
    return jnp.sum(jnp.square(jnp.abs(_widened(v))), axis=1, keepdims=True)
