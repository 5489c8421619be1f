"""Do search directions from a network save iterations, and time, beside MIC(.99) and ILU(0)?

Trains `NeuralDirections` on Laplacians of random geometric graphs of 1,024 nodes, and holds conjugate gradients guided
by it against CG with the same and other preconditioners: in distribution, at 4 and 16 times the size, and on graphs of
other kinds, among them real ones. A twin without learning spends the second product of each iteration on M A M r. Then
the same for FGMRES with ILU(0) on convection and diffusion. Last, what a network with bad weights does. Times are those
of the processor, one thread.

    OMP_NUM_THREADS=1 python benchmarks/neural_directions.py [--part NAME] [--render]

Writes results/neural_directions.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
import torch
from problems import RESULTS, ROOT, machine, write

import backsolve as bs
from backsolve import gallery, learn
from backsolve.preconditioners import AMG, MIC


class Krylov:
    """M A M r: a direction that needs no training."""

    def on(self, pattern: Any, values: np.ndarray) -> Any:
        M = MIC(0.99).prepare(SimpleNamespace(structure=pattern, data=values[None], shape=pattern.shape))
        A = sp.csr_array((values, np.array(pattern.indices), np.array(pattern.indptr)), shape=pattern.shape)
        return lambda r, z: M.apply((A @ z)[None, :, None], False)[0, :, 0]


def graph(name: str) -> gallery.GraphLaplacian:
    found = scipy.io.mmread(ROOT / "tests" / "data" / f"{name}.mtx.gz")
    return gallery.GraphLaplacian(sp.csr_array(abs(found)))


def said(step: int, loss: float, held_out: float) -> None:
    print(f"   step {step}: {loss:.3f}, held out {held_out:.3f}")


def trained(module: Any, family: Any, **options: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    print(learn.fit(module, family, callback=said, **options))
    return module, time.perf_counter() - begin


def symmetric() -> dict[str, Any]:
    model = gallery.GeometricGraph(n=1024)
    net, seconds = trained(learn.NeuralDirections(), model, steps=240, lr=0.01, train=16, batch=4, held_out=4, every=20)
    families = {
        "geometric graph": model,
        "geometric graph, 4 times the size": gallery.GeometricGraph(n=4096),
        "geometric graph, 16 times the size": gallery.GeometricGraph(n=16384),
        "geometric graph in 3-D": gallery.GeometricGraph(n=4096, dims=3),
        "citations (cora)": graph("cora-cites"),
        "airfoil mesh": graph("airfoil"),
        "power network (1138_bus)": graph("1138_bus"),
        "P1 mesh, 64²": gallery.P1Mesh(64),
    }
    name = "guided CG, mic(.99)"
    twins = {
        "mic(.99)": MIC(0.99), "ic0": "ic0", "jacobi": "jacobi", "amg, smoothed aggregation": AMG(),
        "mic(.99) and M A M r": learn.GuidedCG(net=Krylov(), M=MIC(0.99), least=0.0),
    }  # fmt: skip
    learned = {name: learn.GuidedCG(net=net.export(), M=MIC(0.99))}
    found = learn.report(learned, families, twins=twins, training_seconds={name: seconds})
    print(found)
    told = {"adversarial": adversarial(model(2000)), "memory": memory(model(2000), net)}
    return json.loads(found.to_json()) | {"seconds": seconds, "guided": name} | told


def memory(problem: Any, net: Any) -> dict[str, dict[int, int]]:
    """Iterations by the number of directions that are kept, with the network never switched off."""
    found: dict[str, dict[int, int]] = {"trained": {}, "not trained": {}}
    for name, weights in (("trained", net.export()), ("not trained", learn.NeuralDirections().export())):
        for kept in (1, 2, 4, 10, 20, 40):
            method = learn.GuidedCG(net=weights, M=MIC(0.99), least=0.0, directions=kept)
            sol = bs.solve_with_info(problem.A, problem.b, method=method, rtol=1e-8)
            found[name][kept] = int(sol.stats.iterations)
    classical = bs.solve_with_info(problem.A, problem.b, method=bs.CG(M=MIC(0.99)), rtol=1e-8)
    return found | {"no network": {0: int(classical.stats.iterations)}}


def general() -> dict[str, Any]:
    model = gallery.ConvectionDiffusion(side=32)
    start = learn.NeuralDirections(M="ilu0", symmetric=False)
    net, seconds = trained(start, model, steps=140, lr=0.01, train=16, batch=4, held_out=4, every=20)
    name = "guided FGMRES, ilu0"
    families = {
        "convection-diffusion, 32²": model,
        "convection-diffusion, 64²": gallery.ConvectionDiffusion(side=64),
        "convection-diffusion, 64², Péclet 50": gallery.ConvectionDiffusion(side=64, peclet=50.0),
    }
    twins = {"gmres, ilu0": ("gmres", "ilu0"), "gmres, ilut": ("gmres", "ilut"), "bicgstab, ilu0": ("bicgstab", "ilu0")}
    learned = {name: ("fgmres", learn.GuidedPreconditioner(net.export(), "ilu0"))}
    found = learn.report(learned, families, twins=twins, training_seconds={name: seconds})
    print(found)
    return json.loads(found.to_json()) | {"seconds": seconds, "guided": name}


def adversarial(problem: Any) -> dict[str, Any]:
    """Errors against a direct solve, of networks with bad weights, and of CG without any."""
    logging.getLogger("backsolve").setLevel(logging.ERROR)
    truth = bs.solve(problem.A, problem.b, assume="spd", method="superlu")

    def told(method: Any, log: Any = None) -> dict[str, Any]:
        sol = bs.solve_with_info(problem.A, problem.b, method=method, rtol=1e-10)
        error = float(np.linalg.norm(sol.x - truth) / np.linalg.norm(truth))
        return {
            "iterations": int(sol.stats.iterations), "error": error, "status": bs.Status(int(sol.status)).name,
            "guided": log.guided if log else 0, "off": log.reason if log else "",
        }  # fmt: skip

    found = {"no network": told(bs.CG(M=MIC(0.99)))}
    for name, size in {"random": 1.0, "large": 1e3, "huge": 1e200, "NaN": np.nan, "zero": 0.0}.items():
        net, log = learn.NeuralDirections(seed=7), learn.DirectionLog()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(size)
        found[name] = told(learn.GuidedCG(net=net, M=MIC(0.99), log=log), log)
    return found


PARTS = {"symmetric": symmetric, "general": general}

HEADER = """# Directions from a network, and their twins

