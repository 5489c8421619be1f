"""What does `analyze` cost, and how near are its forecast and its estimate?

For each matrix: analysis without and with the condition number, beside one factorization by SuperLU (medians and spread
in milliseconds, alternating); entries of the factors, forecast and made; the 1-norm condition number, estimated and,
up to 3,000 unknowns, from the whole inverse. Writes results/analysis.json.

    python benchmarks/analysis.py [--data FOLDER] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse.linalg as sla
from problems import matrix, write

import backsolve as bs

MATRICES = [
    "1138_bus", "airfoil", "arc130", "bcsstk14", "bea71_I_minus_A", "case118_Ybus", "case2869pegase_Bdc", "dw256B",
    "fs_680_2", "gr_30_30", "gre_1107", "ibmpg1_G", "jpwh_991", "ldg_diffusion", "mcfe", "memplus", "nos6", "orani678",
    "orsirr_1", "pde2961", "rw5151", "sherman4", "west0989", "poisson512",
]  # fmt: skip


def milliseconds(rounds: int, **tasks: Any) -> dict[str, list[float]]:
    """Median, least and most of each task."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: [median(t), min(t), max(t)] for name, t in taken.items()}


def exact_condition(A: Any) -> float | None:
    """From all columns of the inverse; None if A is large, or SuperLU finds it singular."""
    if A.shape[0] > 3000:
        return None
    inverse = sla.splu(A.tocsc()).solve(np.eye(A.shape[0], dtype=A.dtype))
    return float(abs(inverse).sum(axis=0).max() * abs(A).sum(axis=0).max())


def examine(A: Any, rounds: int) -> dict[str, Any]:
    # A new operator each time: what depends on the pattern alone is kept on it.
    row: dict[str, Any] = {
        "milliseconds": milliseconds(
            rounds,
            analyze=lambda: bs.analyze(A, condition=False),
            with_condition=lambda: bs.analyze(A, condition=True),
            factorize=lambda: bs.factorize(A, method="superlu"),
        )
    }
    found = bs.analyze(A, condition=True)
    each = A.dtype.itemsize + 4
    made = bs.factorize(A, method="superlu")._factored.nbytes // each - A.shape[0]  # L's diagonal is not counted
    row |= {"n": A.shape[0], "nnz": A.nnz, "ordering": found.forecast.ordering}
    row |= {"entries": found.forecast.entries, "entries_made": made}
    row |= {"condition": found.condition, "condition_exact": exact_condition(A)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rows = {}
    print(f"{'':20s} {'analyze':>9s} {'+ cond':>9s} {'factorize':>9s}  forecast/made  estimate/exact")
    for name in MATRICES:
        A = matrix(name, args.data)
        if A is None:
            print(f"{name:20s} left out: not in the data folder")
            continue
        row = rows[name] = examine(A, args.rounds)
        times = " ".join(f"{ms:9.2f}" for ms, _, _ in row["milliseconds"].values())
        exact = row["condition_exact"]
        near = f"{row['condition'] / exact:14.3f}" if exact else f"{'':14s}"
        print(f"{name:20s} {times} {row['entries'] / row['entries_made']:14.3f} {near}", flush=True)
    print("kept in", write("analysis", {"matrices": rows}))


if __name__ == "__main__":
    main()
