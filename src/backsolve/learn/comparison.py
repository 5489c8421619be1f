"""Learned solvers beside their classical twins: iterations, times, and when training has paid."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import describe
from ..factorization import factorize
from ..operators import CSR
from ..preconditioners import AMG, MIC
from .guided import DirectionLog, GuidedCG
from .guided_preconditioner import GuidedPreconditioner
from .vcycle import VCycle

__all__ = ["TWINS", "Report", "report"]

TWINS: dict[str, Any] = {
    "jacobi": "jacobi",
    "ic0": "ic0",
    "mic(.99)": MIC(0.99),
    "amg, smoothed aggregation": AMG("smoothed_aggregation"),
    "amg, ruge_stuben": AMG("ruge_stuben"),
    "cycle, by hand": VCycle(),
}
"""Preconditioners of CG that need no training, by name; the cycle by hand smooths twice by Jacobi with 0.8."""


@dataclass(frozen=True)
class Report:
    """What `report` measured.

    Attributes
    ----------
    rows : list of dict
        One for each family and solver: "family", "solver", "learned" (whether it is), "n", "iterations" and "products"
        with A (means over the problems), "set_up_ms", "network_ms" (of the
        solve), "solve_ms", "total_ms" (medians), "residual" (the largest of norm(b - A x)/norm(b)), "converged" and
        "problems" (counts), and for learned ones "break_even": after how many solves training is repaid, against the
        quickest twin there; None if never.
    rtol : float
    training_seconds : dict
        Of each learned solver, where it was given.
    """

    rows: list[dict[str, Any]]
    rtol: float
    training_seconds: dict[str, float]

    def __str__(self) -> str:
        """Tables in Markdown, one for each family, the quickest solver first."""
        heads = "solver, iterations, products, set-up ms, solve ms, of it network, total ms, residual, break-even"
        parts = []
        for family in dict.fromkeys(row["family"] for row in self.rows):
            rows = sorted((r for r in self.rows if r["family"] == family), key=lambda r: r["total_ms"])
            lines = [f"### {family}: {rows[0]['n']:,} unknowns, to {self.rtol:.0e}", ""]
            lines += ["| " + " | ".join(heads.split(", ")) + " |", "|" + "---|" * len(heads.split(", "))]
            lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """All numbers, as JSON."""
        content = {"rtol": self.rtol, "training_seconds": self.training_seconds, "rows": self.rows}
        return json.dumps(content, indent=1)

    @staticmethod
    def from_json(text: str) -> Report:
        """The report that `to_json` wrote."""
        content = json.loads(text)
        return Report(content["rows"], content["rtol"], content["training_seconds"])

    def plot(self, path: Any) -> None:
        """Write a figure: total time of each solver on each family, with its iterations; needs matplotlib.

        Parameters
        ----------
        path : str or path
            The suffix decides the format.
        """
        from matplotlib.figure import Figure

        families = list(dict.fromkeys(row["family"] for row in self.rows))
        columns = min(3, len(families))
        lines = -(-len(families) // columns)
        figure = Figure(figsize=(5.2 * columns, 0.6 + 3.2 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, family in zip(axes, families, strict=False):
            _bars(axis, sorted((r for r in self.rows if r["family"] == family), key=lambda r: -r["total_ms"]))
        for axis in axes[len(families) :]:
            axis.set_visible(False)
        figure.supxlabel("set-up + solve, milliseconds of the processor, and iterations; blue is learned", fontsize=9)
        figure.savefig(Path(path), dpi=100)


def _bars(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Times of the solvers on one family, the quickest on top."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    at, times = np.arange(len(rows)), [r["total_ms"] for r in rows]
    axis.barh(at, times, color=["#2f6db3" if r["learned"] else "#b8b8b8" for r in rows])
    axis.set_yticks(at, [r["solver"] for r in rows], fontsize=8)
    for y, row in zip(at, rows, strict=True):
        label = f" {_number(row['total_ms'])} ms, {row['iterations']:.4g}"
        axis.annotate(label, (row["total_ms"], y), va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(min(times) / 2, 15 * max(times))
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(f"{rows[0]['family']} (n = {rows[0]['n']:,})", fontsize=9)


def report(
    learned: Mapping[str, Any],
    families: Mapping[str, Callable[[int], Any]],
    *,
    twins: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (1000, 1001, 1002),
    rtol: float = 1e-8,
    training_seconds: Mapping[str, float] | None = None,
) -> Report:
    """Solve the same problems with learned solvers and classical ones, and compare.

    Every solve is made to the same true residual. Set-up is what depends on the values, and on the pattern for what is
    learned; times are those of the processor. A network's time is part of the solve.

    Parameters
    ----------
    learned : mapping of str to solver
        A solver is a preconditioner, for CG; a method, such as `GuidedCG`; or a pair (method, preconditioner).
    families : mapping of str to callable
        seed -> problem: what was trained on, and what was not.
    twins : mapping of str to solver, optional
        `TWINS` by default.
    seeds : sequence of int
        Of the problems of each family, which should not be among those that were trained on.
    rtol : float
    training_seconds : mapping of str to float, optional
        Of learned solvers: gives the number of solves after which training is repaid.

    Returns
    -------
    Report

    Examples
    --------
    >>> from backsolve import gallery, learn
    >>> found = learn.report({"V": learn.VCycle()}, {"64": gallery.Diffusion(side=16)}, twins={"ic0": "ic0"}, seeds=[9])
    >>> [(row["solver"], row["converged"]) for row in found.rows]
    [('V', 1), ('ic0', 1)]
    """
    solvers = {name: (True, *_solver(name, value)) for name, value in learned.items()}
    solvers |= {name: (False, *_solver(name, value)) for name, value in (TWINS if twins is None else twins).items()}
    if not learned or not families or not len(seeds):
        raise ValueError("report: learned, families and seeds must not be empty.")
    trained, rows = dict(training_seconds or {}), []
    for family, make in families.items():
        problems = [make(int(seed)) for seed in seeds]
        found = []
        for name, (is_learned, method, M) in solvers.items():
            each = [_once(p, method, M, rtol) for p in problems]
            found.append({"family": family, "solver": name, "learned": is_learned} | _summary(each))
        best = min((r["total_ms"] for r in found if not r["learned"] and r["converged"] == len(problems)), default=None)
        for row in found:
            if row["learned"]:
                row["break_even"] = _break_even(trained.get(row["solver"]), row, best, len(problems))
        rows += found
    return Report(rows, float(rtol), {name: float(value) for name, value in trained.items()})


def _solver(name: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"report: solver {name!r} must be a pair (method, preconditioner); got {describe(value)}.")
        return value
    return (value, None) if hasattr(value, "step") and hasattr(value, "init") else ("cg", value)


def _once(problem: Any, method: Any, M: Any, rtol: float) -> dict[str, Any]:
    """One problem, on a fresh pattern."""
    given, log = problem.A, DirectionLog()
    A = CSR(given.data, given.structure.indices, given.structure.indptr, given.shape)
    if isinstance(method, GuidedCG):
        method = replace(method, log=log)
    elif isinstance(M, GuidedPreconditioner):
        M = replace(M, log=log)
    _ = A @ problem.b  # what belongs to a product is not what M costs
    begin = time.process_time()
    F = factorize(A, method=method, M=M, rtol=rtol, on_failure="return")
    middle = time.process_time()
    sol = F.solve_with_info(problem.b)
    end = time.process_time()
    residual = np.linalg.norm(problem.b - A @ sol.x) / np.linalg.norm(problem.b)
    return {
        "n": problem.n,
        "iterations": int(sol.stats.iterations),
        "products": log.products + (0 if isinstance(method, GuidedCG) else int(sol.stats.matvecs)),
        "set_up_ms": 1e3 * (middle - begin),
        "network_ms": 1e3 * log.seconds["network"],
        "matvec_ms": 1e3 * log.seconds["matvec"],
        "preconditioner_ms": 1e3 * log.seconds["preconditioner"],
        "orthogonalisation_ms": 1e3 * log.seconds["orthogonalisation"],
        "guided": log.guided,
        "solve_ms": 1e3 * (end - middle),
        "total_ms": 1e3 * (end - begin),
        "residual": float(residual),
        "converged": bool(sol.converged),
    }


def _summary(each: list[dict[str, Any]]) -> dict[str, Any]:
    means = ("iterations", "products", "guided")
    found: dict[str, Any] = {key: float(np.mean([one[key] for one in each])) for key in means}
    found |= {key: float(np.median([one[key] for one in each])) for key in each[0] if key.endswith("_ms")}
    found |= {"n": each[0]["n"], "problems": len(each), "converged": sum(one["converged"] for one in each)}
    return found | {"residual": max(one["residual"] for one in each)}


def _break_even(seconds: float | None, row: dict[str, Any], best: float | None, problems: int) -> int | None:
    if seconds is None or best is None or row["converged"] < problems or row["total_ms"] >= best:
        return None
    return int(np.ceil(1e3 * seconds / (best - row["total_ms"])))


def _number(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _cells(row: dict[str, Any]) -> list[str]:
    name = f"**{row['solver']}**" if row["learned"] else row["solver"]
    if row["converged"] < row["problems"]:
        name += f" ({row['problems'] - row['converged']} of {row['problems']} failed)"
    counts = [f"{row[key]:.4g}" for key in ("iterations", "products")]
    times = [_number(row[key]) for key in ("set_up_ms", "solve_ms")]
    network = _number(row["network_ms"]) if row["network_ms"] else ""
    even = "" if not row["learned"] else "never" if row["break_even"] is None else f"{row['break_even']:,}"
    return [name, *counts, *times, network, _number(row["total_ms"]), f"{row['residual']:.0e}", even]
