"""What do the ways to differentiate a solve cost, and how wrong are they?

curse       errors of forward, unrolled and implicit gradients by iterations: the curse of unrolling, and its absence
memory      peak memory of unrolling over that of implicit differentiation, by iterations
tolerance   error of the implicit gradient by its two tolerances
ways        `gradients.compare` on dense, diffusion, convection and circuit matrices
cost        exponents of time in n and in iterations, forward and backward

One thread. Writes results/gradients.json after every part, and of it gradients.md, gradients.png, and a figure for each
problem of `ways`.

    OMP_NUM_THREADS=1 python benchmarks/gradients.py [--quick] [--part NAME] [--data FOLDER]
    python benchmarks/gradients.py --render
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from problems import RESULTS, machine, write  # noqa: E402

PARTS = ("curse", "memory", "tolerance", "ways", "cost")


def measured(part: str, small: bool, data: Path | None) -> dict[str, Any]:
    """One part, at its full size or a small one."""
    if part == "curse":
        from gradients_curse import run

        return run(32, (10, 20, 40)) if small else run(128)
    if part == "memory":
        from gradients_memory import run as run_memory

        return run_memory((16,), (15, 60)) if small else run_memory((32, 128))
    if part == "tolerance":
        from gradients_accuracy import tolerances

        return tolerances(32 if small else 128)
    if part == "ways":
        from gradients_accuracy import compared

        return {"found": compared((32,) if small else (128, 256, 512), data)}
    from gradients_cost import run as run_cost

    return {"found": run_cost(small)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="these only; others stay as kept")
    parser.add_argument("--quick", action="store_true", help="small sizes, printed and not kept")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with Matrix Market files")
    parser.add_argument("--render", action="store_true", help="only make page and figures of what is kept")
    args = parser.parse_args()
    path = RESULTS / "gradients.json"
    for part in () if args.render else args.part or PARTS:
        print(part, flush=True)
        start = time.perf_counter()
        found = measured(part, args.quick, args.data)
        found |= {"commit": machine()["commit"], "seconds": time.perf_counter() - start}
        print(f"{part}: {found['seconds']:.0f} s", flush=True)
        if not args.quick:
            kept = json.loads(path.read_text())["parts"] if path.exists() else {}
            write("gradients", {"parts": kept | {part: found}})
    if not args.quick:
        from gradients_report import render

        render(json.loads(path.read_text()), RESULTS)


if __name__ == "__main__":
    main()
