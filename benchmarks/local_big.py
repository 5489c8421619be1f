"""Matrices and graphs of up to 1e8 rows on disk, made row by row: time, resident memory, bytes.

Edges and values are hashes of node numbers, so rows come in any order without a shuffle. Node i has an edge to i - 1,
one to a node of its block or the one before (of 4,096 nodes), one to a node of these where few are drawn often (degrees
of a power law, hubs of several hundred), and one in sixteen has one to its mirror n - 1 - i. About 7 entries in a row
with the diagonal, the same around a node for every n. Forms:

general     three quarters of the directions, values of both signs, columns made by the streaming transposition
symmetric   the values of a Laplacian, no columns
graph       undirected, without weights

Matrices are float32, and dominant by rows and by columns, each margin at least GAP of its diagonal entry.

The last folder stays where --keep says; a single one made so is not a result. Writes results/local_big.json.

    python benchmarks/local_big.py [--nodes N ...] [--forms FORM ...] [--place FOLDER] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from problems import write

import backsolve as bs

FORMS = ("general", "symmetric", "graph")
BLOCK = 4096
GAP = 0.1
SEED = np.uint64(0x5EED)


def mixed(x: np.ndarray, salt: int) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on x and the salt alone (the finalizer of splitmix64)."""
    z = x.astype(np.uint64) + SEED + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def pair(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """One number for an ordered pair."""
    return i.astype(np.uint64) * np.uint64(0xD1342543DE82EF95) + j.astype(np.uint64)


def edges(n: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges (i, j) of the rows first <= i < last of the undirected graph, sorted, without repeats or loops."""
    i = np.arange(first, min(last + 2 * BLOCK, n))
    start = np.maximum(i // BLOCK * BLOCK - BLOCK, 0)
    down = [i - 1, start + ((i - start) * mixed(i, 1)).astype(np.int64)]
    down.append(start + ((i - start) * mixed(i, 2) ** 4).astype(np.int64))
    own = np.arange(first, last)
    own = own[mixed(np.minimum(own, n - 1 - own), 3) < 1 / 16]
    low, high = np.concatenate(down), np.tile(i, 3)
    row, column = np.concatenate((low, high, own)), np.concatenate((high, low, n - 1 - own))
    kept = (row >= first) & (row < last) & (row != column) & (column >= 0)
    key = np.sort((row[kept] - first) * n + column[kept])
    key = key[np.diff(key, prepend=-1) > 0]
    return key // n + first, key % n


def rows(n: int, form: str, batch: int = 1 << 17) -> Iterator[tuple]:
    """Batches (lengths, indices, data) for `backsolve.local.save`."""
    for first in range(0, n, batch):
        last = min(first + batch, n)
        i, j = edges(n, first, last)
        count = last - first
        if form == "graph":
            yield np.bincount(i - first, minlength=count), j, None
            continue
        if form == "symmetric":
            values = -size(np.minimum(i, j), np.maximum(i, j))
            total = np.bincount(i - first, np.abs(values), minlength=count)
        else:
            forth, back = mixed(pair(i, j), 5) < 0.75, mixed(pair(j, i), 5) < 0.75
            values = size(i, j) * np.where(mixed(pair(i, j), 6) < 0.5, 1, -1).astype(np.float32)
            sums = [np.bincount(i[k] - first, v[k], count) for k, v in ((forth, np.abs(values)), (back, size(j, i)))]
            i, j, values, total = i[forth], j[forth], values[forth], np.maximum(*sums)
        yield with_diagonal(first, i, j, values, (total + 1e-3) / (1 - GAP))


def size(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Moduli of entries, in [0.5, 1)."""
    return (0.5 + 0.5 * mixed(pair(i, j), 4)).astype(np.float32)


def with_diagonal(first: int, i: np.ndarray, j: np.ndarray, values: np.ndarray, diagonal: np.ndarray) -> tuple:
    """Sorted rows with an entry (i, i) more in each, rounded up."""
    count = len(diagonal)
    own = np.arange(first, first + count)
    lengths = np.bincount(i - first, minlength=count)
    before = np.bincount(i[j < i] - first, minlength=count)
    places = np.cumsum(lengths) - lengths + before
    data = np.insert(values, places, np.nextafter(diagonal.astype(np.float32), np.float32(np.inf)))
    return lengths + 1, np.insert(j, places, own), data


def make(folder: Path, n: int, form: str) -> dict:
    """Save one, and tell what that took."""
    peak = {"anonymous": 0, "mapped": 0}
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(peak, done))
    watcher.start()
    begin = time.perf_counter()
    kind = "graph" if form == "graph" else "matrix"
    bs.local.save(folder, rows(n, form), n=n, kind=kind, symmetric=form != "general")
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    begin = time.perf_counter()
    A = bs.local.open(folder)
    opened = time.perf_counter() - begin
    return {
        "form": form,
        "n": n,
        "nnz": A.nnz,
        "seconds": round(seconds, 2),
        "seconds_to_open": round(opened, 5),
        "resident_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "resident_peak_without_mapped_files_mb": peak["anonymous"] // 1024,
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "row_gap": A.row_gap,
        "column_gap": A.column_gap,
    }


def watch(peak: dict, done: threading.Event) -> None:
    """Follow the memory that belongs to the process alone."""
    while not done.wait(0.05):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                peak["anonymous"] = max(peak["anonymous"], int(line.split()[1]))


def measured(place: Path, n: int, form: str, keep: Path | None) -> dict:
    """`make` in a process of its own, so that peaks are of one folder."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        call = [sys.executable, __file__, "--one", str(keep or Path(folder) / "A"), "--nodes", str(n), "--forms", form]
        return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=lambda text: int(float(text)), nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--forms", choices=FORMS, nargs="+", default=list(FORMS))
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(make(args.one, args.nodes[0], args.forms[0])))
        return
    cases, wanted = [], [(n, form) for n in args.nodes for form in args.forms]
    for n, form in wanted:
        free = shutil.disk_usage(args.place).free
        if free < 200 * n:
            print(f"{form} with {n} nodes left out: {free >> 30} GiB free")
            continue
        cases.append(measured(args.place, n, form, args.keep if (n, form) == wanted[-1] else None))
        print(cases[-1], flush=True)
    if not args.keep or len(wanted) > 1:
        print(write("local_big", {"gap": GAP, "memory": "256 MiB, the default of save", "cases": cases}))


if __name__ == "__main__":
    main()
