"""Which block sizes should SuperLU use?

Times one factorization for pairs of ``panel_size`` and ``relax``, SuperLU's defaults first, with the ordering that
backsolve chooses for each matrix. Medians in milliseconds; all pairs alternate, round after round. Writes
results/superlu_blocking.json.

    python benchmarks/superlu_blocking.py [--data FOLDER] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import scipy.sparse as sp
import scipy.sparse.linalg as sla
from problems import matrix, write

import backsolve as bs

PAIRS = [(None, None), (1, 1), (4, 1), (4, 4), (8, 4), (8, 16), (20, 8)]
MATRICES = [
    "case2869pegase_Bdc", "1138_bus", "gr_30_30", "fs_680_2", "pde2961", "west0989", "orsirr_1", "memplus", "ibmpg1_G",
    "bcsstk14", "ldg_diffusion", "mcfe", "orani678", "poisson512", "convection512",
]  # fmt: skip


def factor_times(A: sp.csr_array, rounds: int) -> dict[str, float]:
    ordering, threshold, _ = bs.SuperLU().plan(bs.CSR(A.data, A.indices, A.indptr, A.shape))
    options = {"permc_spec": ordering.upper(), "diag_pivot_thresh": threshold}
    options["options"] = {"SymmetricMode": ordering == "mmd_at_plus_a"}
    csc = A.tocsc()
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for panel, relax in PAIRS:
            begin = time.perf_counter()
            sla.splu(csc, panel_size=panel, relax=relax, **options)
            times.setdefault(f"{panel},{relax}", []).append(1e3 * (time.perf_counter() - begin))
    return {pair: median(taken) for pair, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    rows = {}
    print(f"{'panel_size, relax':20s}" + "".join(f"{f'{p},{r}':>11s}" for p, r in PAIRS))
    for name in MATRICES:
        A = matrix(name, args.data)
        if A is None:
            print(f"{name:20s} left out: not in the data folder")
            continue
        rows[name] = factor_times(A, args.rounds if A.shape[0] < 1e5 else 3)
        print(f"{name:20s}" + "".join(f"{ms:11.2f}" for ms in rows[name].values()), flush=True)
    print("kept in", write("superlu_blocking", {"milliseconds": rows}))


if __name__ == "__main__":
    main()
