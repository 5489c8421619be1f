"""The pages and plots that are made of results/compare.json and results/jax.json, and of nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median, quantiles
from typing import Any

FLOORS = {"superlu": "superlu by hand", "pardiso": "pardiso by hand", "klu": "klu by hand"}
HAND, CHOICE = 1.05, 1.3
"""Goals: our engine over the same one by hand, and "auto" over the best engine."""
EQUAL = 10.0
"""Residuals within this factor count as equal: at the level of rounding they differ so from one ordering to another."""
WRONG = 1e-3  # relative residual of what is not called a solution
SMALL = 5.0  # milliseconds within which a difference to the floor is put down to fixed costs

HEADER = """# Comparison

Made by `benchmarks/compare.py --render` of `compare.json`; what is measured is said in
[docs/benchmarks.md](../../docs/benchmarks.md). Milliseconds of processor time: medians, with quartiles for the whole.
"""


def accuracy(entry: dict) -> float:
    """The larger of both residuals; None stands for what is not finite."""
    return max(math.inf if entry[key] is None else entry[key] for key in ("residual", "adjoint_residual"))


def solved(entry: dict) -> bool:
    return entry["status"] == "done" and accuracy(entry) < WRONG


def done(problem: dict[str, Any]) -> dict[str, dict]:
    return {name: entry for name, entry in problem["entries"].items() if solved(entry)}


def ratio(a: dict, b: dict) -> float:
    """Median of the ratios within rounds."""
    return median(x / y for x, y in zip(a["rounds_ms"], b["rounds_ms"], strict=False))


def is_peer(name: str) -> bool:
    return not name.startswith("backsolve") and name not in FLOORS.values()


def chosen(problem: dict[str, Any]) -> str:
    """The engine that "auto" takes."""
    return problem["auto"].split(",")[0].lower()


def number(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def setup(entry: dict) -> float | None:
    """What a new pattern costs before its first factorization."""
    stages = entry["stages"]
    if "set-up" in stages:
        return stages["set-up"]["median"]
    if "new pattern" in stages:
        return max(stages["new pattern"]["median"] - stages["factor"]["median"], 0.0)
    return None


def row(name: str, entry: dict) -> str:
    if entry["status"] == "done" and not solved(entry):
        shown = f"{accuracy(entry):.0e}, after {number(entry['total']['median'])} ms"
        return f"| {name} | no solution: relative residual {shown} |" + " |" * 13
    if entry["status"] != "done":
        reason = {"unfit": "not for it", "limit": "time limit"}.get(entry["status"], entry["status"])
        return f"| {name} | {reason}: {entry['reason'].replace('|', '/')} |" + " |" * 13
    stages, total = entry["stages"], entry["total"]
    parts = [setup(entry), *(stages.get(s, {}).get("median") for s in ("factor", "solve", "adjoint", "gradient"))]
    cells = [name, f"{number(total['median'])} ({number(total['low'])} to {number(total['high'])})"]
    cells += [number(entry["forward"]["median"]), number(entry["backward"]["median"])]
    cells += ["" if part is None else number(part) for part in parts]
    names = ("residual", "adjoint_residual", "backward_error", "gradient_error")
    cells += [f"{entry[key]:.0e}" for key in names]
    cells += [f"{entry['peak_megabytes']:.0f}"]
    return "| " + " | ".join(cells) + f" | {entry['rounds']} |"


def problem_table(name: str, problem: dict[str, Any]) -> str:
    size = f"n = {problem['n']:,}, nnz = {problem['nnz']:,}"
    size += f", {problem['items']} items" if problem["items"] > 1 else ""
    lines = [f"### {name}\n", f"{size}, {problem['dtype']}, declared {problem['assume']}. {problem['auto']}\n"]
    head = ["entry", "forward + backward", "forward", "backward", "set-up", "factor", "solve", "adjoint", "gradient"]
    head += ["residual", "of the adjoint", "backward error", "gradient error", "peak MB", "rounds"]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    entries = problem["entries"]
    order = sorted(entries.items(), key=lambda e: e[1]["total"]["median"] if solved(e[1]) else math.inf)
    return "\n".join([*lines, *(row(*item) for item in order)]) + "\n"


def over_floor(problem: dict[str, Any]) -> tuple[str, bool, str]:
    """Our chosen engine over the same by hand."""
    entries, engine = done(problem), chosen(problem)
    ours, floor = entries.get(f"backsolve {engine}"), entries.get(FLOORS.get(engine, ""))
    if not ours or not floor:
        return f"{engine}: not measured", False, "one of both is missing"
    found = ratio(ours, floor)
    return f"{engine} {found:.2f}", found <= HAND, "" if found <= HAND else why_slower(ours, floor)


def why_slower(ours: dict, floor: dict) -> str:
    """Where the difference lies, by the two halves of the same step."""
    apart = ours["total"]["median"] - floor["total"]["median"]
    if ours["total"]["median"] < SMALL:
        return f"{apart:.2f} ms of fixed costs: checks, verdicts, autograd"
    forward, backward = (ours[half]["median"] - floor[half]["median"] for half in ("forward", "backward"))
    gained = f"; by hand leaves a residual of {accuracy(floor):.0e}, ours is {accuracy(ours):.0e}"
    return (
        f"{apart:+.3g} ms in all, forward {forward:+.3g}, backward {backward:+.3g}: each takes the true residual and, "
        "where that is not at rounding level, a step of refinement"
    ) + (gained if accuracy(floor) > EQUAL * accuracy(ours) else "")


def over_best(problem: dict[str, Any]) -> tuple[str, bool, str]:
    """ "auto" over the best direct engine that is installed; a Krylov method that is quicker is named."""
    direct = [f"backsolve {engine}" for engine in FLOORS]
    ours = {n: e for n, e in done(problem).items() if n in direct}
    krylov = {n: e for n, e in done(problem).items() if n in ("backsolve cg", "backsolve bicgstab")}
    auto = done(problem).get("backsolve auto")
    if not auto or not ours:
        return "not measured", False, "auto did not finish"
    best = min(ours, key=lambda n: ours[n]["total"]["median"])
    found = ratio(auto, ours[best])
    shown = f"{found:.2f} ({best.removeprefix('backsolve ')})"
    why = f"it takes {chosen(problem)}; where the pattern is new the ratio is {over_best_new(problem).split()[0]}"
    notes = [] if found <= CHOICE else [why]
    for name, entry in krylov.items():
        if (gain := ratio(auto, entry)) > 1:
            short = name.removeprefix("backsolve ")
            notes.append(
                f"{short} takes 1/{gain:.1f} of the time, with residual {accuracy(entry):.0e}: nothing bounds its "
                "iterations without a preconditioner, so it has to be named"
            )
    return shown, found <= CHOICE, "; ".join(notes)


def over_best_new(problem: dict[str, Any]) -> str:
    """The same where the pattern is new: set-up and one step."""
    costs = {n: setup(e) for n, e in done(problem).items() if n.startswith("backsolve")}
    whole = {n: cost + done(problem)[n]["total"]["median"] for n, cost in costs.items() if cost is not None}
    rest = {n: ms for n, ms in whole.items() if n != "backsolve auto"}
    if "backsolve auto" not in whole or not rest:
        return "not measured"
    best = min(rest, key=lambda n: rest[n])
    return f"{whole['backsolve auto'] / rest[best]:.2f} ({best.removeprefix('backsolve ')})"


def over_peers(problem: dict[str, Any]) -> tuple[str, bool, str]:
    """The quickest peer as accurate as "auto" is, over "auto"; the others that are quicker are named."""
    entries = done(problem)
    auto = entries.get("backsolve auto")
    if not auto:
        return "not measured", False, "auto did not finish"
    equal = {n: e for n, e in entries.items() if is_peer(n) and accuracy(e) <= EQUAL * accuracy(auto)}
    quicker = {n: ratio(e, auto) for n, e in entries.items() if is_peer(n) and n not in equal}
    loose = [f"{n} {r:.2f} with residual {accuracy(entries[n]):.0e}" for n, r in quicker.items() if r < 1]
    note = f"quicker but less accurate: {'; '.join(loose)}" if loose else ""
    if not equal:
        return "no peer as accurate", True, note
    ratios = {n: ratio(e, auto) for n, e in equal.items()}
    best = min(ratios, key=lambda n: ratios[n])
    won = ratios[best] > 1
    if not won:
        lost = ", ".join(f"{n} {r:.2f}" for n, r in sorted(ratios.items(), key=lambda e: e[1]) if r <= 1)
        apart = auto["total"]["median"] - equal[best]["total"]["median"]
        fixed = auto["total"]["median"] < SMALL
        reason = f"fixed costs, {apart:.2f} ms" if fixed else f"{apart:.3g} ms more than {best}"
        note = "; ".join(filter(None, [f"{reason}; quicker: {lost}", note]))
    return f"{ratios[best]:.2f} ({best})", won, note


def criteria(problems: dict[str, Any]) -> str:
    lines = [
        f"| problem | chosen engine over the same by hand (goal {HAND}) | auto over the best engine (goal {CHOICE}) "
        "| auto over the best, new pattern | quickest peer as accurate, over auto (goal > 1) "
        "| exceptions, with the reason |",
        "|---|---|---|---|---|---|",
    ]
    met = [0, 0, 0]
    for name, problem in problems.items():
        found = [over_floor(problem), over_best(problem), over_peers(problem)]
        met = [m + good for m, (_, good, _) in zip(met, found, strict=True)]
        shown = [text if good else f"**{text}**" for text, good, _ in found]
        shown.insert(2, over_best_new(problem))
        what = ("by hand", "auto", "peers")
        reasons = [f"{w}: {why}" for w, (_, _, why) in zip(what, found, strict=True) if why]
        lines.append(f"| {name} | " + " | ".join(shown) + f" | {'. '.join(reasons)} |")
    count = len(problems)
    ends = f"Met: by hand {met[0]} of {count}, auto {met[1]} of {count}, peers {met[2]} of {count}."
    return "\n".join(lines) + f"\n\n{ends} Residuals within a factor {EQUAL:g} count as equally accurate.\n"


def engines(problems: dict[str, Any]) -> str:
    """Every engine over the same by hand, and memory."""
    lines = [
        "| problem | superlu | pardiso | klu | memory of the chosen engine over by hand |",
        "|---|---|---|---|---|",
    ]
    for name, problem in problems.items():
        entries, cells = done(problem), [name]
        for engine, hand in FLOORS.items():
            pair = entries.get(f"backsolve {engine}"), entries.get(hand)
            cells.append(f"{ratio(*pair):.2f}" if all(pair) else "not measured")
        ours, floor = entries.get(f"backsolve {chosen(problem)}"), entries.get(FLOORS[chosen(problem)])
        large = ours and floor and floor["peak_megabytes"] > 20
        cells.append(f"{ours['peak_megabytes'] / floor['peak_megabytes']:.2f}" if large else "too small to tell")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def made_with(content: dict[str, Any]) -> str:
    """Machine and versions."""
    versions: dict[str, str] = {}
    for problem in content["problems"].values():
        for entry in done(problem).values():
            versions |= entry["versions"]
    kept = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    made = ", ".join(f"{key} {value}" for key, value in content["machine"].items())
    changed = " with changes" if content["settings"].get("changes_since_commit") else ""
    return f"Machine: {made}{changed}.\nPackages: {kept}.\n"


def render(content: dict[str, Any], folder: Path) -> str:
    """Write compare.md and compare.png; returns the criteria."""
    problems = content["problems"]
    page = [HEADER, made_with(content), "## Criteria\n", criteria(problems)]
    page += ["## Engines over the same by hand\n", engines(problems), "## Problems\n"]
    page += [problem_table(name, problem) for name, problem in problems.items()]
    (folder / "compare.md").write_text("\n".join(page))
    plot(problems, folder / "compare.png")
    return criteria(problems)


JAX_HEADER = """# Comparison in JAX

