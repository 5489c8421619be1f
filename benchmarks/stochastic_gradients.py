"""What does a stochastic gradient cost, and how wrong is it?

For log det A, tr A⁻¹ and t·A⁻¹b: every estimator of backsolve.gradients on problems with a known answer. Its cost is
told in its own unit and in seconds of the processor; beside the error of its value stand the standard error that it
tells, the relative 2-norm error of its gradient by the values of A, and variance times cost, by which estimators
compare: of any number of samples that is the same. Then selected inversion beside n solves, and what sampling
rows and columns of A comes to. Medians of five seeds, one thread. Writes results/stochastic_gradients.json and .md.

    OMP_NUM_THREADS=1 BACKSOLVE_NUM_THREADS=1 python benchmarks/stochastic_gradients.py [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from problems import RESULTS, laplacian, write
from sklearn.datasets import load_diabetes

import backsolve as bs
from backsolve import gradients, local

SEEDS = 5


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the seconds of the processor that it took."""
    begun = time.process_time()
    made = call()
    return made, time.process_time() - begun


def measured(name: str, make: Callable[[int], Any], value: float, gradient: Any) -> dict:
    """One line: medians over seeds."""
    rows = []
    for seed in range(SEEDS):
        est, seconds = timed(lambda seed=seed: make(seed))
        g, off = getattr(est, "gradient", None), float("nan")
        if g is not None and gradient is not None:
            off = float(np.linalg.norm(np.nan_to_num(g - gradient)) / np.linalg.norm(gradient))
        rows.append(
            (abs(est.value - value), est.standard_error, est.half_width, off, seconds, est.variance_cost, est.cost)
        )
    error, told, _, off, seconds, product = (float(np.median([r[k] for r in rows])) for k in range(6))
    held = sum(r[0] <= r[2] for r in rows)
    return {
        "estimator": name, "error": error, "standard_error": told, "held": f"{held} of {SEEDS}",
        "gradient_error": off, "cost": str(rows[0][6]), "seconds": seconds,
        "variance_cost": product, "unit": rows[0][6].unit, "variance_seconds": told**2 * seconds,
    }  # fmt: skip


def kernel() -> np.ndarray:
    """A squared exponential kernel with noise on 442 patients, the diabetes data of scikit-learn."""
    X = load_diabetes(return_X_y=True)[0]
    X = X / X.std(0)
    return np.exp(-((X[:, None] - X[None]) ** 2).sum(-1) / 72) + 0.25 * np.eye(len(X))


def determinants(m: int) -> dict:
    """log det of the Laplacian on m x m points, and of a kernel."""
    problems = {f"log det, Laplacian {m}²": laplacian(m), "log det, kernel of 442 patients": kernel()}
    tables = {}
    for name, A in problems.items():
        exact = gradients.logdet(A)
        rows = []
        for probes, rank in ((32, 0), (32, 20), (128, 0)):
            label = f"slq, {probes} probes" + (f", basis of {rank}" if rank else "")
            rows.append(
                measured(
                    label,
                    lambda seed, p=probes, r=rank, A=A: gradients.logdet(A, method="slq", rng=seed, probes=p, rank=r),
                    exact.value,
                    exact.gradient,
                )
            )
        tables[name] = {"truth": float(exact.value), "rows": rows}
    return tables


def traces(m: int) -> dict:
    """Trace of the inverse of the Laplacian, whose eigenvalues are known."""
    one = 2 - 2 * np.cos(np.pi * np.arange(1, m + 1) / (m + 1))
    truth, A = float((1 / (one[:, None] + one[None])).sum()), laplacian(m)
    rows = [
        measured(
            label, lambda seed, r=rank, p=probes: gradients.trace_inverse(A, rng=seed, probes=p, rank=r), truth, None
        )
        for label, probes, rank in (("Hutchinson, 60 probes", 60, 0), ("Hutch++, 20 probes, basis of 20", 20, 20))
    ]
    return {f"tr A⁻¹, Laplacian {m}²": {"truth": truth, "rows": rows}}


def functionals(m: int, shift: float) -> dict:
    """An entry of A⁻¹b for a dense b, A the Laplacian plus a multiple of the identity: dominant by rows and columns."""
    A = sp.csr_array(laplacian(m) + shift * sp.eye_array(m * m))
    rng = np.random.default_rng(0)
    b, t, middle = rng.standard_normal(m * m) + 1, np.zeros(m * m), m * m // 2 + m // 2
    t[middle] = 1.0
    sol, pull = bs.vjp(A, b)
    truth, exact = float(t @ sol.x), pull(t)[0]
    calls = {
        "collision walk, 10,000": lambda s: gradients.collision_walk(A, b, t, rng=s),
        "product walk, 2 x 10,000": lambda s: gradients.product_walk(A, b, t, rng=s),
        "pushes to 0.1 and product walk, 2 x 10,000": lambda s: gradients.product_walk(A, b, t, 0.1, rng=s),
        "pushes to 0.1 and residual walk, 10,000": lambda s: gradients.residual_walk(A, b, t, 0.1, rng=s),
        "Russian roulette, 64": lambda s: gradients.roulette_neumann(A, b, t, rng=s),
    }
    rows = [measured(name, call, truth, exact) for name, call in calls.items()]
    est, seconds = timed(lambda: local.functional(A, b, t, atol=0.1, fallback=None))
    rows.append(
        {
            "estimator": f"pushes to 0.1 alone (biased, bound {est.bound:.1g})",
            "error": abs(est.value - truth),
            "cost": f"{est.touched:,} steps",
            "seconds": seconds,
        }
    )
    terms = int(rows[-2]["cost"].split()[0].replace(",", ""))
    sol, seconds = timed(lambda: bs.solve_with_info(A, b, method=bs.Neumann(maxiter=terms), on_failure="return"))
    rows.append(
        {
            "estimator": f"truncated Neumann series, {terms} terms (biased, bound {float(sol.stats.error_bound):.1g})",
            "error": abs(float(sol.x[middle]) - truth),
            "cost": f"{terms} matvecs",
            "seconds": seconds,
        }
    )
    return {f"t·A⁻¹b, Laplacian {m}² + {shift:g} I": {"truth": truth, "rows": rows}}


