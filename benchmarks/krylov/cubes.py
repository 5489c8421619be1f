"""Poisson's equation in three dimensions: how iterations, times and memory grow, beside CG of other packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cases import cube
from compare import QUIET
from cube_entries import MEMORY, OURS, PEERS, RTOL

LIMIT = 100.0
"""Seconds for one entry on one problem, imports and compilation included."""


def run(sides: tuple[int, ...], environment: Path | None, kept: dict[str, Any]) -> dict[str, Any]:
    """Every entry on every cube; what is kept of other sides stays."""
    found = {int(side): rows for side, rows in kept.get("found", {}).items()}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            A, rng = cube(side), np.random.default_rng(0)
            A.sort_indices()
            b, g = rng.standard_normal((2, A.shape[0]))
            path = Path(folder) / "cube.npz"
            np.savez(path, data=A.data, indices=A.indices.astype(np.int32), indptr=A.indptr.astype(np.int32), b=b, g=g)
            rounds = 1 if side > 64 else 5
            found[side] = {entry: one(entry, path, environment, rounds) for entry in (*OURS, *PEERS)}
    return {"rtol": RTOL, "limit_seconds": LIMIT, "limit_bytes": MEMORY, "found": dict(sorted(found.items()))}


def one(entry: str, problem: Path, environment: Path | None, rounds: int) -> dict[str, Any]:
    """What the process of an entry says, or why it says nothing."""
    if entry in PEERS and environment is None:
        return {"status": "not run", "reason": "no environment with peers was given"}
    python = str(environment / "bin" / "python") if entry in PEERS and environment else sys.executable
    command = [python, str(Path(__file__).with_name("cube_entries.py")), entry, str(problem), str(rounds)]
    try:
        made = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **QUIET}, check=False
        )
        told = (
            json.loads(made.stdout) if made.stdout else {"status": "failed", "reason": f"ended with {made.returncode}"}
        )
    except subprocess.TimeoutExpired:
        told = {"status": "limit", "reason": f"more than {LIMIT:g} s"}
    print(f"  {entry:26s} {told}", flush=True)
    return told
