"""Is a gradient ever further from the truth than its certificate says?

Random systems of up to 10 unknowns that satisfy the conditions of a bound, with approximations of every quality, from
zero to the last bit, held to solutions in exact integers. Checked are `gradients.certify`, by parameters and by their
logarithms, and the corrected values of `gradients.functional`. Writes results/gradient_bounds.json and .md: trials,
violations, and how tight the bounds are.

    python benchmarks/gradient_bounds.py [--trials 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from problems import RESULTS, write

from backsolve import gradients

__all__ = ["KINDS", "Problem", "Tally", "draw", "trial"]

KINDS = {
    "graph": "graph Laplacian with grounds, weights over up to 8 decades; μ proved",
    "diffusion": "two-point fluxes on a grid; μ proved",
    "elements": "linear triangles, obtuse ones too, of a random mesh; μ given",
    "negative D": "graph with a part D that is not semidefinite, c > 1",
    "entries": "the entries of a graph Laplacian; ‖A⁻¹‖ from μ",
    "dominant": "the entries of a dominant matrix, not symmetric; ‖A⁻¹‖ from its margins",
}


@dataclass
class Problem:
    """A system with a loss: J = tᵀx, or half a weighted sum of squares of x - t with the weights W."""

    kind: str
    A: Any
    b: np.ndarray
    t: np.ndarray
    W: np.ndarray | None = None
    mu: float | None = None

    @property
    def n(self) -> int:
        """Unknowns."""
        return len(self.b)

    def cotangent(self, x: np.ndarray) -> np.ndarray:
        """∂J/∂x."""
        return self.t if self.W is None else self.W * (x - self.t)


# -- exact arithmetic -----------------------------------------------------------------------------------------


def exact(array: np.ndarray) -> list:
    """Numbers as fractions."""
    return [Fraction(float(v)) for v in array]


def exact_matrix(problem: Problem) -> list[list[Fraction]]:
    """A, as its parameters define it."""
    A = problem.A
    if not isinstance(A, gradients.IncidenceForm):
        return [exact(row) for row in A.toarray()]
    rows = [exact(row) for row in A.D.toarray()]
    for at, weight in zip(range(A.G.shape[0]), exact(A.k[A.element]), strict=True):
        row: Any = A.G[[at]].tocoo()
        places = list(zip(row.coords[1].tolist(), exact(row.data), strict=True))
        for i, u in places:
            for j, v in places:
                rows[i][j] += weight * u * v
    return rows


def solve_exactly(A: list[list[Fraction]], b: list[Fraction]) -> list[Fraction]:
    """Elimination in integers without fractions (Bareiss 1968), with pivots that are not zero."""
    n = len(b)
    rows = []
    for row, right in zip(A, b, strict=True):
        scale = lcm(right.denominator, *(v.denominator for v in row))
        rows.append([int(v * scale) for v in [*row, right]])
    before = 1
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(n):
            if i != k:
                factor = rows[i][k]
                rows[i] = [
                    (rows[k][k] * rows[i][j] - factor * rows[k][j]) // before if j > k or j == i else rows[i][j]
                    for j in range(n + 1)
                ]
                rows[i][k] = 0
        before = rows[k][k]
    return [Fraction(rows[i][n], rows[i][i]) for i in range(n)]


def exact_gradient(problem: Problem, lam: list[Fraction], x: list[Fraction]) -> list[Fraction]:
    """-λᵀ(∂A/∂θ_i)x."""
    A = problem.A
    if not isinstance(A, gradients.IncidenceForm):
        rows = np.repeat(np.arange(problem.n), np.diff(A.indptr))
        return [-lam[i] * x[j] for i, j in zip(rows.tolist(), A.indices.tolist(), strict=True)]
    made = [Fraction(0)] * A.k.size
    for at, owner in enumerate(A.element.tolist()):
        row: Any = A.G[[at]].tocoo()
        places = list(zip(row.coords[1].tolist(), exact(row.data), strict=True))
        made[owner] -= sum(v * lam[j] for j, v in places) * sum(v * x[j] for j, v in places)
    return made


# -- problems ---------------------------------------------------------------------------------------------------


def draw(rng: np.random.Generator, kind: str) -> Problem:
    """A random problem whose A is far enough from singular for double precision."""
    while True:
        n = int(rng.integers(1, 11))
        mu = None
        if kind == "elements":
            A = _elements(rng)
            n = A.shape[0]
            m = A.matrix.diagonal()
            mu = float(np.linalg.eigvalsh(A.matrix.toarray() / np.sqrt(np.outer(m, m)))[0]) * (1 - 1e-6)
            if mu < 1e-8:
                continue
        else:
            A = {"graph": _graph, "diffusion": _diffusion, "negative D": _shifted}.get(kind, _graph)(rng, n)
            n = A.shape[0]
        if kind == "entries":
            A = A.matrix
        if kind == "dominant":
            A = _dominant(rng, n)
        scale = 10.0 ** rng.uniform(-8, 8, 2)
        b, t = rng.standard_normal(n) * scale[0], rng.standard_normal(n) * scale[1]
        if rng.random() < 0.3:  # one load, one sensor
            b[1:], t[:-1] = 0, 0
        W = None if rng.random() < 0.6 else rng.uniform(0, 2, n) * 10.0 ** rng.uniform(-2, 2)
        return Problem(kind, A, b, t, W, mu)


def _weights(rng: np.random.Generator, size: int) -> np.ndarray:
    return 10.0 ** (rng.uniform(0, 4) * rng.uniform(-1, 1, size))


def _graph(rng: np.random.Generator, n: int) -> gradients.IncidenceForm:
    tree = [(int(rng.integers(0, j)), j) for j in range(1, n)]
    more = [tuple(map(int, rng.choice(n, 2, replace=False))) for _ in range(int(rng.integers(0, n)))] if n > 1 else []
    edges = [*tree, *more]
    G = np.zeros((len(edges), n))
    for row, (i, j) in enumerate(edges):
        G[row, i], G[row, j] = 1, -1
    ground = np.where(rng.random(n) < 0.3, _weights(rng, n), 0.0)
    ground[rng.integers(0, n)] = 10.0 ** rng.uniform(-2, 2)
    if not edges:
        G = np.ones((1, 1))
    return gradients.IncidenceForm(G, _weights(rng, len(G)), ground)


def _diffusion(rng: np.random.Generator, n: int) -> gradients.IncidenceForm:
    """Cells of a grid, half fluxes through its whole boundary, and one coefficient for each face."""
    m = max(n // 3, 1)
    one = lambda k: np.vstack([np.eye(k), np.zeros(k)]) - np.vstack([np.zeros(k), np.eye(k)])  # noqa: E731
    G = sp.vstack([sp.kron(one(m), sp.eye_array(3)), sp.kron(sp.eye_array(m), one(3))])
    return gradients.IncidenceForm(G, _weights(rng, G.shape[0]))


def _elements(rng: np.random.Generator) -> gradients.IncidenceForm:
    """A fan of triangles around a point; each has the two rows of √area ∇φ, and some nodes are held."""
    count = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    points = np.vstack([[0.1, 0.1], (rng.uniform(0.3, 2, count) * [np.cos(angles), np.sin(angles)]).T])
    rows, owner = [], []
    for e in range(count):
        nodes = [0, 1 + e, 1 + (e + 1) % count]
        P = np.column_stack([np.ones(3), points[nodes]])
        area = abs(np.linalg.det(P)) / 2
        if area > 1e-3:
            slopes = np.sqrt(area) * np.linalg.inv(P)[1:]
            row = np.zeros((2, count + 1))
            row[:, nodes] = slopes
            rows.append(row)
            owner += [len(rows) - 1] * 2
    G = np.vstack(rows) if rows else np.ones((1, count + 1))
    ground = np.where(rng.random(count + 1) < 0.4, 1.0, 1e-3)
    return gradients.IncidenceForm(G, _weights(rng, max(len(rows), 1)), ground, owner or [0])


def _shifted(rng: np.random.Generator, n: int) -> gradients.IncidenceForm:
    A = _graph(rng, n)
    ground = A.D.diagonal()
    least = np.linalg.eigvalsh(A.matrix.toarray())[0]
    ground[rng.integers(0, n)] -= rng.uniform(0.1, 0.9) * least
    ground[rng.integers(0, n)] -= rng.uniform(0, 0.05) * least
    return gradients.IncidenceForm(A.G, A.k, ground)


def _dominant(rng: np.random.Generator, n: int) -> sp.csr_array:
    S = np.where(rng.random((n, n)) < 0.5, rng.standard_normal((n, n)), 0.0)
    np.fill_diagonal(S, 0)
    size = np.abs(S)
    least = size.sum(1) if rng.random() < 0.5 else np.maximum(size.sum(1), size.sum(0))
    np.fill_diagonal(S, (least + 10.0 ** rng.uniform(-4, 0, n)) * rng.choice([-1, 1], n))
    return sp.csr_array(S)


# -- trials -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Ratios bound / error of each check and kind, violations in words, and what was not certified."""

    ratios: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def judge(self, check: str, kind: str, error: Fraction, bound: float, what: str) -> None:
        """Exactly."""
        if not np.isfinite(bound) or error > Fraction(bound):
            self.violations.append(f"{check}, {kind}, {what}: error {float(error):.3e}, bound {bound:.3e}")
        ratio = float(Fraction(bound) / error) if error and np.isfinite(bound) else np.inf
        self.ratios.setdefault((check, kind), []).append(ratio)