def inversion(m: int) -> dict:
    """Selected inversion, once the pattern is known, beside n solves with the factors at hand."""
    A, n, columns = laplacian(m), m * m, min(m * m, 256)
    first = timed(lambda: gradients.selected_inverse(A))[1]
    operator = bs.aslinearoperator(A)
    gradients.selected_inverse(operator)
    again = float(np.median([timed(lambda: gradients.selected_inverse(operator))[1] for _ in range(5)]))
    F = bs.factorize(operator, method="superlu").adjoint
    solves = timed(lambda: F.solve(np.eye(n, columns)))[1] * n / columns
    return {"n": n, "first": first, "again": again, "n_solves": solves, "ratio": solves / again}


def submatrices(m: int, share: float = 0.5, draws: int = 20) -> list[dict]:
    """The gradient of 1·A⁻¹1 from a random share of rows and columns, made as large as it can be made to look right."""
    rows = []
    for shift in (0.0, 0.1, 1.0):
        A = sp.csr_array(laplacian(m) + shift * sp.eye_array(m * m))
        n, ones, made = m * m, np.ones(m * m), []
        x = bs.solve(A, ones)
        i, j = sp.coo_array(A).coords
        exact = -x[i] * x[j]
        for seed in range(draws):
            S = np.sort(np.random.default_rng(seed).choice(n, int(share * n), replace=False))
            part = np.zeros(n)
            part[S] = bs.solve(sp.csr_array(A[S][:, S]), ones[S])
            both = np.isin(i, S) & np.isin(j, S)
            made.append(-part[i] * part[j] * np.where(i == j, 1 / share, 1 / share**2) * both)
        mean = np.mean(made, axis=0)
        rows.append({"shift": shift, "bias": float(np.linalg.norm(mean - exact) / np.linalg.norm(exact))})
    return rows


def render(content: dict) -> str:
    """The tables of the JSON."""
    lines = [
        "# Stochastic gradients",
        "",
        "Made by `benchmarks/stochastic_gradients.py` of `stochastic_gradients.json`.",
    ]
    lines += ["Seconds are those of the processor, one thread; medians of five seeds.", ""]
    for name, table in content["estimates"].items():
        lines += [f"## {name}: {table['truth']:.6g}", ""]
        lines += [
            "| estimator | error | standard error | interval held | error of the gradient | cost | seconds | "
            "variance x cost | variance x seconds |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in table["rows"]:
            cells = [row["estimator"], *(_number(row, key) for key in ("error", "standard_error"))]
            cells += [row.get("held", ""), _number(row, "gradient_error"), row["cost"], f"{row['seconds']:.3g}"]
            unit = f" ({row['unit']})" if "unit" in row else ""
            cells += [_number(row, "variance_cost") + unit, _number(row, "variance_seconds")]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "## Selected inversion of a Laplacian",
        "",
        "| n | first | other values | n solves | ratio |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['n']:,} | {r['first']:.3g} | {r['again']:.3g} | {r['n_solves']:.3g} | {r['ratio']:.0f} |"
        for r in content["inversions"]
    ]
    lines += ["", "n solves: at most 256 are made and their time multiplied.", ""]
    lines += ["## Half of the rows and columns of a Laplacian + s I", "", "| s | bias of the gradient |", "|---|---|"]
    lines += [f"| {r['shift']:g} | {r['bias']:.0%} |" for r in content["submatrices"]]
    return "\n".join(lines) + "\n"


def _number(row: dict, key: str) -> str:
    return "" if not np.isfinite(row.get(key, np.nan)) else f"{row[key]:.2g}"


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small problems, nothing is written")
    quick = parser.parse_args().quick
    m = 16 if quick else 64
    estimates = {**determinants(m), **traces(m), **functionals(m, 0.2), **functionals(m, 0.01)}
    content = {
        "estimates": estimates,
        "inversions": [inversion(side) for side in ([16] if quick else [16, 32, 100, 256])],
        "submatrices": submatrices(m),
    }
    print(render(content))
    if not quick:
        write("stochastic_gradients", content)
        (RESULTS / "stochastic_gradients.md").write_text(render(content), encoding="utf-8")


if __name__ == "__main__":
    main()
