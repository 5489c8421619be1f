"""The page and the figure that are made of results/gradients.json, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HEADER = """# Ways to differentiate a solve

Made by `benchmarks/gradients.py --render` of `gradients.json`; what is measured is said in
[docs/gradients.md](../../docs/gradients.md). One thread.
"""


def number(v: float | None) -> str:
    return "" if v is None else f"{v:.1e}" if v and not 0.01 <= abs(v) < 1e4 else f"{v:.3g}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def curse(part: dict[str, Any]) -> str:
    """Errors after 100, 200 and 400 iterations."""
    text = [f"## The curse of unrolling: diffusion {part['side']}², CG with the inverse diagonal\n"]
    heads = ["loss", "iterations", "x", "unrolled", "its cosine", "implicit", "its cosine"]
    for name, each in part["found"].items():
        rows = []
        for label, told in each.items():
            for row in told:
                if row["iterations"] in (100, 200, 400):
                    keys = ("forward", "unrolled", "unrolled_cosine", "implicit", "implicit_cosine")
                    rows.append([label, str(row["iterations"]), *(number(row[key]) for key in keys)])
        text.append(f"### {name}\n\n{table(heads, rows)}")
    told = part["program"]
    slopes = ", ".join(f"{number(slope)} (h = {h})" for h, slope in told["differences"].items())
    text.append(
        f"Smooth k, constant b, {told['iterations']} iterations: the norm of the recorded gradient is "
        f"{number(told['recorded'])}; central differences of the program along it: {slopes}.\n"
    )
    return "\n".join(text)


def memory(part: dict[str, Any]) -> str:
    """Bytes by iterations, factors reached, and the two checks."""
    text = ["## Peak memory by iterations, MB\n"]
    for name, told in part["found"].items():
        keys = ("unrolled", "checkpointed", "implicit")
        rows = [
            [str(r["iterations"]), *(f"{r[key] / 1e6:.3g}" if key in r else "" for key in keys), f"{r['ratio']:.3g}"]
            for r in told["rows"]
        ]
        reached = ", ".join(f"{f}x at {k:,}" for f, k in told["reached"].items() if k is not None)
        text.append(f"### A as a {name}: {told['unknowns']:,} unknowns\n")
        text.append(table(["iterations", *keys, "unrolled / implicit"], rows))
        text.append(f"Interpolated: {reached or 'no factor is reached'} iterations.\n")
    rows = [
        [r["way"], str(r["iterations"]), f"{r['resident'] / 1e6:.3g}", f"{r['allocated'] / 1e6:.3g}"]
        for r in part["resident"]
    ]
    text.append(f"### Beside the peak of resident memory of a process, {part['resident'][0]['side']}² function\n")
    text.append(table(["way", "iterations", "resident", "allocator"], rows))
    rows = [
        [str(r["iterations"]), *(f"{r[key] / 1e6:.3g}" for key in ("unrolled", "cholesky", "cg")), f"{r['ratio']:.3g}"]
        for r in part["dense"]
    ]
    text.append(f"### One dense matrix, n = {part['dense'][0]['n']:,}\n")
    heads = ["iterations", "unrolled", "implicit, Cholesky", "implicit, cg", "unrolled / Cholesky"]
    return "\n".join([*text, table(heads, rows)])


def tolerance(part: dict[str, Any]) -> str:
    """Errors by tolerances, together and apart."""
    text = [f"## Error of the implicit gradient by its tolerances: diffusion {part['side']}²\n"]
    for name, told in part["found"].items():
        both, apart, constant = told["both"], told["apart"], told["constant"]
        text.append(f"### {name}\n\n{table(['rtol of both', *both], [['error', *map(number, both.values())]])}")
        rows = [[forward, *map(number, row.values())] for forward, row in apart.items()]
        text.append(table(["forward \\ adjoint", *next(iter(apart.values()))], rows))
        text.append(f"error / max(rtol): {number(constant['least'])} to {number(constant['most'])}.\n")
    return "\n".join(text)


def ways(part: dict[str, Any]) -> str:
    """The tables of `gradients.compare`."""
    text = ["## Every way on several problems: `gradients.compare`\n"]
    heads = ["way", "error", "cosine", "bound", "ms", "peak MB", "solves", "products", "iterations"]
    for name, told in part["found"].items():
        rows = []
        for r in told["rows"]:
            cells = [number(r["error"]), f"{r['cosine']:.6f}" if r["cosine"] is not None else ""]
            cells += [number(r["bound"]), f"{1e3 * r['seconds']:.3g}"]
            cells += ["" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e6:.3g}"]
            cells += [str(r["solves"] or ""), str(r["matvecs"] or ""), str(r["iterations"] or "")]
            rows.append([r["method"], *cells])
        notes = "".join(f"\nLeft out: {way}: {why}\n" for way, why in told["left_out"].items())
        text.append(f"### {name}\n\n{told['problem']}; reference: {told['reference']}.\n\n{table(heads, rows)}{notes}")
        text.append(f"![{name}]({told['figure']})\n")
    return "\n".join(text)


def cost(part: dict[str, Any]) -> str:
    """Exponents with their spread, and the times they are fitted to."""
    text = ["## Growth of time: time ~ size^p\n"]
    rows = []
    for name, told in part["found"].items():
        cells = []
        for way in ("forward", "backward"):
            e, times = told["exponents"][way], told["times"].values()
            cells.append(f"{e['slope']:.2f} ± {e['error']:.2f} ({e['least']:.2f} to {e['most']:.2f})")
            cells.append(" / ".join(f"{1e3 * t[way]['median']:.3g}" for t in times))
        sizes = " / ".join(f"{int(size):,}" for size in told["times"])
        rows.append([name, told["by"], sizes, *cells])
    heads = ["way", "in", "sizes", "p forward", "ms forward", "p backward", "ms backward"]
    text.append(table(heads, rows))
    text.append("± is the standard error of the slope; in brackets the least and most between neighbouring sizes.\n")
    return "\n".join(text)


TABLES = {"curse": curse, "memory": memory, "tolerance": tolerance, "ways": ways, "cost": cost}


def render(content: dict[str, Any], folder: Path) -> None:
    """Write gradients.md and gradients.png."""
    parts = content["parts"]
    made = ", ".join(f"{key} {value}" for key, value in content["machine"].items() if key != "commit")
    commits = ", ".join(f"{name} {part['commit']}" for name, part in parts.items())
    page = [HEADER, f"Machine: {made}. Commits: {commits}.\n"]
    page += [show(parts[name]) for name, show in TABLES.items() if name in parts]
    (folder / "gradients.md").write_text("\n".join(page))
    if {"curse", "memory", "tolerance"} <= set(parts):
        plot(parts, folder / "gradients.png")


def plot(parts: dict[str, Any], path: Path) -> None:
    """The curse and its absence, memory by iterations, error by tolerance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 3)
    shown = ("smooth k, constant b", "smooth k, random b", "log-normal k, random b")
    for panel, name in zip(axes[0], shown, strict=True):
        rows = parts["curse"]["found"][name]["mean square"]
        at = [row["iterations"] for row in rows]
        for key, colour, label in (
            ("forward", "0.5", "x"),
            ("unrolled", "tab:orange", "gradient, unrolled"),
            ("implicit", "tab:blue", "gradient, implicit"),
        ):
            panel.plot(at, [max(row[key], 1e-16) for row in rows], "o-", color=colour, label=label, markersize=4)
        panel.axhline(1.0, color="0.8", linewidth=0.8, zorder=0)
        panel.set(xscale="log", yscale="log", xlabel="iterations of CG", title=name, ylim=(1e-16, 1e6))
        panel.set_xticks(at[::2], map(str, at[::2]))
        panel.set_xticks([], minor=True)
    axes[0, 0].set_ylabel("relative error")
    axes[0, 0].legend(fontsize=8)
    bytes_by(axes[1, 0], axes[1, 1], parts["memory"]["found"])
    for name, told in parts["tolerance"]["found"].items():
        both = told["both"]
        axes[1, 2].plot([float(t) for t in both], list(both.values()), "o-", label=name, markersize=4)
    ends = [1e-10, 1e-2]
    axes[1, 2].plot(ends, ends, "--", color="0.6", label="error = rtol")
    axes[1, 2].set(xscale="log", yscale="log", xlabel="rtol, forward and adjoint", ylabel="error, implicit gradient")
    axes[1, 2].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def bytes_by(left: Any, right: Any, found: dict[str, Any]) -> None:
    """Bytes for the first of the problems, ratios for all."""
    name, told = next(iter(found.items()))
    for key, colour in (("unrolled", "tab:orange"), ("checkpointed", "tab:green"), ("implicit", "tab:blue")):
        drawn = [(row["iterations"], row[key] / 1e6) for row in told["rows"] if key in row]
        left.plot(*zip(*drawn, strict=True), "o-", color=colour, label=key, markersize=4)
    left.set(xscale="log", yscale="log", xlabel="iterations of CG", ylabel="peak memory, MB", title=f"A: {name}")
    left.legend(fontsize=8)
    for name, told in found.items():
        rows = told["rows"]
        right.plot([r["iterations"] for r in rows], [r["ratio"] for r in rows], "o-", label=f"A: {name}", markersize=4)
    for factor in (100, 1000):
        right.axhline(factor, color="0.8", linewidth=0.8, zorder=0)
    right.set(xscale="log", yscale="log", xlabel="iterations of CG", ylabel="memory, unrolled / implicit")
    right.legend(fontsize=8)