def approximation(rng: np.random.Generator, A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Zero, steps of conjugate gradients, a solution that was disturbed or rounded, or the one in double precision."""
    way = rng.integers(0, 5)
    if way == 0:
        return np.zeros_like(b)
    x = np.linalg.solve(A, b)
    if way == 1:
        return x.astype(np.float32).astype(float)
    if way == 2:
        return x
    if way == 3:
        return x * (1 + 10.0 ** rng.uniform(-15, 0) * rng.standard_normal(len(b)))
    return _few_steps(A, b, int(rng.integers(1, len(b) + 1)))


def _few_steps(A: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """Jacobi-preconditioned conjugate gradients, as far as they go; for the normal equations where A has none."""
    if not np.array_equal(A, A.T):
        A, b = A.T @ A, A.T @ b
    m, x = A.diagonal(), np.zeros_like(b)
    r = b.copy()
    p = z = r / m
    for _ in range(steps):
        curvature = p @ A @ p
        if not curvature > 0:
            break
        alpha, before = (r @ z) / curvature, r @ z
        x, r = x + alpha * p, r - alpha * (A @ p)
        z = r / m
        p = z + (r @ z) / before * p
    return x


def trial(rng: np.random.Generator, kind: str, tally: Tally, what: str) -> None:
    """One problem, its certificate and its functional."""
    problem = draw(rng, kind)
    A, matrix = problem.A, problem.A.matrix if isinstance(problem.A, gradients.IncidenceForm) else problem.A
    full = matrix.toarray()
    x = approximation(rng, full, problem.b)
    g = problem.cotangent(x)
    lam = approximation(rng, full.T, g)
    cotangent = problem.t if problem.W is None else problem.cotangent
    options = {"mu": problem.mu, "x": x, "adjoint": lam}
    lipschitz = None if problem.W is None else float(problem.W.max(initial=0.0))
    certificate = gradients.certify(A, problem.b, cotangent, lipschitz=lipschitz, **options)
    rows = exact_matrix(problem)
    true_x = solve_exactly(rows, exact(problem.b))
    true_g = exact(problem.t)
    if problem.W is not None:
        # The rounding of ḡ(x̃) in double precision is the user's: the truth has the cotangent of the exact x.
        parts = zip(exact(problem.W), true_x, true_g, strict=True)
        true_g = [w * (v - y) for w, v, y in parts]
    columns = [list(column) for column in zip(*rows, strict=True)]
    true_lam = solve_exactly(columns, true_g)
    gradient = exact_gradient(problem, true_lam, true_x)
    if not certificate.certified:
        tally.refused.append(f"{kind}, {what}: {'; '.join(certificate.failed)}")
        return
    scales = exact(A.k if isinstance(A, gradients.IncidenceForm) else np.abs(A.data))
    errors = [abs(Fraction(float(a)) - e) for a, e in zip(certificate.gradient, gradient, strict=True)]
    of = "" if problem.W is None else ", cotangent of x̃"
    tally.judge(f"by parameters{of}", kind, sum(errors, Fraction(0)), certificate.bound, what)
    scaled = sum((s * e for s, e in zip(scales, errors, strict=True)), Fraction(0))
    tally.judge(f"by logarithms{of}", kind, scaled, certificate.log_bound, what)
    J = gradients.functional(A, problem.b, g, **options)
    value = sum((Fraction(float(s)) * v for s, v in zip(g, true_x, strict=True)), Fraction(0))
    tally.judge("functional", kind, abs(Fraction(float(J.value)) - value), J.bound, what)


QUANTILES = {"smallest": 0, "1 %": 0.01, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99}


def table(tally: Tally, trials: int) -> tuple[list[dict], str]:
    """Rows of quantiles of bound / error, and as Markdown."""
    rows = []
    for (check, kind), ratios in sorted(tally.ratios.items()):
        # Unlike np.quantile, no mean of a number and infinity, which errors of exactly zero give.
        found = {name: float(np.quantile(ratios, q, method="lower")) for name, q in QUANTILES.items()}
        finite = {name: v if np.isfinite(v) else None for name, v in found.items()}  # None where the error is zero
        rows.append({"check": check, "kind": kind, "trials": len(ratios), **finite})
    show = lambda v: "exact" if v is None else f"{v:.3g}"  # noqa: E731
    lines = [
        f"{trials:,} random systems that satisfy the conditions of a bound, truth in exact integers: "
        f"{sum(row['trials'] for row in rows):,} bounds, {len(tally.violations)} violations, "
        f"{len(tally.refused)} not certified. Columns are quantiles of bound / error.",
        "",
        f"| what | system | trials | {' | '.join(QUANTILES)} |",
        f"|---|---|---:|{'---:|' * len(QUANTILES)}",
    ]
    for row in rows:
        numbers = " | ".join(show(row[name]) for name in QUANTILES)
        lines.append(f"| {row['check']} | {KINDS[row['kind']]} | {row['trials']:,} | {numbers} |")
    return rows, "\n".join(lines) + "\n"


def main() -> None:
    """Run all trials, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tally, begun = Tally(), time.perf_counter()
    kinds = list(KINDS)
    for at in range(arguments.trials):
        rng = np.random.default_rng((arguments.seed, at))
        trial(rng, kinds[at % len(kinds)], tally, f"seed ({arguments.seed}, {at})")
    rows, text = table(tally, arguments.trials)
    for line in (*tally.violations[:20], *tally.refused[:20]):
        print(line)
    print(text)
    facts = {"trials": arguments.trials, "seed": arguments.seed, "seconds": time.perf_counter() - begun, "rows": rows}
    facts |= {"violations": tally.violations, "refused": tally.refused}
    write("gradient_bounds", facts)
    Path(RESULTS / "gradient_bounds.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
