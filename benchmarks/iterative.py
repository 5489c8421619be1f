"""What do preconditioners, batches and adjoints cost, beside direct engines and other packages?

model     iterations and times of CG on diffusion with a log-normal coefficient, 64² to 512², by preconditioner
cubes     Poisson in three dimensions, 24³ to 96³: CG with and without preconditioners, Pardiso, torch-sla, jax, lineax
batches   one solve of a batch over a loop of the best engine
adjoints  iterations of the adjoint over those of the forward solve, where A is not symmetric

Times are those of the processor, one thread. True residuals are computed apart. Writes results/iterative.json after
every part; --render makes iterative.md and iterative.png of it.

    OMP_NUM_THREADS=1 python benchmarks/iterative.py [--part NAME] [--environment FOLDER] [--data FOLDER]
    python benchmarks/iterative.py --render
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "peers"), str(HERE / "krylov")]

from problems import RESULTS, ROOT, machine, write  # noqa: E402

PARTS = ("model", "adjoints", "batches", "cubes")


def measured(part: str, args: argparse.Namespace, kept: dict[str, Any]) -> dict[str, Any]:
    """One part, by the module of its name."""
    if part == "model":
        from model import run

        return run(tuple(args.sides or (64, 128, 256, 512)))
    if part == "cubes":
        from cubes import run as run_cubes

        return run_cubes(tuple(args.sides or (24, 48, 96)), args.environment, kept.get(part, {}))
    if part == "batches":
        from batches import run as run_batches

        return run_batches()
    from adjoints import run as run_adjoints

    return run_adjoints(args.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="these only; others stay as kept")
    parser.add_argument("--sides", type=int, nargs="*", help="points on a side, for one of model and cubes")
    parser.add_argument("--environment", type=Path, metavar="FOLDER", help="with peers: see compare.py")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with Matrix Market files")
    parser.add_argument("--render", action="store_true")
    args = parser.parse_args()
    path = RESULTS / "iterative.json"
    for part in () if args.render else args.part or PARTS:
        print(part, flush=True)
        kept = json.loads(path.read_text())["parts"] if path.exists() else {}
        sources = [str(ROOT / name) for name in ("src", "csrc")]
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *sources], cwd=ROOT).returncode
        found = measured(part, args, kept)
        found |= {"commit": machine()["commit"], "changes_since_commit": bool(changed)}
        write("iterative", {"parts": kept | {part: found}})
    from iterative_report import render

    render(json.loads(path.read_text()), RESULTS)


if __name__ == "__main__":
    main()
