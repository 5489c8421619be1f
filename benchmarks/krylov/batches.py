"""Is one solve of a batch quicker than a loop over its systems, forward, and with adjoint and gradient?"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from batches_by_hand import dense, sparse
from cases import values
from measure import spread, timed
from problems import laplacian

import backsolve as bs

RTOL = 1e-10
ROUNDS = 5
SLOW = 6.0  # seconds after which a way gets one round
DENSE_ITEMS, DENSE_N, SPARSE_ITEMS = 256, 64, 64
STAGES = {"forward": False, "with adjoint and gradient": True}

torch.set_num_threads(1)


def run() -> dict[str, Any]:
    """Every case and stage, ways as a batch and as a loop."""
    found = {}
    for name, (A, b, g, assume, options, by_hand) in cases().items():
        for stage, adjoint in STAGES.items():
            ours = options if not adjoint else {k: v for k, v in options.items() if "rtol" not in v}
            ways = ways_of(A, b, g, ours, adjoint)
            ways |= {f"{way} by hand": lambda call=call, a=adjoint: call(a) for way, call in by_hand.items()}
            told = measure(ways, A, b, g) | {"items": len(b), "n": b.shape[1], "assume": assume}
            found[f"{name}, {stage}"] = told
            print(f"  {name}, {stage}", *(f"{w}: {t}" for w, t in told["ways"].items()), sep="\n    ", flush=True)
    threads = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "BACKSOLVE_NUM_THREADS")}
    return {"rtol_of_iterative_methods": RTOL, "threads": threads, "found": found}


def cases() -> dict[str, tuple]:
    """A as an operator of backsolve, b and g of (items, n), what is declared, options by name, and loops by hand."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((DENSE_ITEMS, DENSE_N, DENSE_N))
    general, spd = G + 16 * np.eye(DENSE_N), G @ G.transpose(0, 2, 1) / DENSE_N + np.eye(DENSE_N)
    b, g = rng.standard_normal((2, DENSE_ITEMS, DENSE_N))
    found: dict[str, tuple] = {}
    for assume, A, krylov in (("general", general, ("gmres", "bicgstab")), ("spd", spd, ("cg",))):
        options = {"auto": {}} | {f"{k} + jacobi": {"method": k, "M": "jacobi", "rtol": RTOL} for k in krylov}
        hand = dense(A, b, g, assume)
        found[f"256 dense, n = 64, {assume}"] = bs.Dense(A).assume(assume), b, g, assume, options, hand
    b, g = rng.standard_normal((2, SPARSE_ITEMS, 10_000))
    for assume, wind, krylov in (
        ("spd", 0.0, ("cg + jacobi", "cg + mic")),
        ("general", 0.5, ("gmres + ilu0", "bicgstab + ilu0")),
    ):
        A = laplacian(100, wind)
        A.eliminate_zeros()
        A.sort_indices()
        data = values(A, SPARSE_ITEMS, assume == "spd")
        operator = bs.CSR(data, A.indices.astype(np.int32), A.indptr.astype(np.int32), A.shape).assume(assume)
        options = {"auto": {}}
        for way in krylov:
            method, M = way.split(" + ")
            options[way] = {"method": method, "M": M, "rtol": RTOL}
        options |= {engine: {"method": engine} for engine in ("superlu", "klu", "pardiso")}
        hand = sparse(A, data, b, g, assume)
        found[f"64 sparse, n = 10,000, {assume}"] = operator, b, g, assume, options, hand
    return found


def ways_of(A: Any, b: np.ndarray, g: np.ndarray, options: dict[str, dict], adjoint: bool) -> dict[str, Callable]:
    """One call, and calls for one system after the other on the same pattern."""
    ways: dict[str, Callable] = {}
    for name, chosen in options.items():

        def batch(chosen=chosen):
            if not adjoint:
                return bs.solve(A, b[..., None], **chosen)[..., 0]
            sol, pullback = bs.vjp(A, b[..., None], **chosen)
            data_bar, b_bar, _ = pullback(g[..., None])
            return sol.x[..., 0], b_bar[..., 0], data_bar

        def loop(chosen=chosen):
            if not adjoint:
                return np.stack([bs.solve(A.with_data(v), c, **chosen) for v, c in zip(A.data, b, strict=True)])
            parts = []
            for v, c, w in zip(A.data, b, g, strict=True):
                sol, pullback = bs.vjp(A.with_data(v), c, **chosen)
                data_bar, b_bar, _ = pullback(w)
                parts.append((sol.x, b_bar, data_bar))
            return tuple(np.stack(part) for part in zip(*parts, strict=True))

        ways |= {f"batch {name}": batch, f"loop {name}": loop}
    return ways


def measure(ways: dict[str, Callable], A: Any, b: np.ndarray, g: np.ndarray) -> dict[str, Any]:
    """Ways take turns of two calls, of which the second counts, as in training; the first of all gives the residual."""
    told, taken = {}, {name: [] for name in ways}
    for name, call in ways.items():
        seconds, found = timed(call)
        told[name] = {"residual": worst_residual(A, found, b, g), "first": seconds}
    for turn in range(ROUNDS):
        for name, call in ways.items():
            if turn == 0 or told[name]["first"] * ROUNDS < SLOW:
                call()
                taken[name].append(timed(call)[0])
    for name, seconds in taken.items():
        told[name] = {"residual": told[name]["residual"], **spread(seconds)}
    loops = {name: t["median"] for name, t in told.items() if name.startswith("loop")}
    best = min(loops, key=lambda name: loops[name])
    for name, t in told.items():
        if name.startswith("batch"):
            t["over_best_loop"] = t["median"] / loops[best]
            own = name.replace("batch", "loop", 1)
            t["over_own_loop"] = t["median"] / loops[own] if own in loops else None
    return {"best_loop": best, "ways": told}


def worst_residual(A: Any, found: Any, b: np.ndarray, g: np.ndarray) -> float:
    """Largest relative residual of x, and of the adjoint where there is one."""
    solves = [(found, b, False)] if isinstance(found, np.ndarray) else [(found[0], b, False), (found[1], g, True)]
    worst = 0.0
    for x, right, adjoint in solves:
        for v, y, c in zip(A.data, x, right, strict=True):
            M = A.with_data(v)
            r = c - ((M.H if adjoint else M) @ y)
            worst = max(worst, float(np.linalg.norm(r) / np.linalg.norm(c)))
    return worst
