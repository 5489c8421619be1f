"""What does personalised PageRank of one seed cost, here and elsewhere, at equal measured error?

Undirected power-law graphs of 1e5 and 1e6 nodes, and with --data the shared graphs (their edges taken both ways). The
error is max |x_v - x̂_v| / d_v against power iteration to 1e-15; every entry, ours too, is timed at its loosest setting
within the target, in CPU time of one thread. Beside that: seeds per second of a batch (elapsed), and time per edge
against two loops that read and write the same nodes (local_floor.cpp). Writes results/local_pagerank.json after every
graph; --render makes .md and .png of it.

    python benchmarks/local_pagerank.py --make-environment FOLDER
    python benchmarks/local_pagerank.py --environment FOLDER [--data FOLDER]
    python benchmarks/local_pagerank.py --render
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
from problems import RESULTS, write

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from ranking import ALPHA, ENTRIES, TARGETS  # noqa: E402

PEERS = ("networkit==11.3", "scikit-network==0.33.5", "igraph==1.0.0", "torch", "torch_geometric==2.8.1", "numba")
SHARED = ("wiki-Vote", "power", "astro-ph", "cora-cites", "luxembourg_osm")
OURS = ("backsolve", "SciPy power iteration", "SciPy spsolve")
"""Entries that run in this environment."""
FILE = RESULTS / "local_pagerank.json"
QUIET = {key: "1" for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "BACKSOLVE_NUM_THREADS")}


def power_law(n: int, m: int = 5) -> sp.csr_array:
    """Barabási and Albert: each new node takes m ends of earlier edges, drawn uniformly."""
    rng = np.random.default_rng(0)
    ends = np.empty(2 * m * n, np.int64)
    ends[: 2 * m] = np.repeat(np.arange(2), m)
    filled = 2 * m
    pick = rng.random(m * n)
    for v in range(2, n):
        ends[filled : filled + m] = ends[(pick[m * v : m * v + m] * filled).astype(np.int64)]
        ends[filled + m : filled + 2 * m] = v
        filled += 2 * m
    old, new = ends[:filled].reshape(-1, 2, m).transpose(1, 0, 2).reshape(2, -1)
    old[:m], new[:m] = 0, 1
    return undirected(sp.coo_array((np.ones(old.size), (old, new)), shape=(n, n)))


def undirected(A: sp.coo_array) -> sp.csr_array:
    """A graph without weights, loops and repeats, its edges taken both ways."""
    A = sp.csr_array(A)
    A = sp.csr_array(A + A.T)
    A.setdiag(0)
    A.eliminate_zeros()
    A.data[:] = 1
    A.sort_indices()
    return A


def truth(A: sp.csr_array, seeds: np.ndarray) -> np.ndarray:
    """Scores by power iteration."""
    d = np.maximum(np.diff(A.indptr), 1)
    steps = sp.csr_array((ALPHA * sp.diags_array(1 / d) @ A).T)
    b = np.zeros((A.shape[0], len(seeds)))
    b[seeds, np.arange(len(seeds))] = 1 - ALPHA
    x = b / (1 - ALPHA)
    while True:
        x, last = steps @ x + b, x
        if np.abs(x - last).sum(0).max() < 1e-15:
            return np.ascontiguousarray(x.T)


def time_entry(entry: str, path: Path, environment: Path | None) -> dict[str, Any]:
    """Cells of one entry, from a process of its own."""
    python = sys.executable if entry in OURS else str(environment / "bin" / "python") if environment else None
    if python is None:
        return {f"{target:g}": {"reason": "no environment with peers was given"} for target in TARGETS}
    command = [python, str(HERE / "peers" / "ranking.py"), entry, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **QUIET})
    if done.returncode:
        return {f"{target:g}": {"reason": f"the process ended with {done.returncode}"} for target in TARGETS}
    return json.loads(done.stdout.splitlines()[-1])


def floor(A: sp.csr_array, seeds: np.ndarray, library: Path) -> list[dict[str, Any]]:
    """Time per edge of pushes, and of the two loops over the edges of the same pushed nodes, all warm."""
    import backsolve.local as local

    kernel = ctypes.CDLL(str(library))
    kernel.by_list.restype = kernel.by_rows.restype = ctypes.c_double
    graph, rows = local.Graph.from_arrays(A.indptr, A.indices, directed=False), []
    records, count = np.zeros((A.shape[0], 2)), ctypes.c_int64
    pointer = [a.ctypes.data_as(ctypes.c_void_p) for a in (records, A.indptr, A.indices)]
    for eps in (1e-4, 1e-5, 1e-6, 1e-7):
        per = []
        for seed in seeds.tolist():
            ranks = local.pagerank(graph, seed, eps=eps)
            nodes = ranks.indices.copy()
            ends = np.concatenate([A.indices[A.indptr[v] : A.indptr[v + 1]] for v in nodes])
            best = [np.inf, np.inf, np.inf]
            for _ in range(9):
                start = time.process_time()
                local.pagerank(graph, seed, eps=eps)
                found = (
                    (time.process_time() - start) / ranks.edges[0],
                    kernel.by_list(pointer[0], ends.ctypes.data_as(ctypes.c_void_p), count(len(ends))) / len(ends),
                    kernel.by_rows(*pointer, nodes.ctypes.data_as(ctypes.c_void_p), count(len(nodes))) / len(ends),
                )
                best = [min(a, b) for a, b in zip(best, found, strict=True)]
            per.append(best)
        push, by_list, by_rows = (1e9 * np.median(per, axis=0)).tolist()
        rows.append({"eps": eps, "push_ns": push, "list_ns": by_list, "rows_ns": by_rows})
    return rows


def batch(A: sp.csr_array) -> list[dict[str, Any]]:
    """Seeds per second of a batch of 1,000."""
    import backsolve.local as local

    graph, rows = local.Graph.from_arrays(A.indptr, A.indices, directed=False), []
    seeds = np.random.default_rng(2).integers(0, A.shape[0], 1000)
    for threads in sorted({1, os.cpu_count() or 1}):
        os.environ["BACKSOLVE_NUM_THREADS"] = str(threads)
        for eps in (1e-4, 1e-5):
            took = []
            for _ in range(4):
                start = time.perf_counter()
                ranks = local.pagerank(graph, seeds, eps=eps)
                took.append(time.perf_counter() - start)
            rate = 1000 / float(np.median(took[1:]))
            rows.append({"threads": threads, "eps": eps, "seeds_per_second": rate, "scores": len(ranks.values)})
    del os.environ["BACKSOLVE_NUM_THREADS"]
    return rows


def render() -> None:
    """The table and the figure, out of the JSON."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kept = json.loads(FILE.read_text())
    lines = ["| graph | nodes | error ≤ | " + " | ".join(ENTRIES) + " |", "|" + "---|" * (len(ENTRIES) + 3)]
    lost = []
    for graph in kept["graphs"]:
        for target in (f"{t:g}" for t in TARGETS):
            cells = {entry: graph["entries"][entry][target] for entry in ENTRIES}
            best = min(cell.get("seconds", np.inf) for cell in cells.values())
            shown = []
            for entry, cell in cells.items():
                text = f"{1e3 * cell['seconds']:.3g}" if "seconds" in cell else "–"
                shown.append(f"**{text}**" if cell.get("seconds") == best else text)
                if entry != "backsolve" and cell.get("seconds", np.inf) < cells["backsolve"].get("seconds", np.inf):
                    lost.append(f"- {graph['name']}, {target}: {entry} takes {text} ms")
            lines.append(f"| {graph['name']} | {graph['n']} | {target} | " + " | ".join(shown) + " |")
    text = "Milliseconds of CPU for one seed, median over seeds, one thread, at equal measured error.\n\n" + "\n".join(
        lines
    )
    text += "\n\nSlower here than elsewhere:\n\n" + ("\n".join(lost) or "- nowhere") + "\n\nNot run, or failed:\n\n"
    reasons = sorted(
        {
            f"- {entry}, {graph['name']}, {target}: {cell['reason']}"
            for graph in kept["graphs"]
            for entry, cells in graph["entries"].items()
            for target, cell in cells.items()
            if "reason" in cell
        }
    )
    text += "\n".join(reasons) + "\n\n| graph | eps | threads | seeds per second |\n|---|---|---|---|\n"
    for graph in kept["graphs"]:
        for row in graph["batch"]:
            text += f"| {graph['name']} | {row['eps']:g} | {row['threads']} | {row['seeds_per_second']:.0f} |\n"
    text += "\n| graph | eps | push, ns per edge | list | rows |\n|---|---|---|---|---|\n"
    for graph in kept["graphs"]:
        for row in graph["floor"]:
            numbers = " | ".join(f"{row[key]:.2f}" for key in ("push_ns", "list_ns", "rows_ns"))
            text += f"| {graph['name']} | {row['eps']:g} | {numbers} |\n"
    FILE.with_suffix(".md").write_text(text)
    count = len(kept["graphs"])
    across, down = min(count, 4), -(-count // 4)
    figure, axes = plt.subplots(down, across, figsize=(3 * across, 2.9 * down + 0.7), sharey=True, squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis, graph in zip(axes.flat, kept["graphs"], strict=False):
        for entry, cells in graph["entries"].items():
            points = [(t, cells[f"{t:g}"]["seconds"]) for t in TARGETS if "seconds" in cells[f"{t:g}"]]
            if points:
                axis.loglog(*zip(*points, strict=True), "o-", label=entry, lw=3 if entry == "backsolve" else 1)
        axis.set_title(f"{graph['name']}\nn = {graph['n']}", fontsize=9)
        axis.set_xlabel("error ≤")
        axis.invert_xaxis()
    for axis in axes[:, 0]:
        axis.set_ylabel("seconds per seed")
    named = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.4 / figure.get_figheight(), 1, 1))
    figure.savefig(FILE.with_suffix(".png"), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-environment", type=Path)
    parser.add_argument("--environment", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    if given.make_environment:
        subprocess.run([sys.executable, "-m", "venv", given.make_environment], check=True)
        subprocess.run([given.make_environment / "bin" / "python", "-m", "pip", "install", "-q", *PEERS], check=True)
        return
    if given.render:
        render()
        return
    made: list[tuple[str, Any]] = [("power law 1e5", lambda: power_law(100_000))]
    if given.data:
        files = {name: given.data / f"{name}.mtx.gz" for name in SHARED}
        made += [(name, lambda file=file: undirected(scipy.io.mmread(file))) for name, file in files.items()]
    made.append(("power law 1e6", lambda: power_law(1_000_000)))
    graphs = []
    with tempfile.TemporaryDirectory() as folder:
        library, path = Path(folder) / "floor.so", Path(folder) / "graph.npz"
        subprocess.run(["c++", "-O3", "-shared", "-fPIC", HERE / "local_floor.cpp", "-o", library], check=True)
        for name, make in made:
            A = make()
            A.indptr, A.indices = A.indptr.astype(np.int32), A.indices.astype(np.int32)
            places = np.flatnonzero(np.diff(A.indptr))
            seeds = np.random.default_rng(1).choice(places, given.seeds, replace=False)
            np.savez(path, indptr=A.indptr, indices=A.indices, seeds=seeds, truth=truth(A, seeds))
            entries = {entry: time_entry(entry, path, given.environment) for entry in ENTRIES}
            row = {"name": name, "n": A.shape[0], "edges": int(A.nnz), "entries": entries}
            graphs.append({**row, "batch": batch(A), "floor": floor(A, seeds, library)})
            print(name, {entry: [cells[f"{t:g}"].get("seconds") for t in TARGETS] for entry, cells in entries.items()})
            write("local_pagerank", {"alpha": ALPHA, "graphs": graphs})


if __name__ == "__main__":
    main()
