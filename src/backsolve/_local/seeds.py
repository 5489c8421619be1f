"""Where walks start: seeds of one query or of many, brought to one form."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..errors import describe
from ..indices import integers

__all__ = ["Seeds", "is_pair", "seeds_of"]


class Seeds(NamedTuple):
    """Query q has the seeds ids[first[q]:first[q + 1]], with these weights."""

    first: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    single: bool
    """Whether one query was asked, and not a batch of them."""


def seeds_of(seeds: Any, n: int, *, normal: bool) -> Seeds:
    """Seeds in any of the forms that `backsolve.local.pagerank` documents; ``normal`` makes weights sum to 1."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 <= seeds < n:
        return Seeds(np.array([0, 1]), np.array([seeds]), np.ones(1), True)
    if seeds is None:
        found = Seeds(np.array([0, n]), np.arange(n), np.ones(n), True)
    elif isinstance(seeds, dict) or is_pair(seeds):
        ids, weights = _distribution(seeds)
        found = Seeds(np.array([0, len(ids)]), ids, weights, True)
    elif sp.issparse(seeds):
        rows: Any = sp.csr_array(seeds)
        if rows.ndim != 2 or rows.shape[1] != n:
            raise ValueError(f"seeds: a sparse matrix must have the shape (queries, {n}); got {rows.shape}.")
        found = Seeds(rows.indptr.astype(np.int64), rows.indices.astype(np.int64), np.asarray(rows.data, float), False)
    elif isinstance(seeds, list | tuple) and seeds and all(isinstance(one, dict) or is_pair(one) for one in seeds):
        pairs = [_distribution(one) for one in seeds]
        first = np.cumsum([0, *(len(ids) for ids, _ in pairs)])
        found = Seeds(first, np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]), False)
    elif np.ndim(seeds) == 0:
        ids = integers("seeds", np.atleast_1d(seeds)).astype(np.int64)
        found = Seeds(np.array([0, 1]), ids, np.ones(1), True)
    else:
        ids = integers("seeds", seeds).astype(np.int64)
        found = Seeds(np.arange(len(ids) + 1), ids, np.ones(len(ids)), False)
    return _checked(found, n, normal)


def is_pair(value: Any) -> bool:
    """(ids, weights): two arrays or lists."""
    return isinstance(value, tuple) and len(value) == 2 and all(np.ndim(part) == 1 for part in value)


def _distribution(value: Any) -> tuple[np.ndarray, np.ndarray]:
    pair = (list(value.keys()), list(value.values())) if isinstance(value, dict) else value
    ids, weights = integers("seeds: nodes", pair[0]).astype(np.int64), np.asarray(pair[1])
    if weights.shape != ids.shape or weights.dtype.kind not in "fiub":
        raise ValueError(f"seeds: each of {len(ids)} nodes needs one real weight; got {describe(weights)}.")
    return ids, weights.astype(np.float64)


def _checked(seeds: Seeds, n: int, normal: bool) -> Seeds:
    first, ids, weights, single = seeds
    wrong = ids[(ids < 0) | (ids >= n)]
    if wrong.size:
        raise ValueError(f"seeds: nodes must lie in [0, {n}); got {wrong[0]}.")
    if not np.all(np.isfinite(weights) & (weights >= 0)):
        bad = weights[~(np.isfinite(weights) & (weights >= 0))][0]
        raise ValueError(f"seeds: weights must be finite and not negative; got {bad}.")
    first = np.ascontiguousarray(first, np.int64)
    queries = len(first) - 1
    query = np.repeat(np.arange(queries), np.diff(first))
    largest = np.zeros(queries)
    np.maximum.at(largest, query, weights)
    if normal and not np.all(largest > 0):
        none = np.argmin(largest > 0)
        raise ValueError(f"seeds: the weights of a query must have a positive sum; query {none} has none.")
    if normal and len(ids) == queries:
        weights = np.ones(queries)
    elif normal:
        scaled = weights / largest[query]  # no sum overflows
        # Sums round once, so that the quotients are within what the kernel allows for.
        sums = np.array([math.fsum(scaled[a:b]) for a, b in itertools.pairwise(first)])
        weights = scaled / sums[query]
    return Seeds(first, np.ascontiguousarray(ids), np.ascontiguousarray(weights), single)
