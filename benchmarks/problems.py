"""Problems that several benchmarks share."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import scipy
import scipy.io
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"


def laplacian(m: int, convection: float = 0.0) -> sp.csr_array:
    """Five-point Laplacian on m x m points, with central differences of a constant wind along both axes."""
    one = sp.diags_array(
        [np.full(m - 1, -1 - convection), np.full(m, 2.0), np.full(m - 1, -1 + convection)], offsets=[-1, 0, 1]
    )
    return sp.csr_array(sp.kron(sp.eye_array(m), one) + sp.kron(one, sp.eye_array(m)))


def matrix(name: str, data: Path | None) -> sp.csr_array | None:
    """A benchmark matrix by name; None for a file that is not in the folder `data`."""
    made = {"poisson512": lambda: laplacian(512), "convection512": lambda: laplacian(512, 0.5)}
    if name in made:
        return made[name]()
    for folder in (data, ROOT / "examples" / "data", ROOT / "tests" / "data"):
        if folder is not None and (path := folder / f"{name}.mtx.gz").exists():
            A = sp.csr_array(scipy.io.mmread(path))
            A.sort_indices()
            return A
    return None


def machine() -> dict:
    """What a measurement was made on and with."""
    import torch

    import backsolve

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "backsolve": backsolve.__version__,
        "commit": commit.stdout.strip(),
    }


def write(name: str, content: dict) -> Path:
    """Keep a result as JSON beside the machine it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    return path
