"""Does the price of a local query depend on the size of the matrix, and how near is a push to what memory allows?

Flat: entries that one functional and its gradient read, their time and the memory that they make resident, for n = 10^4
to 10^7 on a mesh and on random graphs with degrees by a power law cut off at 100, means over queries; with --folder of
a matrix saved by local_big.py, mapped from disk.

Speed: time of pushes for each entry that they read, beside two floors in the same run: read-modify-write of as many
records in random order among those touched, and along the lists of as many rows. The least of several runs, in time of
the thread. Writes results/local_flat.json.

    python benchmarks/local_flat.py [--largest 7] [--folder PATH]
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from problems import machine, write

from backsolve import local
from backsolve._local.access import Access
from backsolve._local.budget import Budget
from backsolve._local.functional import FunctionalQuery
from backsolve._local.gradient import gradient
from backsolve._local.half import Half
from backsolve._local.places import Places
from backsolve._local.system import System

HERE = Path(__file__).parent
QUERIES = 300
COUNTS = ("entries read", "unknowns touched", "pushes", "gradient entries")
FAMILIES = {"mesh": 1e-4, "power law": 1e-2}
"""And what is asked of the bound, relative to the inverse of the diagonal."""


def mesh(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of a square grid, without its wrap, as (starts, ends)."""
    m = round(n**0.5)
    at = np.arange(m * m, dtype=np.int32).reshape(m, m)
    pairs = [(at[:, :-1], at[:, 1:]), (at[:-1], at[1:])]
    return tuple(np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))


def power_law(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Stubs of nodes, joined at random: P(degree > d) is about d^-1.5, up to 100; 2.5 in the mean."""
    rng = np.random.default_rng(0)
    degree = np.minimum(rng.pareto(1.5, n) + 1, 100).astype(np.int32)
    degree[0] += degree.sum() % 2
    stubs = np.repeat(np.arange(n, dtype=np.int32), degree)
    rng.shuffle(stubs)
    return stubs[::2], stubs[1::2]


def system(family: str, n: int, gap: float = 0.1) -> System:
    """-1 for each edge, once, and a diagonal with the gap: symmetric, its values for reading only."""
    start, end = {"mesh": mesh, "power law": power_law}[family](n)
    n = int(max(start.max(), end.max())) + 1
    own = start != end
    low, high = np.minimum(start, end)[own].astype(np.int64), np.maximum(start, end)[own].astype(np.int64)
    key = np.unique(low * n + high)
    low, high = key // n, key % n
    every = np.sort(np.concatenate([low * n + high, high * n + low, np.arange(n) * (n + 1)]))
    rows, indices = every // n, (every % n).astype(np.int32)
    indptr = np.searchsorted(rows, np.arange(n + 1)).astype(np.int64)
    data = np.full(len(indices), -1.0)
    data[rows == indices] = np.maximum(np.diff(indptr) - 1, 1) / (1 - gap)
    data.flags.writeable = False
    return System(Access(n, indptr, indices, data))


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def flat(M: System, family: str) -> dict:
    """Means over queries for pairs of neighbours."""
    rng, found, times = np.random.default_rng(1), [], []
    first = resident()
    for _ in range(QUERIES):
        i = int(rng.integers(M.n // 4, M.n // 2))
        near = M.access.indices[M.access.indptr[i] : M.access.indptr[i + 1]]
        b, t = ((np.array([at], np.int64), np.ones(1)) for at in (i, rng.choice(near)))
        start = time.perf_counter()
        query = FunctionalQuery(M, b, t)
        estimate = query.run(FAMILIES[family] / 4, Budget(), leave=False)
        g = gradient(query.primal, query.dual, Places(M.access))
        times.append(time.perf_counter() - start)
        sides = [half.side for half in query.halves]
        found.append((estimate.touched, sum(s.touched for s in sides), sum(s.pushes for s in sides), len(g.A.values)))
        del query, sides, estimate, g
    mean = np.mean(found, axis=0)
    return {
        "n": M.n,
        "nnz": M.nnz,
        **{name: round(float(m), 1) for name, m in zip(COUNTS, mean, strict=True)},
        "median ms": round(1e3 * float(np.median(times)), 3),
        "resident before, MiB": first >> 20,
        "made resident by queries, MiB": round((resident() - first) / 2**20, 2),
    }


def floors() -> ctypes.CDLL:
    """local_flat.cpp, compiled."""
    library = Path(tempfile.mkdtemp()) / "floors.so"
    command = ["c++", "-O3", "-shared", "-fPIC", "-o", str(library), str(HERE / "local_flat.cpp")]
    subprocess.run(command, check=True)
    lib = ctypes.CDLL(str(library))
    lib.by_list.restype = lib.by_rows.restype = ctypes.c_double
    return lib


def speed(M: System, eps: float, lib: ctypes.CDLL) -> dict:
    """Nanoseconds for each entry that pushes read, and those of the floors."""
    rng, best = np.random.default_rng(0), {"push": np.inf, "random records": np.inf, "along rows": np.inf}
    records = np.zeros((M.n, 4))
    for _ in range(7):
        half = Half(M, (np.array([M.n // 2]), np.ones(1)), False, True)
        start = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
        half.side.push(half.setting, eps * half.largest, 1.0, 1 << 40)
        spent = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) - start
        work, pushes = half.side.work, half.side.pushes
        touched, pushed = half.side.support(touched=True)[0], half.side.support()[0]
        del half
        best["push"] = min(best["push"], spent / work)

        def pointer(a: np.ndarray) -> ctypes.c_void_p:
            return a.ctypes.data_as(ctypes.c_void_p)

        among = rng.choice(touched, work)
        took = lib.by_list(pointer(records), pointer(among), ctypes.c_int64(work))
        best["random records"] = min(best["random records"], 1e9 * took / work)
        rows = rng.choice(pushed, pushes)
        read = int(np.sum(M.access.indptr[rows + 1] - M.access.indptr[rows]))
        arrays = map(pointer, (records, M.access.indptr, M.access.indices, M.access.data, rows))
        took = lib.by_rows(*arrays, ctypes.c_int64(pushes))
        best["along rows"] = min(best["along rows"], 1e9 * took / read)
    return {
        "n": M.n,
        "entries": work,
        "unknowns touched": len(touched),
        "ns": {k: round(v, 2) for k, v in best.items()},
    }


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    lib, found = floors(), {"machine": machine(), "flat": {}, "speed": {}}
    for family in FAMILIES:
        found["flat"][family], found["speed"][family] = [], []
        for power in range(4, args.largest + 1):
            M = system(family, 10**power)
            found["flat"][family].append(flat(M, family))
            print(family, found["flat"][family][-1], flush=True)
            if power in (5, 6):
                eps = {"mesh": 1e-12, "power law": 1e-6}[family]
                found["speed"][family].append(speed(M, eps, lib))
                print(family, found["speed"][family][-1], flush=True)
            del M
    if args.folder:
        found["folder"] = flat(local.DiagonallyDominant(local.open(args.folder)).system, "power law")
        print(found["folder"])
    write("local_flat", found)


if __name__ == "__main__":
    main()
