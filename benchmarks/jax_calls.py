"""What does a kernel cost inside a compiled JAX program, and what would a program cost that held its index arrays?

calls       n = 100, about 500 stored entries: one call of a compiled program, beside one that only adds 1. Products and
            the triangular solve are kernels that XLA calls; the solve is a call of the host.
throughput  A x and the sampled outer product of a five-point Laplacian on 512 x 512 points, k columns, beside JAX's
            own BCOO and BCSR and the operations that backsolve uses where it has no kernel ("native").
programs    Compiling A x, and what the process grows by, in a fresh process each: a program that names its Pattern
            ("kernel") beside one with the index arrays as constants ("native"), and the time to check these arrays,
            which a kernel that read them from the program would need in every call to be safe.

All in turn, round after round; medians with quartiles. Writes results/jax_calls.json.

    python benchmarks/jax_calls.py [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.experimental.sparse import BCOO, BCSR
from problems import laplacian, write

import backsolve as bs
from backsolve import _kernels
from backsolve.frontends import jax_arrays, jax_products

jax.config.update("jax_enable_x64", True)


def operator(M: sp.csr_array) -> bs.CSR:
    return bs.CSR(jnp.asarray(M.data), M.indices, M.indptr, M.shape)


def calls() -> dict:
    """Name -> call, each of a compiled program at n = 100."""
    n, rng = 100, np.random.default_rng(0)
    M = sp.csr_array(sp.random_array((n, n), density=0.04, rng=rng) + 5 * sp.eye_array(n))
    M.sort_indices()
    A, L = operator(M), operator(sp.csr_array(sp.tril(M))).assume("lower")
    b = jnp.asarray(rng.standard_normal(n))

    def looped(w, x):
        return jax.lax.fori_loop(0, 1000, lambda _, x: 0.1 * (A.with_data(w) @ x), x)

    programs = {
        "empty: x + 1": (lambda w, x: x + 1, A),
        "matvec": (lambda w, x: A.with_data(w) @ x, A),
        "matvec, adjoint": (lambda w, x: jax_products.matvec(A.structure, w[None], x[None, :, None], True), A),
        "outer": (lambda w, x: jax_products.outer(A.structure, x[None, :, None], x[None, :, None]), A),
        "matvec, native": (lambda w, x: jax_arrays.matvec(A.structure, w[None], x[None, :, None], False), A),
        "matvec, 1000 times in fori_loop": (looped, A),
        "triangular solve": (lambda w, x: bs.solve(L.with_data(w), x), L),
        "solve by the host (factors found again)": (lambda w, x: bs.solve(A.with_data(w), x), A),
    }
    made = {}
    for name, (f, operand) in programs.items():
        compiled = jax.jit(f)
        made[name] = lambda compiled=compiled, w=operand.data: compiled(w, b).block_until_ready()
    made["matvec, not compiled"] = lambda: (A @ b).block_until_ready()
    return made


def products(k: int) -> dict:
    """Name -> call, on the 512 x 512 Laplacian with k columns; all answers agree."""
    M = laplacian(512)
    A, n = operator(M), M.shape[0]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((n, k)))
    want, w = M @ np.asarray(x), A.data
    coo = M.tocoo()
    bcoo = BCOO((w, jnp.stack([jnp.asarray(coo.row), jnp.asarray(coo.col)], 1)), shape=M.shape, indices_sorted=True)
    bcsr = BCSR((w, jnp.asarray(M.indices), jnp.asarray(M.indptr)), shape=M.shape)
    made = {
        "A x: kernel": (jax.jit(lambda x: jax_products.matvec(A.structure, w[None], x[None], False)[0]), want),
        "A x: native": (jax.jit(lambda x: jax_arrays.matvec(A.structure, w[None], x[None], False)[0]), want),
        "A x: BCOO": (jax.jit(lambda x: bcoo @ x), want),
        "A x: BCSR": (jax.jit(lambda x: bcsr @ x), want),
    }
    entries = A.structure.outer(np.asarray(x)[None], want[None])[0]
    y = jnp.asarray(want)
    for way, module in (("kernel", jax_products), ("native", jax_arrays)):
        f = jax.jit(lambda x, y, module=module: module.outer(A.structure, x[None], y[None])[0])
        made[f"outer: {way}"] = (lambda x, f=f: f(x, y), entries)
    for name, (f, truth) in made.items():
        np.testing.assert_allclose(f(x), truth, rtol=1e-9, atol=1e-9, err_msg=name)
    return {name: (lambda f=f: f(x).block_until_ready()) for name, (f, _) in made.items()}


def measured(made: dict, rounds: int, repeat: int) -> dict:
    """Microseconds of one call, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in made}
    for f in made.values():
        for _ in range(3):
            f()
    for _ in range(rounds):
        for name, f in made.items():
            begin = time.perf_counter()
            for _ in range(repeat):
                f()
            taken[name].append(1e6 * (time.perf_counter() - begin) / repeat)
    table = {}
    for name, times in taken.items():
        low, middle, high = quantiles(times, n=4)
        table[name] = {"median_us": middle, "quartiles_us": [low, high], "min_us": min(times)}
        print(f"    {name:42s} {middle:10.1f} us   (min {min(times):9.1f}, quartiles {low:9.1f} {high:9.1f})")
    return table


