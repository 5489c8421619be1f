"""Real systems read from Matrix Market files, and answers to them in extended precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
import scipy.sparse as sp
import scipy.sparse.linalg as sla

DAMPING = 0.85
WALKS = ("gre_1107", "rw5151")
GRAPHS = ("astro-ph", "cora-cites", "luxembourg_osm", "power", "wiki-Vote")
SPD = ("1138_bus", "airfoil", "bcsstk14", "case2869pegase_Bdc", "gr_30_30", "ibmpg1_G", "ldg_diffusion", "nos6")


class Case(NamedTuple):
    """A system to solve: CSR matrix without stored zeros, right-hand side, what is declared, what was made."""

    name: str
    A: Any
    b: np.ndarray
    assume: str | None
    note: str


def files(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Matrices of the folders by name, right-hand sides left out."""
    found = {f.name.removesuffix(".mtx.gz"): f for folder in folders for f in sorted(folder.glob("*.mtx.gz"))}
    return {name: found[name] for name in sorted(found, key=str.lower) if not name.endswith("_rhs")}


def load(path: Path) -> Case:
    """Read a system; Markov chains and graphs become I - .85 P."""
    name = path.name.removesuffix(".mtx.gz")
    A = sp.csr_array(scipy.io.mmread(path))
    A = A.astype(complex if A.dtype.kind == "c" else float)
    A.eliminate_zeros()
    note = ""
    if name in WALKS or name in GRAPHS:
        A, note = damped(A, name in GRAPHS)
    A.sort_indices()
    b, stored = generator(name, 0).standard_normal(A.shape[0]), path.with_name(f"{name}_rhs.mtx.gz")
    if stored.exists():
        b, note = np.ravel(scipy.io.mmread(stored)).astype(float), "own right-hand side"
    return Case(name, A, b.astype(A.dtype), "spd" if name in SPD else None, note)


def damped(A: Any, graph: bool) -> tuple[Any, str]:
    """I - .85 P. A graph's P is D⁻¹A; a row without edges stays zero, so that its unknown is its right-hand side."""
    note = "I - .85 P"
    if graph:
        degree = A.sum(axis=1)
        empty = int((degree == 0).sum())
        A = sp.diags_array(1 / np.where(degree == 0, 1, degree)) @ A
        note += f", {empty} rows without edges" if empty else ""
    elif np.abs(A.sum(axis=0) - 1).max() < 1e-3 < np.abs(A.sum(axis=1) - 1).max():
        note += "ᵀ (stored column-stochastic)"
    return sp.csr_array(sp.eye_array(A.shape[0]) - DAMPING * A), note


def generator(name: str, stream: int) -> np.random.Generator:
    """Random numbers that depend on the matrix only."""
    return np.random.default_rng([stream, *name.encode()])


def singular(path: Path) -> tuple[str, Any] | None:
    """A singular matrix made from the same file, and what it is; None where there is none to make."""
    name = path.name.removesuffix(".mtx.gz")
    if name not in ("rw5151", "1138_bus", *GRAPHS):
        return None
    A = sp.csr_array(scipy.io.mmread(path)).astype(float)
    if name == "rw5151":
        return "P as stored", A
    if name == "1138_bus":
        A = sp.csr_array(-A + sp.diags_array(A.diagonal()))
    what = "without its ground" if name == "1138_bus" else "graph Laplacian"
    return what, sp.csr_array(sp.diags_array(A.sum(axis=1)) - A)


def equilibrated(A: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """R A C with largest entries near 1 in every row and column; powers of two, so exact (Ruiz 2001)."""
    r, c = np.ones(A.shape[0]), np.ones(A.shape[1])
    for _ in range(10):
        size = abs(sp.diags_array(r) @ A @ sp.diags_array(c))
        r = r / np.sqrt(size.max(axis=1).toarray())
        c = c / np.sqrt(size.max(axis=0).toarray())
    r, c = (2.0 ** np.round(np.log2(v)) for v in (r, c))
    return sp.csr_array(sp.diags_array(r) @ A @ sp.diags_array(c)), r, c


def condition(A: Any, lu: Any) -> float:
    """Estimate of the condition number in the 1-norm (Higham and Tisseur 2000)."""
    inverse = sla.LinearOperator(A.shape, lu.solve, rmatvec=lambda v: lu.solve(v, "H"), dtype=A.dtype)
    return float(sla.onenormest(A) * sla.onenormest(inverse))


def factored(A: Any) -> Any:
    """Factors for the references: SciPy called by hand, with an ordering that keeps them sparse."""
    pattern = (A != 0).astype(int)
    if pattern.multiply(pattern.T).nnz < 0.9 * A.nnz:
        return sla.splu(sp.csc_array(A))
    options = {"SymmetricMode": True}
    return sla.splu(sp.csc_array(A), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.1, options=options)


def extended(values: np.ndarray) -> np.ndarray:
    """Extended precision, real or complex (64-bit mantissa on x86)."""
    return values.astype(np.clongdouble if values.dtype.kind == "c" else np.longdouble)


def product(A: Any, x: np.ndarray) -> np.ndarray:
    """A x in extended precision; every row of A stores something."""
    return np.add.reduceat(extended(A.data) * extended(x)[A.indices], A.indptr[:-1])


def exact_solve(A: Any, lu: Any, b: np.ndarray, steps: int = 12) -> np.ndarray:
    """A⁻¹ b to extended precision where κ eps < 1: refinement with extended residuals and extended x."""
    x = extended(lu.solve(b.astype(A.dtype)))
    last = np.inf
    for _ in range(steps):
        d = lu.solve((b - product(A, x)).astype(A.dtype))
        size = float(np.abs(d).max() / np.abs(x).max())
        if not size < last:
            break
        x, last = x + d, size
    return x


def backward_errors(A: Any, b: np.ndarray, x: np.ndarray) -> dict[str, float]:
    """Residual, normwise (Rigal-Gaches, ∞-norm) and componentwise (Oettli-Prager) backward error of x."""
    r = np.abs(extended(b) - product(A, x))
    scale = product(abs(A), np.abs(x)) + np.abs(b)
    size = float(abs(A).sum(axis=1).max()) * np.abs(x).max() + np.abs(b).max()
    return {
        "residual": float(np.linalg.norm(r.astype(float)) / np.linalg.norm(b)),
        "normwise": float(r.max() / size),
        "componentwise": float((r / np.where(scale == 0, 1, scale)).max()),
    }
