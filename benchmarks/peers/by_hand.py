"""The floor: engines called by hand, without checks. Factor, solve, solve with the adjoint, gather the gradient."""

from __future__ import annotations

from ctypes import byref, c_int32, c_void_p
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from worker import Clock, Problem


class SuperLU:
    """SciPy's ``splu`` with the ordering, pivoting and block sizes that backsolve chooses."""

    def __init__(self, problem: Problem):
        self.problem, self.options = problem, problem.superlu
        self.factorizations = len(problem.items)
        self.detail = f"splu({', '.join(f'{k}={v}' for k, v in self.options.items())})"
        self.stages(problem.data, Clock())

    def stages(self, values: np.ndarray, clock: Clock) -> None:
        """Once for a pattern: where its entries go in CSC."""
        p = self.problem
        with clock("set-up"):
            self.rows = p.rows
            order = sp.csc_array(sp.csr_array((np.arange(len(p.indices)), p.indices, p.indptr), shape=(p.n, p.n)))
            self.slots, self.csc = order.data, (order.indices, order.indptr)

    def factor(self, values: np.ndarray) -> Any:
        n = self.problem.n
        return sla.splu(sp.csc_array((values[self.slots], *self.csc), shape=(n, n)), **self.options)

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        p = self.problem
        x, adjoint, gradient = np.empty_like(p.b), np.empty_like(p.b), np.empty_like(values)
        with clock("factor"):
            made = [self.factor(values[item] if p.batched else values) for item in p.items]
        with clock("solve"):
            for lu, item in zip(made, p.items, strict=True):
                x[item] = lu.solve(p.b[item].ravel())
        with clock("adjoint"):
            for lu, item in zip(made, p.items, strict=True):
                adjoint[item] = lu.solve(p.g[item].ravel(), "H")
        with clock("gradient"):
            for item in p.items:
                gradient[item] = -adjoint[item].ravel()[self.rows] * x[item].ravel()[p.indices].conj()
        return x, adjoint, gradient


class Pardiso:
    """MKL's Pardiso through the library that pypardiso loads, with backsolve's matrix type and settings."""

    def __init__(self, problem: Problem):
        from pypardiso import PyPardisoSolver

        p = self.problem = problem
        self.call = PyPardisoSolver().libmkl.pardiso
        self.call.argtypes, self.call.restype = None, None
        real, spd = p.data.dtype.kind == "f", p.assume == "spd"
        self.kind = (2 if spd else 11) if real else (4 if spd else 13)
        self.detail = f"mtype {self.kind}"
        # (n,) rows of all entries, and the slots of those that the engine gets.
        self.rows = p.rows
        keep = np.flatnonzero(p.indices >= self.rows) if spd else np.arange(len(p.indices))
        counts = np.bincount(self.rows[keep], minlength=p.n)
        self.slots, self.indices = keep, p.indices[keep].astype(np.int32)
        self.indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.pt = np.zeros(64, np.int64)
        self.stages(p.data, Clock())

    def run(self, phase: int, number: int, a: np.ndarray, b: np.ndarray, x: np.ndarray) -> None:
        error, n = c_int32(0), c_int32(self.problem.n)
        places, one, zero = c_int32(len(self.problem.items)), c_int32(1), c_int32(0)
        pointers = [c_void_p(v.ctypes.data) for v in (a, self.indptr, self.indices)]
        self.call(
            c_void_p(self.pt.ctypes.data), byref(places), byref(c_int32(number + 1)), byref(c_int32(self.kind)),
            byref(c_int32(phase)), byref(n), *pointers, None, byref(one), c_void_p(self.iparm.ctypes.data),
            byref(zero), c_void_p(b.ctypes.data), c_void_p(x.ctypes.data), byref(error),
        )  # fmt: skip
        if error.value:
            raise RuntimeError(f"Pardiso returned error {error.value} in phase {phase}")

    def stages(self, values: np.ndarray, clock: Clock) -> None:
        """Once for a pattern: its analysis."""
        a = self.numbers(values, 0)
        empty = np.empty(0, a.dtype)
        if self.pt.any():
            self.run(-1, 0, a, empty, empty)
        self.pt[:] = 0
        self.iparm = np.zeros(64, np.int32)
        matching = int(self.kind in (11, 13))
        for place, value in {1: 1, 2: 2, 10: 13, 11: matching, 13: matching, 21: 1, 35: 1}.items():
            self.iparm[place - 1] = value
        with clock("set-up"):
            self.run(11, 0, a, empty, empty)

    def numbers(self, values: np.ndarray, item: int | None) -> np.ndarray:
        return np.ascontiguousarray(np.atleast_2d(values)[item or 0][self.slots])

    def step(self, values: np.ndarray, clock: Clock) -> tuple[np.ndarray, ...]:
        p = self.problem
        b, g = np.atleast_2d(p.b), np.atleast_2d(p.g)
        x, adjoint = np.empty_like(b), np.empty_like(b)
        gradient = np.empty_like(np.atleast_2d(values))
        empty = np.empty(0, values.dtype)
        with clock("factor"):
            kept = [self.numbers(values, item) for item in p.items]
            for number, a in enumerate(kept):
                self.run(22, number, a, empty, empty)
        self.iparm[11] = 0
        with clock("solve"):
            for number, a in enumerate(kept):
                self.run(33, number, a, b[number], x[number])
        self.iparm[11] = 1 if self.kind in (11, 13) else 0  # with the conjugate transpose
        with clock("adjoint"):
            for number, a in enumerate(kept):
                self.run(33, number, a, g[number], adjoint[number])
        self.iparm[11] = 0
        with clock("gradient"):
            for number in range(len(kept)):
                gradient[number] = -adjoint[number][self.rows] * x[number][p.indices].conj()
        return x.reshape(p.b.shape), adjoint.reshape(p.b.shape), gradient.reshape(values.shape)
