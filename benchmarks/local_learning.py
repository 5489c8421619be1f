"""How long a training step of a learned walk takes, and what it touches, on graphs of 10⁵ to 10⁸ edges.

Each graph is a pair of .npy files (indptr int64, indices int32) that is mapped, never loaded: node i has 4 to 12 edges,
to nodes within 4,096 of it, nearer ones more often, and every sixteenth edge to any node. Edges and their 8 features
are hashes, so that the surroundings of a node are alike for every size. The weight of an edge is exp(theta . features).
A step is that of examples/learned_walk.py: walks from 32 nodes, the loss of the ranks of 32 targets among 64 nodes near
them, backward, Adam. Steps start at nodes all over the graph; the first is not counted. Processor time is what other
work on the machine changes little. Resident memory is what the process grew by in the steps; pages of the files, which
the kernel may drop, are counted apart.

Writes results/local_learning.json.

    python benchmarks/local_learning.py [--edges N ...] [--steps N] [--folder FOLDER] [--place FOLDER]

--folder: a folder of backsolve.local.save, as benchmarks/local_big.py makes, instead.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from problems import write

from backsolve import local

FEATURES, QUERIES, CANDIDATES, EPS, ALPHA = 8, 32, 64, 1e-3, 0.85
DEGREE, WINDOW, BATCH = 8, 4096, 1 << 18


def mixed(x, salt):
    """Uniform numbers in [0, 1) out of integers (the finalizer of splitmix64)."""
    z = np.asarray(x).astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def make(place, edges):
    """Write indptr and indices, a batch of nodes at a time."""
    n = edges // DEGREE
    indptr = np.lib.format.open_memmap(place / "indptr.npy", "w+", np.int64, (n + 1,))
    indptr[0] = total = 0
    for first in range(0, n, BATCH):
        i = np.arange(first, min(first + BATCH, n))
        indptr[first + 1 : first + 1 + len(i)] = total + np.cumsum(4 + (9 * mixed(i, 1)).astype(np.int64))
        total = int(indptr[first + len(i)])
    indices = np.lib.format.open_memmap(place / "indices.npy", "w+", np.int32, (total,))
    for first in range(0, n, BATCH):
        last = min(first + BATCH, n)
        begin, end = int(indptr[first]), int(indptr[last])
        i = np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]))
        k = np.arange(end - begin) + 13 * i  # of the node and its edge, not of its place
        step = 1 + ((WINDOW - 1) * mixed(k, 2) ** 3).astype(np.int64)
        near = i + np.where(mixed(k, 3) < 0.5, step, -step)
        far = (n * mixed(k, 4)).astype(np.int64)
        indices[begin:end] = np.where(mixed(k, 5) < 1 / 16, far, near) % n
    indptr.flush()
    indices.flush()


def edge_weight(theta, edges):
    """exp(theta . features), the features being made of the number of the edge."""
    places = edges.numpy()
    features = np.stack([mixed(places, 16 + k) - 0.5 for k in range(FEATURES)], axis=1)
    return torch.exp(torch.from_numpy(features) @ theta)


def loss_of(x, targets):
    """A smooth log of the rank of the target among all that are looked at."""
    scores = torch.log(x + 10 * EPS)
    return torch.log(torch.sigmoid(4 * (scores - scores[range(len(targets)), targets][:, None])).sum(1)).mean()


def resident():
    """(bytes of the process itself, bytes of mapped files), both resident."""
    status = Path("/proc/self/status").read_text()
    value = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Rss")}
    return int(value["RssAnon"]) << 10, int(value["RssFile"]) << 10


def measure(graph, steps):
    """Times and counts of the steps on one graph."""
    walk, rng = local.LearnedWalk(graph, edge_weight, alpha=ALPHA), np.random.default_rng(0)
    theta = torch.zeros(FEATURES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], 0.05)
    own, files = resident()
    rows = []
    for _ in range(steps + 1):
        seeds = rng.integers(0, graph.n, QUERIES)
        at = (seeds[:, None] + rng.integers(1, 64, (QUERIES, CANDIDATES))) % graph.n
        start, busy = time.perf_counter(), time.process_time()
        est = walk(theta, seeds, eps=EPS, at=at)
        middle = time.perf_counter()
        optimizer.zero_grad()
        loss_of(est.value, rng.integers(0, CANDIDATES, QUERIES)).backward()
        optimizer.step()
        end, busy = time.perf_counter(), time.process_time() - busy
        found, _ = est.query
        rows.append((middle - start, end - middle, busy, est.touched, found.evaluated, found.calls))
    after, mapped = resident()
    forward, backward, processor, touched, evaluated, calls = np.array(rows[1:]).T
    return {
        "nodes": graph.n,
        "edges": len(graph.indices),
        "forward_seconds": quartiles(forward),
        "backward_seconds": quartiles(backward),
        "step_seconds": quartiles(forward + backward),
        "processor_seconds": quartiles(processor),
        "edges_read_by_pushes": quartiles(touched),
        "weights_evaluated": quartiles(evaluated),
        "calls": quartiles(calls),
        "own_bytes_grown": after - own,
        "file_bytes_resident_grown": mapped - files,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def quartiles(values):
    return [float(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]


def one(options):
    """One size, in a process of its own."""
    torch.set_num_threads(1)
    if options.folder:
        folder = local.open(options.folder)
        graph = local.Graph.from_arrays(folder.indptr, folder.indices)
        print(json.dumps(measure(graph, options.steps)))
        return
    with tempfile.TemporaryDirectory(dir=options.place) as place:
        start = time.perf_counter()
        # Made elsewhere, so that this process has none of it in memory.
        command = [sys.executable, __file__, "--make", place, "--edges", str(options.edges[0])]
        subprocess.run(command, check=True)
        made = time.perf_counter() - start
        arrays = [np.load(Path(place) / f"{name}.npy", mmap_mode="r") for name in ("indptr", "indices")]
        found = measure(local.Graph.from_arrays(*arrays), options.steps)
        print(json.dumps(found | {"make_seconds": made}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[10**5, 10**6, 10**7, 10**8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder")
    parser.add_argument("--place")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make(Path(options.make), options.edges[0])
    if options.one:
        return one(options)
    results = []
    for edges in [None] if options.folder else options.edges:
        command = [sys.executable, __file__, "--one", "--steps", str(options.steps)]
        command += ["--folder", options.folder] if options.folder else ["--edges", str(edges)]
        command += ["--place", options.place] if options.place else []
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(run.stdout))
        r = results[-1]
        print(
            f"{r['edges']:>12,} edges   step {r['step_seconds'][1] * 1e3:7.1f} ms, of the processor "
            f"{r['processor_seconds'][1] * 1e3:.1f}   evaluated "
            f"{r['weights_evaluated'][1]:9,.0f}   read {r['edges_read_by_pushes'][1]:9,.0f}   calls "
            f"{r['calls'][1]:3.0f}   own memory +{r['own_bytes_grown'] / 2**20:.0f} MiB   files "
            f"+{r['file_bytes_resident_grown'] / 2**20:.0f} MiB",
            flush=True,
        )
    if not options.folder:
        settings = {"queries": QUERIES, "eps": EPS, "alpha": ALPHA, "steps": options.steps}
        write("local_learning", {"settings": settings, "sizes": results})
    return None


if __name__ == "__main__":
    main()
