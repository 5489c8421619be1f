"""What keeps a small solve in torch above its engine calls?

n = 100, about 500 stored entries, float64: one training step, ``bs.solve(A.with_data(w), b).backward(g)``, with a timer
around each part. Time is charged to the innermost part only, so the parts add up to the step; the cost of the timers,
by which the step is slower with them than without, is taken off in proportion to their number.

Beside it, in the same rounds: the engine calls by hand, alone and in an autograd.Function, where the engine itself is
slower since torch has been through the caches; and a Function of the same inputs that computes nothing. Means over
the quickest quarter, in microseconds. Writes results/overhead_profile.json.

    python benchmarks/overhead_profile.py [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from problems import write

import backsolve as bs
from backsolve import api, calculus, plan
from backsolve.frontends import torch as frontend
from backsolve.frontends import torch_functions
from backsolve.methods import direct, superlu
from backsolve.operators import AbstractLinearOperator
from backsolve.pattern import Pattern

N = 100
BURST = 20
INSIDE = 0.35  # share of the time of a timer that falls into its own part, the rest into the part around it

PARTS: list[tuple[str, Any, str]] = [
    ("with_data", AbstractLinearOperator, "with_data"),
    ("bs.solve itself", api, "solve"),
    ("dispatch: frontend, operator, checks of shapes", api, "inputs"),
    ("plan: checks of options, choice of method", api, "make_plan"),
    ("torch frontend: dtype, device, layout", frontend, "solve"),
    ("torch frontend: dtype, device, layout", frontend, "layout_of"),
    ("torch: apply, setup, save", torch_functions._Solve, "record"),
    ("torch: apply, setup, save", torch_functions._Solve, "setup_context"),
    ("backward of the Function", torch_functions._Solve, "backward"),
    ("backward of the Function", calculus, "solve_vjp"),
    ("views of tensors as arrays and back", torch_functions.Call, "run"),
    ("views of tensors as arrays and back", torch_functions._Outer, "forward"),
    ("plan: operator, state, policies", plan.Plan, "run"),
    ("plan: operator, state, policies", plan.Factored, "state"),
    ("prepare: checks, ordering, containers", direct.DirectMethod, "prepare"),
    ("prepare: checks, ordering, containers", superlu.SuperLU, "factor"),
    ("prepare: scan for what is not finite", Pattern, "finite_items"),
    ("prepare: CSC matrix", superlu, "_columns"),
    ("apply: containers around engine and kernels", direct.DirectMethod, "apply"),
    ("apply: verdict", direct, "settled"),
    ("kernel: residual and norms", Pattern, "residual"),
    ("kernel: sampled outer product", Pattern, "outer"),
]
FACTOR, SOLVE, BACKWARD = "engine: splu", "engine: solve", "torch: backward and gradient accumulation"


class Clock:
    """Charges time to the innermost part that runs, and counts what its own timers add to whom."""

    def __init__(self):
        self.spent: dict[str, float] = {}
        self.timers: dict[str, float] = {}
        self._open: list[list[Any]] = []

    def around(self, label: str, call: Callable) -> Callable:
        self.spent.setdefault(label, 0.0)
        self.timers.setdefault(label, 0.0)

        def timed(*args, **kwargs):
            begin = time.perf_counter()
            self._open.append([label, 0.0])
            try:
                return call(*args, **kwargs)
            finally:
                inner = self._open.pop()[1]
                taken = time.perf_counter() - begin
                self.spent[label] += taken - inner
                self.timers[label] += INSIDE
                if self._open:
                    self._open[-1][1] += taken
                    self.timers[self._open[-1][0]] += 1 - INSIDE

        return timed

    def take(self) -> tuple[dict[str, float], dict[str, float]]:
        """Microseconds of each part since the last call, and how many timers are in them."""
        taken = {label: 1e6 * spent for label, spent in self.spent.items()}, self.timers
        self.spent, self.timers = dict.fromkeys(self.spent, 0.0), dict.fromkeys(self.spent, 0.0)
        return taken


class TimedLU:
    """A SuperLU object whose solves are charged to the engine."""

    def __init__(self, clock: Clock, lu: Any):
        self.solve, self.nnz = clock.around(SOLVE, lu.solve), lu.nnz


def timed_parts(clock: Clock) -> list[tuple[Any, str, Any, Any]]:
    """(owner, name, as it is, with a timer) of each part."""
    swaps = []
    for label, owner, name in PARTS:
        as_it_is = vars(owner).get(name) if isinstance(owner, type) else getattr(owner, name)
        bare = isinstance(as_it_is, staticmethod) or as_it_is is None  # a classmethod is inherited: bind it
        timed = clock.around(label, getattr(owner, name) if bare else as_it_is)
        swaps.append((owner, name, as_it_is, staticmethod(timed) if bare else timed))
    factor = clock.around(FACTOR, sla.splu)
    swaps.append((sla, "splu", sla.splu, lambda *args, **kwargs: TimedLU(clock, factor(*args, **kwargs))))
    return swaps


def put(swaps: list[tuple[Any, str, Any, Any]], timed: bool) -> None:
    for owner, name, as_it_is, with_timer in swaps:
        if not timed and as_it_is is None:
            delattr(owner, name)
        else:
            setattr(owner, name, with_timer if timed else as_it_is)


class Nothing(torch_functions.Function):
    """A Function that takes what `_Solve` takes, saves what it saves, and computes nothing."""

    @staticmethod
    def forward(data, b, *_):  # type: ignore[override]
        return torch.from_numpy(Nothing.x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        _ = ctx.saved_tensors
        return Nothing.bar, None, None, None, None, None

    x: np.ndarray
    bar: torch.Tensor


class ByHand(torch_functions.Function):
    """What somebody would write for this one matrix: the engine calls and the gather, nothing checked."""

    @staticmethod
    def forward(data, b, factor):  # type: ignore[override]
        ByHand.lu = factor(data.detach().numpy())
        return torch.from_numpy(ByHand.lu.solve(b.numpy()))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.lu = ByHand.lu
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        lam = ctx.lu.solve(g.numpy(), "T")
        return torch.from_numpy(-lam[ByHand.rows] * x.numpy()[ByHand.columns]), None, None

    lu: Any
    rows: np.ndarray
    columns: np.ndarray


def steps(clock: Clock) -> tuple[dict[str, Callable], Callable]:
    """The steps to be compared, and the one for the timers."""
    rng = np.random.default_rng(0)
    M = sp.csr_array(sp.random_array((N, N), density=0.04, rng=rng) + 5 * sp.eye_array(N))
    M.sort_indices()
    b, g = rng.standard_normal((2, N))
    A = bs.CSR(M.data, M.indices, M.indptr, M.shape)
    rows, pattern = A.pattern.rows, A.pattern
    ordering, threshold, _ = bs.SuperLU().plan(A)
    columns = sp.csc_matrix((M.data[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=M.shape)
    options = {
        "permc_spec": ordering.upper(),
        "diag_pivot_thresh": threshold,
        "options": {"SymmetricMode": ordering == "mmd_at_plus_a"},
        **superlu.blocking(pattern.nnz),
    }
    leaf = torch.tensor(M.data, requires_grad=True)
    bt, gt = torch.from_numpy(b), torch.from_numpy(g)
    Nothing.x, Nothing.bar = np.zeros(N), torch.zeros_like(leaf)
    ByHand.rows, ByHand.columns = rows, M.indices

    def factor(data):
        columns.data = data[pattern.t_slot]
        return sla.splu(columns, **options)

    def by_hand():
        f = factor(M.data)
        x, lam = f.solve(b), f.solve(g, "T")
        return -lam[rows] * x[M.indices]

    def by_hand_in_torch():
        leaf.grad = None
        ByHand.record(leaf, bt, factor).backward(gt)

    def step():
        leaf.grad = None
        bs.solve(A.with_data(leaf), bt).backward(gt)

    def floor():
        leaf.grad = None
        Nothing.record(leaf, bt, None, None, False, False).backward(gt)

    def public_floor():
        leaf.grad = None
        Nothing.apply(leaf, bt, None, None, False, False).backward(gt)  # type: ignore[attr-defined]

    backward = clock.around(BACKWARD, torch.Tensor.backward)

    def timed_step():
        leaf.grad = None
        backward(api.solve(A.with_data(leaf), bt), gt)

    return {
        "engine by hand": by_hand,
        "engine by hand, in a torch Function": by_hand_in_torch,
        "step": step,
        "torch floor": floor,
        "torch floor, Function.apply": public_floor,
    }, clock.around("harness", timed_step)


def measure(rounds: int) -> tuple[dict[str, np.ndarray], list[tuple[dict[str, float], dict[str, float]]]]:
    """Times of each step in each round, and the parts of the timed one."""
    clock = Clock()
    swaps = timed_parts(clock)
    calls, timed_step = steps(clock)
    times = {name: [] for name in (*calls, "step with timers")}
    parts = []
    for _ in range(rounds):
        for name, call in calls.items():
            times[name] += burst(call)
        put(swaps, timed=True)
        times["step with timers"] += burst(timed_step, lambda: parts.append(clock.take()))
        put(swaps, timed=False)
    del parts[:: BURST + 1]
    return {name: np.array(taken) for name, taken in times.items()}, parts


def burst(call: Callable, after: Callable = lambda: None) -> list[float]:
    """Times of a few calls in a row, as in a training loop; the first, with cold caches, does not count."""
    taken = []
    for _ in range(BURST + 1):
        begin = time.perf_counter()
        call()
        taken.append(1e6 * (time.perf_counter() - begin))
        after()
    return taken[1:]


def quickest(values: np.ndarray) -> np.ndarray:
    """Places of the quickest quarter."""
    return np.argsort(values)[: max(1, len(values) // 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    times, parts = measure(rounds)
    whole = {name: float(t[quickest(t)].mean()) for name, t in times.items()}
    chosen = [parts[i] for i in quickest(times["step with timers"])]
    timers = {label: float(np.mean([count[label] for _, count in chosen])) for label in chosen[0][0]}
    timer = (whole["step with timers"] - whole["step"]) / sum(timers.values())
    table = {label: float(np.mean([spent[label] for spent, _ in chosen])) - timer * timers[label] for label in timers}
    by_hand, in_torch = whole["engine by hand"], whole["engine by hand, in a torch Function"]
    sums = {
        "sum of the parts": sum(table.values()),
        "engine within the step": table[FACTOR] + table[SOLVE],
        "step above the engine by hand": whole["step"] - by_hand,
        "step above the engine by hand, in a torch Function": whole["step"] - in_torch,
    }
    for label, taken in (*whole.items(), *table.items(), *sums.items()):
        print(f"{label:52s} {taken:8.1f} us")
    content = {
        "n": N,
        "rounds": rounds,
        "calls_per_round": BURST,
        "whole_us": whole,
        "median_us": {name: float(np.median(t)) for name, t in times.items()},
        "parts_us": table,
        "sums_us": sums,
        "one_timer_us": timer,
    }
    print("kept in", write("overhead_profile", content))


if __name__ == "__main__":
    main()
