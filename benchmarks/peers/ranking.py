"""One entry of benchmarks/local_pagerank.py in a process of its own: `ranking.py ENTRY GRAPH.npz`, answers in JSON.

Times are CPU time of the process, which has one thread, so that neighbours on the machine count little. For each target
the loosest setting is sought whose measured error is within it; that one is timed.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp

warnings.simplefilter("ignore")
ALPHA = 0.85
TARGETS = (1e-4, 1e-5, 1e-6)
LIMIT = 20.0
"""Seconds that one call may take; a slower entry is left, with that as the reason."""
Setting = float
Run = Callable[[int, Setting], Any]


class Problem:
    """A graph without weights, seeds, and their scores by power iteration to 1e-15."""

    def __init__(self, path: str):
        with np.load(path) as kept:
            self.indptr, self.indices = kept["indptr"], kept["indices"]
            self.seeds, self.truth = kept["seeds"], kept["truth"]
        self.at = 0
        self.n, self.degrees = len(self.indptr) - 1, np.diff(self.indptr)

    def error(self, q: int, ids: np.ndarray, values: np.ndarray) -> float:
        """max |x - x̂| / d"""
        off = self.truth[q].copy()
        off[ids] -= values
        return float(np.max(np.abs(off[self.degrees > 0]) / self.degrees[self.degrees > 0]))

    @property
    def steps(self) -> sp.csr_array:
        """α Pᵀ"""
        ones = np.repeat(ALPHA / np.maximum(self.degrees, 1), self.degrees)
        return sp.csr_array(sp.csr_array((ones, self.indices, self.indptr), shape=(self.n, self.n)).T)


def backsolve(p: Problem) -> tuple[Run, Callable, Iterable[Setting]]:
    import backsolve.local as local

    graph = local.Graph.from_arrays(p.indptr, p.indices, directed=False)
    return (
        lambda seed, eps: local.pagerank(graph, seed, alpha=ALPHA, eps=eps),
        lambda ranks: (ranks.indices, ranks.values),
        ladder(3e-3),
    )


def networkit(p: Problem) -> tuple[Run, Callable, Iterable[Setting]]:
    import networkit as nk

    i = np.repeat(np.arange(p.n), p.degrees)
    once = i <= p.indices
    pairs = (np.ones(once.sum()), (i[once], p.indices[once].astype(np.int64)))
    graph = nk.GraphFromCoo(pairs, n=p.n, directed=False)
    lazy = (1 - ALPHA) / (1 + ALPHA)  # its walk stays where it is half of the time
    return (
        lambda seed, eps: nk.scd.ApproximatePageRank(graph, lazy, eps).run(seed),
        lambda pairs: (np.array([v for v, _ in pairs]), np.array([x for _, x in pairs])),
        ladder(3e-3),
    )


def torch_geometric(p: Problem) -> tuple[Run, Callable, Iterable[Setting]]:
    import torch
    from torch_geometric.utils import get_ppr

    i = np.repeat(np.arange(p.n), p.degrees)
    edges = torch.from_numpy(np.stack([i, p.indices.astype(np.int64)]))
    return (
        lambda seed, eps: get_ppr(edges, 1 - ALPHA, eps, torch.tensor([seed]), p.n),
        lambda found: (found[0][1].numpy(), found[1].numpy()),
        ladder(3e-3),
    )


def scikit_network(p: Problem, solver: str) -> tuple[Run, Callable, Iterable[Setting]]:
    from sknetwork.ranking import PageRank

    A = sp.csr_matrix((np.ones(len(p.indices)), p.indices, p.indptr), shape=(p.n, p.n))

    def run(seed: int, setting: Setting) -> np.ndarray:
        sized = {"tol": setting} if solver == "push" else {"n_iter": int(setting)}
        return PageRank(ALPHA, solver, **sized).fit_predict(A, {seed: 1})

    settings = [1e-3, 1e-5, 1e-7, 1e-9] if solver == "push" else [1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80]
    return run, lambda x: (np.arange(p.n), x), settings


def igraph(p: Problem) -> tuple[Run, Callable, Iterable[Setting]]:
    import igraph as ig

    i = np.repeat(np.arange(p.n), p.degrees)
    once = i <= p.indices
    graph = ig.Graph(p.n, np.stack([i[once], p.indices[once]], axis=1))
    return (
        lambda seed, _: graph.personalized_pagerank(damping=ALPHA, reset_vertices=seed, implementation="prpack"),
        lambda x: (np.arange(p.n), np.array(x)),
        [0.0],
    )


def scipy_power(p: Problem) -> tuple[Run, Callable, Iterable[Setting]]:
    steps = p.steps

    def run(seed: int, count: Setting) -> np.ndarray:
        x = np.zeros(p.n)
        x[seed] = 1
        for _ in range(int(count)):
            x = steps @ x
            x[seed] += 1 - ALPHA
        return x

    return run, lambda x: (np.arange(p.n), x), [1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 56, 80]


def scipy_spsolve(p: Problem) -> tuple[Run, Callable, Iterable[Setting]]:
    from scipy.sparse.linalg import spsolve

    if p.n > 10_000 and len(p.indices) > 4 * p.n:
        raise ValueError("left out, as factors of large graphs with hubs fill in")
    M = sp.csc_array(sp.eye_array(p.n) - p.steps)

    def run(seed: int, _: Setting) -> np.ndarray:
        b = np.zeros(p.n)
        b[seed] = 1 - ALPHA
        return spsolve(M, b)

    return run, lambda x: (np.arange(p.n), x), [0.0]


ENTRIES: dict[str, Callable] = {
    "backsolve": backsolve,
    "networkit ApproximatePageRank": networkit,
    "PyTorch Geometric get_ppr": torch_geometric,
    "scikit-network push": lambda p: scikit_network(p, "push"),
    "scikit-network piteration": lambda p: scikit_network(p, "piteration"),
    "igraph personalized_pagerank": igraph,
    "SciPy power iteration": scipy_power,
    "SciPy spsolve": scipy_spsolve,
}


def ladder(loosest: float) -> list[float]:
    """Tolerances, √2 apart."""
    return [loosest * 2 ** (-k / 2) for k in range(56)]


def measure(p: Problem, run: Run, entries: Callable, settings: list[Setting], target: float) -> dict[str, Any]:
    """Seconds of the loosest setting within the target, the median over seeds of the best of some calls."""
    times, errors, chosen, at = [], [], [], p.at
    if at + 1 >= len(settings) > 1:
        return {"reason": f"no setting within {target:g}"}
    for q, seed in enumerate(p.seeds.tolist()):
        at = max(at - 4, 0)
        while True:
            start = time.process_time()
            found = run(seed, settings[at])
            took = time.process_time() - start
            if took > LIMIT:
                return {"reason": f"a call takes {took:.0f} s"}
            error = p.error(q, *entries(found))
            if error <= target:
                break
            at += 1
            if at == len(settings):
                p.at = at
                return {"reason": f"no setting within {target:g}"}
        repeats = 0 if took > 5 else 1 if took > 1 else 3 if took > 0.1 else 15
        for _ in range(repeats):
            start = time.process_time()
            run(seed, settings[at])
            took = min(took, time.process_time() - start)
        times.append(took)
        errors.append(error)
        chosen.append(settings[at])
        p.at = max(p.at, at - 4)  # the next target is tighter
        if took > 1:
            break  # one seed is enough
    spread = [min(times), max(times)]
    return {"seconds": float(np.median(times)), "spread": spread, "error": max(errors), "setting": chosen}


def main() -> None:
    entry, path = sys.argv[1:]
    problem = Problem(path)
    try:
        run, entries, settings = ENTRIES[entry](problem)
        settings = list(settings)
        run(int(problem.seeds[0]), settings[0])  # compiles, allocates
        cells = {f"{target:g}": measure(problem, run, entries, settings, target) for target in TARGETS}
    except Exception as error:  # a peer that fails is part of the result
        cells = {f"{target:g}": {"reason": f"{type(error).__name__}: {error}"[:120]} for target in TARGETS}
    print(json.dumps(cells))


if __name__ == "__main__":
    main()
