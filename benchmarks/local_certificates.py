"""Is an answer of a local solve ever further from the truth than it says?

Random systems (local_systems.py) of up to 30 unknowns, some of up to 10,000, and real matrices with --data. Held to
solutions in integers (local_truth.py): functionals, vectors of both sides, functionals of dense right-hand sides, every
entry of the gradient by the values, dropped ones too, those by b and t, directional derivatives, queries that go on,
also after values were changed in place. Writes results/local_certificates.json and .md: trials, violations, and how tight
the bounds are.

    python benchmarks/local_certificates.py [--systems 100000] [--large 300] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from local_systems import Case, draw
from local_truth import UNIT, Solution, Truth, whole

from backsolve._local.budget import Budget
from backsolve._local.estimate import Estimate
from backsolve._local.functional import FunctionalQuery
from backsolve._local.gradient import gradient
from backsolve._local.half import Half
from backsolve._local.options import Options
from backsolve._local.system import Vector
from backsolve._local.vector import DualQuery, VectorQuery
from backsolve.local.handover import hand_over
from backsolve.status import Status

CHECKS = (
    "functional",
    "refined",
    "changed in place",
    "vector",
    "dense b",
    "gradient",
    "dropped",
    "by b",
    "by t",
    "directional",
)
_DEEP = 4000
"""Bits of a truth that sees entries 10^-300 below the largest."""


class Unresolved(ArithmeticError):
    """The truth is not exact enough to judge a bound."""


@dataclass
class Tally:
    """Ratios |error| / bound by check, statuses, and violations in words."""

    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def judge(self, check: str, error: int, bound: int, slack: int, what: str) -> None:
        """All in the same units."""
        if slack * 1000 > bound:
            raise Unresolved(what)
        if error > bound + slack:
            self.violations.append(f"{check}: {what}: error/bound {error * 1000 // max(bound, 1) / 1000}")
        self.ratios[check].append(error * 10**6 // max(bound, 1) / 1e6)

    def add(self, other: Tally) -> None:
        """Join what another process found."""
        for check, ratios in other.ratios.items():
            self.ratios[check] += ratios
        self.statuses += other.statuses
        self.violations += other.violations


class Referee:
    """Holds the answers to one system to its truth."""

    def __init__(self, case: Case, tally: Tally, what: str, bits: int):
        self.case, self.tally, self.what, self.bits = case, tally, what, bits
        weights = {"w": case.w, "v": case.v if case.v is not None else None}
        if case.kind == "columns" and case.v is None:
            weights["v"] = np.ones(case.n)
        self.truth = Truth(case.n, case.rows, case.columns, case.data.astype(float), **weights)
        self._solved: dict = {}

    def solution(self, vector: Vector, transposed: bool) -> Solution:
        key = (*(part.tobytes() for part in vector), transposed)
        if key not in self._solved:
            right = dict(zip(vector[0].tolist(), vector[1].tolist(), strict=True))
            self._solved[key] = self.truth.solve(right, transposed, self.bits)
        return self._solved[key]

    def number(self, check: str, estimate: Estimate, b: Vector, t: Vector) -> None:
        """φ = t·M⁻¹b."""
        if not self._holds(estimate):
            return
        x, slack, Q = self.solution(b, False)
        right = list(zip(t[0].tolist(), map(whole, t[1].tolist()), strict=True))
        error = abs(sum(value * x[i] for i, value in right) - (whole(estimate.value) << Q))
        off = sum(abs(value) * slack[i] for i, value in right)
        self.tally.judge(check, error, whole(estimate.bound) << Q, off, self.what)

    def entries(self, check: str, found: Vector, bounds: np.ndarray, truth: Solution, nodes: np.ndarray) -> None:
        """Entries of a solution, zero where none was found."""
        values = dict(zip(found[0].tolist(), found[1].tolist(), strict=True))
        for j, bound in zip(nodes.tolist(), bounds.tolist(), strict=True):
            if bound < np.inf:
                error = abs(truth.x[j] - (whole(values.get(j, 0.0)) << truth.Q - UNIT))
                self.tally.judge(check, error, whole(bound) << truth.Q - UNIT, truth.slack[j], f"{self.what} entry {j}")

    def vector(self, estimate: Estimate, b: Vector, transposed: bool) -> None:
        """x = M⁻¹b or M⁻ᵀb, all entries."""
        if self._holds(estimate):
            every = self._nodes(estimate.value[0])
            bounds = np.full(len(every), estimate.bound)
            self.entries("vector", estimate.value, bounds, self.solution(b, transposed), every)

    def gradient(self, primal: Half, dual: Half, rng: np.random.Generator) -> None:
        """Entries by values, kept and dropped, by b and t, and along a direction."""
        g = gradient(primal, dual)
        x, lam = self.solution(primal.b, False), self.solution(dual.b, True)
        for check, found, everywhere, truth in (("by b", g.b, g.bound_b, lam), ("by t", g.t, g.bound_t, x)):
            self.entries(check, found[:2], found[2], truth, found[0])
            others = np.setdiff1d(self._nodes(found[0]), found[0])
            self.entries(check, found[:2], np.full(len(others), everywhere), truth, others)
        stored = np.arange(len(self.case.data))
        if len(stored) > 400:
            stored = np.unique(np.concatenate([g.matrix.indices[:200], rng.integers(0, len(stored), 200)]))
        rows, columns = self.case.rows[stored], self.case.columns[stored]
        values = dict(zip(g.matrix.indices.tolist(), g.matrix.values.tolist(), strict=True))
        bounds = g.matrix.bound_at(rows, columns)
        Q, exact, slacks = x.Q + lam.Q, [], []
        for slot, i, j, bound in zip(stored.tolist(), rows.tolist(), columns.tolist(), bounds.tolist(), strict=True):
            exact.append(-lam.x[i] * x.x[j])
            slacks.append((abs(lam.x[i]) + lam.slack[i]) * x.slack[j] + abs(x.x[j]) * lam.slack[i])
            if bound < np.inf:
                error = abs(exact[-1] - (whole(values.get(slot, 0.0)) << Q - UNIT))
                check = "gradient" if slot in values else "dropped"
                self.tally.judge(check, error, whole(bound) << Q - UNIT, slacks[-1], f"{self.what} place {slot}")
        direction = rng.standard_normal(len(stored))
        value, bound = g.matrix.directional(stored, rows, columns, direction)
        if np.isfinite(value) and bound < np.inf:
            parts = list(map(whole, direction.tolist()))
            error = abs(sum(d * e for d, e in zip(parts, exact, strict=True)) - (whole(value) << Q))
            off = sum(abs(d) * s for d, s in zip(parts, slacks, strict=True))
            self.tally.judge("directional", error, whole(bound) << Q, off, self.what)

    def _nodes(self, found: np.ndarray) -> np.ndarray:
        if self.case.n <= 400:
            return np.arange(self.case.n)
        return np.unique(np.concatenate([found[:200], np.arange(0, self.case.n, self.case.n // 200)]))

    def _holds(self, estimate: Estimate) -> bool:
        self.tally.statuses[estimate.status.name] += 1
        if estimate.status == Status.NO_CERTIFICATE:
            assert np.isnan(estimate.value).all() and estimate.bound == np.inf
            return False
        assert np.isfinite(estimate.bound)
        return True


def options(rng: np.random.Generator, atol: float) -> Options:
    """With a budget, a global solver to hand over to, or neither."""
    budget = int(10 ** rng.uniform(0, 4)) if rng.random() < 0.2 else 10**6
    fallback = "global" if rng.random() < 0.3 else None
    return Options("query", atol, budget, fallback=fallback, on_failure="return", handover=hand_over)


def trial(case: Case, rng: np.random.Generator, tally: Tally, what: str, bits: int) -> None:
    """All queries to one system."""
    system = case.system()
    assert system.dominant, "a system that was drawn to be dominant is not proved to be"
    referee = Referee(case, tally, what, bits)
    query = FunctionalQuery(system, case.b, case.t)
    atol = min(query.size, 1e300) * 10 ** rng.uniform(-14, 0)
    estimate = options(rng, atol).run(system, lambda: query)
    referee.number("functional", estimate, case.b, case.t)
    if estimate.status != Status.NO_CERTIFICATE:
        referee.gradient(query.primal, query.dual, rng)
    referee.number("refined", query.run(atol * 1e-3, Budget(10**6), leave=False), case.b, case.t)
    for transposed, right in ((False, case.b), (True, case.t)):
        vector = VectorQuery(system, right, transposed)
        atol = min(vector.half.size, 1e300) * 10 ** rng.uniform(-12, 3)
        referee.vector(options(rng, atol).run(system, lambda: vector), right, transposed)  # noqa: B023
    dual = DualQuery(system, case.dense, case.t)
    atol = min(dual.dual.size, 1e150) * min(float(np.max(np.abs(case.dense))), 1e150) * 10 ** rng.uniform(-12, 3)
    every = np.arange(case.n)
    referee.number("dense b", options(rng, atol).run(system, lambda: dual), (every, case.dense), case.t)
    # Towards more dominance, in place: whatever was kept of the old values is wrong now.
    change = np.where(case.rows == case.columns, rng.uniform(1, 3, len(case.data)), rng.uniform(0.1, 1, len(case.data)))
    if not _repeats(case):
        case.data *= change.astype(case.data.dtype)
        other = Referee(case, tally, what, bits)
        other.number("changed in place", query.run(1e-3 * atol, Budget(10**5), leave=False), case.b, case.t)


def _repeats(case: Case) -> bool:
    return len(np.unique(case.rows * case.n + case.columns)) < len(case.rows)


def run(seed: int, large: bool = False, bits: int | None = None) -> Tally:
    """One random system; its truth is made to more bits where it must judge a tighter bound."""
    for depth in (bits,) if bits else (600, _DEEP):
        rng, tally = np.random.default_rng([seed, large]), Tally()
        case = draw(rng, int(10 ** rng.uniform(1.5, 4)) if large else None)
        what = f"seed {seed}{' large' if large else ''} ({case.kind}, gap {case.gap:.1e})"
        try:
            trial(case, rng, tally, what, depth)
            return tally
        except Unresolved:
            tally = Tally()
        except Exception:
            tally.violations.append(f"{what}: {traceback.format_exc()}")
            return tally
    tally.statuses["truth not resolved"] += 1
    return tally


def _batch(work: tuple[range, bool]) -> Tally:
    total = Tally()
    for seed in work[0]:
        total.add(run(seed, work[1]))
    return total


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=300)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    start, total = time.time(), Tally()
    work = [(range(k, min(k + 250, args.systems)), False) for k in range(0, args.systems, 250)]
    work += [(range(k, min(k + 10, args.large)), True) for k in range(0, args.large, 10)]
    with multiprocessing.get_context("fork").Pool() as pool:
        for part in pool.imap_unordered(_batch, work):
            total.add(part)
    print(f"{time.time() - start:.0f} s", dict(total.statuses), len(total.violations))
    for violation in total.violations[:20]:
        print(violation)
    for check in CHECKS:
        r = np.array(total.ratios[check])
        print(check, len(r), np.quantile(r, [0.5, 0.9, 0.99, 1]) if len(r) else "")


if __name__ == "__main__":
    main()