Made by `benchmarks/neural_directions.py` of `neural_directions.json`. Means of iterations and products, medians of
times, of three problems that were not trained on; milliseconds of processor time, one thread; every solve to the same
true residual. Break-even: solves after which training is repaid, against the quickest twin.
"""


def render(content: dict[str, Any]) -> None:
    page = [HEADER, f"Machine: {', '.join(f'{k} {v}' for k, v in content['machine'].items())}.\n"]
    parts, titles = content["parts"], {"symmetric": "Symmetric: conjugate gradients", "general": "General: FGMRES"}
    for title, part in ((titles[name], parts[name]) for name in PARTS if name in parts):
        report = learn.Report(part["rows"], part["rtol"], part["training_seconds"])
        page.append(f"## {title}\n\nTrained in {part['seconds']:.0f} s. Where the time of guided solves goes, ms:\n")
        heads = "family, iterations, of them guided, network, matvec, preconditioner, orthogonalisation".split(", ")
        page.append("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        for row in part["rows"]:
            if row["solver"] == part["guided"]:
                times = [f"{row[key + '_ms']:.3g}" for key in heads[3:]]
                cells = [row["family"], f"{row['iterations']:.4g}", f"{row['guided']:.4g}", *times]
                page.append("| " + " | ".join(cells) + " |")
        page.append("\n" + str(report) + "\n")
    page.append("## Bad weights\n\nOn a graph of the family trained on, to 1e-10; errors against a direct solve.\n")
    page.append("| weights | iterations | guided | switched off | status | error |\n|---|---|---|---|---|---|")
    for name, row in parts["symmetric"]["adversarial"].items():
        cells = [name, row["iterations"], row["guided"], row["off"], row["status"], f"{row['error']:.0e}"]
        page.append("| " + " | ".join(map(str, cells)) + " |")
    page.append(
        "\n## Directions that are kept\n\nIterations to 1e-8 on the same graph, never switched off; each makes two.\n"
    )
    kept = list(parts["symmetric"]["memory"]["trained"])
    page.append("| network | " + " | ".join(kept) + " |\n|" + "---|" * (len(kept) + 1))
    for name in ("trained", "not trained"):
        page.append(f"| {name} | " + " | ".join(str(parts["symmetric"]["memory"][name][k]) for k in kept) + " |")
    page.append(f"\nWithout a network: {parts['symmetric']['memory']['no network']['0']}.")
    (RESULTS / "neural_directions.md").write_text("\n".join(page) + "\n")
    part = parts["symmetric"]
    learn.Report(part["rows"], part["rtol"], part["training_seconds"]).plot(RESULTS / "neural_directions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="these only; others stay as kept")
    parser.add_argument("--render", action="store_true", help="pages from the JSON alone")
    args = parser.parse_args()
    path = RESULTS / "neural_directions.json"
    for part in () if args.render else args.part or PARTS:
        found = PARTS[part]() | {"commit": machine()["commit"]}
        kept = json.loads(path.read_text())["parts"] if path.exists() else {}
        write("neural_directions", {"parts": kept | {part: found}})
    render(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
