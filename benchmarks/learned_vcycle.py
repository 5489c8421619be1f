"""Does a trained V-cycle beat its classical twins, at equal accuracy and in total time?

Trains `LearnedVCycle` on diffusion with a log-normal coefficient at 64², sigma = 1, and holds it against Jacobi, IC(0),
MIC(.99), both kinds of pyamg and cycles set by hand, from 64² to 512², for sigma = 1 and, not trained on, sigma = 2 and
three dimensions; then the same through hierarchies of pyamg on unstructured meshes. Times are those of the processor, one
thread for all; the field and right-hand side of a seed are the same in every run.

    OMP_NUM_THREADS=1 python benchmarks/learned_vcycle.py [--render]

Writes results/learned_vcycle.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from problems import RESULTS, write

from backsolve import gallery, learn

CHEBYSHEV = (0.55, 1.25, 1.0)
"""Weights of Chebyshev's polynomial of degree two on the upper two thirds of the spectrum, nearly."""
SIDES = (64, 128, 256, 512)
MESHES = (32, 64, 128)
TARGET = (8, 8, 9, 9)


def trained(module: Any, family: Any, **options: Any) -> tuple[Any, float, Any]:
    begin = time.perf_counter()
    found = learn.fit(module, family, callback=lambda *said: print("   step %d: %.3f, held out %.3f" % said), **options)
    return module, time.perf_counter() - begin, found


def measured() -> dict[str, Any]:
    model = gallery.Diffusion(side=64)
    grid, seconds, fit = trained(learn.LearnedVCycle(levels=3), model, steps=200, train=32, batch=8, every=20)
    print(fit)
    twins = learn.TWINS | {"cycle, Chebyshev by hand": learn.VCycle((CHEBYSHEV,))}
    families: dict[str, Any] = {f"{s}², σ = 1": gallery.Diffusion(s) for s in SIDES}
    families |= {f"{s}², σ = 2": gallery.Diffusion(s, sigma=2.0) for s in SIDES}
    families |= {f"{s}³, σ = 1": gallery.Diffusion(s, dims=3) for s in (24, 48)}
    on_grids = learn.report({"cycle, learned": grid.export()}, families, twins=twins,
                            training_seconds={"cycle, learned": seconds})  # fmt: skip
    print(on_grids)
    mesh, mesh_seconds, mesh_fit = trained(
        learn.LearnedVCycle(levels=4, hierarchy="ruge_stuben"), gallery.P1Mesh(32), steps=150, train=16, every=15
    )
    twins["cycle, by hand"] = learn.VCycle(hierarchy="ruge_stuben")
    twins["cycle, Chebyshev by hand"] = learn.VCycle((CHEBYSHEV,), hierarchy="ruge_stuben")
    meshes: dict[str, Any] = {f"mesh of {s}² nodes": gallery.P1Mesh(s) for s in MESHES}
    meshes["mesh of 128² nodes, σ = 2"] = gallery.P1Mesh(128, sigma=2.0)
    on_meshes = learn.report({"cycle, learned": mesh.export()}, meshes, twins=twins,
                             training_seconds={"cycle, learned": mesh_seconds})  # fmt: skip
    print(on_meshes)
    return {
        "grids": json.loads(on_grids.to_json()) | _told(grid, seconds, fit),
        "meshes": json.loads(on_meshes.to_json()) | _told(mesh, mesh_seconds, mesh_fit),
    }


def _told(module: Any, seconds: float, fit: Any) -> dict[str, Any]:
    return {
        "weights": module.export().weights,
        "seconds": seconds,
        "steps": fit.steps,
        "stopped": fit.stopped,
        "validations": fit.validations,
    }


HEADER = """# A V-cycle that learned its weights, and its twins

Made by `benchmarks/learned_vcycle.py` of `learned_vcycle.json`. Means of the iterations, and medians of the times, of
three problems that were not trained on; milliseconds of processor time, one thread; every solve by CG, to the same true
residual. Set-up is all that is done for the values, and for what is learned and its cycles by hand also what is done for
the pattern. Break-even: solves after which training is repaid, against the quickest twin.
"""


def render(content: dict[str, Any]) -> None:
    grids, meshes = content["grids"], content["meshes"]
    page = [HEADER, f"Machine: {', '.join(f'{k} {v}' for k, v in content['machine'].items())}.\n", "## Verdict\n"]
    page.append(verdict(grids))
    for title, part in (("Grids", grids), ("Unstructured meshes, hierarchies by pyamg's Ruge and Stüben", meshes)):
        weights = "; ".join("(" + ", ".join(f"{v:.3f}" for v in row) + ")" for row in part["weights"])
        first, best = part["validations"][0][1], min(v for _, v in part["validations"])
        page.append(f"## {title}\n\nTrained in {part['seconds']:.0f} s, {part['steps']} steps (stopped by {part['stopped']}); "
                    f"held-out loss {first:.2f} → {best:.2f}; (a, b, scale) by level: {weights}.\n")  # fmt: skip
        page.append(str(_report(part)) + "\n")
    (RESULTS / "learned_vcycle.md").write_text("\n".join(page))
    _report(grids).plot(RESULTS / "learned_vcycle.png")


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
    mine = rows["512², σ = 1", "cycle, learned"]["total_ms"]
    ratios = ", ".join(
        f"{name} {rows['512², σ = 1', name]['total_ms'] / mine:.1f}×" for f, name in rows if f == "512², σ = 1" and name != "cycle, learned"
    )
    lines.append(f"- Total time at 512², σ = 1, over that of the learned cycle ({mine:.0f} ms): {ratios}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="pages from the JSON alone")
    if not parser.parse_args().render:
        write("learned_vcycle", measured())
    render(json.loads((RESULTS / "learned_vcycle.json").read_text()))


if __name__ == "__main__":
    main()
