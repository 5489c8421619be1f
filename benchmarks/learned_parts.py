"""Do learned steps, low-rank preconditioners and incomplete factors beat their classical twins?

Parts: `steps` (momentum steps and unrolled CG on diffusion at 64²), `low_rank` (kernel matrices and diffusion),
`losses` (the same preconditioner trained by three losses), `factors` (incomplete factors on diffusion). Each stands
beside twins that need no training. Seeds are fixed; times are those of the processor, one thread.

    OMP_NUM_THREADS=1 python benchmarks/learned_parts.py [--part NAME] [--render]

Writes results/learned_parts.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as splinalg
import torch
from problems import RESULTS, machine, write

import backsolve as bs
from backsolve import gallery, learn
from backsolve.preconditioners import MIC, AbstractPreconditioner

K = 6
TESTS = range(1000, 1008)
RATIOS = (5.0, 10.0, 20.0, 30.0, 50.0, 80.0, 120.0, 200.0)
DEPTHS = (2, 3, 4, 6, 8, 12, 16)


def trained(name: str, module: Any, family: Any, **options: Any) -> float:
    begin = time.process_time()
    found = learn.fit(module, family, **options)
    print(f"   {name}: {found}")
    return time.process_time() - begin


def system(p: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    A = sp.csr_array((p.A.data, (p.rows, p.cols)), shape=p.A.shape)
    return A, p.b, bs.solve(A, p.b, assume="spd")


def true_interval(A: Any) -> tuple[float, float]:
    """Of D⁻¹A with the diagonal of A."""
    S = sp.diags_array(1 / np.sqrt(A.diagonal()))
    scaled, start = sp.csc_array(S @ A @ S), np.ones(A.shape[0])
    high = splinalg.eigsh(scaled, 1, which="LA", v0=start)[0][0]
    return splinalg.eigsh(scaled, 1, sigma=0.0, v0=start)[0][0], high


def energies(M: Any, systems: list) -> list[float]:
    """Squared energy error after one application from zero, relative to its value at zero."""
    found = []
    for A, b, x in systems:
        e = x - learn.propose(M(A) if callable(M) else M, A, b)
        found.append(float(e @ (A @ e) / (x @ b)))
    return found


def residuals(x_of: Any, systems: list) -> list[float]:
    return [float(np.linalg.norm(b - A @ x_of(A, b)) / np.linalg.norm(b)) for A, b, _ in systems]


def chebyshev_with_interval(steps: int) -> Any:
    """Chebyshev's iteration on the true interval, its coefficients scaled for D of `MomentumSteps`."""

    def made(A: Any) -> Any:
        low, high = true_interval(A)
        M = learn.MomentumSteps.chebyshev(steps, high / low)
        ratio = 2 / high
        return learn.MomentumSteps(tuple(ratio * a for a in M.alphas), M.betas)

    return made


def steps() -> dict[str, Any]:
    family = gallery.Diffusion(side=64)
    systems = [system(family(seed)) for seed in TESTS]
    rough = [system(replace(family, sigma=2.0)(seed)) for seed in TESTS]
    problems = [family(seed) for seed in range(32)]
    known, rows = [system(p) for p in problems[:4]], []
    for depth in DEPTHS:
        begin = time.process_time()
        optimal = learn.LearnedChebyshev(depth).set_optimal(problems)
        direct = time.process_time() - begin
        module = learn.LearnedChebyshev(depth)
        seconds = trained(f"{depth} steps", module, family, steps=200, train=32, batch=8, held_out=8)
        solvers = {
            "CG": learn.ConjugateSteps((1.0,) * depth, (1.0,) * depth),
            "Chebyshev, true interval": chebyshev_with_interval(depth),
            "Chebyshev, [2/30, 2]": learn.MomentumSteps.chebyshev(depth),
            "Chebyshev, tuned": tuned(depth, lambda M: float(np.mean(energies(M, known)))),
            "learned": module.export(),
            "optimal in the mean": optimal.export(),
        }
        for name, M in solvers.items():
            inside, outside = energies(M, systems), energies(M, rough)
            row = {"steps": depth, "solver": name, "squared": float(np.mean(inside))}
            row |= {"energy": float(np.mean(np.sqrt(inside))), "rough_squared": float(np.mean(outside))}
            if isinstance(M, learn.MomentumSteps):
                if name == "Chebyshev, tuned":
                    M = tuned(depth, lambda M: iterations(M, problems[:3]))
                row |= {"lift": M.lift, "iterations": iterations(M, [family(s) for s in TESTS])}
            row["seconds"] = {"learned": seconds, "optimal in the mean": direct}.get(name, 0.0)
            rows.append(row)
            print(row)
    return {"rows": rows, "unrolled": unrolled(family, systems), "jacobi": iterations("jacobi", map(family, TESTS))}


