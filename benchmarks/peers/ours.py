"""backsolve through its public face, in torch; stages through `factorize`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from worker import RTOL, Clock, Problem, UnfitError

import backsolve as bs

torch.set_num_threads(1)


class Ours:
    """``bs.solve`` and ``backward``; values change on a pattern that is known, as in training."""

    def __init__(self, problem: Problem, method: str):
        iterative = method in ("cg", "bicgstab")
        if method == "cg" and problem.assume != "spd":
            raise UnfitError("CG is for positive definite matrices")
        if method == "bicgstab" and problem.assume == "spd":
            raise UnfitError("CG serves positive definite matrices")
        self.problem = problem
        self.b = self._columns(problem.b)
        self.g = torch.from_numpy(self._columns(problem.g))
        self.options: dict[str, Any] = {"method": method} | ({"rtol": RTOL} if iterative else {})
        self.direct = not iterative
        self.A = self._operator(problem.data)
        self.detail = bs.explain(self.A, method=method)

    def _columns(self, v: np.ndarray) -> np.ndarray:
        return v[..., None] if self.problem.batched else v

    def _operator(self, data: Any) -> Any:
        p = self.problem
        return bs.CSR(data, p.indices, p.indptr, (p.n, p.n)).assume(p.assume)

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        data = torch.tensor(values, requires_grad=True)
        b = torch.tensor(self.b, requires_grad=True)
        with clock("forward"):
            x = bs.solve(self.A.with_data(data), b, **self.options)
        with clock("backward"):
            x.backward(self.g)
        assert b.grad is not None and data.grad is not None
        shape = self.problem.b.shape
        return x.detach().numpy().reshape(shape), b.grad.numpy().reshape(shape), data.grad.numpy()

    def stages(self, values: np.ndarray, clock: Clock) -> None:
        """What is inside; "new pattern" is set-up and factorization where nothing is known."""
        if not self.direct:
            return
        with clock("new pattern"):
            F = bs.factorize(self._operator(values), **self.options)
        with clock("factor"):
            F = F.refactorize(values * 1.0000001)
        with clock("solve"):
            x = F.solve(self.b)
        with clock("adjoint"):
            lam = F.adjoint.solve(self.g.numpy())
        shape = (-1, self.problem.n, 1)
        with clock("gradient"):
            F.A.structure.outer(lam.reshape(shape), x.reshape(shape))
