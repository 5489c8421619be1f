"""What does a triangular solve cost, beside SciPy's and beside a factorization?

L is the lower factor of an incomplete factorization without fill of the five-point Laplacian on 316 x 316 points.
Solve and adjoint solve with a true residual and a verdict; the kernel alone; a forward and backward pass in torch;
``scipy.sparse.linalg.spsolve_triangular``; SuperLU in the natural order, factored and solved, and solved alone;
the floor is one product with L. Medians in milliseconds; all alternate, round after round. Writes
results/triangular.json.

    python benchmarks/triangular.py [--points M] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from statistics import quantiles

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from problems import laplacian, write

import backsolve as bs


def incomplete_factor(A: sp.csr_array) -> sp.csr_array:
    """L of A ≈ L Lᵀ on the lower triangle of a five-point matrix, where rows share no off-diagonal column."""
    L = sp.csr_array(sp.tril(A))
    L.sort_indices()
    for i in range(A.shape[0]):
        first, last = L.indptr[i], L.indptr[i + 1] - 1
        for e in range(first, last):
            L.data[e] /= L.data[L.indptr[L.indices[e] + 1] - 1]
        L.data[last] = np.sqrt(L.data[last] - np.square(L.data[first:last]).sum())
    return L


def calls(L: sp.csr_array, k: int) -> tuple[dict, dict]:
    """Name -> call, and the relative residuals of those that return x of L x = b or Lᵀ x = b."""
    n = L.shape[0]
    b = np.random.default_rng(0).standard_normal((n, k))
    A = bs.CSR(L.data, L.indices, L.indptr, L.shape).assume("lower")
    U, csc, cube = sp.csr_array(L.T), sp.csc_array(L), np.ascontiguousarray(b[None])
    F, options = bs.factorize(A), {"permc_spec": "NATURAL", "diag_pivot_thresh": 0.0}
    lu = sla.splu(csc, **options)
    leaf, right = torch.tensor(L.data, requires_grad=True), torch.from_numpy(b)
    At = A.with_data(leaf)

    def forward_backward():
        leaf.grad = None
        bs.solve(At, right).backward(right)

    made = {
        "backsolve: solve": lambda: bs.solve(A, b),
        "backsolve: adjoint solve": lambda: F.adjoint.solve(b),
        "backsolve: kernel": lambda: A.structure.solve_triangular(A.data[None], cube, True)[0],
        "backsolve: kernel, adjoint": lambda: A.structure.solve_triangular(A.data[None], cube, True, True)[0],
        "backsolve: forward and backward in torch": forward_backward,
        "scipy: spsolve_triangular": lambda: sla.spsolve_triangular(L, b, lower=True),
        "scipy: spsolve_triangular, transpose": lambda: sla.spsolve_triangular(U, b, lower=False),
        "superlu: factor and solve": lambda: sla.splu(csc, **options).solve(b),
        "superlu: solve": lambda: lu.solve(b),
        "floor: product with L": lambda: L @ b,
    }
    residuals = {}
    for name, call in made.items():
        if "floor" not in name and "torch" not in name:
            M = U if "adjoint" in name or "transpose" in name else L
            residuals[name] = float(np.linalg.norm(b - M @ call()) / np.linalg.norm(b))
    return made, residuals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=316)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    L = incomplete_factor(laplacian(args.points))
    tables = {}
    for k in (1, 8):
        made, residuals = calls(L, k)
        times: dict[str, list[float]] = {name: [] for name in made}
        for _ in range(args.rounds):
            for name, call in made.items():
                begin = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - begin))
        ours = quantiles(times["backsolve: solve"], n=4)[1]
        table = tables[f"{k} right-hand sides"] = {}
        print(f"n = {L.shape[0]}, nnz = {L.nnz}, k = {k}")
        for name, taken in times.items():
            low, middle, high = quantiles(taken, n=4)
            entry = {
                "median_ms": middle,
                "quartiles_ms": [low, high],
                "min_ms": min(taken),
                "times_ours": middle / ours,
            }
            table[name] = entry | ({"relative_residual": residuals[name]} if name in residuals else {})
            print(f"  {name:42s} {middle:9.2f} ms  (min {min(taken):7.2f})  {middle / ours:7.2f} x")
    content = {"n": L.shape[0], "nnz": L.nnz, "rounds": args.rounds, "tables": tables}
    print("kept in", write("triangular", content))


if __name__ == "__main__":
    main()
