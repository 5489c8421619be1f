"""Graphs and seeds whose weights are of a framework: which frontend follows them, and gives scores their gradient."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from .. import dispatch
from .._local.given import TAKE, Given
from .._local.ranks import Ranks
from .._local.seeds import is_pair

__all__ = ["apart", "plain", "recorded"]


def _frontend(*values: Any) -> Any:
    """The half of a frontend that ranks; None where it has none, and values are constants."""
    name = dispatch.frontend_of(*values).name
    return import_module(f"..frontends.{name}_rank", __package__) if name == "torch" else None


def _taken(weights: Any) -> Given | None:
    ranking = _frontend(weights)
    return None if ranking is None else ranking.taken(weights, dispatch.frontend_of(weights).asoperator)


TAKE["weights"] = _taken


def plain(value: Any) -> Any:
    """A number or an array, of what may be a tensor."""
    ranking = _frontend(value)
    return value if ranking is None else ranking.plain(value)


def apart(seeds: Any) -> tuple[Any, list[Any]]:
    """Seeds as plain arrays, and for each query its weights if they are a tensor, else None."""
    if is_pair(seeds):
        return (plain(seeds[0]), plain(seeds[1])), [None if _frontend(seeds[1]) is None else seeds[1]]
    if isinstance(seeds, list | tuple) and any(map(is_pair, seeds)):
        pairs = [apart(one) for one in seeds]
        return [pair for pair, _ in pairs], [tensor for _, found in pairs for tensor in found]
    return seeds, [None]


def recorded(ranks: Ranks, alpha: Any, seeds: list[Any], grad: str) -> Ranks:
    """The same, with scores of the framework that weights, alpha or seeds are of."""
    given = ranks._graph._given
    ranking = _frontend(*(v for v in (given and given.tensor, alpha, *seeds) if v is not None))
    return ranks if ranking is None else replace(ranks, scores=ranking.recorded(ranks, given, alpha, seeds, grad))
