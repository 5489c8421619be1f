"""Is a solve inside ``torch.compile`` slower than the same solve in eager torch?

Forward and backward of ``bs.solve(A.with_data(w), b)``, as in training: w differs from round to round, so that every
round factors anew. Eager and compiled (``fullgraph=True``, inductor) take turns, round after round, and the ratio is
taken within each round. Beside them, in the same run: a multiplication, eager and compiled, for what torch itself
charges; and the factorization, two solves and gradient written by hand. Times are those of the processor, one thread,
so that a busy machine disturbs them less. Writes results/compiled.json.

    OMP_NUM_THREADS=1 python benchmarks/compiled.py [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import time
from statistics import median, quantiles

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from problems import laplacian, write

import backsolve as bs

PROBLEMS = {"random 100": 1000, "poisson 64x64": 80, "poisson 256x256": 9}
"""Name -> rounds."""


def matrix(name: str) -> sp.csr_array:
    if name.startswith("poisson"):
        return laplacian(int(name.rpartition("x")[2]))
    M = sp.csr_array(sp.random_array((100, 100), density=0.04, rng=np.random.default_rng(0)) + 5 * sp.eye_array(100))
    M.sort_indices()
    return M


def calls(M: sp.csr_array) -> tuple[dict, torch.Tensor]:
    """Name -> function that returns the seconds of its forward and its backward; and the values to change."""
    A = bs.CSR(M.data, M.indices, M.indptr, M.shape)
    w = torch.tensor(M.data, requires_grad=True)
    b = torch.ones(M.shape[0], dtype=torch.float64, requires_grad=True)
    g = torch.linspace(1, 2, M.shape[0], dtype=torch.float64)
    pattern, rows, method = A.pattern, A.pattern.rows, bs.SuperLU()
    ordering, threshold, _ = method.plan(A)

    def solve(w, b):
        return bs.solve(A.with_data(w), b)

    def multiply(w, b):
        return w[: len(b)] * b

    def timed(function):
        def run():
            w.grad = b.grad = None
            begin = time.process_time()
            x = function(w, b)
            middle = time.process_time()
            x.backward(g)
            return middle - begin, time.process_time() - middle

        return run

    def by_hand():
        begin = time.process_time()
        values = w.detach().numpy()
        csc = sp.csc_matrix((values[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=M.shape)
        symmetric = {"SymmetricMode": ordering == "mmd_at_plus_a"}
        lu = sla.splu(csc, permc_spec=ordering.upper(), diag_pivot_thresh=threshold, options=symmetric)
        x = lu.solve(b.detach().numpy())
        middle = time.process_time()
        lam = lu.solve(g.numpy(), "T")
        _ = -lam[rows] * x[M.indices]
        return middle - begin, time.process_time() - middle

    functions = {"solve": solve, "multiply": multiply}
    table = {f"{name}, eager": timed(f) for name, f in functions.items()}
    for name, f in functions.items():
        table[f"{name}, compiled"] = timed(torch.compile(f, fullgraph=True, backend="inductor"))
    return table | {"by hand": by_hand}, w


def agree(table: dict, w: torch.Tensor) -> float:
    """Largest relative difference between the gradients of eager and compiled."""
    table["solve, eager"]()
    eager = w.grad
    table["solve, compiled"]()
    return float((w.grad - eager).abs().max() / eager.abs().max())


def measure(name: str, rounds: int) -> dict:
    table, w = calls(matrix(name))
    difference = agree(table, w)
    times: dict[str, list] = {call: [] for call in table}
    for call in table.values():
        call()
    names = list(table)
    for turn in range(rounds):
        for call in names if turn % 2 else reversed(names):
            with torch.no_grad():
                w.mul_(1 + 1e-9)
            times[call].append(table[call]())
    gc.collect()
    found: dict = {"rounds": rounds, "nnz": len(w), "gradient_difference": difference}
    for call, taken in times.items():
        low, middle, high = quantiles((1e6 * sum(t) for t in taken), n=4)
        found[call] = {
            "forward_us": 1e6 * median(t[0] for t in taken),
            "backward_us": 1e6 * median(t[1] for t in taken),
            "both_us": middle,
            "quartiles_us": [low, high],
        }
    for what in ("solve", "multiply"):
        pairs = zip(times[f"{what}, compiled"], times[f"{what}, eager"], strict=True)
        found[f"{what}, compiled / eager"] = quantiles((sum(c) / sum(e) for c, e in pairs), n=4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="instead of as many as each problem has by default")
    parser.add_argument("--problem", choices=PROBLEMS, action="append")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in given.problem or PROBLEMS:
        found = results[name] = measure(name, given.rounds or PROBLEMS[name])
        print(f"{name}, nnz = {found['nnz']:,}: gradients differ by {found['gradient_difference']:.1e}")
        for call, t in found.items():
            if isinstance(t, dict):
                print(f"  {call:20s} {t['forward_us']:10.0f} + {t['backward_us']:9.0f} = {t['both_us']:10.0f} us")
            elif isinstance(t, list):
                print(f"  {call:29s} {t[1]:.3f}  (quartiles {t[0]:.3f} {t[2]:.3f})")
    if not given.problem:
        print("kept in", write("compiled", {"problems": results}))


if __name__ == "__main__":
    main()
