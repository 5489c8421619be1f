"""Direct solves of JAX arrays, on the host; and what the host tells of eager solves that fail, of every method.

Factors reach derivatives through `factor_cache`, since nothing but arrays travels there.
"""

from __future__ import annotations

import copy
from math import prod
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import mlir

from ..factor_cache import CACHE
from ..methods.columns import Verdict, blame, sentences
from ..methods.judge import nonfinite_sentence
from ..plan import Plan
from ..solution import Solution, Stats, watcher

__all__ = ["eager", "lowered", "report"]


def eager(call: Any, adjoint: bool, backward: bool, stats: bool, groups: int, b: Any, x0: Any, data: Any) -> list:
    """Solve now, under the failure policy."""
    watch = None if backward else watcher(call.plan.callback, call.layout, jnp.asarray, jnp.transpose)
    *found, details = _solve(call, call.plan, adjoint, backward, stats, groups, b, x0, data, watch)
    if not backward:
        call.details = details
    return [jnp.asarray(v) for v in found]


def lowered(
    ctx: Any, call: Any, adjoint: bool, backward: bool, stats: bool, groups: int, begins: bool, *operands: Any
) -> Any:
    """One call of the host, on buffers: a JAX array inside of it could wait for the program that waits for it."""
    quiet = copy.copy(call.plan)
    quiet.on_failure = {False: "return", True: "return"}

    def host(b, *rest):
        x0, data = rest if begins else (None, *rest)
        *found, _ = _solve(call, quiet, adjoint, backward, stats, groups, b, x0, data)
        return tuple(np.asarray(v, kind.dtype) for v, kind in zip(found, ctx.avals_out, strict=True))

    found, _, _ = mlir.emit_python_callback(
        ctx, host, None, operands, ctx.avals_in, ctx.avals_out, has_side_effect=False, returns_token=False
    )
    return found


def _solve(
    call: Any, plan: Plan, adjoint: bool, backward: bool, stats: bool, groups: int, b: Any, x0: Any, data: Any,
    watch: Any = None,
) -> list:  # fmt: skip
    """x, status (items, groups), perhaps stats, and details, with the factors of these values if there are any."""
    data, b = np.ascontiguousarray(data), np.ascontiguousarray(b)
    x0 = None if x0 is None else np.ascontiguousarray(x0)
    with CACHE.factors(call.structure, call.method, plan.template.assumed, data, spend=backward) as factored:

        def apply(plan: Plan, b: np.ndarray, x0: Any) -> Any:
            # a state outlives the memory that XLA lends to a call
            show = lambda found: _outcome(call, found)  # noqa: E731
            return plan.run(factored, data.copy, b, adjoint=adjoint, backward=backward, show=show, x0=x0, watch=watch)

        if groups == 1:
            outcome = apply(plan, b, x0)
            return [outcome.x, outcome.status[:, None], *_columns_of(outcome, stats), outcome.details]
        return _group_by_group(call, plan, apply, backward, stats, groups, b, x0)


def _group_by_group(
    call: Any, plan: Plan, apply: Any, backward: bool, stats: bool, groups: int, b: np.ndarray, x0: Any
) -> list:
    """All columns at once; where one failed, or every group's numbers are asked for, each group for itself."""
    quiet = copy.copy(plan)
    quiet.on_failure = {False: "return", True: "return"}
    whole = apply(quiet, b, x0)
    if groups == 0 or (whole.converged and not stats):
        status = np.broadcast_to(whole.status[:, None], (len(b), groups))
        empty = [np.broadcast_to(v, (len(b), groups)) for v in _columns_of(whole, stats)]
        return [whole.x, status, *empty, {}]
    starts = [None] * groups if x0 is None else map(np.ascontiguousarray, np.split(x0, groups, axis=2))
    vectors = map(np.ascontiguousarray, np.split(b, groups, axis=2))
    parts = [apply(quiet, part, start) for part, start in zip(vectors, starts, strict=True)]
    x = np.concatenate([part.x for part in parts], axis=2)
    status = np.stack([part.status for part in parts], axis=1)
    numbers = [np.concatenate(v, axis=1) for v in zip(*(_columns_of(part, True) for part in parts), strict=True)]
    details = {code: words for part in reversed(parts) for code, words in part.details.items()}
    if not (status > 0).all():
        plan.report(_solution(call, x, status, numbers, details), backward)
    return [x, status, *(numbers if stats else ()), details]


def _columns_of(outcome: Any, stats: bool) -> list:
    return [v[:, None] for v in outcome.stats] if stats else []


def _outcome(call: Any, outcome: Any) -> Solution:
    return _solution(call, outcome.x, outcome.status[:, None], _columns_of(outcome, True), outcome.details)


def _solution(call: Any, x: np.ndarray, status: np.ndarray, stats: Any, details: dict) -> Solution:
    """What was found as the user knows it, or item by item, and group by group, under a map."""
    layout, (items, n, k), groups = call.layout, x.shape, status.shape[1]

    def spread(v: np.ndarray) -> np.ndarray:
        if groups > 1:
            return v
        return np.array(np.broadcast_to(layout.per_item(v[:, 0]), layout.batch)) if known else v[:, 0]

    known = groups == 1 and (items, k) == (prod(layout.items), layout._width)
    if known:
        x = layout.shown(x, np.transpose)
    else:
        x = x.reshape((items, n, groups, k // groups)).transpose(0, 2, 1, 3)
        x = x if groups > 1 else x[:, 0]
    return Solution(x, spread(status), Stats(*map(spread, stats)), call.method, [], details)


def report(whole: Any, call: Any, backward: bool, b: Any, data: tuple) -> None:
    """Raise, warn or note, as the policy says, what became of a loop; `whole` is all that it left."""
    (x, status, *stats), found = whole
    if found.misled.any():
        call.structure.check_adjoint(data, b)
    structure, host = call.structure, np.asarray
    verdict = Verdict(*(host(v)[:, 0] for v in found.verdict))
    known, count = host(found.known)[:, 0], host(found.work.count)[:, 0]
    of_A, usable = "", np.ones(1, bool)
    if structure.kind != "free":
        usable = structure.finite_items(host(data[0]))
        of_A = "" if usable.all() else nonfinite_sentence("A", host(data[0]), structure)
    details = sentences(verdict, count, host(b), structure, of_A)
    if known.any():
        details |= call.method.details(jax.tree.map(host, found.work), known)
    if call.method.M is not None:
        A = data if structure.kind == "free" else host(data[0])
        with np.errstate(all="ignore"):
            made = call.method.M.prepare(SimpleNamespace(structure=structure, shape=structure.shape, data=A))
        blame(details, verdict, usable[:, None], made.broken)
    if not backward:
        call.details = details
    call.plan.report(_solution(call, host(x), host(status), list(map(host, stats)), details), backward)
