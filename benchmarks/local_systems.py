"""Random systems for certificates: any signs, gaps and scales, dominance in any sense, and what else may be met."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp

from backsolve._local.access import INDEX_DTYPES, Access
from backsolve._local.system import System, Vector
from backsolve.local import DiagonallyDominant

KINDS = ("rows", "columns", "both", "symmetric", "barrier by rows", "barrier by columns")


@dataclass
class Case:
    """A matrix with lists as they may come: unsorted, repeated entries, isolated and dangling nodes.

    M diag(w) is dominant by rows, or diag(v) M by columns where v is given; w = None is 1.
    """

    kind: str
    gap: float
    wild: bool
    n: int
    rows: np.ndarray
    columns: np.ndarray
    data: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    w: np.ndarray | None
    v: np.ndarray | None
    b: Vector
    t: Vector
    dense: np.ndarray

    def system(self) -> System:
        """The matrix, prepared."""
        order = np.argsort(self.indices, kind="stable").astype(self.indptr.dtype)
        t_indptr = np.cumsum([0, *np.bincount(self.indices, minlength=self.n)]).astype(self.indptr.dtype)
        t_indices = self.rows[order].astype(self.indices.dtype)
        access = Access(self.n, self.indptr, self.indices, self.data, t_indptr, t_indices, order)
        system = System(access)
        if self.kind.startswith("barrier"):
            system.weigh(self.w, self.v)
        return system


def powers(rng: np.random.Generator, width: float, *shape: int) -> np.ndarray:
    """Numbers of all sizes between 10^-width and 10^width."""
    return 10.0 ** rng.uniform(-width, width, shape)


def draw(rng: np.random.Generator, n: int | None = None, kind: str | None = None) -> Case:
    """A case with n unknowns, at random up to 30."""
    n = int(rng.integers(1, 31) if rng.random() < 0.5 else rng.integers(1, 9)) if n is None else n
    kind = str(rng.choice(KINDS)) if kind is None else kind
    single = bool(rng.random() < 0.2)
    gap = 10.0 ** rng.uniform(-4 if single else -9, np.log10(0.9))
    wild = bool(rng.random() < 0.3)
    rows, columns, values = _dominant(rng, n, kind, gap)
    row_scale, column_scale = _scales(rng, n, kind, wild, 15 if single else 150)
    values = values * row_scale[rows] * column_scale[columns]
    w = 1 / column_scale if kind == "barrier by rows" else None
    v = {"barrier by columns": 1 / row_scale, "columns": np.ones(n)}.get(kind)
    rows, columns, values = _repeated(rng, n, rows, columns, values)
    order = np.argsort(rows, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    position, index = INDEX_DTYPES[rng.integers(len(INDEX_DTYPES))]
    return Case(
        kind, gap, wild, n, rows, columns, values.astype("float32" if single else "float64"),
        np.cumsum([0, *np.bincount(rows, minlength=n)]).astype(position), columns.astype(index), w, v,
        _sparse(rng, n), _sparse(rng, n), rng.standard_normal(n) * powers(rng, 150 if rng.random() < 0.1 else 2, n),
    )  # fmt: skip


def _dominant(rng: np.random.Generator, n: int, kind: str, gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    m = int(rng.integers(0, 4) * n)
    i, j = rng.integers(0, n, m), rng.integers(0, n, m)
    if n > 64:  # a ring with chords, so that pushes stay local
        j = (i + rng.integers(-9, 10, m)) % n
    i, j = i[i != j], j[i != j]
    i, j = np.unique(np.stack([i, j]), axis=1)
    value = rng.standard_normal(len(i)) * powers(rng, rng.choice([0, 1, 5]), len(i))
    if rng.random() < 0.5:
        value = -np.abs(value)
    if kind == "symmetric":
        i, j, value = _mirrored(i, j, value)
    by_rows, by_columns = (np.bincount(at, np.abs(value), minlength=n) for at in (i, j))
    needed = {"rows": by_rows, "columns": by_columns}.get(
        kind.removeprefix("barrier by "), np.maximum(by_rows, by_columns)
    )
    diagonal = np.where(needed > 0, needed / (1 - gap * rng.uniform(1, 1.1)), powers(rng, 3, n)) * (1 + 2.0**-40)
    if rng.random() < 0.5:
        diagonal *= rng.choice([-1, 1], n)
    every = np.arange(n)
    return np.concatenate([i, every]), np.concatenate([j, every]), np.concatenate([value, diagonal])


def _mirrored(i: np.ndarray, j: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    upper = i < j
    i, j, value = i[upper], j[upper], value[upper]
    return np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([value, value])


def _scales(rng: np.random.Generator, n: int, kind: str, wild: bool, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Scales of rows and columns that the kind of dominance survives."""
    everywhere = 10.0 ** rng.uniform(-width, width)
    same = np.full(n, everywhere)
    if kind in ("rows", "columns"):
        own = powers(rng, width, n) if wild else same
        return (own, np.ones(n)) if kind == "rows" else (np.ones(n), own)
    if kind.startswith("barrier"):
        half = powers(rng, width / 2, n) if wild else powers(rng, 2, n)
        other = powers(rng, width / 2, n) if wild else np.ones(n)
        return (other, half) if kind == "barrier by rows" else (half, other)
    return same, np.ones(n)


