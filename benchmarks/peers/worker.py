"""One way to solve, in a process of its own: ``worker.py SUITE ENTRY``.

Reads a command a line from standard input and answers each with a line of JSON. "load PROBLEM.npz ANSWER.npz" comes
first, for every problem: it makes ready, and solves a tiny problem for what happens at first use only. "first" takes a
step with the values of the problem, measures peak memory and keeps the answer; "step S" takes one with all values
times S; "stages S" times what lies inside of a step, and what a new pattern costs. Needs NumPy and SciPy, and what the
entry needs.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

# entry -> module, class, options, packages that it measures
ENTRIES: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "backsolve auto": ("ours", "Ours", {"method": "auto"}, ("backsolve", "torch")),
    "backsolve superlu": ("ours", "Ours", {"method": "superlu"}, ("backsolve", "scipy")),
    "backsolve pardiso": ("ours", "Ours", {"method": "pardiso"}, ("backsolve", "mkl")),
    "backsolve klu": ("ours", "Ours", {"method": "klu"}, ("backsolve", "PyKLU")),
    "backsolve cg": ("ours", "Ours", {"method": "cg"}, ("backsolve",)),
    "backsolve bicgstab": ("ours", "Ours", {"method": "bicgstab"}, ("backsolve",)),
    "superlu by hand": ("by_hand", "SuperLU", {}, ("scipy",)),
    "pardiso by hand": ("by_hand", "Pardiso", {}, ("pypardiso", "mkl")),
    "klu by hand": ("jax_peers", "KluHandles", {}, ("klujax", "jax")),
    "torch-sla lu": ("torch_peers", "TorchSla", {"backend": "scipy", "method": "lu"}, ("torch-sla", "torch")),
    "torch-sla krylov": ("torch_peers", "TorchSla", {"backend": "pytorch"}, ("torch-sla", "torch")),
    "torchsparsegradutils": ("torch_peers", "SparseGradUtils", {}, ("torchsparsegradutils", "torch")),
    "lineax dense": ("jax_peers", "LineaxDense", {}, ("lineax", "jax")),
    "lineax krylov": ("jax_peers", "LineaxKrylov", {}, ("lineax", "jax")),
    "jax spsolve": ("jax_peers", "Spsolve", {}, ("jax",)),
    "klujax": ("jax_peers", "Klujax", {}, ("klujax", "jax")),
}

# the same in JAX, beside the peers and the floor
JAX_ENTRIES: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
    "backsolve auto": ("ours_jax", "OursInJax", {"method": "auto"}, ("backsolve", "jax")),
    "backsolve in lineax": ("ours_jax", "OursInLineax", {}, ("backsolve", "lineax", "jax")),
    "backsolve cg": ("ours_jax", "OursInJax", {"method": "cg"}, ("backsolve", "jax")),
    "backsolve bicgstab": ("ours_jax", "OursInJax", {"method": "bicgstab"}, ("backsolve", "jax")),
    "superlu by hand": ENTRIES["superlu by hand"],
    "klujax": ENTRIES["klujax"],
    "sparsax": ("jax_peers", "Sparsax", {}, ("sparsax", "jax")),
    "splineax klu": ("jax_peers", "Splineax", {"solver": "KLU"}, ("splineax", "lineax", "jax")),
    "splineax pardiso": ("jax_peers", "Splineax", {"solver": "Pardiso"}, ("splineax", "lineax", "jax")),
    "jax spsolve": ENTRIES["jax spsolve"],
    "lineax dense": ENTRIES["lineax dense"],
    "lineax krylov": ENTRIES["lineax krylov"],
}
SUITES = {"compare": ENTRIES, "jax": JAX_ENTRIES}
"""Entries by the name of what is kept of them."""

RTOL = 1e-12
"""Relative residual that iterative entries are asked for, to be comparable with direct ones."""


class UnfitError(Exception):
    """The entry does not take such a problem; the sentence says why."""


@dataclass
class Problem:
    """A (items?, n, n) in CSR, b and the cotangent g of (items?, n); what is known of A and how SuperLU is to order."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    b: np.ndarray
    g: np.ndarray
    assume: str
    superlu: dict[str, Any]

    @classmethod
    def load(cls, path: str) -> Problem:
        with np.load(path) as file:
            fields = {name: file[name] for name in file.files}
        return cls(**{**fields, "assume": str(fields["assume"]), "superlu": json.loads(str(fields["superlu"]))})

    @property
    def n(self) -> int:
        return len(self.indptr) - 1

    @property
    def batched(self) -> bool:
        return self.data.ndim == 2

    @property
    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(self.n, dtype=self.indices.dtype), np.diff(self.indptr))

    @property
    def items(self) -> list[int | None]:
        """Indices of the systems, for ways that take one at a time: ``data[item]`` works for [None] as well."""
        return list(range(len(self.data))) if self.batched else [None]

    def small(self) -> Problem:
        """A problem of the same kind with four unknowns, for what happens at first use only."""
        A = sp.csr_array(sp.diags_array([[-1.0] * 3, [4.0] * 4, [-1.0] * 3], offsets=[-1, 0, 1]))
        ones = np.ones((2, 4) if self.batched else 4, self.data.dtype)
        data = np.broadcast_to(A.data, (2, A.nnz) if self.batched else A.nnz).astype(self.data.dtype)
        indices, indptr = A.indices.astype(np.int32), A.indptr.astype(np.int32)
        return replace(self, data=data, indices=indices, indptr=indptr, b=ones, g=ones)


