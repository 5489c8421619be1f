"""Is an answer of a local solve ever further from the truth than it says?

Random systems (local_systems.py) of up to 30 unknowns, some of up to 10,000, and real matrices with --data. Held to
solutions in integers (local_truth.py): functionals, vectors of both sides, functionals of dense right-hand sides, every
entry of the gradient by the values, dropped ones too, those by b and t, directional derivatives, queries that go on,
also after values were changed in place. Writes results/local_certificates.json and .md: trials, violations, and how
tight the bounds are.

    python benchmarks/local_certificates.py [--systems 100000] [--large 300] [--data FOLDER] [--processes N]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from local_systems import Case, draw, real, with_vectors
from local_truth import UNIT, Solution, Truth, whole
from problems import RESULTS, ROOT, write

from backsolve._local.budget import Budget
from backsolve._local.estimate import Estimate
from backsolve._local.functional import FunctionalQuery
from backsolve._local.gradient import gradient
from backsolve._local.half import Half
from backsolve._local.options import Options
from backsolve._local.places import Places
from backsolve._local.system import System, Vector
from backsolve._local.vector import DualQuery, VectorQuery
from backsolve.local.handover import hand_over
from backsolve.status import Status

CHECKS = {
    "functional": "t·x, sparse b and t",
    "refined": "the same, gone on with a thousandth of atol",
    "changed in place": "the same, after values were changed in place",
    "dense b": "t·x, dense b",
    "vector": "entries of x and λ",
    "gradient": "∂/∂M, entries kept",
    "dropped": "∂/∂M, entries left out",
    "by b": "∂/∂b, all entries",
    "by t": "∂/∂t, all entries",
    "directional": "derivative along dM",
}
_ZERO = -301
_DEEP = 4000
"""Bits of a truth that sees entries 10^-300 below the largest."""


class UnresolvedError(ArithmeticError):
    """The truth is not exact enough to judge a bound."""


@dataclass
class Tally:
    """Ratios |error| / bound by check and kind, statuses, and violations in words.

    Ratios are counted by twentieths of powers of ten, rounded up; _ZERO where the error is none.
    """

    kind: str = ""
    ratios: dict[tuple[str, str], Counter] = field(default_factory=dict)
    statuses: Counter = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def judge(self, check: str, error: int, bound: int, slack: int, what: str) -> None:
        """All in the same units."""
        if slack * 1000 > bound:
            raise UnresolvedError(what)
        if error > bound + slack:
            self.violations.append(f"{check}: {what}: error/bound {error * 1000 // max(bound, 1) / 1000}")
        ratio = error * 10**15 // max(bound, 1)
        level = math.ceil(20 * math.log10(ratio) - 300) if ratio else _ZERO
        self.ratios.setdefault((check, self.kind), Counter())[level] += 1

    def add(self, other: Tally) -> None:
        """Join what another process found."""
        for key, ratios in other.ratios.items():
            self.ratios.setdefault(key, Counter()).update(ratios)
        self.statuses += other.statuses
        self.violations += other.violations


class Referee:
    """Holds the answers to one system to its truth."""

    def __init__(self, case: Case, tally: Tally, what: str, bits: int):
        self.case, self.tally, self.what, self.bits = case, tally, what, bits
        self.truth = Truth(case.n, case.rows, case.columns, case.data.astype(float), case.w, case.v)
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
        g = gradient(primal, dual, Places(primal.system.access))
        x, lam = self.solution(primal.b, False), self.solution(dual.b, True)
        for check, found, truth in (("by b", g.b, lam), ("by t", g.t, x)):
            nodes = self._nodes(found.indices)
            self.entries(check, (found.indices, found.values), found.bound_at(nodes), truth, nodes)
            self.entries(check, (found.indices, found.values), np.full(len(nodes), found.bound), truth, nodes)
        stored = np.arange(len(self.case.data))
        if len(stored) > 400:
            stored = np.unique(np.concatenate([g.A.places[:200], rng.integers(0, len(stored), 200)]))
        rows, columns = self.case.rows[stored], self.case.columns[stored]
        values = dict(zip(g.A.places.tolist(), g.A.values.tolist(), strict=True))
        bounds = np.minimum(g.A.bound_at(rows, columns), g.A.bound)
        Q, exact, slacks = x.Q + lam.Q, [], []
        for slot, i, j, bound in zip(stored.tolist(), rows.tolist(), columns.tolist(), bounds.tolist(), strict=True):
            exact.append(-lam.x[i] * x.x[j])
            slacks.append((abs(lam.x[i]) + lam.slack[i]) * x.slack[j] + abs(x.x[j]) * lam.slack[i])
            if bound < np.inf:
                error = abs(exact[-1] - (whole(values.get(slot, 0.0)) << Q - UNIT))
                check = "gradient" if slot in values else "dropped"
                self.tally.judge(check, error, whole(bound) << Q - UNIT, slacks[-1], f"{self.what} place {slot}")
        direction = rng.standard_normal(len(stored))
        value, bound = g.directional((stored, direction))
        if bound < np.inf:
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


def trial(case: Case, system: System, rng: np.random.Generator, tally: Tally, what: str, bits: int) -> None:
    """All queries to one system."""
    assert system.dominant, "a system that is dominant is not proved to be"
    referee = Referee(case, tally, what, bits)
    query = FunctionalQuery(system, case.b, case.t)
    atol = min(query.primal.size * query.dual.size, 1e300) * 10 ** rng.uniform(-14, 0)
    estimate = options(rng, atol).run(system, lambda: query)
    referee.number("functional", estimate, case.b, case.t)
    if estimate.status != Status.NO_CERTIFICATE:
        referee.gradient(query.primal, query.dual, rng)
    referee.number("refined", query.run(atol * 1e-3, Budget(10**6), leave=False), case.b, case.t)
    for transposed, right in ((False, case.b), (True, case.t)):
        vector = VectorQuery(system, right, transposed)
        size = min(vector.half.size, 1e300) * 10 ** rng.uniform(-12, 3)
        referee.vector(options(rng, size).run(system, lambda v=vector: v), right, transposed)
    dual = DualQuery(system, case.dense, case.t)
    size = min(dual.dual.size, 1e150) * min(float(np.max(np.abs(case.dense))), 1e150) * 10 ** rng.uniform(-12, 3)
    every = np.arange(case.n)
    referee.number("dense b", options(rng, size).run(system, lambda: dual), (every, case.dense), case.t)
    if system.access.data is case.data and not _repeats(case):
        # Towards more dominance, in place: whatever was kept of the old values is wrong now.
        on, shape = case.rows == case.columns, len(case.data)
        case.data *= np.where(on, rng.uniform(1, 3, shape), rng.uniform(0.1, 1, shape)).astype(case.data.dtype)
        other = Referee(case, tally, what, bits)
        other.number("changed in place", query.run(1e-3 * atol, Budget(10**5), leave=False), case.b, case.t)


def _repeats(case: Case) -> bool:
    return len(np.unique(case.rows * case.n + case.columns)) < len(case.rows)


def run(make: Callable[[np.random.Generator], tuple[Case, System]], seed: list[int], what: str) -> Tally:
    """One system; its truth is made to more bits where it must judge a tighter bound."""
    for bits in (250, 700, _DEEP):
        rng = np.random.default_rng(seed)
        case, system = make(rng)
        tally = Tally(case.kind)
        name = f"{what} ({case.kind}, gap {case.gap:.1e})"
        try:
            trial(case, system, rng, tally, name, bits)
            return tally
        except UnresolvedError:
            pass
        except Exception:
            tally.violations.append(f"{name}: {traceback.format_exc(limit=-4)}")
            return tally
    return Tally(statuses=Counter({"truth not resolved": 1}))


def random_system(seed: int, large: bool = False) -> Tally:
    """One system of local_systems.py."""

    def make(rng: np.random.Generator) -> tuple[Case, System]:
        case = draw(rng, int(10 ** rng.uniform(1.5, 4)) if large else None)
        return case, case.system()

    return run(make, [seed, large], f"seed {seed}{' large' if large else ''}")


def real_system(path: Path, number: int) -> Tally | None:
    """Sparse right-hand sides of a real matrix, or of I - 0.85 P of a graph; None if it is not dominant in any way."""
    prepared = real(path)
    if prepared is None:
        return None
    return run(lambda rng: with_vectors(*prepared, rng), [number], f"{path.name}, {number}")


def _batch(work: tuple[range, bool]) -> Tally:
    total = Tally()
    for seed in work[0]:
        total.add(random_system(seed, work[1]))
    return total


def _real_batch(path: Path) -> tuple[str, Tally | None]:
    total = Tally()
    for number in range(4):
        found = real_system(path, number)
        if found is None:
            return path.name, None
        total.add(found)
    return path.name, total


def quantiles(ratios: Counter) -> list[float]:
    """The median, the ninth decile, the last percentile and the largest ratio, rounded up by at most an eighth."""
    levels = sorted(ratios)
    counts = np.cumsum([ratios[level] for level in levels])
    at = (levels[int(np.searchsorted(counts, q * counts[-1]))] for q in (0.5, 0.9, 0.99, 1.0))
    return [0.0 if level == _ZERO else min(float(f"{10 ** (level / 20):.2g}"), 1.0) for level in at]


def report(total: Tally, found: dict) -> None:
    """results/local_certificates.json and .md."""
    kinds = sorted({kind for _, kind in total.ratios})
    joined = {check: sum((total.ratios.get((check, k), Counter()) for k in kinds), Counter()) for check in CHECKS}
    table = {
        check: {"trials": ratios.total(), "ratios": quantiles(ratios)} for check, ratios in joined.items() if ratios
    }
    by_kind = {
        kind: {check: quantiles(total.ratios[check, kind]) for check in ("functional", "vector", "gradient")}
        for kind in kinds
    }
    write("local_certificates", found | {"checks": table, "kinds": by_kind, "statuses": dict(total.statuses)})
    lines = [
        f"{found['systems']:,} random systems of up to 30 unknowns, {found['large']} of up to 10,000, "
        f"{len(found['matrices'])} real matrices; {sum(row['trials'] for row in table.values()):,} numbers held to "
        f"their bounds, {len(total.violations)} violations. Ratios are |error| / bound.",
        "",
        "| what | trials | median | 90 % | 99 % | largest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for check, row in table.items():
        lines.append(f"| {CHECKS[check]} | {row['trials']:,} | " + " | ".join(f"{r:g}" for r in row["ratios"]) + " |")
    lines += ["", "| dominance | functional: median, 90 % | vector | gradient |", "|---|---|---|---|"]
    for kind, row in by_kind.items():
        lines.append(f"| {kind} | " + " | ".join(f"{r[0]:g}, {r[1]:g}" for r in row.values()) + " |")
    (RESULTS / "local_certificates.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run all and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=300)
    parser.add_argument("--data", type=Path, default=ROOT / "tests" / "data")
    parser.add_argument("--processes", type=int)
    args = parser.parse_args()
    start, total, matrices, refused = time.time(), Tally(), [], []
    work = [(range(k, min(k + 250, args.systems)), False) for k in range(0, args.systems, 250)]
    work += [(range(k, min(k + 10, args.large)), True) for k in range(0, args.large, 10)]
    with multiprocessing.get_context("fork").Pool(args.processes) as pool:
        for part in pool.imap_unordered(_batch, work):
            total.add(part)
        for name, part in pool.imap_unordered(_real_batch, sorted(args.data.glob("*.mtx.gz"))):
            (refused if part is None else matrices).append(name)
            if part is not None:
                total.add(part)
    found = {
        "systems": args.systems,
        "large": args.large,
        "seconds": round(time.time() - start),
        "violations": total.violations,
        "matrices": sorted(matrices),
        "not dominant": sorted(refused),
    }
    report(total, found)
    print(
        f"{found['seconds']} s, {dict(total.statuses)}, {len(total.violations)} violations",
        *total.violations[:5],
        sep="\n",
    )


if __name__ == "__main__":
    main()
