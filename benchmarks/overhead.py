"""Where do the microseconds of a small solve go?

n = 100, about 500 stored entries, one right-hand side: each layer is timed around the one below it, from the
engine's own calls to ``bs.solve`` with backward in torch. Medians in microseconds; the layers are measured in turn,
round after round, so that a busy machine slows all of them alike. Writes results/overhead.json.

    python benchmarks/overhead.py [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from statistics import median, quantiles

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from problems import write

import backsolve as bs
from backsolve.dispatch import inputs, make_plan
from backsolve.frontends import numpy as host
from backsolve.methods import Target
from backsolve.methods.superlu import blocking
from backsolve.plan import Factored

N = 100


def layers() -> dict:
    """Name -> call, from the engine upwards."""
    rng = np.random.default_rng(0)
    M = sp.csr_array(sp.random_array((N, N), density=0.04, rng=rng) + 5 * sp.eye_array(N))
    M.sort_indices()
    b, g = rng.standard_normal((2, N))
    A = bs.CSR(M.data, M.indices, M.indptr, M.shape)
    pattern, rows = A.pattern, A.pattern.rows
    method = bs.SuperLU()
    plain = A.on(A.data[None])
    ordering, threshold, _ = method.plan(A)
    options = {
        "permc_spec": ordering.upper(),
        "diag_pivot_thresh": threshold,
        "options": {"SymmetricMode": ordering == "mmd_at_plus_a"},
        **blocking(pattern.nnz),
    }
    csc = sp.csc_matrix((M.data[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=M.shape)
    lu, state = sla.splu(csc, **options), method.prepare(plain)
    cube = b.reshape(1, N, 1)
    plan = make_plan(A, "auto", None, None, None, "raise", keep_best=False)
    frontend, _, _ = inputs(A, b, None)
    leaf = torch.tensor(M.data, requires_grad=True)
    At, bt, gt = A.with_data(leaf), torch.from_numpy(b), torch.from_numpy(g)
    x = state.factors.solve(cube, False)
    assert frontend is host

    def by_hand():
        c = sp.csc_matrix((M.data[pattern.t_slot], pattern.t_indices, pattern.t_indptr), shape=M.shape)
        f = sla.splu(c, **options)
        solution, adjoint = f.solve(b), f.solve(g, "T")
        return -adjoint[rows] * solution[M.indices]

    def torch_forward_backward():
        leaf.grad = None
        bs.solve(At, bt).backward(gt)

    def torch_floor():
        leaf.grad = None
        (leaf * 2).backward(leaf.detach())

    return {
        "engine: factor": lambda: sla.splu(csc, **options),
        "engine: solve": lambda: lu.solve(b),
        "engine by hand: factor, two solves, gather": by_hand,
        "kernel: residual and norms": lambda: pattern.residual(plain.data, x, cube),
        "kernel: sampled outer product": lambda: pattern.outer(x, x),
        "method: prepare": lambda: method.prepare(plain),
        "method: apply (solve, residual, verdict)": lambda: method.apply(state, cube, Target()),
        "plan: checks and choice of method": lambda: make_plan(A, "auto", None, None, None, "raise", keep_best=False),
        "frontend: numpy solve": lambda: host.solve(A, b, plan, Factored()),
        "api: bs.solve in numpy": lambda: bs.solve(A, b),
        "api: bs.solve in torch, no gradient": lambda: bs.solve(At.with_data(leaf.detach()), bt),
        "api: bs.solve in torch, forward": lambda: bs.solve(At, bt),
        "api: bs.solve in torch, forward and backward": torch_forward_backward,
        "torch itself: multiply, forward and backward": torch_floor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    calls = layers()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(1e6 * (time.perf_counter() - begin))
    table = {}
    for name, taken in times.items():
        low, middle, high = quantiles(taken, n=4)
        table[name] = {"median_us": median(taken), "quartiles_us": [low, high], "min_us": min(taken)}
        print(f"{name:48s} {middle:8.1f} us   (min {min(taken):7.1f}, quartiles {low:7.1f} {high:7.1f})")
    extra = (
        table["api: bs.solve in torch, forward and backward"]["median_us"]
        - table["engine by hand: factor, two solves, gather"]["median_us"]
    )
    print(f"{'above the engine, forward and backward':48s} {extra:8.1f} us")
    print("kept in", write("overhead", {"n": N, "rounds": rounds, "above_engine_us": extra, "layers": table}))


if __name__ == "__main__":
    main()
