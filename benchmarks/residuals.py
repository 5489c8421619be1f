"""Does anything that is called converged miss its target?

Random systems of many kinds, by every iterative method with every preconditioner that it takes, forward and adjoint, in
all four precisions; and real matrices. Each answer that is called converged is held to its target by a residual that
NumPy makes in extended precision. Writes results/residuals.json.

    python benchmarks/residuals.py [--systems N] [--data FOLDER]
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp
from problems import write

import backsolve as bs
from backsolve.methods import METHODS
from backsolve.methods.iterative import IterativeMethod
from backsolve.preconditioners import PRECONDITIONERS

METHOD_NAMES = [name for name, method in METHODS.items() if issubclass(method, IterativeMethod)]
KINDS = ("general", "symmetric", "definite", "dominant", "singular", "skew", "badly scaled")
DTYPES = ("float32", "float64", "complex64", "complex128")


def draw(rng: np.random.Generator) -> tuple[sp.csr_array, np.ndarray]:
    """A sparse matrix with a stored diagonal, and a right-hand side."""
    n, kind, dtype = int(rng.integers(1, 40)), str(rng.choice(KINDS)), np.dtype(str(rng.choice(DTYPES)))

    def normal(*shape: int) -> np.ndarray:
        v = rng.standard_normal(shape)
        return v + 1j * rng.standard_normal(shape) if dtype.kind == "c" else v

    G = normal(n, n) * (rng.random((n, n)) < min(1.0, 5 / n))
    dense = {
        "general": lambda: G + np.diag(normal(n)),
        "symmetric": lambda: G + G.conj().T,
        "definite": lambda: G @ G.conj().T + 0.1 * np.eye(n),
        "dominant": lambda: G + np.diag(1.1 * np.abs(G).sum(axis=1)),
        "singular": lambda: G[:, :1] @ G[:, :1].conj().T + 0 * G,
        "skew": lambda: G - G.conj().T,
        "badly scaled": lambda: 10.0 ** rng.integers(-5, 6, n)[:, None] * (G + np.diag(normal(n))),
    }[kind]()
    rows, columns = np.nonzero((dense != 0) | np.eye(n, dtype=bool))
    A = sp.csr_array(sp.coo_array((dense[rows, columns].astype(dtype), (rows, columns)), (n, n)))
    return A, (normal(n) * 10.0 ** rng.integers(-8, 9)).astype(dtype)


def judge(A: sp.csr_array, b: np.ndarray, sol: bs.Solution, rtol: float) -> bool:
    """Whether an answer that is called converged misses its target by more than rounding of the residual."""
    wide = np.clongdouble if b.dtype.kind == "c" else np.longdouble
    x, entries = sol.x.astype(wide), sp.coo_array(A)
    r, weight = b.astype(wide), np.abs(b).astype(np.longdouble)
    np.subtract.at(r, entries.row, entries.data.astype(wide) * x[entries.col])
    np.add.at(weight, entries.row, np.abs(entries.data).astype(np.longdouble) * np.abs(x[entries.col]))
    rounding = 2 * len(b) * np.finfo(float).eps * np.linalg.norm(weight.astype(float))
    limit = rtol * np.linalg.norm(np.abs(b).astype(float)) * (1 + 1e-6)
    return not np.linalg.norm(np.abs(r).astype(float)) <= limit + rounding


def run(A: sp.csr_array, b: np.ndarray, method: str, M: str | None, counts: Counter) -> list[str]:
    """Forward and adjoint; what missed its target."""
    operator, rtol = bs.CSR(A.data, A.indices, A.indptr, A.shape), 1e-5 if np.finfo(b.dtype).eps > 1e-10 else 1e-8
    kind, missed = METHODS[method], []
    try:
        F = bs.factorize(operator, method=kind(M=M) if M else kind(), on_failure="return")
    except ValueError:  # M is not for this method, or not for this A
        counts["refused"] += 2
        return []
    for way, solve, matrix in (("forward", F, A), ("adjoint", F.adjoint, sp.csr_array(A.conj().T))):
        sol = solve.solve_with_info(b)
        counts[bs.Status(int(sol.status)).name] += 1
        if sol.converged and judge(matrix, b, sol, rtol):
            missed.append(f"{way} {method} {M} n={len(b)} {b.dtype}")
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=int, default=2000)
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--largest", type=int, default=3000, help="rows of real matrices")
    args = parser.parse_args()
    rng, counts, missed = np.random.default_rng(0), Counter(), []
    names = [None, *PRECONDITIONERS]
    for _ in range(args.systems):
        A, b = draw(rng)
        method = str(rng.choice(METHOD_NAMES))
        for M in rng.choice(np.array(names, object), 3, replace=False):
            missed += run(A, b, method, M, counts)
    random, counts = dict(counts), Counter()
    matrices = []
    for path in sorted(args.data.rglob("*.mtx.gz")) if args.data else []:
        A = sp.csr_array(scipy.io.mmread(path))
        if A.shape[0] != A.shape[1] or A.shape[0] > args.largest or A.dtype.kind not in "fc":
            continue
        matrices.append(path.name)
        b = rng.standard_normal(A.shape[0]).astype(A.dtype)
        for method, M in (
            ("cg", "jacobi"),
            ("minres", None),
            ("bicgstab", "ilut"),
            ("gmres", "ilu0"),
            ("lsmr", "jacobi"),
        ):
            missed += [f"{path.name} {told}" for told in run(A, b, method, M, counts)]
    print(
        f"random: {random}\nreal ({len(matrices)} matrices): {dict(counts)}\nconverged and missed: {missed or 'none'}"
    )
    write(
        "residuals",
        {"systems": args.systems, "random": random, "matrices": matrices, "real": dict(counts), "missed": missed},
    )


if __name__ == "__main__":
    main()
