"""How do backsolve's engines compare with each other, with the same engines by hand, and with other packages?

Forward and backward of one solve with new values on a known pattern, as in training, for every problem by every entry,
each in a process of its own; entries take turns, round after round. The stages inside of it and set-up (what a new
pattern costs) are timed apart where the entry has them. Beside the times stand residuals, backward errors, errors
against extended precision, and the growth of peak memory. An entry that is not installed, fails or takes too long is
kept with the reason. Writes results/compare.json after every problem; --render makes compare.md and compare.png of it.
--results jax does the same for JAX alone: backsolve there beside the peers, with the factorizations of a step.

    python benchmarks/compare.py --make-environment FOLDER
    python benchmarks/compare.py --environment FOLDER [--data FOLDER] [--rounds N] [--only TEXT]
    python benchmarks/compare.py --results jax --environment FOLDER
    python benchmarks/compare.py [--results jax] --render
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import quantiles
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

from problems import RESULTS, ROOT, write  # noqa: E402
from worker import SUITES  # noqa: E402

PINNED = (
    "numpy==2.4.6", "scipy==1.17.1", "torch==2.13.0", "jax==0.10.2", "jaxlib==0.10.2", "lineax==0.1.1",
    "klujax==0.5.2", "torch-sla==0.4.0", "torchsparsegradutils==0.2.7", "packaging==26.3", "sparsax==0.9.0",
    "mkl==2026.2.0", "entangle-jax==0.1.1", "asdex==0.5.1",
)  # fmt: skip
APART = ("splineax==0.4.0", "splineax-klujax==0.5.0.post7", "pardiso-mkl-jax==0.3.0")
"""What cannot live beside the others: splineax has a klujax of its own, of the same name."""
OURS = {"ours", "ours_jax", "by_hand"}
"""Modules that run in the environment of backsolve itself."""

QUIET = {key: "1" for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BACKSOLVE_NUM_THREADS")}
QUIET["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
QUIET["JAX_PLATFORMS"] = "cpu"
QUIET["CUDA_VISIBLE_DEVICES"] = ""


def make_environment(folder: Path) -> None:
    """A virtual environment with the peers; one that does not install is named and left out."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    if subprocess.run([*pip, *PINNED]).returncode:
        for package in PINNED:
            if subprocess.run([*pip, package]).returncode:
                print(f"{package} does not install")
    if subprocess.run([*pip, "--no-deps", "--target", folder / "splineax", *APART]).returncode:
        print("splineax does not install")


