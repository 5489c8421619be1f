"""backsolve in JAX: compiled solves through its public face, alone and as a solver of lineax."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import lineax
import numpy as np
from jax_peers import JaxPeer
from worker import RTOL, Clock, Problem, UnfitError

import backsolve as bs
from backsolve.factor_cache import CACHE


class OursInJax(JaxPeer):
    """``bs.solve`` with values that are traced; a batch is one call."""

    vmapped = True  # by its own batch axis

    def __init__(self, problem: Problem, method: str):
        if method in ("cg", "bicgstab") and (method == "cg") != (problem.assume == "spd"):
            raise UnfitError("CG is for positive definite matrices, and serves those")
        self.options: dict[str, Any] = {"method": method} | ({} if method == "auto" else {"rtol": RTOL})
        p = problem
        A = bs.CSR(p.data, p.indices, p.indptr, (p.n, p.n)).assume(p.assume)
        self.A = A.with_data(jnp.asarray(p.data))
        self.detail = bs.explain(A, method=method)
        super().__init__(problem)

    def mapped(self, data: Any, b: Any) -> Any:
        return bs.solve(self.A.with_data(data), b[..., None], **self.options)[..., 0]

    def solve(self, data: Any, b: Any) -> Any:
        return bs.solve(self.A.with_data(data), b, **self.options)

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        before = CACHE.info().misses
        answer = super().step(values, clock)
        self.missed = CACHE.info().misses - before
        return answer

    @property
    def factorizations(self) -> int:
        """Misses of the cache in the latest step, each of a whole batch."""
        return self.missed * len(self.problem.items)


class OursInLineax(OursInJax):
    """``lineax.linear_solve`` with `as_lineax_solver`; a batch is a ``jax.vmap``."""

    def __init__(self, problem: Problem):
        super().__init__(problem, "auto")
        self.solver = bs.as_lineax_solver()
        self.one = self.A.with_data(jnp.asarray(problem.data[0])) if problem.batched else self.A

    def mapped(self, data: Any, b: Any) -> Any:
        return JaxPeer.mapped(self, data, b)

    def solve(self, data: Any, b: Any) -> Any:
        return lineax.linear_solve(bs.as_lineax_operator(self.one.with_data(data)), b, self.solver).value
