"""Differentiable solvers for torch: torch-sla and torchsparsegradutils, each as its documentation has it."""

from __future__ import annotations

import numpy as np
import torch
from worker import RTOL, Clock, Problem, UnfitError

torch.set_num_threads(1)


class TorchPeer:
    """Forward and backward, batches item by item; `solve` is one system."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.indices = torch.from_numpy(problem.indices.astype(np.int64))
        self.indptr = torch.from_numpy(problem.indptr.astype(np.int64))
        self.rows = torch.from_numpy(problem.rows.astype(np.int64))

    def solve(self, data: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        p = self.problem
        data, b = (torch.tensor(v, requires_grad=True) for v in (values, p.b))
        with clock("forward"):
            each = [self.solve(data[i], b[i]) for i in p.items] if p.batched else [self.solve(data, b)]
            x = torch.stack(each) if p.batched else each[0]
        with clock("backward"):
            x.backward(torch.from_numpy(p.g))
        assert b.grad is not None and data.grad is not None
        return x.detach().numpy(), b.grad.numpy(), data.grad.numpy()


class TorchSla(TorchPeer):
    """``torch_sla.spsolve``."""

    def __init__(self, problem: Problem, backend: str, method: str | None = None):
        super().__init__(problem)
        method = method or ("cg" if problem.assume == "spd" else "bicgstab")
        self.options = {"backend": backend, "method": method, "atol": 0.0, "maxiter": 20_000}
        self.detail = f"{backend}, {method}" + ("; rtol is 1e-10, fixed" if backend == "pytorch" else "")

    def solve(self, data: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        from torch_sla import spsolve

        n = self.problem.n
        return spsolve(data, self.rows, self.indices, (n, n), b, **self.options)


class SparseGradUtils(TorchPeer):
    """``sparse_generic_solve`` with its own CG or BiCGStab; the matrix is made of the leaf by torch."""

    def __init__(self, problem: Problem):
        from torchsparsegradutils.utils.bicgstab import BICGSTABSettings, bicgstab
        from torchsparsegradutils.utils.linear_cg import LinearCGSettings, linear_cg

        super().__init__(problem)
        if problem.data.dtype.kind == "c":
            raise UnfitError("its Krylov methods are real")
        if problem.assume == "spd":
            settings = LinearCGSettings(max_cg_iterations=20_000, cg_tolerance=RTOL)
            self.forward = self.transposed = lambda A, B: linear_cg(A, B, settings=settings)
            self.detail = "linear_cg"
        else:
            options = BICGSTABSettings(matvec_max=40_000, abstol=0.0, reltol=RTOL)
            self.forward = lambda A, B: bicgstab(A, B, settings=options)
            self.transposed = lambda A, B: bicgstab(A.t().to_sparse_csr(), B, settings=options)
            self.detail = "bicgstab, with Aᵀ given for the backward"

    def solve(self, data: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        from torchsparsegradutils import sparse_generic_solve

        n = self.problem.n
        A = torch.sparse_coo_tensor(torch.stack([self.rows, self.indices]), data, (n, n), is_coalesced=True)
        return sparse_generic_solve(A, b, solve=self.forward, transpose_solve=self.transposed)