Made by `benchmarks/compare.py --results jax --render` of `jax.json`; what is measured is said in
[docs/benchmarks.md](../../docs/benchmarks.md). A step is a compiled `jax.vjp` and its pullback. Time is that of the
processor over that of "backsolve auto", medians and quartiles of the ratios within rounds. Factorizations are those of
a step: of backsolve the misses of its cache, of others the calls that factor in the compiled programs, times the items.
sparsax keeps factors by value and does not tell: by its times it factors once, but twice for each item of a batch.
"""


def counted(factorizations: Any) -> str:
    return "kept by value" if isinstance(factorizations, str) else str(factorizations)


def jax_row(name: str, entry: dict, ours: dict) -> str:
    if entry["status"] != "done":
        return f"| {name} | {entry['status']}: {entry['reason'].replace('|', '/')} |" + " |" * 9
    halves = (f"{entry[half]['median'] / ours[half]['median']:.2f}" for half in ("forward", "backward"))
    errors = (entry[key] for key in ("residual", "adjoint_residual", "gradient_error"))
    shown = ["not finite" if error is None else f"{error:.0e}" for error in errors]
    if "its gradient is" in entry["detail"]:
        shown[2] = "another gradient"
    each = [x / y for x, y in zip(entry["rounds_ms"], ours["rounds_ms"], strict=False)]
    low, middle, high = quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    cells = [name, f"{middle:.2f} ({low:.2f} to {high:.2f})", *halves, *shown, counted(entry["factorizations"])]
    return (
        "| " + " | ".join([*cells, f"{entry['peak_megabytes']:.0f}", str(entry["rounds"])]) + f" | {entry['detail']} |"
    )


def render_jax(content: dict[str, Any], folder: Path) -> str:
    """Write jax.md and jax.png; returns the tables."""
    heads = "time, forward, backward, residual, of the adjoint, gradient error, factorizations, peak MB, rounds, way"
    tables = []
    for name, problem in content["problems"].items():
        ours = problem["entries"]["backsolve auto"]
        size = (
            f"n = {problem['n']:,}, nnz = {problem['nnz']:,}, declared {problem['assume']}, {problem['items']} item(s)"
        )
        step = f'"backsolve auto" took {number(ours["total"]["median"])} ms.'
        lines = [
            f"## {name}\n",
            f"{size}. {step}\n",
            "| entry | " + heads.replace(", ", " | ") + " |",
            "|---" * 11 + "|",
        ]
        order = sorted(
            problem["entries"].items(), key=lambda e: ratio(e[1], ours) if e[1]["status"] == "done" else math.inf
        )
        tables.append("\n".join([*lines, *(jax_row(n, entry, ours) for n, entry in order)]) + "\n")
    (folder / "jax.md").write_text("\n".join([JAX_HEADER, made_with(content), *tables]))
    plot(content["problems"], folder / "jax.png")
    return "\n".join(tables)


COLOURS = {"set-up": "#b8b8b8", "forward": "#2f6db3", "backward": "#e08a1e"}


def plot(problems: dict[str, Any], path: Path) -> None:
    """A panel for each problem, bars of set-up, forward and backward for each entry, quickest on top."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, math.ceil(len(problems) ** 0.5))
    rows = -(-len(problems) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 3.9 * rows), layout="constrained", squeeze=False)
    for axis in axes.ravel()[len(problems) :]:
        axis.set_visible(False)
    for axis, (name, problem) in zip(axes.ravel(), problems.items(), strict=False):
        entries = sorted(done(problem).items(), key=lambda e: -e[1]["total"]["median"])
        for place, (_, entry) in enumerate(entries):
            bars = {"set-up": setup(entry), **{w: entry[w]["median"] for w in ("forward", "backward")}}
            for k, (what, ms) in enumerate(bars.items()):
                if ms:
                    axis.barh(place + 0.27 - 0.27 * k, ms, 0.25, color=COLOURS[what], label=what)
        axis.set_yticks(range(len(entries)), [f"{n}  {e['residual']:.0e}" for n, e in entries], fontsize=8)
        for label in axis.get_yticklabels():
            label.set_fontweight("bold" if label.get_text().startswith("backsolve") else "normal")
        axis.set(xscale="log", title=f"{name}  (n = {problem['n']:,})", xlabel="milliseconds, processor time")
        axis.grid(axis="x", which="major", alpha=0.35)
        axis.set_axisbelow(True)
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=what) for what, colour in COLOURS.items()]
    title = "Forward and backward of one solve; beside each name its relative residual"
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
    figure.suptitle(title, x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


__all__ = ["render", "render_jax"]
