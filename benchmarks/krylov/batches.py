"""Is one solve of a batch quicker than a loop over its systems?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from cases import values
from measure import spread, timed
from problems import laplacian

import backsolve as bs

RTOL = 1e-10
ROUNDS = 5
SLOW = 15.0  # seconds after which a way gets one round
DENSE_ITEMS, DENSE_N, SPARSE_ITEMS = 256, 64, 64

torch.set_num_threads(1)


def run() -> dict[str, Any]:
    """Every case, ways as a batch and as a loop."""
    found = {}
    for name, (A, b, assume, options, by_hand) in cases().items():
        ways = ways_of(A, b, assume, options) | {f"{way} by hand": call for way, call in by_hand.items()}
        found[name] = measure(ways, A, b) | {"items": len(b), "n": b.shape[1], "assume": assume}
        print(f"  {name}", *(f"{w}: {t}" for w, t in found[name]["ways"].items()), sep="\n    ", flush=True)
    return {"rtol_of_iterative_methods": RTOL, "found": found}


def cases() -> dict[str, tuple]:
    """A as an operator of backsolve, b of (items, n), what is declared, options by name, and loops by hand."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((DENSE_ITEMS, DENSE_N, DENSE_N))
    general, spd = G + 16 * np.eye(DENSE_N), G @ G.transpose(0, 2, 1) / DENSE_N + np.eye(DENSE_N)
    b = rng.standard_normal((DENSE_ITEMS, DENSE_N))
    c = rng.standard_normal((SPARSE_ITEMS, 10_000))
    found: dict[str, tuple] = {}
    for assume, A, krylov in (("general", general, ("gmres", "bicgstab")), ("spd", spd, ("cg",))):
        options = {"auto": {}} | {f"{k} + jacobi": {"method": k, "M": "jacobi", "rtol": RTOL} for k in krylov}
        found[f"256 dense, n = 64, {assume}"] = bs.Dense(A).assume(assume), b, assume, options, dense_by_hand(A, b)
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
        found[f"64 sparse, n = 10,000, {assume}"] = operator, c, assume, options, sparse_by_hand(A, data, c)
    return found


def dense_by_hand(A: np.ndarray, b: np.ndarray) -> dict[str, Callable]:
    """Loops over LAPACK, and its own batches."""
    T, t = torch.from_numpy(A), torch.from_numpy(b)
    pairs = list(zip(T, t, strict=True))
    return {
        "loop numpy.linalg.solve": lambda: np.stack([np.linalg.solve(M, v) for M, v in zip(A, b, strict=True)]),
        "loop torch.linalg.solve": lambda: torch.stack([torch.linalg.solve(M, v) for M, v in pairs]).numpy(),
        "batch numpy.linalg.solve": lambda: np.linalg.solve(A, b[..., None])[..., 0],
        "batch torch.linalg.solve": lambda: torch.linalg.solve(T, t).numpy(),
    }  # fmt: skip


def sparse_by_hand(A: sp.csr_array, data: np.ndarray, b: np.ndarray) -> dict[str, Callable]:
    """A loop over ``splu`` with the ordering that backsolve would choose for such a pattern."""

    def loop() -> np.ndarray:
        made = (sp.csc_array(sp.csr_array((v, A.indices, A.indptr), shape=A.shape)) for v in data)
        options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.1, "options": {"SymmetricMode": True}}
        return np.stack([sla.splu(M, **options).solve(v) for M, v in zip(made, b, strict=True)])

    return {"loop splu": loop}


def ways_of(A: Any, b: np.ndarray, assume: str, options: dict[str, dict]) -> dict[str, Callable]:
    """One call, and calls for one system after the other on the same pattern."""
    ways: dict[str, Callable] = {}
    for name, chosen in options.items():

        def batch(chosen=chosen):
            return bs.solve(A, b[..., None], **chosen)[..., 0]

        def loop(chosen=chosen):
            return np.stack([bs.solve(A.with_data(v), c, **chosen) for v, c in zip(A.data, b, strict=True)])

        ways |= {f"batch {name}": batch, f"loop {name}": loop}
    return ways


def measure(ways: dict[str, Callable], A: Any, b: np.ndarray) -> dict[str, Any]:
    """Ways take turns of two calls, of which the second counts, as in training; the first of all gives the residual."""
    told, taken = {}, {name: [] for name in ways}
    for name, call in ways.items():
        seconds, x = timed(call)
        r = b - np.stack([A.with_data(v) @ c for v, c in zip(A.data, x, strict=True)])
        worst = float((np.linalg.norm(r, axis=1) / np.linalg.norm(b, axis=1)).max())
        told[name] = {"residual": worst, "first": seconds}
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