class Worker:
    """A process for one entry, what became of it on the problem at hand, and the limit on every answer."""

    def __init__(self, suite: str, entry: str, environment: Path | None, limit: float):
        own = SUITES[suite][entry][0] in OURS
        # Krylov methods are slow entries also where they are ours.
        self.all_rounds = own and not entry.endswith(("cg", "bicgstab"))
        self.suite, self.entry, self.limit = suite, entry, limit
        self.python = sys.executable if own else str(environment / "bin" / "python") if environment else None
        self.process: subprocess.Popen | None = None
        self.outcome: dict[str, Any] = {}

    def start(self) -> None:
        """Start the process where there is none."""
        if self.process is None and self.python:
            command = [self.python, str(HERE / "peers" / "worker.py"), self.suite, self.entry]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, **QUIET},
            )  # fmt: skip

    def begin(self, problem: Path) -> None:
        """Turn to another problem."""
        self.answer, self.over = problem.with_suffix(f".{self.entry.replace(' ', '_')}.npz"), False
        self.rounds: list[dict] = []
        self.stages: list[dict] = []
        self.outcome = {"status": "running"}
        if self.python is None:
            self.outcome = {"status": "not run", "reason": "no environment with peers was given"}
        self.start()
        self.ask(f"load {problem} {self.answer}")
        self.first = self.ask("first")

    @property
    def alive(self) -> bool:
        return self.outcome["status"] == "running"

    def ask(self, command: str) -> dict[str, Any] | None:
        """The answer to a command, or None and an outcome that says why."""
        if not self.alive or self.process is None:
            return None
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(self.limit, self._expire)
        timer.start()
        try:
            print(command, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        told = json.loads(line) if line else {}
        for status in ("unfit", "failed"):
            if status in told:
                self.outcome = {"status": status, "reason": told[status]}
        if not line:
            died = f"the process ended with {self.process.wait()}"
            self.process = None
            self.outcome = {
                "status": "limit" if self.over else "failed",
                "reason": f"more than {self.limit:g} s for '{command.split()[0]}'" if self.over else died,
            }
        return told if self.alive else None

    def _expire(self) -> None:
        self.over = True
        if self.process is not None:
            self.process.kill()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def total(seconds: dict[str, list[float]], which: int = 0) -> float:
    return sum(taken[which] for taken in seconds.values())


def spread(seconds: list[float]) -> dict[str, float]:
    """Quartiles in milliseconds."""
    low, middle, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return {"low": 1e3 * low, "median": 1e3 * middle, "high": 1e3 * high}


def summary(worker: Worker, case: Any) -> dict[str, Any]:
    """What is kept of an entry: milliseconds of the processor and of the wall, and how right it is."""
    if not worker.alive:
        return worker.outcome
    first, rounds = worker.first, worker.rounds or [worker.first]
    rows = [r["seconds"] for r in rounds]
    forward = [sum(r[s][0] for s in ("factor", "solve", "forward") if s in r) for r in rows]
    inside = [r["seconds"] for r in worker.stages] + ([] if "forward" in rows[0] else rows)
    names = sorted({name for r in inside for name in r})
    return {
        "status": "done",
        "detail": first["detail"] or "",
        "factorizations": first["factorizations"],
        "versions": first["versions"],
        "rounds": len(rounds),
        "total": spread([total(r) for r in rows]),
        "total_wall": spread([total(r, 1) for r in rows]),
        "forward": spread(forward),
        "backward": spread([total(r) - f for r, f in zip(rows, forward, strict=True)]),
        "stages": {name: spread([r[name][0] for r in inside if name in r]) for name in names},
        "peak_megabytes": first["peak_megabytes"],
        "rounds_ms": [1e3 * total(r) for r in rows],
        # JSON has no infinity: None is what is not finite.
        **{key: value if value < math.inf else None for key, value in case.judge(worker.answer).items()},
    }


def budget_left(worker: Worker, args: argparse.Namespace) -> bool:
    """Slow entries get fewer rounds than are asked for; our direct engines and their floors all of them."""
    return worker.all_rounds or total(worker.first["seconds"]) * (len(worker.rounds) + 2) <= args.budget


def measure(name: str, workers: dict[str, Worker], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All entries on one problem."""
    from cases import Case

    case = Case(name, args.data, folder)
    for entry, worker in workers.items():
        worker.begin(case.path)
        print(f"  {entry:22s} {worker.outcome.get('reason') or total(worker.first['seconds'])}", flush=True)
    names = list(workers)
    for turn in range(args.rounds * (3 if case.A.shape[0] < 3_000 else 1)):
        for entry in names if turn % 2 else reversed(names):
            worker, scale = workers[entry], 1 + 1e-3 * (turn + 1)
            if not worker.alive or not budget_left(worker, args):
                continue
            if (told := worker.ask(f"step {scale}")) is not None:
                worker.rounds.append(told)
            slow = total(worker.first["seconds"]) > args.budget / 6
            if (turn == 0 or not slow) and (told := worker.ask(f"stages {scale + 1e-4}")) and told["seconds"]:
                worker.stages.append(told)
    return case.describe() | {"entries": {entry: summary(worker, case) for entry, worker in workers.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-environment", type=Path, metavar="FOLDER")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--results", default="compare", choices=SUITES, help="which entries, and what is written")
    parser.add_argument("--environment", type=Path, metavar="FOLDER")
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for all rounds of a slow entry")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one step")
    parser.add_argument("--only", default="", help="texts in names of problems, by commas; others stay as kept")
    parser.add_argument("--entries", default="", help="the same for entries: what was slow before need not run again")
    args = parser.parse_args()
    if args.make_environment:
        make_environment(args.make_environment)
        return
    if not args.render:
        run(args)
    from report import render, render_jax

    content = json.loads((RESULTS / f"{args.results}.json").read_text())
    print((render_jax if args.results == "jax" else render)(content, RESULTS))


def run(args: argparse.Namespace) -> None:
    from cases import CASES, JAX_CASES

    kept, entries = RESULTS / f"{args.results}.json", SUITES[args.results]
    names = JAX_CASES if args.results == "jax" else CASES
    table = json.loads(kept.read_text())["problems"] if kept.exists() else {}
    chosen = [entry for entry in entries if any(text in entry for text in args.entries.split(","))]
    workers = {entry: Worker(args.results, entry, args.environment, args.limit) for entry in chosen}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in dict.fromkeys(name for text in args.only.split(",") for name in names if text in name):
                print(name, flush=True)
                try:
                    found = measure(name, workers, args, Path(folder))
                except FileNotFoundError as missing:
                    print(f"  left out: {missing}")
                    continue
                before = table[name]["entries"] if args.entries and name in table else {}
                found["entries"] = before | found["entries"]
                table[name] = found
                keep(table, args)
    finally:
        for worker in workers.values():
            worker.close()


def keep(table: dict[str, Any], args: argparse.Namespace) -> None:
    """Write all that is known; whether the sources differed from the commit is part of it."""
    sources = [str(ROOT / name) for name in ("src", "csrc")]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *sources], cwd=ROOT).returncode
    settings = {"rounds": args.rounds, "budget_seconds": args.budget, "limit_seconds": args.limit}
    settings["changes_since_commit"] = bool(changed)
    write(args.results, {"settings": settings, "threads": QUIET, "problems": table})


if __name__ == "__main__":
    main()
