"""The loops over single systems that a good engineer writes: one analysis of the pattern, one set of factors at a time.

Each takes whether the adjoint is wanted, and returns x, and then also the adjoint and the gradient of A, for all items.
Nothing is checked and no residual is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch

from backsolve.methods.superlu import blocking


def dense(A: np.ndarray, b: np.ndarray, g: np.ndarray, assume: str) -> dict[str, Callable]:
    """LAPACK through NumPy, SciPy and torch, one system after the other, and their own batches."""
    T, t, h = (torch.from_numpy(v) for v in (A, b, g))

    def numpy_loop(adjoint: bool) -> Any:
        x = np.stack([np.linalg.solve(M, v) for M, v in zip(A, b, strict=True)])
        if not adjoint:
            return x
        lam = np.stack([np.linalg.solve(M.T, v) for M, v in zip(A, g, strict=True)])
        return x, lam, -lam[:, :, None] * x[:, None, :]

    def scipy_loop(adjoint: bool) -> Any:
        x, lam = np.empty_like(b), np.empty_like(b)
        gradient = np.empty_like(A) if adjoint else A
        for i, M in enumerate(A):
            if assume == "spd":
                made = scipy.linalg.cho_factor(M, lower=True, check_finite=False)
                x[i] = scipy.linalg.cho_solve(made, b[i], check_finite=False)
            else:
                made = scipy.linalg.lu_factor(M, check_finite=False)
                x[i] = scipy.linalg.lu_solve(made, b[i], check_finite=False)
            if adjoint and assume == "spd":
                lam[i] = scipy.linalg.cho_solve(made, g[i], check_finite=False)
            elif adjoint:
                lam[i] = scipy.linalg.lu_solve(made, g[i], trans=1, check_finite=False)
            if adjoint:
                np.multiply(-lam[i][:, None], x[i], out=gradient[i])
        return (x, lam, gradient) if adjoint else x

    def torch_loop(adjoint: bool) -> Any:
        parts = [_torch(M, v, w, adjoint) for M, v, w in zip(T, t, h, strict=True)]
        found = tuple(torch.stack(part).numpy() for part in zip(*parts, strict=True))
        return found if adjoint else found[0]

    def numpy_batch(adjoint: bool) -> Any:
        x = np.linalg.solve(A, b[..., None])[..., 0]
        if not adjoint:
            return x
        lam = np.linalg.solve(A.transpose(0, 2, 1), g[..., None])[..., 0]
        return x, lam, -lam[:, :, None] * x[:, None, :]

    def torch_batch(adjoint: bool) -> Any:
        found = tuple(v.numpy() for v in _torch(T, t, h, adjoint))
        return found if adjoint else found[0]

    return {
        "loop numpy.linalg.solve": numpy_loop, "loop scipy.linalg": scipy_loop, "loop torch.linalg": torch_loop,
        "batch numpy.linalg.solve": numpy_batch, "batch torch.linalg": torch_batch,
    }  # fmt: skip


def _torch(M: torch.Tensor, v: torch.Tensor, w: torch.Tensor, adjoint: bool) -> tuple[torch.Tensor, ...]:
    if not adjoint:
        return (torch.linalg.solve(M, v),)
    lu, pivots = torch.linalg.lu_factor(M)
    x = torch.linalg.lu_solve(lu, pivots, v[..., None])
    lam = torch.linalg.lu_solve(lu, pivots, w[..., None], adjoint=True)
    return x[..., 0], lam[..., 0], -lam * x.mT


def sparse(A: sp.csr_array, data: np.ndarray, b: np.ndarray, g: np.ndarray, assume: str) -> dict[str, Callable]:
    """``splu`` as backsolve sets it up, and Pardiso with one analysis and one place for factors."""
    n, rows = A.shape[0], np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    turned = sp.csc_array(sp.csr_array((np.arange(A.nnz), A.indices, A.indptr), shape=A.shape))
    options: dict[str, Any] = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0 if assume == "spd" else 0.1}
    options |= {"options": {"SymmetricMode": True}, **blocking(A.nnz)}

    def loop(solve: Callable) -> Callable:
        def run(adjoint: bool) -> Any:
            x, lam = np.empty_like(b), np.empty_like(b)
            gradient = np.empty_like(data) if adjoint else data
            for i, v in enumerate(data):
                solve(v, b[i], g[i], x[i], lam[i] if adjoint else None)
                if adjoint:
                    gradient[i] = -lam[i][rows] * x[i][A.indices]
            return (x, lam, gradient) if adjoint else x

        return run

    def by_splu(v: np.ndarray, c: np.ndarray, w: np.ndarray, x: np.ndarray, lam: np.ndarray | None) -> None:
        made = sla.splu(sp.csc_array((v[turned.data], turned.indices, turned.indptr), shape=(n, n)), **options)
        x[:] = made.solve(c)
        if lam is not None:
            lam[:] = made.solve(w, "T")

    return {"loop splu": loop(by_splu), "loop pardiso": loop(_Pardiso(A, rows, assume == "spd"))}


class _Pardiso:
    """The library that pypardiso loads, with the matrix type and settings of backsolve."""

    def __init__(self, A: sp.csr_array, rows: np.ndarray, spd: bool):
        from backsolve.methods.pardiso_library import Handle

        self.keep = np.flatnonzero(A.indices >= rows) if spd else np.arange(A.nnz)
        counts = np.bincount(rows[self.keep], minlength=A.shape[0])
        indptr, indices = (
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            A.indices[self.keep].astype(np.int32),
        )
        self.handle, self.spd = Handle(2 if spd else 11, indptr, indices, np.float64, 1, not spd), spd
        self.handle.analyse(A.data[self.keep])

    def __call__(self, v: np.ndarray, c: np.ndarray, w: np.ndarray, x: np.ndarray, lam: np.ndarray | None) -> None:
        values = v[self.keep] if self.spd else v
        self.handle.factor(0, values, 8 if self.spd else 13)
        x[:] = self.handle.solve(0, values, c[:, None], False)[:, 0]
        if lam is not None:
            lam[:] = self.handle.solve(0, values, w[:, None], not self.spd)[:, 0]
