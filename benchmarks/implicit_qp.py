"""What does a batch of quadratic programs cost as a layer, beside qpth and cvxpylayers; a fixed point beside torchdeq?

128 dense programs with n = 50 unknowns and 50 inequalities; forward and backward apart, in milliseconds of one
processor and of the wall; residuals of the conditions of optimality, in the same scaling, of every solution; and how
far gradients are from those of the dense KKT system (differentiated complementarity, NumPy). cvxpylayers solves by
Clarabel, too, and takes derivatives by LSQR, unless LSMR is asked for. Second derivatives are those of backsolve alone:
the peers have none, which their entry says. Tolerances of the fixed point are such that both gradients are right to
about 1e-10. The parts of our forward pass (Clarabel one by one, as one block-diagonal program, and the KKT system) are
apart. Peers live in an environment of their own; all entries take turns, round after round. Writes
results/implicit_qp.json.

    python benchmarks/implicit_qp.py --make-environment FOLDER
    python benchmarks/implicit_qp.py --environment FOLDER [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PINNED = ("torch==2.13.0", "qpth==0.0.18", "cvxpylayers==1.0.4", "torchdeq==0.1.0")
QUIET = {key: "1" for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BACKSOLVE_NUM_THREADS")}
BATCH, N, M = 128, 50, 50
PEERS = ("qpth", "cvxpylayers", "cvxpylayers lsmr", "torchdeq")


def programs(batch: int = BATCH) -> list[np.ndarray]:
    """P, q, G, h: convex, and feasible with slack at some point."""
    rng = np.random.default_rng(0)
    L = rng.standard_normal((batch, N, N))
    P = L @ L.swapaxes(1, 2) / N + 0.1 * np.eye(N)
    q, G = rng.standard_normal((batch, N)), rng.standard_normal((batch, M, N))
    h = np.einsum("bij,bj->bi", G, rng.standard_normal((batch, N))) + rng.uniform(0, 1, (batch, M))
    return [P, q, G, h]


def weights() -> np.ndarray:
    """The loss is their inner product with x."""
    return np.random.default_rng(1).standard_normal((BATCH, N))


def cell() -> tuple[np.ndarray, np.ndarray]:
    """W, x of the fixed point z = tanh(z W + x): 64 samples of 256 unknowns, contracting by about 0.9."""
    rng = np.random.default_rng(2)
    W = rng.standard_normal((256, 256))
    return 0.9 * W / np.linalg.norm(W, 2), rng.standard_normal((64, 256))


# -- one entry in its process ------------------------------------------------------------------------------------


def worker(entry: str) -> None:
    """Answer each line with the times of one round; then say the results."""
    import torch

    torch.set_num_threads(1)
    tensors = [torch.tensor(v, requires_grad=True) for v in (cell() if "deq" in entry else programs())]
    call, more = ENTRIES[entry](tensors)
    seed = None if "deq" in entry else torch.tensor(weights())
    for line in sys.stdin:
        for t in tensors:
            t.grad = None
        clock = [(time.perf_counter(), time.process_time())]
        x = call(*tensors)
        clock.append((time.perf_counter(), time.process_time()))
        (x.square().sum() if seed is None else (x * seed).sum()).backward()
        clock.append((time.perf_counter(), time.process_time()))
        answer: dict[str, Any] = {
            name: [b - a for a, b in zip(clock[at], clock[at + 1], strict=True)]
            for at, name in enumerate(("forward", "backward"))
        }
        if line.strip() == "last":
            answer |= {"x": x.detach().tolist(), "grads": [t.grad.tolist() for t in tensors], **more(tensors)}
        print(json.dumps(answer), flush=True)


def ours(tensors: list) -> tuple:
    from backsolve import implicit

    return implicit.qp, second


def second(tensors: list) -> dict:
    """A product with the Hessian of the loss in q, against differences of gradients, on some of the programs."""
    import torch

    from backsolve import implicit

    P, q, G, h = (t.detach()[:8] for t in tensors)
    v, seed = torch.tensor(np.random.default_rng(3).standard_normal((8, N))), torch.tensor(weights()[:8])

    def gradient(q: Any, record: bool = False) -> Any:
        q = q.detach().requires_grad_()
        loss = (implicit.qp(P, q, G, h).square() * seed).sum()
        return q, torch.autograd.grad(loss, q, create_graph=record)[0]

    at, g = gradient(q, True)
    (Hv,) = torch.autograd.grad(g, at, v)
    step = 1e-6
    truth = (gradient(q + step * v)[1] - gradient(q - step * v)[1]) / (2 * step)
    return {"second_derivative_off": float((Hv - truth).norm() / truth.norm())}


def qpth(tensors: list) -> tuple:
    import torch
    from qpth.qp import QPFunction

    none = torch.zeros(0, dtype=torch.float64)
    return lambda P, q, G, h: QPFunction(verbose=-1)(P, q, G, h, none, none), lambda _: {}


def cvxpylayers(tensors: list, mode: str = "lsqr") -> tuple:
    import cvxpy as cp
    import torch
    from cvxpylayers.torch import CvxpyLayer

    x, root, q = cp.Variable(N), cp.Parameter((N, N)), cp.Parameter(N)
    G, h = cp.Parameter((M, N)), cp.Parameter(M)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(root @ x) / 2 + q @ x), [G @ x <= h])
    layer = CvxpyLayer(problem, parameters=[root, q, G, h], variables=[x])

    def call(P: Any, *rest: Any) -> Any:
        root = torch.linalg.cholesky(P).mT  # P = rootᵀ root; its time is a thousandth
        return layer(root, *rest, solver_args={"solve_method": "Clarabel", "mode": mode})[0]

    return call, lambda _: {}


def ours_deq(tensors: list) -> tuple:
    import torch

    import backsolve as bs
    from backsolve import implicit

    def call(W: Any, x: Any) -> Any:
        f = lambda z, W, x: torch.tanh(z @ W + x)  # noqa: E731
        return implicit.fixed_point(
            f, torch.zeros_like(x), (W, x), batch_axes=1, rtol=1e-10, adjoint=bs.Adjoint(rtol=1e-10)
        )

    return call, lambda _: {}


def torchdeq(tensors: list) -> tuple:
    import torch
    from torchdeq import get_deq

    options = {"f_tol": 1e-8, "b_tol": 1e-8, "f_max_iter": 200, "b_max_iter": 200}
    deq = get_deq(f_solver="anderson", b_solver="anderson", ift=True, **options)

    def call(W: Any, x: Any) -> Any:
        return deq(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x))[0][-1]

    return call, lambda _: {}


ENTRIES = {
    "backsolve": ours,
    "qpth": qpth,
    "cvxpylayers": cvxpylayers,
    "cvxpylayers lsmr": partial(cvxpylayers, mode="lsmr"),
    "backsolve deq": ours_deq,
    "torchdeq": torchdeq,
}


# -- truths and reports ------------------------------------------------------------------------------------------


def residuals(arrays: list, x: np.ndarray, best: np.ndarray) -> dict:
    """How far x is from optimal, with the multipliers of least squares on what is active at the best solution."""
    P, q, G, h = arrays
    worst = {"stationarity": 0.0, "violation": 0.0, "negative_multiplier": 0.0}
    for i in range(len(q)):
        s = h[i] - G[i] @ x[i]
        active = h[i] - G[i] @ best[i] < 1e-9
        force = P[i] @ x[i] + q[i]
        lam = np.linalg.lstsq(G[i][active].T, -force, rcond=None)[0]
        worst["stationarity"] = max(worst["stationarity"], np.abs(force + G[i][active].T @ lam).max())
        worst["violation"] = max(worst["violation"], -s.min())
        worst["negative_multiplier"] = max(worst["negative_multiplier"], -lam.min(initial=0.0))
    return {key: float(value) for key, value in worst.items()}


def kkt_gradients(arrays: list, x: np.ndarray) -> list[np.ndarray]:
    """Gradients of the loss by the KKT system with complementarity differentiated, one program after the other."""
    P, q, G, h = arrays
    bars = [np.zeros_like(v) for v in arrays]
    for i, seed in enumerate(weights()):
        s = h[i] - G[i] @ x[i]
        active, lam = s < 1e-9, np.zeros(M)
        lam[active] = np.linalg.lstsq(G[i][active].T, -(P[i] @ x[i] + q[i]), rcond=None)[0]
        K = np.block([[P[i], G[i].T], [lam[:, None] * G[i], -np.diag(np.where(active, 0, s))]])
        d = np.linalg.solve(K.T, np.concatenate([seed, np.zeros(M)]))
        dx, dl = -d[:N], -d[N:] * lam
        bars[0][i] = (np.outer(dx, x[i]) + np.outer(x[i], dx)) / 2
        bars[1][i], bars[2][i], bars[3][i] = dx, np.outer(lam, dx) + np.outer(dl, x[i]), -dl
    return bars


def fixed_point_gradients() -> list[np.ndarray]:
    """Gradients of the sum of squares, by a dense system for each sample."""
    W, x = cell()
    z = np.zeros_like(x)
    for _ in range(2000):
        z = np.tanh(z @ W + x)
    bars = [np.zeros_like(W), np.zeros_like(x)]
    for i in range(len(x)):
        d = 1 - z[i] ** 2
        lam = np.linalg.solve(np.eye(len(d)) - W * d, 2 * z[i])
        bars[1][i] = d * lam
        bars[0] += np.outer(z[i], d * lam)
    return bars


def parts() -> dict:
    """Milliseconds of the processor: Clarabel program by program, as one program, and what follows."""
    import clarabel
    import scipy.sparse as sp

    from backsolve.implicit.numpy_backend import BACKEND
    from backsolve.implicit.qp_data import gathered
    from backsolve.implicit.qp_host import solve_items
    from backsolve.implicit.qp_kkt import judged, on_active

    arrays = programs()
    P, q, G, h = arrays
    _, program = gathered(*arrays, None, None)
    found: Any = None
    told: dict[str, list[float]] = {"one by one": [], "one block-diagonal program": [], "KKT system and verdict": []}
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_threads = False, 1
    for _ in range(5):
        begun = time.process_time()
        found = solve_items(program.form, False, *program.arrays)
        told["one by one"].append(time.process_time() - begun)
        begun = time.process_time()
        point = on_active(BACKEND, program, found[:, program.form.size : -1], {})
        judged(np, program, point)
        told["KKT system and verdict"].append(time.process_time() - begun)
        begun = time.process_time()
        whole = sp.triu(sp.block_diag(list(P), format="csc"), format="csc")
        rows = sp.block_diag(list(G), format="csc")
        cones = [clarabel.NonnegativeConeT(BATCH * M)]
        clarabel.DefaultSolver(whole, q.ravel(), rows, h.ravel(), cones, settings).solve()
        told["one block-diagonal program"].append(time.process_time() - begun)
    return {key: spread(values) for key, values in told.items()}


def spread(seconds: list[float]) -> dict[str, float]:
    """Quartiles in milliseconds."""
    low, middle, high = quantiles(seconds, n=4, method="inclusive")
    return {"low": 1e3 * low, "median": 1e3 * middle, "high": 1e3 * high}


def off(grads: list, truth: list) -> list[float]:
    """Relative distances; of P, whose antisymmetric part means nothing, of the symmetric part."""
    flat = [np.array(g) for g in grads]
    if len(flat) == 4:
        flat[0] = (flat[0] + flat[0].swapaxes(1, 2)) / 2
    return [float(np.linalg.norm(g - t) / np.linalg.norm(t)) for g, t in zip(flat, truth, strict=True)]


def by_program(grad: list, truth: np.ndarray) -> dict[str, float]:
    """Quantiles of the relative distances of single programs: the median, and nine out of ten."""
    apart = np.linalg.norm(np.array(grad) - truth, axis=1) / np.linalg.norm(truth, axis=1)
    return {"median": float(np.median(apart)), "nine_of_ten": float(np.quantile(apart, 0.9))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-environment", type=Path)
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker)
    if options.make_environment:
        subprocess.run([sys.executable, "-m", "venv", options.make_environment], check=True)
        pip = [str(options.make_environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *PINNED]
        subprocess.run(pip, check=True)
        return None
    from problems import write

    running = {}
    for entry in ENTRIES:
        if entry in PEERS and options.environment is None:
            continue
        python = str(options.environment / "bin" / "python") if entry in PEERS else sys.executable
        running[entry] = subprocess.Popen(
            [python, __file__, "--worker", entry], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**os.environ, **QUIET},
        )  # fmt: skip
    rounds: dict[str, list] = {entry: [] for entry in running}
    for at in range(options.rounds + 1):  # the first warms up
        for entry, process in running.items():
            print("last" if at == options.rounds else "go", file=process.stdin, flush=True)
            line = process.stdout.readline()
            rounds[entry].append(json.loads(line) if line else None)
    arrays = programs()
    best = np.array(rounds["backsolve"][-1]["x"])
    truths = {False: kkt_gradients(arrays, best), True: fixed_point_gradients()}
    told = {}
    for entry, answers in rounds.items():
        running[entry].kill()
        if None in answers:
            told[entry] = {"status": "failed"}
            continue
        last, deq = answers[-1], "deq" in entry
        told[entry] = {
            f"{part} {kind}": spread([a[part][which] for a in answers[1:]])
            for part in ("forward", "backward")
            for which, kind in enumerate(("wall", "processor"))
        }
        names = ("W", "x") if deq else ("P", "q", "G", "h")
        told[entry]["gradient_off"] = dict(zip(names, off(last["grads"], truths[deq]), strict=True))
        if not deq:
            told[entry]["gradient_in_q_off_by_program"] = by_program(last["grads"][1], truths[deq][1])
            told[entry] |= residuals(arrays, np.array(last["x"]), best)
            second_off = last.get("second_derivative_off")
            told[entry]["second_derivative_off"] = second_off if second_off is not None else "no second derivatives"
    made = {"batch": BATCH, "n": N, "inequalities": M, "peers": PINNED, "entries": told, "parts": parts()}
    write("implicit_qp", made)
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
