"""What does a differentiable solve cost beyond the engine it calls?

Forward and backward of ``bs.solve`` in torch against the same engine called by hand: one factorization with the
same ordering and pivoting, two triangular solves, one gather for the gradient; "blocked" is against the same by
hand with backsolve's block sizes too, the very same call. All alternate in one process; peak memory is
measured in a process of its own for each. Writes results/forward_backward.json.

    python benchmarks/forward_backward.py [--data FOLDER] [--repeat N]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from problems import matrix, write

import backsolve as bs
from backsolve.methods.superlu import blocking

PROBLEMS = {"poisson512": "spd", "convection512": "general", "memplus": "general", "case2869pegase_Bdc": "spd"}


class ByHand:
    """The floor: SciPy's SuperLU with the ordering and pivoting that backsolve chooses, and no checks."""

    blocked = False

    def __init__(self, A: sp.csr_array, assume: str):
        operator = bs.CSR(A.data, A.indices, A.indptr, A.shape).assume(assume)
        ordering, threshold, _ = bs.SuperLU().plan(operator)
        self.A, self.pattern, self.rows = A, operator.pattern, operator.pattern.rows
        self.options = {
            "permc_spec": ordering.upper(),
            "diag_pivot_thresh": threshold,
            "options": {"SymmetricMode": ordering == "mmd_at_plus_a"},
            **(blocking(A.nnz) if self.blocked else {}),
        }

    def step(self, b: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
        A, pattern = self.A, self.pattern
        csc = sp.csc_array((A.data[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=A.shape)
        lu = sla.splu(csc, **self.options)
        x = lu.solve(b)
        adjoint = lu.solve(g, "T")
        return {"x": x, "data": -adjoint[self.rows] * x[A.indices], "b": adjoint}


class ByHandBlocked(ByHand):
    """The same with the block sizes too: the very call that backsolve makes."""

    blocked = True


class Backsolve:
    """The same through ``bs.solve`` and ``backward``."""

    def __init__(self, A: sp.csr_array, assume: str):
        self.data = torch.tensor(A.data, requires_grad=True)
        self.A = bs.CSR(self.data, A.indices, A.indptr, A.shape).assume(assume)
        bs.SuperLU().plan(self.A)  # the structure is analysed once, here as there

    def step(self, b: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
        self.data.grad = None
        right = torch.from_numpy(b).requires_grad_()
        x = bs.solve(self.A, right)
        x.backward(torch.from_numpy(g))
        return {"x": x.detach().numpy(), "data": self.data.grad.numpy(), "b": right.grad.numpy()}


WAYS = {"by_hand": ByHand, "by_hand_blocked": ByHandBlocked, "backsolve": Backsolve}


def right_hand_sides(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(n), rng.standard_normal(n)


def compare(name: str, A: sp.csr_array, repeat: int) -> dict:
    """Alternate both, and compare what they return."""
    b, g = right_hand_sides(A.shape[0])
    ways = {way: kind(A, PROBLEMS[name]) for way, kind in WAYS.items()}
    results = {way: run.step(b, g) for way, run in ways.items()}  # also warms up
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeat):
        for way, run in ways.items():
            begin = time.perf_counter()
            run.step(b, g)
            times[way].append(time.perf_counter() - begin)
    ours, floor = results["backsolve"], results["by_hand"]
    ratios = {
        floor: median(o / h for o, h in zip(times["backsolve"], times[floor], strict=True))
        for floor in ("by_hand", "by_hand_blocked")
    }
    return {
        "n": A.shape[0],
        "nnz": A.nnz,
        "method": bs.explain(bs.CSR(A.data, A.indices, A.indptr, A.shape), assume=PROBLEMS[name]),
        "milliseconds": {
            way: {"median": 1e3 * median(t), "min": 1e3 * min(t), "max": 1e3 * max(t)} for way, t in times.items()
        },
        "ratio_to": ratios,
        "relative_residual": {
            way: float(np.linalg.norm(b - A @ r["x"]) / np.linalg.norm(b)) for way, r in results.items()
        },
        "gradient_difference": float(abs(ours["data"] - floor["data"]).max() / abs(floor["data"]).max()),
    }


def peak_memory(name: str, way: str, data: Path | None) -> float:
    """Growth of peak resident memory of one forward and backward, in MB, in a fresh process."""
    command = [sys.executable, __file__, "--peak", way, "--problem", name]
    done = subprocess.run(command + (["--data", str(data)] if data else []), capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure_peak(name: str, way: str, data: Path | None) -> None:
    A = matrix(name, data)
    assert A is not None
    b, g = right_hand_sides(A.shape[0])
    small = sp.csr_array(sp.eye_array(4))
    for kind in (ByHand, Backsolve):  # imports and first-use allocations happen before the measurement
        kind(small, "general").step(np.ones(4), np.ones(4))
    run = WAYS[way](A, PROBLEMS[name])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run.step(b, g)
    print(resident("VmHWM") - before)


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    line = next(t for t in Path("/proc/self/status").read_text().splitlines() if t.startswith(field))
    return float(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with Matrix Market files that are not shipped (memplus)")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--problem", choices=PROBLEMS)
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        measure_peak(args.problem, args.peak, args.data)
        return
    rows = {}
    print("problem                    n      nnz    by hand  backsolve  ratio  blocked  memory  residual")
    for name in [args.problem] if args.problem else PROBLEMS:
        A = matrix(name, args.data)
        if A is None:
            print(f"{name:20s} left out: not in the data folder")
            continue
        row = compare(name, A, args.repeat if A.shape[0] > 1e5 else 5 * args.repeat)
        row["peak_megabytes"] = {way: peak_memory(name, way, args.data) for way in ("by_hand", "backsolve")}
        row["memory_ratio"] = row["peak_megabytes"]["backsolve"] / max(row["peak_megabytes"]["by_hand"], 1e-9)
        rows[name] = row
        hand, ours = (row["milliseconds"][way]["median"] for way in ("by_hand", "backsolve"))
        ratio, blocked = row["ratio_to"].values()
        print(
            f"{name:20s} {row['n']:7d} {row['nnz']:8d} {hand:8.2f}ms {ours:8.2f}ms {ratio:6.3f} {blocked:8.3f} "
            f"{row['memory_ratio']:7.2f} {row['relative_residual']['backsolve']:9.1e}",
            flush=True,
        )
    print("kept in", write("forward_backward", {"problems": rows}))


if __name__ == "__main__":
    main()
