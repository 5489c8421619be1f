"""Does a trained V-cycle beat its classical twins, at equal accuracy and in total time?

Trains `LearnedVCycle` on diffusion with a log-normal coefficient at 64², sigma = 1, and holds it against Jacobi, IC(0),
MIC(.99), both kinds of pyamg and cycles set by hand, from 64² to 512², for sigma = 1 and, not trained on, sigma = 2 and
three dimensions; then the same through hierarchies of pyamg on unstructured meshes. Times are those of the processor,
one thread for all; the field and right-hand side of a seed are the same in every run.

    OMP_NUM_THREADS=1 python benchmarks/learned_vcycle.py [--part NAME] [--render]

Writes results/learned_vcycle.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

from problems import RESULTS, machine, write

from backsolve import gallery, learn

CHEBYSHEV = (0.55, 1.25, 1.0)
"""Weights of Chebyshev's polynomial of degree two on the upper two thirds of the spectrum, nearly."""
SIDES = (64, 128, 256, 512)
MESHES = (32, 64, 128)
TARGET = (8, 8, 9, 9)


def said(step: int, loss: float, held_out: float) -> None:
    print(f"   step {step}: {loss:.3f}, held out {held_out:.3f}")


def trained(module: Any, family: Any, **options: Any) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = learn.fit(module, family, callback=said, **options)
    print(found)
    return time.perf_counter() - begin, found


TWINS = learn.TWINS | {"cycle, Chebyshev by hand": learn.VCycle((CHEBYSHEV,))}


def grids() -> dict[str, Any]:
    module = learn.LearnedVCycle(levels=3)
    seconds, fit = trained(module, gallery.Diffusion(side=64), steps=200, train=32, batch=8, every=20)
    families: dict[str, Any] = {f"{s}², σ = 1": gallery.Diffusion(s) for s in SIDES}
    families |= {f"{s}², σ = 2": gallery.Diffusion(s, sigma=2.0) for s in SIDES}
    families |= {f"{s}³, σ = 1": gallery.Diffusion(s, dims=3) for s in (24, 48)}
    return compared(module, seconds, fit, families, TWINS)


def meshes() -> dict[str, Any]:
    module = learn.LearnedVCycle(levels=4, hierarchy="ruge_stuben")
    seconds, fit = trained(module, gallery.P1Mesh(32), steps=80, train=16, batch=8, every=10)
    twins = {name: replace(M, hierarchy="ruge_stuben") if "cycle" in name else M for name, M in TWINS.items()}
    families: dict[str, Any] = {f"mesh of {s}² nodes": gallery.P1Mesh(s) for s in MESHES}
    families[f"mesh of {MESHES[-1]}² nodes, σ = 2"] = gallery.P1Mesh(MESHES[-1], sigma=2.0)
    return compared(module, seconds, fit, families, twins)


def compared(module: Any, seconds: float, fit: Any, families: dict[str, Any], twins: dict[str, Any]) -> dict[str, Any]:
    name = "cycle, learned"
    found = learn.report({name: module.export()}, families, twins=twins, training_seconds={name: seconds})
    print(found)
    told = {"weights": module.export().weights, "seconds": seconds, "steps": fit.steps, "stopped": fit.stopped}
    return json.loads(found.to_json()) | told | {"validations": fit.validations}


PARTS = {"grids": grids, "meshes": meshes}


HEADER = """# A V-cycle that learned its weights, and its twins

Made by `benchmarks/learned_vcycle.py` of `learned_vcycle.json`. Means of the iterations, and medians of the times, of
three problems that were not trained on; milliseconds of processor time, one thread; every solve by CG, to the same true
residual. Set-up is all that is done for the values, and for cycles also what is done for the pattern. Break-even: after
how many solves training is repaid, against the quickest twin.
"""


def render(content: dict[str, Any]) -> None:
    parts = content["parts"]
    page = [HEADER, f"Machine: {', '.join(f'{k} {v}' for k, v in content['machine'].items())}.\n", "## Verdict\n"]
    page.append(verdict(parts["grids"]))
    titles = {"grids": "Grids", "meshes": "Unstructured meshes, hierarchies by pyamg's Ruge and Stüben"}
    for title, part in ((titles[name], parts[name]) for name in PARTS if name in parts):
        weights = "; ".join("(" + ", ".join(f"{v:.3f}" for v in row) + ")" for row in part["weights"])
        first, best = part["validations"][0][1], min(v for _, v in part["validations"])
        page.append(
            f"## {title}\n\nTrained in {part['seconds']:.0f} s, {part['steps']} steps (stopped by {part['stopped']}); "
            f"held-out loss {first:.2f} → {best:.2f}; (a, b, scale) by level: {weights}.\n"
        )
        page.append(str(_report(part)) + "\n")
    (RESULTS / "learned_vcycle.md").write_text("\n".join(page))
    _report(parts["grids"]).plot(RESULTS / "learned_vcycle.png")


def _report(part: dict[str, Any]) -> learn.Report:
    return learn.Report(part["rows"], part["rtol"], part["training_seconds"])


def verdict(grids: dict[str, Any]) -> str:
    """What was aimed at, and what came of it, from the numbers alone."""
    rows = {(r["family"], r["solver"]): r for r in grids["rows"]}
    lines = []
    for sigma in (1, 2):
        found = [
            [rows[f"{s}², σ = {sigma}", name]["iterations"] for s in SIDES]
            for name in ("cycle, learned", "cycle, by hand", "cycle, Chebyshev by hand")
        ]
        shown = [" / ".join(f"{v:.3g}" for v in each) for each in found]
        lines.append(f"- σ = {sigma}, 64² to 512²: learned {shown[0]}; by hand {shown[1]}; Chebyshev by hand {shown[2]}"
                     f" (aim: at most {' / '.join(map(str, TARGET))}, below the cycle by hand everywhere: "
                     f"{'yes' if all(a < b for a, b in zip(*found[:2], strict=True)) else 'no'}).")  # fmt: skip
    last = {name: row["total_ms"] for (family, name), row in rows.items() if family == "512², σ = 1"}
    mine = last.pop("cycle, learned")
    ratios = ", ".join(f"{name} {total / mine:.1f}×" for name, total in last.items())
    lines.append(f"- Total time at 512², σ = 1, over that of the learned cycle ({mine:.0f} ms): {ratios}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="these only; others stay as kept")
    parser.add_argument("--render", action="store_true", help="pages from the JSON alone")
    args = parser.parse_args()
    path = RESULTS / "learned_vcycle.json"
    for part in () if args.render else args.part or PARTS:
        found = PARTS[part]() | {"commit": machine()["commit"]}
        kept = json.loads(path.read_text())["parts"] if path.exists() else {}
        write("learned_vcycle", {"parts": kept | {part: found}})
    render(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