def tuned(depth: int, cost: Any) -> learn.MomentumSteps:
    """Chebyshev's steps with the interval that does best on problems to train on."""
    return min((learn.MomentumSteps.chebyshev(depth, ratio) for ratio in RATIOS), key=cost)


def iterations(M: Any, problems: Any, method: str = "cg") -> float:
    return float(np.mean([int(bs.solve_with_info(p.A, p.b, method=method, M=M).stats.iterations) for p in problems]))


def unrolled(family: Any, systems: list) -> dict[str, Any]:
    """Six steps of CG without preconditioner: factors learned for the residual, and from random ones for the energy."""
    options = {"steps": 300, "train": 32, "batch": 8, "held_out": 8, "patience": 20}
    module = learn.UnrolledCG(K, norm="residual", scaled=False)
    found: dict[str, Any] = {"seconds": trained("unrolled, residual", module, family, **options)}
    plain = learn.ConjugateSteps((1.0,) * K, (1.0,) * K, scaled=False)
    learned = module.export()
    found["residual"] = {
        "CG": residuals(lambda A, b: learn.propose(plain, A, b), systems),
        "learned": residuals(lambda A, b: learn.propose(learned, A, b), systems),
        "MINRES": residuals(minres, systems),
    }
    again = learn.UnrolledCG(K, norm="energy", scaled=False)
    with torch.no_grad():
        torch.manual_seed(0)
        for parameter in (again.a, again.b):
            parameter.copy_(0.3 * torch.randn(K, dtype=torch.float64))
    before = again.export()
    trained("unrolled, energy", again, family, **options | {"steps": 800, "patience": 40})
    solvers = {"CG": plain, "random factors": before, "learned": again.export()}
    found["energy"] = {name: np.sqrt(energies(M, systems)).tolist() for name, M in solvers.items()}
    print(json.dumps({name: {k: np.mean(v) for k, v in found[name].items()} for name in ("residual", "energy")}))
    return found


def minres(A: Any, b: np.ndarray) -> np.ndarray:
    return bs.solve_with_info(A, b, method=bs.MINRES(maxiter=K), on_failure="return").x


class Oracle(AbstractPreconditioner):
    """Deflation of the exact extreme eigenvectors of each matrix, which nobody has."""

    hermitian = True

    def __init__(self, rank: int, outliers: str):
        self.rank, self.outliers = rank, outliers

    def __str__(self) -> str:
        return f"Oracle({self.rank})"

    def explain(self, A: Any) -> str:
        return "an oracle"

    def prepare(self, A: Any) -> Any:
        matrix = sp.csr_array((A.data[0], A.structure.indices, A.structure.indptr), shape=A.shape)
        return learn.Deflation.eigenvectors(matrix, self.rank, self.outliers).prepare(A)


def blocks(side: int, parts: int) -> np.ndarray:
    """Labels of square parts of a grid, for Nicolaides' vectors."""
    along = np.arange(side) * parts // side
    return (along[:, None] * parts + along[None]).ravel()


LOW_RANK: dict[str, tuple[Any, int, str, dict]] = {
    "kernel, n = 300, l = 0.3": (gallery.Kernel(n=300, length=0.3, spread=0.05), 40, "large", {"lr": 0.1}),
    "kernel, n = 300, l = 0.5": (gallery.Kernel(n=300), 30, "large", {"lr": 0.1}),
    "diffusion, 32²": (gallery.Diffusion(side=32), 16, "small", {"lr": 0.1}),
}


