"""From which size on is another sparse direct engine quicker than SuperLU?

Grids in two and three dimensions of growing size, symmetric ones as declared positive definite and as declared
nothing, convection-diffusion, and matrices from files. Through the public face, checks and verdict included: "first"
is `factorize` and a solve on a new pattern, "solve" and "adjoint" use its factors, "refactor" is `refactorize` and a
solve. "loop" is refactor + adjoint, a step of training. Medians in milliseconds with quartiles; engines alternate,
round after round, with new values in each; the backward error is the worst of all solves. Writes results/engines.json.

    OMP_NUM_THREADS=1 BACKSOLVE_NUM_THREADS=1 python benchmarks/engines.py [--data FOLDER] [--rounds N] [--only TEXT]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import scipy.sparse as sp
from problems import laplacian, matrix, write

import backsolve as bs
from backsolve.methods.availability import installed

ENGINES = [name for name in ("superlu", "pardiso", "klu") if installed(name)]
STEPS = ("first", "solve", "adjoint", "refactor")
SLOW = 10.0  # seconds in one round after which an engine is measured no more on that case

CASES = [
    *(f"poisson2d {m} {assume}" for m in (8, 16, 23, 32, 45, 64, 128, 256, 512) for assume in ("spd", "general")),
    *(f"convection2d {m} general" for m in (8, 16, 23, 32, 45, 64, 128, 256, 512)),
    *(f"poisson3d {m} {assume}" for m in (5, 8, 10, 12, 16, 24, 32) for assume in ("spd", "general")),
    *(
        f"{name} - {assume}"
        for name, assume in (
            ("memplus", "general"), ("ibmpg1_G", "spd"), ("ibmpg1_G", "general"), ("case2869pegase_Bdc", "general"),
            ("1138_bus", "spd"), ("bcsstk14", "spd"), ("nos6", "spd"), ("gr_30_30", "spd"),
            ("ldg_diffusion", "general"), ("airfoil", "general"), ("orani678", "general"), ("west0989", "general"),
            ("gre_1107", "general"), ("pde2961", "general"), ("orsirr_1", "general"), ("sherman4", "general"),
            ("mcfe", "general"), ("fs_680_2", "general"), ("dw256B", "general"), ("jpwh_991", "general"),
            ("rw5151", "general"),
        )
    ),
]  # fmt: skip


def cube(m: int) -> sp.csr_array:
    """Seven-point Laplacian on m x m x m points."""
    return sp.csr_array(sp.kronsum(laplacian(m), sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))))


def problem(name: str, size: str, data: Path | None) -> sp.csr_array | None:
    made: dict[str, Callable[[int], sp.csr_array]] = {
        "poisson2d": laplacian, "convection2d": lambda m: laplacian(m, 0.5), "poisson3d": cube,
    }  # fmt: skip
    A = made[name](int(size)) if name in made else matrix(name, data)
    return None if A is None else A.astype(complex if A.dtype.kind == "c" else float)


def one_round(engine: str, A: sp.csr_array, scale: float, assume: str, b: np.ndarray, times: dict) -> float:
    """One engine on a new pattern, then on other values; returns the worst backward error."""

    def timed(step: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = call()
        times.setdefault(step, []).append(1e3 * (time.perf_counter() - begin))
        return result

    def once(F: bs.Factorization) -> tuple[bs.Factorization, bs.Solution]:
        return F, F.solve_with_info(b)

    options = {"method": engine, "assume": assume, "on_failure": "return"}
    fresh = bs.CSR(scale * A.data, A.indices.astype(np.int32), A.indptr.astype(np.int32), A.shape)
    F, x = timed("first", lambda: once(bs.factorize(fresh, **options)))
    y, lam = timed("solve", lambda: F.solve_with_info(b)), timed("adjoint", lambda: F.adjoint.solve_with_info(b))
    _, z = timed("refactor", lambda: once(F.refactorize(1.5 * fresh.data)))
    return max(float(sol.stats.backward_error) for sol in (x, y, lam, z))


def measure(A: sp.csr_array, assume: str, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    times: dict[str, dict] = {engine: {} for engine in ENGINES}
    errors, slow = dict.fromkeys(ENGINES, 0.0), set()
    for _ in range(rounds):
        b, scale = rng.standard_normal(A.shape[0]).astype(A.dtype), float(rng.uniform(0.5, 2))
        for engine in ENGINES:
            if engine in slow:
                continue
            begin = time.perf_counter()
            errors[engine] = max(errors[engine], one_round(engine, A, scale, assume, b, times[engine]))
            if time.perf_counter() - begin > SLOW:
                slow.add(engine)
    found: dict[str, Any] = {}
    for engine, taken in times.items():
        made: dict[str, Any] = {step: _spread(t) for step, t in taken.items()}
        made["loop"] = made["refactor"]["median"] + made["adjoint"]["median"]
        found[engine] = made | {"rounds": len(taken["first"]), "backward_error": errors[engine]}
    return {"n": A.shape[0], "nnz": A.nnz, "milliseconds": found}


def _spread(t: list[float]) -> dict[str, float]:
    low, median, high = quantiles(t, n=4) if len(t) > 1 else t * 3
    return {"low": low, "median": median, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="text that the names of cases must contain; nothing is written")
    args = parser.parse_args()
    table = {}
    for case in (case for case in CASES if args.only in case):
        name, size, assume = case.split()
        A = problem(name, size, args.data)
        if A is None:
            print(f"{case:28s} left out: not in the data folder")
            continue
        row = table[case] = measure(A, assume, args.rounds)
        ours = row["milliseconds"]
        parts = [f"{e} {ours[e]['first']['median']:9.2f} {ours[e]['loop']:9.2f}" for e in ENGINES]
        gains = [
            f"{e} {ours['superlu']['first']['median'] / ours[e]['first']['median']:5.2f} "
            f"{ours['superlu']['loop'] / ours[e]['loop']:5.2f}"
            for e in ENGINES[1:]
        ]
        print(f"{case:28s} n={row['n']:6d} | {' | '.join(parts)} | first, loop: {'; '.join(gains)}", flush=True)
    if not args.only:
        threads = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "BACKSOLVE_NUM_THREADS")}
        print("kept in", write("engines", {"threads": threads, "cases": table}))


if __name__ == "__main__":
    main()
