"""Would CG gain by what it learned of the systems before, where these change slowly?

Every sequence is solved by one CG with four beginnings, with three preconditioners, to one true residual:

zero       from x = 0
previous   from the last solution, which is what ``x0=`` is for
projected  from the best combination, in the norm of A, of the last six solutions (Fischer 1998)
deflated   from the last solution, and orthogonal to ten approximate eigenvectors of the smallest eigenvalues of M A,
           found in the solve before by Rayleigh and Ritz (Saad, Yeung, Erhel and Guyomarc'h 2000)

Times are those of the processor, one thread, with all that a beginning costs; making A, b and M is not in them. Writes
results/recycling.json.

    OMP_NUM_THREADS=1 BACKSOLVE_NUM_THREADS=1 python benchmarks/recycling.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse as sp
from problems import write

import backsolve as bs

RTOL = 1e-8
KEPT, LEARNED, SOLUTIONS = 10, 30, 6
"""Approximate eigenvectors; directions that they are looked for in; solutions that are combined."""
BEGINNINGS = ("zero", "previous", "projected", "deflated")
PRECONDITIONERS = ("jacobi", "mic", "amg")
Systems = Iterator[tuple[sp.csr_array, np.ndarray, Callable[[np.ndarray], None]]]


# -- slowly changing systems: each yields A, b and what it is told of the solution ----------------------------


def grid_edges(side: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.arange(side * side).reshape(side, side)
    return np.concatenate([at[:, :-1].ravel(), at[:-1].ravel()]), np.concatenate([at[:, 1:].ravel(), at[1:].ravel()])


def laplacian(i: np.ndarray, j: np.ndarray, weight: np.ndarray, diagonal: np.ndarray) -> sp.csr_array:
    n = len(diagonal)
    d = diagonal + np.bincount(i, weight, n) + np.bincount(j, weight, n)
    rows, columns = np.concatenate([i, j, np.arange(n)]), np.concatenate([j, i, np.arange(n)])
    return sp.csr_array(sp.coo_array((np.concatenate([-weight, -weight, d]), (rows, columns)), (n, n)))


def boundary(side: int) -> np.ndarray:
    """4 minus the neighbours of each point: a Dirichlet condition outside of the grid."""
    i, j = grid_edges(side)
    return 4.0 - np.bincount(i, minlength=side**2) - np.bincount(j, minlength=side**2)


def training(side: int, steps: int) -> Systems:
    """Log-conductivities that gradient steps fit to a field of temperatures."""
    i, j = grid_edges(side)
    rng, n, outside = np.random.default_rng(0), side * side, boundary(side)
    smooth = sp.linalg.splu(sp.csc_array(laplacian(i, j, np.full(len(i), 30.0), np.ones(n))))
    truth, k, b = 40 * smooth.solve(rng.standard_normal(n)), np.zeros(n), np.ones(n) / side
    wanted = sp.linalg.spsolve(laplacian(i, j, np.exp((truth[i] + truth[j]) / 2), outside).tocsc(), b)
    for _ in range(steps):
        w = np.exp((k[i] + k[j]) / 2)
        A, found = laplacian(i, j, w, outside), []
        yield A, b, found.append
        x = found[0]
        lam = sp.linalg.spsolve(A.tocsc(), x - wanted)
        bar = -(lam[i] - lam[j]) * (x[i] - x[j]) * w / 2
        slope = smooth.solve(np.bincount(i, bar, n) + np.bincount(j, bar, n))
        k -= 0.1 * slope / np.abs(slope).max()


def heat(side: int, steps: int) -> Systems:
    """Implicit steps of diffusion with a coefficient that drifts."""
    i, j = grid_edges(side)
    x, step = np.zeros(side * side), 0.0
    y0, x0 = np.mgrid[:side, :side] / side
    for at in range(steps):
        k = (1 + 0.9 * np.sin(6 * x0 + 0.1 * at) * np.cos(5 * y0)).ravel()
        w = 200.0 * np.sqrt(k[i] * k[j])
        A, found = laplacian(i, j, w, np.ones(side * side) + 200 * boundary(side)), []
        yield A, x + np.exp(-50 * ((x0 - 0.3) ** 2 + (y0 - 0.5) ** 2)).ravel() * (1 + step), found.append
        x, step = found[0], np.sin(0.3 * at)


def inclusions(side: int, steps: int) -> Systems:
    """Stiff disks, ten thousand times as conductive as what is around them, that move."""
    i, j = grid_edges(side)
    y, x = np.mgrid[:side, :side] / side
    b = np.random.default_rng(1).standard_normal(side * side)
    for at in range(steps):
        k = np.ones((side, side))
        for disk in range(9):
            cx, cy = 0.2 + 0.3 * (disk % 3) + 0.004 * at, 0.2 + 0.3 * (disk // 3)
            k[(x - cx) ** 2 + (y - cy) ** 2 < 0.007] = 1e4
        k = k.ravel()
        yield laplacian(i, j, 2 / (1 / k[i] + 1 / k[j]), boundary(side)), b, lambda x: None


def topology(width: int, height: int, steps: int) -> Systems:
    """SIMP: densities of a cantilever by optimality criteria, filtered, with a power of three (Sigmund 2001)."""
    K0, dofs, free, load = cantilever(width, height)
    rows, columns = np.repeat(dofs, 8, axis=1).ravel(), np.tile(dofs, (1, 8)).ravel()
    number = np.full(dofs.max() + 1, -1)
    number[free] = np.arange(len(free))
    inside = (number[rows] >= 0) & (number[columns] >= 0)
    rows, columns = number[rows[inside]], number[columns[inside]]
    blur = sp.csr_array(
        laplacian(*cells(width, height), np.ones(len(cells(width, height)[0])), np.full(width * height, 2.0))
    )
    blur.data = np.abs(blur.data)
    blur = sp.csr_array(sp.diags_array(1 / blur.sum(axis=1)) @ blur)
    rho = np.full(width * height, 0.5)
    for _ in range(steps):
        stiff = 1e-6 + (blur @ rho) ** 3
        values = (stiff[:, None] * K0.ravel()).ravel()[inside]
        A, found = sp.csr_array(sp.coo_array((values, (rows, columns)), (len(free),) * 2)), []
        yield A, load[free], found.append
        u = np.zeros(dofs.max() + 1)
        u[free] = found[0]
        energy = np.einsum("ei,ij,ej->e", u[dofs], K0, u[dofs])
        slope = blur.T @ (3 * (blur @ rho) ** 2 * energy)
        low, high = 1e-12, 1e12
        while high / low > 1.0001:
            mid = (low * high) ** 0.5
            new = np.clip(rho * np.sqrt(slope / mid), np.maximum(rho - 0.2, 1e-3), np.minimum(rho + 0.2, 1))
            low, high = (mid, high) if new.mean() > 0.5 else (low, mid)
        rho = new


def cells(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    at = np.arange(width * height).reshape(width, height)
    return np.concatenate([at[:, :-1].ravel(), at[:-1].ravel()]), np.concatenate([at[:, 1:].ravel(), at[1:].ravel()])


def cantilever(width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The stiffness of a square element, the unknowns of each, those that are free, and the load."""
    nu = 0.3
    k = np.array([1 / 2 - nu / 6, 1 / 8 + nu / 8, -1 / 4 - nu / 12, -1 / 8 + 3 * nu / 8,
                  -1 / 4 + nu / 12, -1 / 8 - nu / 8, nu / 6, 1 / 8 - 3 * nu / 8]) / (1 - nu**2)  # fmt: skip
    order = [
        list(map(int, row)) for row in "01234567 10765432 27056341 36507214 45670123 54321076 63412705 72143650".split()
    ]
    at = np.arange((width + 1) * (height + 1)).reshape(width + 1, height + 1)
    corners = np.stack([at[:-1, 1:], at[1:, 1:], at[1:, :-1], at[:-1, :-1]], axis=-1).reshape(-1, 4)
    dofs = np.stack([2 * corners, 2 * corners + 1], axis=-1).reshape(-1, 8)
    load = np.zeros(2 * at.size)
    load[2 * at[-1, height // 2] + 1] = -1
    return k[np.array(order)], dofs, np.arange(2 * (height + 1), 2 * at.size), load


def circuit(side: int, steps: int) -> Systems:
    """Newton's method for a mesh of diodes and resistors, from time step to time step."""
    i, j = grid_edges(side)
    rng, n = np.random.default_rng(2), side * side
    keep = rng.random(len(i)) < 0.8
    i, j = i[keep], j[keep]
    g, ground = 10.0 ** rng.uniform(-1, 1, len(i)), np.full(n, 1e-3)
    diode, v, source = rng.random(len(i)) < 0.3, np.zeros(n), rng.standard_normal(n) * 0.05
    for at in range(steps // 2):
        current = source * np.sin(0.2 * (at + 1))
        for _ in range(2):
            across = np.clip(v[i] - v[j], -1, 0.5)
            slope = g * np.where(diode, np.exp(across), 1.0)
            flow = g * np.where(diode, np.expm1(across), across)
            f = ground * v + np.bincount(i, flow, n) - np.bincount(j, flow, n) - current
            A, found = laplacian(i, j, slope, ground), []
            yield A, A @ v - f, found.append
            v = found[0]


# -- CG with the beginnings -----------------------------------------------------------------------------------


class Memory:
    """What one solve leaves to the next."""

    def __init__(self, beginning: str):
        self.beginning = beginning
        self.solutions: list[np.ndarray] = []
        self.W: Any = None
        self.MW: Any = None
        """M⁻¹ W."""


def solve(A: Callable, M: Callable, b: np.ndarray, memory: Memory) -> tuple[np.ndarray, int]:
    """CG, deflated if there is anything to deflate; the solution and its iterations."""
    W, MW, last = memory.W, memory.MW, memory.solutions
    x, AW, small = np.zeros_like(b), None, None
    if memory.beginning in ("previous", "deflated") and last:
        x = last[-1].copy()
    if memory.beginning == "projected" and last:
        S = np.linalg.qr(np.stack(last, axis=1))[0]
        x = S @ np.linalg.solve(S.T @ np.stack([A(s) for s in S.T], axis=1), S.T @ b)
    r = b - A(x)
    if W is not None:
        AW = np.stack([A(w) for w in W.T], axis=1)
        small = sl.cho_factor(W.T @ AW)
        y = sl.cho_solve(small, W.T @ r)
        x, r = x + W @ y, r - AW @ y
    goal, p, Mp, rz, count = RTOL * np.linalg.norm(b), 0.0, 0.0, 0.0, 0
    learned: list[tuple] = []
    learns = memory.beginning == "deflated"
    while True:
        if np.linalg.norm(r) <= goal:
            r = b - A(x)  # the true residual decides
            if np.linalg.norm(r) <= goal:
                break
            rz = 0.0
        z = M(r)
        rz, before = r @ z, rz
        beta = rz / before if before else 0.0
        p = z + beta * p
        if W is not None:
            y = sl.cho_solve(small, AW.T @ z)
            p -= W @ y
        if learns and count < LEARNED:
            Mp = r + beta * Mp - (0.0 if W is None else MW @ y)
        Ap = A(p)
        curvature = p @ Ap
        if learns and count < LEARNED:
            learned.append((p / curvature**0.5, Mp / curvature**0.5))
        alpha = rz / curvature
        x, r, count = x + alpha * p, r - alpha * Ap, count + 1
    if learns and len(learned) >= 2:
        memory.W, memory.MW = ritz(W, MW, AW, learned)
    memory.solutions = [*last, x][-SOLUTIONS:]
    return x, count


def ritz(W: Any, MW: Any, AW: Any, learned: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the smallest Ritz values of M A among W and the directions, which are A-orthonormal, and so to W."""
    Z, MZ = (np.stack(v, axis=1) for v in zip(*learned, strict=True))
    F = np.eye(Z.shape[1])
    if W is not None:
        F = sl.block_diag(W.T @ AW, F)
        Z, MZ = np.hstack([W, Z]), np.hstack([MW, MZ])
    G = Z.T @ MZ
    _, y = sl.eigh((G + G.T) / 2, F, subset_by_index=[max(0, len(F) - KEPT), len(F) - 1])  # 1/θ, the largest
    return Z @ y, MZ @ y


# -- the measurement ------------------------------------------------------------------------------------------


def measured(systems: Callable[[], Systems], name: str, rounds: int) -> dict[str, Any]:
    """Seconds and iterations of a sequence by each beginning with one preconditioner; each system by all in turn."""
    made = bs.preconditioners.PRECONDITIONERS[name]()
    seconds = {beginning: [0.0] * rounds for beginning in BEGINNINGS}
    counts, worst = dict.fromkeys(BEGINNINGS, 0), dict.fromkeys(BEGINNINGS, 0.0)
    for turn in range(rounds):
        memories = {beginning: Memory(beginning) for beginning in BEGINNINGS}
        for A, b, tell in systems():
            operator = bs.aslinearoperator(A)
            plain = operator.on(operator.data[None])
            prepared = made.prepare(plain)

            def product(v, plain=plain):
                return plain.structure.matvec(plain.data, v[None, :, None])[0, :, 0]

            def precondition(v, prepared=prepared):
                return prepared.apply(v[None, :, None], False)[0, :, 0]

            for beginning, memory in memories.items():
                start = time.process_time()
                x, count = solve(product, precondition, b, memory)
                seconds[beginning][turn] += time.process_time() - start
                counts[beginning] += count
                worst[beginning] = max(worst[beginning], float(np.linalg.norm(b - A @ x) / np.linalg.norm(b)))
            tell(x)
    found = {}
    for beginning, times in seconds.items():
        middle, iterations = float(np.median(times)), counts[beginning] // rounds
        found[beginning] = {"seconds": middle, "spread": [min(times), max(times)], "iterations": iterations,
                            "worst_relative_residual": worst[beginning]}  # fmt: skip
        print(f"    {beginning:10s} {middle:8.3f} s {iterations:7d} iterations {worst[beginning]:.1e}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small, once, and nothing is written")
    quick = parser.parse_args().quick
    side, steps, rounds = (32, 4, 1) if quick else (128, 16, 3)
    sequences: dict[str, Callable[[], Systems]] = {
        "diffusion, trained": lambda: training(side, steps),
        "heat, implicit steps": lambda: heat(side, steps),
        "stiff inclusions that move": lambda: inclusions(side, steps),
        "topology of a cantilever": lambda: topology(side, side // 2, steps),
        "circuit, Newton in time": lambda: circuit(side, steps),
    }
    results: dict[str, Any] = {}
    for sequence, systems in sequences.items():
        for name in PRECONDITIONERS:
            print(sequence, name, flush=True)
            results.setdefault(sequence, {})[name] = measured(systems, name, rounds)
            if not quick:
                sizes = {"side": side, "steps": steps, "rounds": rounds, "rtol": RTOL}
                options = {"kept": KEPT, "learned": LEARNED, "solutions": SOLUTIONS}
                write("recycling", {**sizes, **options, "sequences": results})


if __name__ == "__main__":
    main()