def low_rank() -> dict[str, Any]:
    parts = {}
    for name, (family, rank, outliers, options) in LOW_RANK.items():
        n, problems = family(0).n, [family(seed) for seed in range(16)]
        module = learn.LowRankDiagonal(n, rank, outliers)
        seconds = {"trained": trained(name, module, family, steps=300, train=16, batch=4, held_out=4, **options)}
        begin = time.process_time()
        spectral = learn.LowRankDiagonal(n, rank, outliers).set_spectral(problems)
        seconds["spectral start"] = time.process_time() - begin
        both = learn.LowRankDiagonal(n, rank, outliers).set_spectral(problems)
        seconds["spectral start, trained"] = seconds["spectral start"] + trained(
            name, both, family, steps=100, train=16, batch=4, held_out=4, lr=0.01
        )
        seconds["its columns, deflated"] = seconds["trained"]
        seconds["spectral start, deflated"] = seconds["spectral start"]
        learned = {
            "trained": module.export(),
            "spectral start": spectral.export(),
            "spectral start, trained": both.export(),
            "its columns, deflated": module.deflation(),
            "spectral start, deflated": spectral.deflation(),
        }
        snapshots = [family(seed) for seed in range(256)]
        twins: dict[str, Any] = {"jacobi": "jacobi", "ic0": "ic0", "oracle": Oracle(rank, outliers)}
        twins |= {"POD of 16 solutions": learn.Deflation.pod(problems, min(rank, 16))}
        twins |= {"POD of 256 solutions": learn.Deflation.pod(snapshots, rank)}
        if outliers == "small":
            twins["Nicolaides, 4 × 4"] = learn.Deflation.aggregates(blocks(family.side, 4))
            twins["mic(.97)"] = MIC(0.97)
        found = learn.report(learned, {name: family}, twins=twins, seeds=TESTS, training_seconds=seconds)
        print(found)
        parts[name] = json.loads(found.to_json()) | {"rank": rank}
    return {"families": parts}


def dense() -> dict[str, Any]:
    """Kernel matrices as dense arrays, where LAPACK factors them: milliseconds of the processor, medians of 7."""
    rows = []
    for n in (300, 1000, 2000):
        family = gallery.Kernel(n=n, length=0.3, spread=0.05)
        M = learn.LowRankDiagonal(n, 40, "large").set_spectral([family(seed) for seed in range(3)]).export()
        p = family(TESTS[0])
        A, row = p.A.toarray(), {"n": n}
        solvers: dict[str, Any] = {"cholesky": {"method": "cholesky"}, "spectral start": {"method": "cg", "M": M}}
        solvers["jacobi"] = {"method": "cg", "M": "jacobi"}
        for name, options in solvers.items():
            seconds, sol = [], bs.solve_with_info(A, p.b, rtol=1e-8, **options)
            for _ in range(7):
                begin = time.process_time()
                sol = bs.solve_with_info(A, p.b, rtol=1e-8, **options)
                seconds.append(time.process_time() - begin)
            row |= {name: 1e3 * float(np.median(seconds)), f"{name}, iterations": int(sol.stats.iterations)}
        rows.append(row)
        print(row)
    return {"rows": rows}


def losses() -> dict[str, Any]:
    """(D + U Uᵀ)⁻¹ from the same start, trained by each loss."""
    family = gallery.Kernel(n=100, length=0.5, noise=1e-2)
    rows = [{"loss": "none: Jacobi", "seconds": 0.0, "iterations": iterations("jacobi", map(family, TESTS))}]
    for loss in ("steps", "kaporin", "condition"):
        module = learn.DifferentiablePreconditioner(n=100, rank=16, loss=loss)
        seconds = trained(loss, module, family, steps=150, lr=0.1, train=8, batch=4, held_out=4, patience=20)
        rows.append({"loss": loss, "seconds": seconds, "iterations": iterations(module, map(family, TESTS))})
        print(rows[-1])
    return {"rows": rows}


