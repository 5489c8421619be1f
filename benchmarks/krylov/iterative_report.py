"""The page and the figure that are made of results/iterative.json, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEADER = """# Preconditioners, batches and adjoints

Made by `benchmarks/iterative.py --render` of `iterative.json`; what is measured is said in
[docs/benchmarks.md](../../docs/benchmarks.md). Milliseconds of processor time, one thread.
"""


def number(v: float) -> str:
    return f"{v:,.0f}" if v >= 100 else f"{v:.3g}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def model(part: dict[str, Any]) -> str:
    """Iterations, and set-up + solve, of each preconditioner on each grid."""
    sides = list(next(iter(part["found"].values())))
    counts, times = [], []
    for name, each in part["found"].items():
        expected = part["expected"].get(name, ())
        shown = [f"{each[side]['iterations']:.4g}" for side in sides]
        counts.append(
            [name, *shown, " / ".join(map(str, expected)), f"{max(e['residual'] for e in each.values()):.0e}"]
        )
        times.append([name, *(f"{number(each[s]['set_up_ms'])} + {number(each[s]['solve_ms'])}" for s in sides)])
    text = f"## Diffusion with a log-normal coefficient: iterations to {part['rtol']:.0e}, means of three fields\n\n"
    text += table(["M", *(f"{s}²" for s in sides), "expected", "largest residual"], counts)
    return text + "\nSet-up + solve:\n\n" + table(["M", *(f"{s}²" for s in sides)], times)


def cubes(part: dict[str, Any]) -> str:
    """One table for each cube, and the growth of iterations."""
    text = [f"## Poisson's equation in three dimensions, to {part['rtol']:.0e}\n"]
    for side, entries in part["found"].items():
        rows = []
        for name, told in sorted(entries.items(), key=lambda e: whole(e[1])):
            if told["status"] != "done":
                rows.append([name, f"{told['status']}: {told['reason']}", *[""] * 7])
                continue
            counts = [str(k) for k in told["iterations"] or () if k is not None]
            times = [told[stage]["median"] for stage in ("set_up", "forward", "adjoint")]
            residuals = [f"{told[key]:.0e}" for key in ("residual", "adjoint_residual")]
            cells = [*map(number, [*times, sum(times)]), " / ".join(counts), *residuals]
            rows.append([name, *cells, number(told["peak_megabytes"])])
        heads = "entry, set-up, forward, adjoint, all, iterations, residual, of the adjoint, peak MB".split(", ")
        text.append(f"### {side}³ points\n\n{table(heads, rows)}")
    return "\n".join(text)


def whole(told: dict[str, Any]) -> float:
    stages = ("set_up", "forward", "adjoint")
    return sum(told[stage]["median"] for stage in stages) if told["status"] == "done" else float("inf")


def batches(part: dict[str, Any]) -> str:
    """Ratios of a batch to loops; the slower ones in bold."""
    text = ["## Batches against loops\n"]
    for name, case in part["found"].items():
        rows = []
        for way, told in sorted(case["ways"].items(), key=lambda e: e[1]["median"]):
            ratios = [told.get(key) for key in ("over_best_loop", "over_own_loop")]
            shown = ["" if r is None else f"**{r:.2f}**" if r > 1 else f"{r:.2f}" for r in ratios]
            rows.append([way, number(told["median"]), *shown, f"{told['residual']:.0e}"])
        heads = ["way", "ms", f"over the best loop ({case['best_loop'].removeprefix('loop ')})", "over its own loop"]
        text.append(f"### {name}\n\n{table([*heads, 'worst residual'], rows)}")
    return "\n".join(text)


def adjoints(part: dict[str, Any]) -> str:
    """Ratios with the counts; what did not converge with its status."""
    ways = list(next(iter(part["found"].values()))["ways"])
    rows = []
    for name, problem in part["found"].items():
        cells = []
        for way in ways:
            told = problem["ways"][way]
            if "ratio" in told:
                cells.append(f"{told['ratio']:.2f} ({told['adjoint_iterations']} / {told['iterations']})")
            else:
                cells.append(told["status"].split(":")[0].lower())
        rows.append([name, *cells])
    text = f"## Iterations of the adjoint over those of the forward solve, to {part['rtol']:.0e}\n\n"
    return text + table(["problem", *ways], rows)


TABLES = {"model": model, "cubes": cubes, "batches": batches, "adjoints": adjoints}


def render(content: dict[str, Any], folder: Path) -> None:
    """Write iterative.md and iterative.png."""
    made = ", ".join(f"{key} {value}" for key, value in content["machine"].items() if key != "commit")
    commits = ", ".join(
        f"{name} {part['commit']}{' with changes' if part['changes_since_commit'] else ''}"
        for name, part in content["parts"].items()
    )
    page = [HEADER, f"Machine: {made}. Commits: {commits}.\n"]
    page += [show(content["parts"][name]) for name, show in TABLES.items() if name in content["parts"]]
    (folder / "iterative.md").write_text("\n".join(page))
    if {"model", "cubes"} <= set(content["parts"]):
        plot(content["parts"], folder / "iterative.png")


COLOURS = {
    "jacobi": "#7f7f7f",
    "none": "#7f7f7f",
    "ic0": "#2f6db3",
    "mic": "#e08a1e",
    "smoothed": "#3a8f5c",
    "ruge": "#9a4fa3",
}
CUBE_NAMES = {
    "backsolve cg": "none", "backsolve mic-cg": "mic(.99)", "backsolve amg-cg": "amg, smoothed aggregation",
    "backsolve ruge-stuben-cg": "amg, ruge_stuben",
}  # fmt: skip


def plot(parts: dict[str, Any], path: Path) -> None:
    """Iterations over points on a side, for grids in two and in three dimensions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    square = {
        name: {int(side): told["iterations"] for side, told in each.items()}
        for name, each in parts["model"]["found"].items()
    }
    cube: dict[str, dict[int, float]] = {name: {} for name in CUBE_NAMES.values()}
    for side, entries in parts["cubes"]["found"].items():
        for entry, name in CUBE_NAMES.items():
            if entries[entry]["status"] == "done":
                cube[name][int(side)] = entries[entry]["iterations"][0]
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    panels = (("Diffusion in 2-D, log-normal coefficient, to 1e-8", square), ("Poisson in 3-D, to 1e-10", cube))
    for axis, (title, lines) in zip(axes, panels, strict=True):
        panel(axis, lines)
        axis.set(title=title, xlabel="points on a side")
    axes[0].set_ylabel("iterations of CG")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def panel(axis: Any, lines: dict[str, dict[int, float]]) -> None:
    """Lines with their names at the right end, far enough apart to be read."""
    axis.set(xscale="log", yscale="log")
    ends = {}
    for name, counts in lines.items():
        colour = next(c for key, c in COLOURS.items() if key in name)
        axis.plot(list(counts), list(counts.values()), marker="o", color=colour, linewidth=1.8)
        ends[name] = (max(counts), counts[max(counts)], colour)
    sides = sorted({side for counts in lines.values() for side in counts})
    axis.set_xticks(sides, [str(side) for side in sides])
    axis.minorticks_off()
    ticks = [k for k in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if k < 2 * max(e[1] for e in ends.values())]
    axis.set_yticks(ticks, [str(k) for k in ticks])
    axis.set_xlim(sides[0] / 1.1, sides[-1] * (sides[-1] / sides[0]) ** 0.78)
    low = 0.0
    for name, (side, count, colour) in sorted(ends.items(), key=lambda e: e[1][1]):
        low = max(count, low * 1.45)
        axis.annotate(
            f"{name}: {count:.4g}", (side, count), (side * 1.06, low), color=colour, fontsize=9, va="center",
        )  # fmt: skip
    axis.grid(alpha=0.3)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)
