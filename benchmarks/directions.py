"""How much do more directions in FCG save, where M is rough and varies?

M is an inner CG, preconditioned itself, that stops at a half or a tenth of its residual or after five steps, or a
fixed preconditioner with 30 % of noise in every entry. Counted are outer iterations and applications of the inner
preconditioner, which nearly all of the time goes to. Writes results/directions.json.

    OMP_NUM_THREADS=1 python benchmarks/directions.py [--side 60]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from problems import write
from recycling import boundary, grid_edges, inclusions, laplacian

import backsolve as bs

DIRECTIONS = (1, 2, 5, 10, 20)
PRECONDITIONERS = ("jacobi", "mic", "amg")
ROUGH: dict[str, dict[str, Any]] = {
    "CG to one half": {"rtol": 0.5},
    "CG to one tenth": {"rtol": 0.1},
    "five steps of CG": {"steps": 5},
    "noise of 30 %": {},
}


def problems(side: int) -> dict[str, sp.csr_array]:
    """Definite matrices on a grid."""
    i, j = grid_edges(side)
    log_normal = np.exp(1.5 * np.random.default_rng(0).standard_normal(side * side))
    along = np.where(np.arange(len(i)) < len(i) // 2, 1.0, 100.0)
    edges = boundary(side)
    return {
        "Poisson": laplacian(i, j, np.ones(len(i)), edges),
        "anisotropic": laplacian(i, j, along, edges),
        "log-normal": laplacian(i, j, np.sqrt(log_normal[i] * log_normal[j]), edges),
        "inclusions": next(inclusions(side, 1))[0],
    }


def inner(A: sp.csr_array, M: Callable, made: list[int], rtol: float = 0.0, steps: int = 10**9) -> Callable:
    """CG in the place of a preconditioner; counts what it applies."""

    def apply(b: np.ndarray) -> np.ndarray:
        x, r, p, rz, count = np.zeros_like(b), b, np.zeros_like(b), 0.0, 0
        goal = rtol * np.linalg.norm(b)
        while count < steps and np.linalg.norm(r) > goal:
            z = M(r)
            rz, before = r @ z, rz
            p = z + (rz / before if before else 0.0) * p
            Ap = A @ p
            alpha = rz / (p @ Ap)
            x, r, count = x + alpha * p, r - alpha * Ap, count + 1
        made.append(count)
        return x

    return apply


def noisy(M: Callable, made: list[int]) -> Callable:
    rng = np.random.default_rng(3)

    def apply(b: np.ndarray) -> np.ndarray:
        made.append(1)
        return M(b) * (1 + 0.3 * rng.standard_normal(len(b)))

    return apply


def counted(A: sp.csr_array, b: np.ndarray, M: Callable, options: dict[str, Any], directions: int) -> list[int] | None:
    """Outer iterations, and applications of the inner preconditioner; None if 3,000 were not enough."""
    made: list[int] = []
    rough = inner(A, M, made, **options) if options else noisy(M, made)
    method = bs.FCG(directions=directions, maxiter=3000, M=bs.preconditioners.Function(rough, varying=True))
    sol = bs.solve_with_info(A, b, method=method, on_failure="return")
    return [int(sol.stats.iterations), sum(made)] if sol.converged else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=60)
    side = parser.parse_args().side
    found: dict[str, Any] = {}
    for problem, A in problems(side).items():
        b = np.random.default_rng(1).standard_normal(A.shape[0])
        operator = bs.aslinearoperator(A)
        for name in PRECONDITIONERS:
            made = bs.preconditioners.PRECONDITIONERS[name]().prepare(operator.on(operator.data[None]))

            def M(v, made=made):
                return made.apply(v[None, :, None], False)[0, :, 0]

            for rough, options in ROUGH.items():
                counts = {str(k): counted(A, b, M, options, k) for k in DIRECTIONS}
                found.setdefault(problem, {}).setdefault(name, {})[rough] = counts
                print(f"{problem:12s} {name:7s} {rough:17s} {counts}", flush=True)
    write("directions", {"side": side, "rtol": 1e-8, "directions": DIRECTIONS, "found": found})


if __name__ == "__main__":
    main()