def factors() -> dict[str, Any]:
    family, modules, seconds = gallery.Diffusion(side=32), {}, {}
    for loss in ("solution", "frobenius", "steps"):
        module = learn.IncompleteFactor(loss=loss, steps=12)
        seconds[f"factors, {loss}"] = trained(
            loss, module, family, steps=300, lr=0.03, train=16, batch=4, held_out=8, patience=20
        )
        modules[f"factors, {loss}"] = module.export()
    families: dict[str, Any] = {f"{s}², σ = 1": gallery.Diffusion(s) for s in (32, 64, 128)}
    families["128², σ = 2"] = gallery.Diffusion(128, sigma=2.0)
    twins = {"ic0": "ic0", "mic(.9)": MIC(0.9), "mic(.97)": MIC(0.97), "mic(.99)": MIC(0.99)}
    found = learn.report(modules, families, twins=twins, seeds=TESTS[:4], training_seconds=seconds)
    print(found)
    return json.loads(found.to_json())


PARTS = {"steps": steps, "low_rank": low_rank, "dense": dense, "losses": losses, "factors": factors}

HEADER = """# Steps, low-rank preconditioners and incomplete factors that were learned, and their twins

Made by `benchmarks/learned_parts.py` of `learned_parts.json`. Problems were not trained on; every solve is by CG to
norm(b - A x) <= 1e-8 norm(b); times are those of the processor, one thread. Break-even: after how many solves training
is repaid, against the quickest twin.
"""


def render(content: dict[str, Any]) -> None:
    parts = content["parts"]
    page = [HEADER, f"Machine: {', '.join(f'{k} {v}' for k, v in content['machine'].items())}.\n"]
    for name, write_part in WRITERS.items():
        if name in parts:
            page.append(write_part(parts[name]) + "\n")
    (RESULTS / "learned_parts.md").write_text("\n".join(page))
    plot(parts)


