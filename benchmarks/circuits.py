"""What does KLU cost beside SuperLU and Pardiso, once, and where values change on one pattern?

Circuits, grids and others from Matrix Market files, and grids with more and more fill; some as batches of items with
values of their own. "new pattern" orders and factors, "new values" factors on a pattern that was met before; then one
solve, one adjoint solve and the entries of the gradient; "step" is the sum of the last four. Peers in the same run:
``scipy.sparse.linalg.splu`` and PyKLU's own class, item by item. Medians in milliseconds with quartiles; all
alternate, round after round, and every round has new values. Backward errors are those before refinement. Writes
results/circuits.json.

    OMP_NUM_THREADS=1 BACKSOLVE_NUM_THREADS=1 python benchmarks/circuits.py [--data FOLDER] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import PyKLU
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from problems import laplacian, matrix, write

import backsolve as bs
from backsolve.methods import METHODS

METHODS_HERE = [name for name in ("superlu", "klu", "pardiso") if name in METHODS]
STEPS = ("new pattern", "new values", "solve", "adjoint", "gradient")

# matrix, items
CASES = [
    ("case118_Ybus", 1), ("case2869pegase_Bdc", 1), ("memplus", 1), ("ibmpg1_G", 1), ("orani678", 1), ("west0989", 1),
    ("1138_bus", 1), ("sherman4", 1), ("nos6", 1), ("dw256B", 1), ("orsirr_1", 1), ("jpwh_991", 1), ("mcfe", 1),
    ("bcsstk14", 1), ("gre_1107", 1), ("convection50", 1), ("convection100", 1), ("convection200", 1), ("cube16", 1),
    ("cube24", 1), ("case2869pegase_Bdc", 64), ("memplus", 16), ("west0989", 64), ("convection25", 64),
    ("convection50", 64), ("convection100", 64), ("cube10", 64), ("cube16", 16),
]  # fmt: skip


def problem(name: str, data: Path | None) -> sp.csr_array | None:
    """A matrix by name: convectionM is the 2-D grid of M x M points, cubeM the 3-D one."""
    if name.startswith("convection"):
        return laplacian(int(name[10:]), 0.5)
    if name.startswith("cube"):
        m = int(name[4:])
        line = sp.diags_array([np.full(m - 1, -1.0), np.full(m, 2.0), np.full(m - 1, -1.0)], offsets=[-1, 0, 1])
        return sp.csr_array(sp.kron(laplacian(m, 0.5), sp.eye_array(m)) + sp.kron(sp.eye_array(m * m), line))
    A = matrix(name, data)
    if A is not None:
        A = A.astype(complex if A.dtype.kind == "c" else float)
        A.eliminate_zeros()
    return A


def timed(times: dict[str, list[float]], step: str, call: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = call()
    times.setdefault(step, []).append(1e3 * (time.perf_counter() - begin))
    return result


def one_round(name: str, A: sp.csr_array, data: np.ndarray, b: np.ndarray, known: Any, times: dict) -> float:
    """One method on one set of values; returns the larger of both backward errors."""
    method = METHODS[name]()
    fresh = bs.CSR(data, A.indices.astype(np.int32), A.indptr.astype(np.int32), A.shape)
    timed(times, "new pattern", lambda: method.prepare(fresh))
    factors = timed(times, "new values", lambda: method.prepare(known.with_data(data))).factors
    x = timed(times, "solve", lambda: factors.solve(b, False))
    lam = timed(times, "adjoint", lambda: factors.solve(b, True))
    timed(times, "gradient", lambda: known.structure.outer(lam, x))
    return max(backward_error(known.structure, data, v, b, adjoint) for v, adjoint in ((x, False), (lam, True)))


def backward_error(structure: Any, data: np.ndarray, x: np.ndarray, b: np.ndarray, adjoint: bool) -> float:
    norms = structure.residual(data, x, b, adjoint)[1]
    a, r, size, right = (norms[..., i].max(axis=-1) for i in range(4))
    return float((r / (a * size + right)).max())


def peers(A: sp.csr_array, data: np.ndarray, b: np.ndarray, times: dict[str, dict]) -> None:
    """The packages themselves: factor and solve every item."""
    columns = [sp.csc_matrix(sp.csr_matrix((values, A.indices, A.indptr), A.shape)) for values in data]
    for name, make in (("scipy splu", sla.splu), ("PyKLU", PyKLU.Klu)):
        timed(times[name], "new values", lambda make=make: [make(M) for M in columns])
        made = make(columns[0])
        timed(times[name], "solve", lambda made=made: [made.solve(right[:, 0]) for right in b])


def measure(A: sp.csr_array, items: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    known = bs.CSR(np.repeat(A.data[None], items, 0), A.indices.astype(np.int32), A.indptr.astype(np.int32), A.shape)
    b = rng.standard_normal((items, A.shape[0], 1)).astype(A.dtype)
    times: dict[str, dict] = {name: {} for name in (*METHODS_HERE, "scipy splu", "PyKLU")}
    errors = dict.fromkeys(METHODS_HERE, 0.0)
    for _ in range(rounds):
        data = A.data * (1 + 0.01 * rng.standard_normal((items, A.nnz)))
        for name in METHODS_HERE:
            errors[name] = max(errors[name], one_round(name, A, data, b, known, times[name]))
        peers(A, data, b, times)
    found: dict[str, Any] = {}
    for name, taken in times.items():
        found[name] = {
            step: dict(zip(("low", "median", "high"), quantiles(t, n=4), strict=True)) for step, t in taken.items()
        }
        if name in errors:
            found[name]["step"] = sum(found[name][step]["median"] for step in STEPS[1:])
            found[name]["backward_error"] = errors[name]
    return {"n": A.shape[0], "nnz": A.nnz, "items": items, "rounds": rounds, "milliseconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table = {}
    for name, items in CASES:
        A = problem(name, args.data)
        if A is None:
            print(f"{name:20s} left out: not in the data folder")
            continue
        key = f"{items} x {name}"
        row = table[key] = measure(A, items, args.rounds)
        ours = row["milliseconds"]
        parts = [f"{m} {ours[m]['new pattern']['median']:8.2f} {ours[m]['step']:8.2f}" for m in METHODS_HERE]
        gain = ours["superlu"]["step"] / ours["klu"]["step"]
        once = ours["superlu"]["new pattern"]["median"] / ours["klu"]["new pattern"]["median"]
        print(f"{key:24s} n={row['n']:6d} | {' | '.join(parts)} | once {once:5.2f}x  step {gain:5.2f}x", flush=True)
    print("kept in", write("circuits", {"cases": table}))


if __name__ == "__main__":
    main()