def program(way: str, n: int, per_row: int) -> dict:
    """Compile one program here, in a process that has done nothing else, and say what that took."""
    cols = np.sort((np.arange(n)[:, None] + np.arange(per_row)) % n, axis=1).ravel()
    A = bs.CSR(jnp.ones(n * per_row), cols, np.arange(n + 1) * per_row, (n, n))
    data, x, module = A.data[None], jnp.ones((1, n, 1)), {"kernel": jax_products, "native": jax_arrays}[way]
    assert A.pattern.digest  # what is made once for a Pattern, whatever becomes of it
    jax.block_until_ready((data, x, jax.jit(lambda x: x + 1)(x)))
    before, begin = memory("VmRSS"), time.perf_counter()
    compiled = jax.jit(lambda d, x: module.matvec(A.structure, d, x, False)).lower(data, x).compile()
    taken, kept, peak = time.perf_counter() - begin, memory("VmRSS") - before, memory("VmHWM") - before
    begin = time.perf_counter()
    _kernels.diagnose(A.pattern.indptr, A.pattern.indices, n, n)
    check = time.perf_counter() - begin
    begin = time.perf_counter()
    compiled(data, x).block_until_ready()
    return {
        "compile_s": taken,
        "grown_MB": kept,
        "grown_at_most_MB": peak,
        "check_of_indices_us": 1e6 * check,
        "first_call_us": 1e6 * (time.perf_counter() - begin),
    }


def memory(field: str) -> float:
    """Resident memory of this process, now (VmRSS) or at most so far (VmHWM), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(field))


def programs(rounds: int) -> dict:
    """nnz and way -> medians and extremes of `program`, each time in a fresh process."""
    table = {}
    sizes = {"nnz 5": (5, 1), "nnz 1e7": (2_000_000, 5)}
    runs: dict[tuple, list[dict]] = {(name, way): [] for name in sizes for way in ("kernel", "native")}
    for _ in range(rounds):
        for (name, way), found in runs.items():
            command = [sys.executable, __file__, "--program", way, *map(str, sizes[name])]
            found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    for (name, way), found in runs.items():
        table[f"{name}, {way}"] = row = {}
        for key in found[0]:
            values = [run[key] for run in found]
            row[key] = {"median": median(values), "min": min(values), "max": max(values)}
        print(f"    {name + ', ' + way:20s}", {key: round(v["median"], 4) for key, v in row.items()})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--program", nargs=3, metavar=("WAY", "N", "PER_ROW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        way, n, per_row = options.program
        print(json.dumps(program(way, int(n), int(per_row))))
        return
    result: dict = {"rounds": options.rounds, "jax": jax.__version__, "threads": _kernels.thread_count()}
    print("one call, n = 100")
    result["calls"] = measured(calls(), options.rounds, 200)
    empty = result["calls"]["empty: x + 1"]["median_us"]
    result["above_empty_us"] = {name: row["median_us"] - empty for name, row in result["calls"].items()}
    result["throughput"] = {}
    for k in (1, 32):
        print(f"Laplacian on 512 x 512 points, k = {k}")
        result["throughput"][f"k={k}"] = measured(products(k), max(5, options.rounds // 3), 5 if k == 1 else 1)
    print("programs")
    result["programs"] = programs(5)
    print("kept in", write("jax_calls", result))


if __name__ == "__main__":
    main()