def _repeated(rng: np.random.Generator, n: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray):
    """Some entries in two parts, those of the diagonal perhaps of both signs."""
    if rng.random() < 0.6:
        return rows, columns, values
    pick = np.flatnonzero(rng.random(len(rows)) < 0.2)
    share = np.where(rows[pick] == columns[pick], rng.choice([0.5, -1.0], len(pick)), 0.5)
    extra, values = values[pick] * share, values.copy()
    values[pick] *= 1 - share
    order = rng.permutation(len(rows) + len(pick))
    parts = (rows, rows[pick]), (columns, columns[pick]), (values, extra)
    return tuple(np.concatenate(part)[order] for part in parts)


def _sparse(rng: np.random.Generator, n: int) -> Vector:
    if rng.random() < 0.03:
        return np.zeros(0, np.int64), np.zeros(0)
    index = np.unique(rng.integers(0, n, int(rng.integers(1, 4))))
    spread = 150 if rng.random() < 0.1 else 1
    return index, rng.standard_normal(len(index)) * powers(rng, spread, len(index)) * 10.0 ** rng.uniform(-100, 100)


def real(path: Path) -> tuple[str, DiagonallyDominant, sp.csr_array] | None:
    """A matrix of a file, prepared as it is, with a barrier, or as I - 0.85 P; None if nothing makes it dominant."""
    A: Any = sp.csr_array(scipy.io.mmread(path))
    if A.shape[0] != A.shape[1] or A.dtype.kind == "c":
        return None
    A = sp.csr_array(A.astype(np.float64))
    choices: list[tuple[str, sp.csr_array, dict]] = [("as it is", A, {}), ("barrier", A, {"barrier": "solve"})]
    if A.nnz and A.data.min() >= 0 and np.all(A.diagonal() >= 0):
        strength = np.maximum(A.sum(axis=1), np.finfo(float).tiny)
        walk = sp.csr_array(sp.eye_array(A.shape[0]) - 0.85 * sp.diags_array(1 / strength) @ A)
        choices.insert(0, ("I - 0.85 P", walk, {}))
    for kind, M, options in choices:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            D = DiagonallyDominant(M, **options)
        if D.by_rows or D.by_columns:
            return kind, D, M
    return None


def with_vectors(kind: str, D: DiagonallyDominant, M: sp.csr_array, rng: np.random.Generator) -> tuple[Case, System]:
    """A prepared matrix with random right-hand sides."""
    system, A = D.system, D.system.access
    rows = np.repeat(np.arange(A.n), np.diff(A.indptr))
    w = system.w if system.rows else None
    v = None if system.rows else np.ones(A.n) if system.v is None else system.v
    b, t, dense = _sparse(rng, A.n), _sparse(rng, A.n), rng.standard_normal(A.n)
    indices, data = np.asarray(A.indices), np.array(A.data)
    gap, n, indptr = D.gap or 0.0, A.n, A.indptr
    return Case(f"real, {kind}", gap, False, n, rows, indices, data, indptr, indices, w, v, b, t, dense), system
