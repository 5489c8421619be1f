"""The problems of the comparison, as files for the workers, and how right an answer to them is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import backsolve as bs
from backsolve.methods.superlu import blocking

sys.path.insert(0, str(Path(__file__).parents[1]))

from problems import laplacian, matrix
from real_systems import exact_solve, extended, product

# name -> (matrix, declared, items)
CASES = {
    "case118_Ybus": ("case118_Ybus", "general", 1),
    "west0989": ("west0989", "general", 1),
    "orani678": ("orani678", "general", 1),
    "mcfe": ("mcfe", "general", 1),
    "bcsstk14": ("bcsstk14", "spd", 1),
    "ldg_diffusion": ("ldg_diffusion", "spd", 1),
    "memplus": ("memplus", "general", 1),
    "64 x poisson100": ("poisson100", "spd", 64),
    "64 x convection100": ("convection100", "general", 64),
    "convection512": ("convection512", "general", 1),
    "poisson512": ("poisson512", "spd", 1),
    "cube48": ("cube48", "spd", 1),
}

JAX_CASES = ("64 x poisson100", "64 x convection100", "convection512", "poisson512")

CHECKED = 4
"""Items of a batch whose answers are compared with extended precision; residuals are taken of all."""


def cube(m: int) -> sp.csr_array:
    """Seven-point Laplacian on m x m x m points."""
    return sp.csr_array(sp.kronsum(laplacian(m), sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m))))


def load(name: str, data: Path | None) -> sp.csr_array | None:
    """The matrix of a case; None if its file is not there."""
    made = {"poisson100": lambda: laplacian(100), "convection100": lambda: laplacian(100, 0.5)}
    made["cube48"] = lambda: cube(48)
    A = made[name]() if name in made else matrix(name, data)
    if A is None:
        return None
    A = A.astype(complex if A.dtype.kind == "c" else float)
    A.eliminate_zeros()
    A.sort_indices()
    return A


def values(A: sp.csr_array, items: int, spd: bool) -> np.ndarray:
    """(items, nnz) different values; positive definite where A is, as D A D."""
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    if not spd:
        return A.data * (1 + 0.01 * rng.standard_normal((items, A.nnz)))
    d = 1 + 0.1 * rng.random((items, A.shape[0]))
    return A.data * d[:, rows] * d[:, A.indices]


class Case:
    """One problem: what the workers get, and the answers in extended precision."""

    def __init__(self, name: str, data: Path | None, folder: Path):
        base, self.assume, items = CASES[name]
        A = load(base, data)
        if A is None:
            raise FileNotFoundError(f"{base}.mtx.gz is not in the data folder")
        self.A, self.batched, self.path = A, items > 1, folder / f"{name.replace(' ', '')}.npz"
        self.data = values(A, items, self.assume == "spd") if self.batched else A.data
        rng = np.random.default_rng(0)
        shape = (items, A.shape[0]) if self.batched else (A.shape[0],)
        b, g = rng.standard_normal((2, *shape))
        if A.dtype.kind == "c":
            b, g = (v + 1j * rng.standard_normal(shape) for v in (b, g))
        self.b, self.g = b, g
        self.operator = bs.CSR(A.data, A.indices, A.indptr, A.shape).assume(self.assume)
        np.savez(
            self.path, data=self.data, b=b, g=g, assume=self.assume, superlu=json.dumps(self._superlu()),
            indices=A.indices.astype(np.int32), indptr=A.indptr.astype(np.int32),
        )  # fmt: skip
        self.references = [self._reference(item) for item in range(min(items, CHECKED))]

    def _superlu(self) -> dict[str, Any]:
        """Options of ``splu`` as backsolve chooses them."""
        ordering, threshold, _ = bs.SuperLU().plan(self.operator)
        symmetric = {"SymmetricMode": ordering == "mmd_at_plus_a"}
        options = {"permc_spec": ordering.upper(), "diag_pivot_thresh": threshold, "options": symmetric}
        return options | blocking(self.A.nnz)

    def describe(self) -> dict[str, Any]:
        items = len(self.data) if self.batched else 1
        auto = bs.explain(self.operator.with_data(self.data))
        spread = self.references[0][3]
        return {
            "n": self.A.shape[0], "nnz": self.A.nnz, "items": items, "assume": self.assume, "auto": auto,
            "dtype": str(self.A.dtype), "reference_residual": spread,
        }  # fmt: skip

    def _system(self, item: int) -> sp.csr_array:
        data = np.atleast_2d(self.data)[item]
        return sp.csr_array((data, self.A.indices, self.A.indptr), shape=self.A.shape)

    def _reference(self, item: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """x, adjoint, gradient, and the relative residual of x; refined until nothing changes."""
        A, b, g = self._system(item), np.atleast_2d(self.b)[item], np.atleast_2d(self.g)[item]
        x = exact_solve(A, _Factors(A, self.assume, False), b)
        H = sp.csr_array(A.conj().T)
        H.sort_indices()
        lam = exact_solve(H, _Factors(A, self.assume, True), g)
        rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
        left = np.abs(extended(b) - product(A, x)).max() / np.abs(b).max()
        return x, lam, -lam[rows] * x[A.indices].conj(), float(left)

    def judge(self, answer: Path) -> dict[str, float]:
        """Residuals and backward errors, the worst of all items; errors against the references."""
        with np.load(answer) as file:
            x, lam, gradient = (np.atleast_2d(file[k]) for k in ("x", "adjoint", "gradient"))
        found: dict[str, float] = {}

        def worse(**numbers: float) -> None:
            for key, value in numbers.items():
                found[key] = max(found.get(key, 0.0), value) if np.isfinite(value) else np.inf

        for item in range(len(x)):
            A, b, g = self._system(item), np.atleast_2d(self.b)[item], np.atleast_2d(self.g)[item]
            for what, M, v, right in (("", A, x[item], b), ("adjoint_", A.conj().T.tocsr(), lam[item], g)):
                r = right - M @ v
                size = abs(M).sum(axis=1).max() * np.abs(v).max() + np.abs(right).max()
                worse(**{f"{what}residual": float(np.linalg.norm(r) / np.linalg.norm(right))})
                worse(**{f"{what}backward_error": float(np.abs(r).max() / size)})
        for item, (x0, lam0, gradient0, _) in enumerate(self.references):
            for what, is_, be in (("x", x, x0), ("adjoint", lam, lam0), ("gradient", gradient, gradient0)):
                worse(**{f"{what}_error": float(np.abs(is_[item] - be).max() / np.abs(be).max())})
        return found


class _Factors:
    """Factors in the face that `exact_solve` uses, of A or of its adjoint."""

    def __init__(self, A: sp.csr_array, assume: str, adjoint: bool):
        F = bs.factorize(A, assume=assume, on_failure="return")
        self.made = F.adjoint if adjoint else F

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self.made.solve_with_info(b).x


__all__ = ["CASES", "JAX_CASES", "Case"]
