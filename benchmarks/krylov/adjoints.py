"""Iterations of the adjoint solve over those of the forward solve, where A is not symmetric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from measure import relative_residual
from problems import matrix

import backsolve as bs
from backsolve import gallery

RTOL = 1e-10
GALLERY = {"convection": 10_000, "duplicates": 10_000, "contraction": 10_000}
FILES = (
    "pde2961", "sherman4", "orsirr_1", "jpwh_991", "dw256B", "fs_680_2", "memplus", "arc130", "gre_1107", "west0989",
    "orani678", "mcfe",
)  # fmt: skip
WAYS = [(method, M) for M in ("jacobi", "ilu0", "ilut") for method in ("gmres", "bicgstab")]
MAXITER = 1_000


def run(data: Path | None) -> dict[str, Any]:
    """Every way on every problem; what did not converge is kept with its status."""
    found: dict[str, Any] = {}
    for name, A in _problems(data):
        rng = np.random.default_rng(0)
        b, g = rng.standard_normal((2, A.shape[0]))
        ways = {f"{method} + {M}": once(A, b, g, method, M) for method, M in WAYS}
        found[name] = {"n": A.shape[0], "nnz": A.nnz, "ways": ways}
        print(f"  {name}: { {way: told.get('ratio', told['status']) for way, told in ways.items()} }", flush=True)
    return {"rtol": RTOL, "maxiter": MAXITER, "found": found}


def _problems(data: Path | None) -> list[tuple[str, sp.csr_array]]:
    made = [(name, gallery.problem(name, n).A) for name, n in GALLERY.items()]
    named = [(f"{name}, {A.shape[0]:,}", _sparse(A)) for name, A in made]
    read = [(name, matrix(name, data)) for name in FILES]
    return named + [(name, A.astype(float)) for name, A in read if A is not None]


def _sparse(A: Any) -> sp.csr_array:
    rows, columns, values = A.structure.rows, A.structure.indices, np.asarray(A.data)
    slots = getattr(A, "slots", None)
    places = (rows, columns) if slots is None else (rows[slots], columns[slots])
    return sp.csr_array((values, places), shape=A.shape)


def once(A: sp.csr_array, b: np.ndarray, g: np.ndarray, method: str, M: str) -> dict[str, Any]:
    """Both solves, each with its true residual."""
    kind: Any = {"gmres": bs.GMRES, "bicgstab": bs.BiCGStab}[method](maxiter=MAXITER)
    try:
        sol, pull = bs.vjp(A, b, method=kind, M=M, rtol=RTOL, on_failure="return")
        _, lam, adjoint = pull(g)
    except (ValueError, bs.SolveError) as reason:
        return {"status": f"refused: {str(reason)[:160]}"}
    told = {
        "status": f"{bs.Status(int(sol.status)).name}, adjoint {bs.Status(int(adjoint.status)).name}",
        "iterations": int(sol.stats.iterations),
        "adjoint_iterations": int(adjoint.stats.iterations),
    }
    if sol.converged and adjoint.converged:
        told["ratio"] = told["adjoint_iterations"] / max(told["iterations"], 1)
        told["residual"] = relative_residual(A, sol.x, b)
        told["adjoint_residual"] = relative_residual(A.T, lam, g)
    return told