class Clock:
    """Seconds of the processor and of the wall by stage."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.process_time(), time.perf_counter()
        yield
        end = time.process_time(), time.perf_counter()
        taken = self.seconds.setdefault(stage, [0.0, 0.0])
        for k in range(2):
            taken[k] += end[k] - begin[k]


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in megabytes."""
    line = next(t for t in Path("/proc/self/status").read_text().splitlines() if t.startswith(field))
    return float(line.split()[1]) / 1024


def make(suite: str, entry: str) -> Any:
    module, name, options, _ = SUITES[suite][entry]
    kind = getattr(import_module(module), name)
    return lambda problem: kind(problem, **options)


class Session:
    """The entry at work: one method for each command."""

    def __init__(self, suite: str, entry: str):
        self.kind, self.packages, self.way = make(suite, entry), SUITES[suite][entry][3], None

    def load(self, problem: str, answer: str) -> dict[str, Any]:
        self.way = None
        gc.collect()
        self.answer, self.problem = answer, Problem.load(problem)
        tiny = self.problem.small()
        self.kind(tiny).step(tiny.data, Clock())
        self.way = self.kind(self.problem)
        if hasattr(self.way, "warm"):
            self.way.warm()
        return {"ready": True}

    def first(self) -> dict[str, Any]:
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # what an earlier problem left would hide growth
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, clock = resident("VmRSS"), Clock()
        x, adjoint, gradient = self.way.step(self.problem.data, clock)
        peak = resident("VmHWM") - before
        np.savez(self.answer, x=x, adjoint=adjoint, gradient=gradient)
        versions = {name: metadata.version(name) for name in self.packages}
        told = {name: getattr(self.way, name, None) for name in ("detail", "factorizations")}
        return {"seconds": clock.seconds, "peak_megabytes": peak, "versions": versions, **told}

    def step(self, scale: str) -> dict[str, Any]:
        values, clock = self.problem.data * float(scale), Clock()
        self.way.step(values, clock)
        return {"seconds": clock.seconds}

    def stages(self, scale: str) -> dict[str, Any]:
        values, clock = self.problem.data * float(scale), Clock()
        if hasattr(self.way, "stages"):
            self.way.stages(values, clock)
        return {"seconds": clock.seconds}


def reason(error: Exception) -> str:
    """The line of a message that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")] or [""]
    told = next((line for line in reversed(lines) if "Error" in line), lines[0])
    return f"{type(error).__name__}: {told[:200]}"


def main() -> None:
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between
    session = None
    for line in sys.stdin:
        command, *arguments = line.split()
        try:
            session = session or Session(*sys.argv[1:])
            told = getattr(session, command)(*arguments)
        except UnfitError as sentence:
            told = {"unfit": str(sentence)}
        except Exception as error:
            told = {"failed": reason(error)}
        print(json.dumps(told), file=talk, flush=True)


if __name__ == "__main__":
    # The adapters import this module too; both names must be one.
    sys.modules["worker"] = sys.modules["__main__"]
    main()
