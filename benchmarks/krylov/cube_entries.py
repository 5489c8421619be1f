"""One way to solve a three-dimensional problem, in a process of its own: ``cube_entries.py ENTRY PROBLEM.npz ROUNDS``.

Prints a line of JSON: milliseconds of the processor for set-up, forward and adjoint, the growth of peak memory,
residuals of x and of the adjoint, and iterations where the entry tells. Needs NumPy, SciPy and what the entry needs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

sys.path[:0] = [str(Path(__file__).parents[1] / "peers"), str(Path(__file__).parents[1])]

from measure import relative_residual, spread, timed  # noqa: E402
from worker import reason, resident  # noqa: E402

RTOL = 1e-10
MEMORY = 8 * 2**30
"""Bytes that an entry may have."""

OURS = ("backsolve amg-cg", "backsolve ruge-stuben-cg", "backsolve mic-cg", "backsolve cg", "backsolve pardiso")
PEERS = ("torch-sla cg", "jax cg", "lineax cg")


class Ours:
    """`factorize`, then solves in torch with its factors or its M."""

    def __init__(self, A: sp.csr_array, name: str):
        import torch

        import backsolve as bs
        from backsolve.preconditioners import AMG

        torch.set_num_threads(1)
        M: Any = {"amg": "amg", "ruge-stuben": AMG("ruge_stuben"), "mic": "mic"}.get(name.removesuffix("-cg"))
        self.torch, self.bs = torch, bs
        self.options = {"method": "pardiso"} if name == "pardiso" else {"method": "cg", "M": M, "rtol": RTOL}
        self.A = bs.CSR(A.data, A.indices, A.indptr, A.shape).assume("spd")

    def set_up(self) -> None:
        data = self.torch.tensor(self.A.data, requires_grad=True)
        self.F = self.bs.factorize(self.A.with_data(data), **self.options)

    def forward(self, b: np.ndarray) -> np.ndarray:
        self.b = self.torch.tensor(b, requires_grad=True)
        self.sol = self.F.solve_with_info(self.b)
        return self.sol.x.detach().numpy()

    def adjoint(self, g: np.ndarray) -> np.ndarray:
        self.sol.x.backward(self.torch.from_numpy(g))
        return self.b.grad.numpy()

    def iterations(self) -> Any:
        if self.options["method"] == "pardiso":
            return None
        return int(self.sol.stats.iterations), int(self.sol.adjoint.stats.iterations)


class TorchSla:
    """``torch_sla.spsolve`` with its own CG, which stops at 1e-10."""

    def __init__(self, A: sp.csr_array):
        import torch

        torch.set_num_threads(1)
        self.torch, self.n = torch, A.shape[0]
        self.rows = torch.from_numpy(np.repeat(np.arange(self.n), np.diff(A.indptr)))
        self.indices = torch.from_numpy(A.indices.astype(np.int64))
        self.data = torch.tensor(A.data, requires_grad=True)

    def set_up(self) -> None:
        self.data.grad = None

    def forward(self, b: np.ndarray) -> np.ndarray:
        from torch_sla import spsolve

        self.b = self.torch.tensor(b, requires_grad=True)
        options = {"backend": "pytorch", "method": "cg", "atol": 0.0, "maxiter": 20_000}
        self.x = spsolve(self.data, self.rows, self.indices, (self.n, self.n), self.b, **options)
        return self.x.detach().numpy()

    def adjoint(self, g: np.ndarray) -> np.ndarray:
        self.x.backward(self.torch.from_numpy(g))
        return self.b.grad.numpy()

    def iterations(self) -> Any:
        return None


class Jax:
    """``jax.scipy.sparse.linalg.cg`` or ``lineax.CG``, compiled, with a product by gather and sums of segments."""

    def __init__(self, A: sp.csr_array, name: str):
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        n, rows, indices = A.shape[0], np.repeat(np.arange(A.shape[0]), np.diff(A.indptr)), A.indices
        self.jax, self.data, self.steps = jax, jnp.asarray(A.data), None

        def solve(data: Any, b: Any) -> tuple[Any, Any]:
            def product(v: Any) -> Any:
                return jax.ops.segment_sum(data * v[indices], rows, n, indices_are_sorted=True)

            if name == "jax":
                return jax.scipy.sparse.linalg.cg(product, b, tol=RTOL, atol=0.0, maxiter=20_000)[0], None
            import lineax as lx

            operator = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: b), lx.positive_semidefinite_tag)
            sol = lx.linear_solve(operator, b, lx.CG(rtol=RTOL, atol=0.0, max_steps=20_000))
            return sol.value, sol.stats["num_steps"]

        self.forward_program = jax.jit(lambda data, b: jax.vjp(solve, data, b, has_aux=True))
        self.backward_program = jax.jit(lambda pull, g: pull(g))

    def set_up(self) -> None:
        pass

    def forward(self, b: np.ndarray) -> np.ndarray:
        x, self.pull, self.steps = self.jax.block_until_ready(self.forward_program(self.data, b))
        return np.asarray(x)

    def adjoint(self, g: np.ndarray) -> np.ndarray:
        return np.asarray(self.jax.block_until_ready(self.backward_program(self.pull, g))[1])

    def iterations(self) -> Any:
        return None if self.steps is None else (int(self.steps), None)


def make(entry: str, A: sp.csr_array) -> Any:
    if entry in OURS:
        return Ours(A, entry.removeprefix("backsolve "))
    return TorchSla(A) if entry == "torch-sla cg" else Jax(A, entry.split()[0])


def main(entry: str, problem: str, rounds: str) -> dict[str, Any]:
    with np.load(problem) as file:
        A = sp.csr_array((file["data"], file["indices"], file["indptr"]))
        b, g = file["b"], file["g"]
    way = make(entry, A)
    if isinstance(way, Jax):  # compilation is no part of what is timed
        way.forward(b)
        way.adjoint(g)
    else:  # first use, on something small
        small = make(entry, sp.csr_array(sp.diags_array([2.0] * 8)))
        small.set_up(), small.forward(b[:8]), small.adjoint(g[:8])
    Path("/proc/self/clear_refs").write_text("5")
    before, taken = resident("VmRSS"), {"set_up": [], "forward": [], "adjoint": []}
    for _ in range(int(rounds)):
        taken["set_up"].append(timed(way.set_up)[0])
        seconds, x = timed(lambda: way.forward(b))
        taken["forward"].append(seconds)
        seconds, lam = timed(lambda: way.adjoint(g))
        taken["adjoint"].append(seconds)
    return {
        **{stage: spread(seconds) for stage, seconds in taken.items()},
        "peak_megabytes": resident("VmHWM") - before,
        "residual": relative_residual(A, x, b),
        "adjoint_residual": relative_residual(A.T, lam, g),
        "iterations": way.iterations(),
        "status": "done",
    }


if __name__ == "__main__":
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        told = main(*sys.argv[1:])
    except Exception as error:
        told = {"status": "failed", "reason": reason(error)}
    print(json.dumps(told), file=talk, flush=True)
