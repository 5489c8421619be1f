"""Which engine is the quickest, and what does "auto" take?

For every problem and every method that can take it: set-up, solve and adjoint solve of a new pattern ("first"), and of
other values on the known pattern ("step", as in training). Methods that iterate go on to a true relative residual of
1e-10; direct ones are judged by their backward error, and are much more accurate. Times are those of the processor, one
thread, in rounds that take turns; the worst true residual, of the solve or its adjoint, stands beside them. A method
that took more than a limit on a problem is left out on larger ones of its kind.

Writes results/choice.json; --render makes choice.md of it, with what "auto" takes now. The thresholds of select.py
are read from there.

    OMP_NUM_THREADS=1 BACKSOLVE_NUM_THREADS=1 python benchmarks/choice.py [--only TEXT] [--rounds N]
    python benchmarks/choice.py --render
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import quantiles
from typing import Any

import numpy as np
import scipy.sparse as sp
from problems import RESULTS, laplacian, matrix, write

import backsolve as bs
from backsolve.methods.availability import installed
from backsolve.preconditioners import AMG, MIC
from backsolve.select import choose_method

RTOL = 1e-10
LIMIT = 4.0  # seconds of a round after which a method is left out on larger problems of the kind
SLOW = 0.7  # seconds of a round after which one round is enough
WITHIN = 1.5  # times the quickest that "auto" may take

DIRECT = {name: name for name in ("superlu", "pardiso", "klu") if installed(name)}
ITERATIVE: dict[str, dict[str, Any]] = {
    "spd": {
        "cg + mic": bs.CG(M=MIC(0.99), rtol=RTOL),
        "cg + ruge_stuben": bs.CG(M=AMG("ruge_stuben"), rtol=RTOL),
        "cg + smoothed_aggregation": bs.CG(M=AMG("smoothed_aggregation"), rtol=RTOL),
    },
    "general": {"bicgstab + ilu0": bs.BiCGStab(M="ilu0", rtol=RTOL)},
}


def cube(m: int, convection: float = 0.0) -> sp.csr_array:
    """Seven-point Laplacian on m x m x m points, with central differences of a constant wind along all axes."""
    line = sp.diags_array([-1.0 - convection, 2.0, -1.0 + convection], offsets=[-1, 0, 1], shape=(m, m))
    return sp.csr_array(sp.kronsum(laplacian(m, convection), line))


def rough(m: int, axes: int) -> sp.csr_array:
    """-div(k grad u) on m points along each axis, log k of standard deviation 2 and smooth over some points."""
    rng = np.random.default_rng(0)
    k = rng.standard_normal((m,) * axes)
    for axis in range(axes):
        for _ in range(4):
            k = (np.roll(k, 1, axis) + 2 * k + np.roll(k, -1, axis)) / 4
    k = np.exp(2 * k / k.std()).ravel()
    step = sp.diags_array([1.0, -1.0], offsets=[0, -1], shape=(m + 1, m))
    mean = abs(step) / 2
    A = sp.csr_array((m**axes, m**axes))
    for axis in range(axes):
        along = [sp.eye_array(m)] * axes
        grad, average = (_kron([*along[:axis], one, *along[axis + 1 :]]) for one in (step, mean))
        A = A + grad.T @ sp.diags_array(average @ k) @ grad
    return sp.csr_array(A)


def _kron(parts: list) -> sp.csr_array:
    whole = parts[0]
    for part in parts[1:]:
        whole = sp.kron(whole, part)
    return sp.csr_array(whole)


def network(n: int) -> sp.csr_array:
    """Conductances of a grid of lines: a tree, a third as many lines more, mostly short, and some hubs."""
    rng = np.random.default_rng(0)
    at = np.arange(1, n)
    tree = at - 1 - (rng.random(n - 1) * np.minimum(at, 50)).astype(int)
    i = rng.integers(0, n - 200, n // 3)
    j = np.where(rng.random(n // 3) < 0.02, rng.integers(0, 20, n // 3), i + rng.integers(1, 200, n // 3))
    rows, columns = np.concatenate([at, i]), np.concatenate([tree, j])
    g = np.exp(rng.standard_normal(len(rows)))
    W = sp.csr_array((g, (rows, columns)), shape=(n, n))
    W = W + W.T
    return sp.csr_array(sp.diags_array(W.sum(axis=1) + 1e-3) - W)


MADE: dict[str, Callable[..., sp.csr_array]] = {
    "poisson2d": laplacian, "convection2d": lambda m: laplacian(m, 0.5), "rough2d": lambda m: rough(m, 2),
    "poisson3d": cube, "convection3d": lambda m: cube(m, 0.5), "rough3d": lambda m: rough(m, 3), "network": network,
}  # fmt: skip
PLANE, BATCHED, SPACE = (32, 64, 100, 150, 256, 512), (32, 64, 100, 150), (8, 12, 16, 20, 24, 32, 48, 64)
CASES: list[tuple[str, str, int, int]] = [
    *((kind, assume, m, 1) for kind in ("poisson2d", "rough2d") for assume in ("spd", "general") for m in PLANE),
    *(("convection2d", "general", m, 1) for m in PLANE),
    *((kind, assume, m, 1) for kind in ("poisson3d", "rough3d") for assume in ("spd", "general") for m in SPACE),
    *(("convection3d", "general", m, 1) for m in SPACE),
    *(("network", assume, n, 1) for assume in ("spd", "general") for n in (1_000, 10_000, 100_000)),
    *(("poisson2d", "spd", m, 64) for m in BATCHED), *(("convection2d", "general", m, 64) for m in BATCHED),
    *(("poisson3d", "spd", m, 16) for m in SPACE[:4]), *(("convection3d", "general", m, 16) for m in SPACE[:4]),
    *(
        (name, "general", 0, 1)
        for name in (
            "1138_bus", "case2869pegase_Bdc", "west0989", "gre_1107", "orsirr_1", "sherman4", "pde2961", "nos6",
            "jpwh_991", "fs_680_2", "dw256B", "rw5151",
        )
    ),
]  # fmt: skip
"""(problem, declared, points along an axis or nodes, items of the batch)"""


def label(case: tuple[str, str, int, int]) -> str:
    name, assume, m, items = case
    side = {"2d": f" {m}²", "3d": f" {m}³"}.get(name[-2:], f" {m:,}" if m else "")
    return f"{f'{items} x ' if items > 1 else ''}{name.removesuffix('2d').removesuffix('3d')}{side}, {assume}"


def problem(case: tuple[str, str, int, int]) -> sp.csr_array | None:
    A = MADE[case[0]](case[2]) if case[0] in MADE else matrix(case[0], None)
    if A is not None:
        A.eliminate_zeros()
        A.sort_indices()
    return A


def values(A: sp.csr_array, items: int, assume: str, turn: int) -> np.ndarray:
    """Values near those of A, others in each turn: D A D for definite ones."""
    rng = np.random.default_rng(turn)
    batch = (items,) if items > 1 else ()
    if assume != "spd":
        return A.data * (1 + 0.01 * rng.standard_normal((*batch, A.nnz)))
    d = 1 + 0.1 * rng.random((*batch, A.shape[0]))
    return A.data * d[..., np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))] * d[..., A.indices]


def operator(A: sp.csr_array, data: np.ndarray, assume: str) -> Any:
    """On a Pattern of its own."""
    return bs.CSR(data, A.indices.astype(np.int32), A.indptr.astype(np.int32), A.shape).assume(assume)


class Run:
    """One method on one problem: a first solve on a new pattern, then steps with other values."""

    def __init__(self, A: sp.csr_array, case: tuple, method: Any):
        self.A, self.case, self.method = A, case, method
        self.times: dict[str, list[float]] = {"first": [], "step": []}
        self.residual, self.reason = 0.0, ""

    def round(self, turn: int) -> None:
        _, assume, _, items = self.case
        rng = np.random.default_rng(100 + turn)
        shape = (items, self.A.shape[0], 1) if items > 1 else (self.A.shape[0],)
        b, g = rng.standard_normal((2, *shape))
        first, other = (values(self.A, items, assume, 2 * turn + k) for k in (0, 1))
        op = operator(self.A, first, assume)
        try:
            self._timed("first", op, b, g)
            self._timed("step", op.with_data(other), b, g)
        except (bs.SolveError, ValueError, MemoryError) as error:
            self.reason = f"{type(error).__name__}: {error}"[:160]

    def _timed(self, step: str, op: Any, b: np.ndarray, g: np.ndarray) -> None:
        """Factors are dropped at the end, as after a step of training."""
        begin = time.process_time()
        F = bs.factorize(op, method=self.method)
        x, lam = F.solve(b), F.adjoint.solve(g)
        self.times[step].append(time.process_time() - begin)
        for v, right, turned in ((x, b, False), (lam, g, True)):
            for row, y, c in zip(np.atleast_2d(op.data), v.reshape(-1, len(v) if v.ndim == 1 else v.shape[1]),
                                 right.reshape(-1, self.A.shape[0]), strict=True):  # fmt: skip
                M = sp.csr_array((row, self.A.indices, self.A.indptr), shape=self.A.shape)
                r = c - (M.T if turned else M) @ y
                self.residual = max(self.residual, float(np.linalg.norm(r) / np.linalg.norm(c)))

    @property
    def longest(self) -> float:
        return max((t[0] for t in self.times.values() if t), default=0.0)

    def told(self) -> dict[str, Any]:
        if self.reason:
            return {"failed": self.reason}
        return {"residual": self.residual} | {step: _spread(t) for step, t in self.times.items()}


def _spread(seconds: list[float]) -> dict[str, float]:
    low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {"low": 1e3 * low, "median": 1e3 * middle, "high": 1e3 * high, "rounds": len(seconds)}


def measure(rounds: int, only: str, table: dict[str, Any]) -> None:
    """Put what is found into the table, and keep it after every problem."""
    given_up: set[tuple] = set()
    for case in CASES:
        name, assume, _, items = case
        if only not in label(case) or (A := problem(case)) is None:
            continue
        kind = (name, assume, items)
        ways = DIRECT | (ITERATIVE[assume] if items == 1 else {})
        runs = {w: Run(A, case, m) for w, m in ways.items() if (*kind, w) not in given_up}
        for turn in range(rounds):
            for run in runs.values():
                if not run.reason and (turn == 0 or run.longest < SLOW):
                    run.round(turn)
        given_up |= {(*kind, w) for w, run in runs.items() if run.longest > LIMIT}
        left_out = {"failed": f"more than {LIMIT:g} s on a smaller one"}
        told = {w: runs[w].told() if w in runs else left_out for w in ways}
        table[label(case)] = {"case": case, "n": A.shape[0], "nnz": A.nnz, "ways": told}
        shown = {w: [round(t[s]["median"], 1) for s in ("first", "step") if s in t] for w, t in told.items()}
        print(label(case), shown, flush=True)
        keep(table)


def keep(table: dict[str, Any]) -> None:
    threads = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "BACKSOLVE_NUM_THREADS")}
    write("choice", {"threads": threads, "rtol": RTOL, "limit_seconds": LIMIT, "problems": table})


def way_of(method: Any) -> str:
    """The name of the way that a method object is."""
    M = getattr(method, "M", None)
    return method.name if M is None else f"{method.name} + {getattr(M, 'kind', getattr(M, 'name', M))}"


def chosen(case: tuple) -> str:
    """What "auto" takes for one solve."""
    A = problem(case)
    return way_of(choose_method(operator(A, values(A, case[3], case[1], 0), case[1]), columns=1))


def render(table: dict[str, Any]) -> str:
    """The page: times, and what "auto" takes beside the quickest."""
    text = [
        "# What is quickest, and what auto takes\n",
        "Made by `benchmarks/choice.py --render` of `choice.json`. Milliseconds of processor time, one thread: set-up,",
        "solve and adjoint of a new pattern / of other values on it; in brackets the worst true residual. The quickest",
        f"in each sense is bold. Cells where auto takes more than {WITHIN} times the quickest are listed below.\n",
    ]
    ways = list(dict.fromkeys([*DIRECT, *ITERATIVE["spd"], *ITERATIVE["general"]]))
    text.append("| problem | n | " + " | ".join(ways) + " | auto | first, step over the quickest |")
    text.append("|" + "---|" * (len(ways) + 4))
    outside = []
    for name, row in table.items():
        done = {w: t for w, t in row["ways"].items() if "first" in t}
        if not done:
            text.append(f"| {name} | {row['n']:,} | {'– | ' * len(ways)}{row['auto']} | |")
            continue
        best = {step: min(t[step]["median"] for t in done.values()) for step in ("first", "step")}
        cells = []
        for w in ways:
            told = row["ways"].get(w)
            if told is None or "first" not in told:
                cells.append("" if told is None else "–")
                continue
            shown = [f"**{t:.3g}**" if (t := told[s]["median"]) == best[s] else f"{t:.3g}" for s in ("first", "step")]
            cells.append(f"{' / '.join(shown)} ({told['residual']:.0e})")
        auto = row["auto"]
        ratios = [done[auto][s]["median"] / best[s] if auto in done else float("nan") for s in ("first", "step")]
        text.append(
            f"| {name} | {row['n']:,} | " + " | ".join(cells) + f" | {auto} | {ratios[0]:.2f}, {ratios[1]:.2f} |"
        )
        both = [w for w, t in done.items() if all(t[s]["median"] <= WITHIN * best[s] for s in best)]
        for step, ratio in zip(("first", "step"), ratios, strict=True):
            if not ratio <= WITHIN:
                quickest = min(done, key=lambda w: done[w][step]["median"])
                other = f"in both senses only {', '.join(both)}" if both else "none is within it in both senses"
                outside.append(f"- {name}, {step}: {auto} takes {ratio:.2f} of {quickest}; {other}")
    heading = f"\n## Where auto takes more than {WITHIN} times the quickest: {len(outside)} of {2 * len(table)} cells\n"
    text += [heading, *outside]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="text that the names of problems must contain; others stay as kept")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    path = RESULTS / "choice.json"
    kept = json.loads(path.read_text()) if path.exists() else {"problems": {}}
    table = kept["problems"]
    if not args.render:
        measure(args.rounds, args.only, table)
        kept = json.loads(path.read_text())
    for row in table.values():
        row["auto"] = chosen(tuple(row["case"]))
    path.write_text(json.dumps(kept | {"problems": table}, indent=1) + "\n")
    (RESULTS / "choice.md").write_text(render(table))


if __name__ == "__main__":
    main()