def steps_page(part: dict[str, Any]) -> str:
    lines = [
        "## Momentum steps\n",
        "Diffusion, 64², σ = 1; means of 8 problems. ‖e‖²_A / ‖x‖²_A after K steps from zero:\n",
    ]
    names = list(dict.fromkeys(r["solver"] for r in part["rows"]))
    lines += ["| K | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for title, key in (("", "squared"), (", σ = 2", "rough_squared")):
        for depth in DEPTHS:
            cells = [f"{r[key]:.3f}" for r in part["rows"] if r["steps"] == depth]
            lines.append(f"| {depth}{title} | " + " | ".join(cells) + " |")
    lines += ["\nNot squared, K = 6: " + ", ".join(
        f"{r['solver']} {r['energy']:.3f}" for r in part["rows"] if r["steps"] == K) + ".\n"]  # fmt: skip
    lines.append(
        "The interval of tuned Chebyshev is [2/r, 2] with the best of eight r: here by the error on four problems that "
        "were trained on, below by the iterations on three of them.\n\nIterations of CG to 1e-8 with M of K steps "
        f"(Jacobi: {part['jacobi']:.1f}), and seconds of training:\n"
    )
    names = [n for n in names if any("iterations" in r for r in part["rows"] if r["solver"] == n)]
    lines += ["| K | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for depth in DEPTHS:
        rows = [r for r in part["rows"] if r["steps"] == depth and "iterations" in r]
        cells = [f"{r['iterations']:.1f}" + (f" ({r['seconds']:.2g} s)" if r["seconds"] else "") for r in rows]
        lines.append(f"| {depth} | " + " | ".join(cells) + " |")
    found = part["unrolled"]
    residual, energy = ({k: np.array(v) for k, v in found[name].items()} for name in ("residual", "energy"))
    shown = [", ".join(f"{k} {v.mean():.5f}" for k, v in values.items()) for values in (residual, energy)]
    bound, gap = residual["learned"] / residual["MINRES"], energy["learned"] / energy["CG"] - 1
    lines += [
        f"\n## Unrolled CG, {K} steps without preconditioner\n",
        f"- Trained for the residual in {found['seconds']:.0f} s, ‖r‖/‖b‖, means: {shown[0]}; learned over MINRES from "
        f"{bound.min():.4f} to {bound.max():.4f}.",
        f"- Trained for the energy, from random factors, ‖e‖_A/‖x‖_A, means: {shown[1]}; learned over CG, less 1: from "
        f"{gap.min():.1e} to {gap.max():.1e}. Begun at CG, it stays there.",
    ]
    return "\n".join(lines)


def low_rank_page(part: dict[str, Any]) -> str:
    lines = ["## Low rank and diagonal\n"]
    for name, one in part["families"].items():
        count = {r["solver"]: r["iterations"] for r in one["rows"]}
        lines.append(f"Rank {one['rank']}; Jacobi's iterations over those trained from scratch: "
                     f"{count['jacobi'] / count['trained']:.1f}, over those of the spectral start: "
                     f"{count['jacobi'] / count['spectral start']:.1f}, over those of the trained columns, deflated: "
                     f"{count['jacobi'] / count['its columns, deflated']:.1f}.\n")  # fmt: skip
        lines.append(str(_report(one)).replace(f"### {name}", f"### {name.capitalize()}") + "\n")
    return "\n".join(lines)


def losses_page(part: dict[str, Any]) -> str:
    lines = ["## (D + U Uᵀ)⁻¹ by three losses\n", "Kernel matrices, n = 100, rank 16; 150 steps from the same start.\n"]
    lines += ["| loss | iterations | training, s |", "|---|---|---|"]
    lines += [f"| {r['loss']} | {r['iterations']:.1f} | {r['seconds']:.1f} |" for r in part["rows"]]
    return "\n".join(lines)


def factors_page(part: dict[str, Any]) -> str:
    return "## Incomplete factors\n\nTrained at 32², σ = 1.\n\n" + str(_report(part))


def dense_page(part: dict[str, Any]) -> str:
    lines = ["## Kernel matrices as dense arrays\n", "l = 0.3, rank 40, one problem; milliseconds, medians of 7.\n"]
    lines += ["| n | Cholesky, LAPACK | CG, spectral start | CG, Jacobi |", "|---|---|---|---|"]
    for r in part["rows"]:
        cells = [f"{r[k]:.3g} ({r[f'{k}, iterations']} iterations)" for k in ("spectral start", "jacobi")]
        lines.append(f"| {r['n']} | {r['cholesky']:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines)


WRITERS = {
    "steps": steps_page,
    "low_rank": low_rank_page,
    "dense": dense_page,
    "losses": losses_page,
    "factors": factors_page,
}


def _report(part: dict[str, Any]) -> learn.Report:
    return learn.Report(part["rows"], part["rtol"], part["training_seconds"])


def plot(parts: dict[str, Any]) -> None:
    """Energy errors by the number of steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    rows = parts.get("steps", {"rows": []})["rows"]
    styles = {"CG": "k-", "Chebyshev, true interval": "C7--", "Chebyshev, tuned": "C1--", "learned": "C0o-"}
    for name, style in (styles | {"optimal in the mean": "C2x"}).items():
        own = [r for r in rows if r["solver"] == name]
        axis.semilogy([r["steps"] for r in own], [r["squared"] for r in own], style, label=name)
    axis.set_xlabel("steps")
    axis.set_ylabel("‖e‖²_A / ‖x‖²_A")
    axis.set_title("Diffusion, 64², σ = 1: fixed steps without inner products, and CG", fontsize=9)
    axis.legend(fontsize=8)
    figure.savefig(RESULTS / "learned_parts.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="these only; others stay as kept")
    parser.add_argument("--render", action="store_true", help="pages from the JSON alone")
    args = parser.parse_args()
    path = RESULTS / "learned_parts.json"
    torch.set_num_threads(1)
    for part in () if args.render else args.part or PARTS:
        begin = time.perf_counter()
        found = PARTS[part]() | {"commit": machine()["commit"], "wall_seconds": time.perf_counter() - begin}
        kept = json.loads(path.read_text())["parts"] if path.exists() else {}
        write("learned_parts", {"parts": kept | {part: found}})
    render(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
