"""Are solves and gradients right on real matrices, and as accurate as the best engine called by hand?

Of each matrix as it is stored: residual and backward errors of backsolve beside the best of SciPy's SuperLU (two
orderings) and MKL Pardiso (where installed), and whether the status of a float32 solve is true. Of the
equilibrated matrix, whose condition number bounds what is possible: the adjoint identity, and the derivative of
a random functional Re<c, x> in the stored values by torch's backward and by `backsolve.vjp`, against the tangent
system solved with residuals in extended precision, and against a complex step. Singular matrices must be told.

Run ``python benchmarks/real_matrices.py --data DIR`` on a folder of Matrix Market files (``*.mtx.gz``;
``NAME_rhs.mtx.gz`` is the right-hand side of NAME). Writes ``benchmarks/results/real_matrices.{json,md}``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from problems import write
from real_systems import (
    Case,
    backward_errors,
    condition,
    equilibrated,
    exact_solve,
    extended,
    factored,
    files,
    generator,
    load,
    product,
    singular,
)

import backsolve as bs

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = (ROOT / "tests" / "data", ROOT / "examples" / "data")
EPS = np.finfo(float).eps
LOOSEST = 1e-4  # no derivative may be further off, however bad the conditioning
STEPPABLE = 200_000  # entries up to which the complex step, a complex factorization of its own, is made
WORSE = 10  # times the backward error of the best engine that are too many


HEADER = """# Real matrices

Made by `benchmarks/real_matrices.py`. Residual (2-norm, relative), normwise and componentwise backward error are those
of the matrix as stored, ours beside the best engine called by hand; more than ten times the best fails (a
componentwise error below the unit roundoff counts as the unit roundoff). Adjoint identity: relative difference of
<c, A⁻¹b> and <A⁻ᴴc, b>; derivative: relative error of the directional derivative of Re<c, x> in the stored values, the
worse of two references. Both are taken after equilibration by powers of two and must stay below the bound,
10 κ₁ eps but never more than 1e-4. κ₁ is an estimate. float32: relative error of x and normwise backward error; a
status that is no success is right if every digit is lost. All right-hand sides but those said to be a matrix's own
are random. P is the row-stochastic walk; a row of a graph without edges stays zero in P. "spd" is declared.
"""


def superlu(ordering: str) -> Callable:
    """SciPy's SuperLU as people call it."""
    return lambda A, b: sla.splu(sp.csc_array(A), permc_spec=ordering).solve(b)


def engines() -> dict[str, Callable]:
    """The engines that are installed, called by hand."""
    found = {"splu COLAMD": superlu("COLAMD"), "splu MMD": superlu("MMD_AT_PLUS_A")}
    try:
        import pypardiso  # type: ignore[import-not-found]
    except ImportError:
        return found
    solver = pypardiso.PyPardisoSolver()
    return found | {"Pardiso": lambda A, b: solver.solve(sp.csr_matrix(A), b)}


def forward(case: Case, by_hand: dict[str, Callable]) -> dict[str, Any]:
    """Accuracy of a solve of the matrix as stored, beside the engines."""
    A, b = case.A, case.b
    sol = bs.solve_with_info(A, b, assume=case.assume)
    told = bs.explain(A, assume=case.assume)
    peers = {k: backward_errors(A, b, f(A, b)) for k, f in by_hand.items() if k != "Pardiso" or A.dtype.kind == "f"}
    best = {e: min(peers, key=lambda k: peers[k][e]) for e in ("normwise", "componentwise")}
    ordering = re.search(r"ordering (\w+)", told)
    return {
        "method": f"{sol.method.name}, {ordering[1] if ordering else 'none'}",
        "explain": told,
        "status": bs.Status(int(sol.status)).name,
        "refinements": int(sol.stats.refinements),
        "kappa_stored": condition(A, factored(A)),
        **backward_errors(A, b, sol.x),
        "peers": peers,
        "best": {e: {"engine": k, "error": peers[k][e]} for e, k in best.items()},
    }


def derivative(case: Case) -> dict[str, Any]:
    """Adjoint identity and directional derivative of the equilibrated system, with the bound on their errors."""
    A, r, _ = equilibrated(case.A)
    b, random = r * case.b, generator(case.name, 1)
    c = random.standard_normal(len(b)).astype(A.dtype)
    direction = A.data * random.standard_normal(A.nnz)
    lu = factored(A)
    kappa = condition(A, lu)

    sol, pullback = bs.vjp(A, b, assume=case.assume)
    data_bar, lam, adjoint = pullback(c)
    left, right = np.vdot(c, sol.x), np.vdot(lam, b)
    by = {"numpy": np.vdot(data_bar, direction).real, "torch": torch_derivative(A, b, c, direction, case.assume)}

    # A x = b and A ẋ = -Ȧ x; the functional is Re<c, x>.
    moved = sp.csr_array((direction, A.indices, A.indptr), shape=A.shape)
    x_dot = exact_solve(A, lu, -product(moved, exact_solve(A, lu, b)))
    exact = float(np.vdot(extended(c), x_dot).real)
    references = {"tangent": exact}
    if A.dtype.kind == "f" and A.nnz <= STEPPABLE:
        references["complex step"] = complex_step(A, b, c, direction)
    return {
        "kappa": kappa,
        "bound": min(10 * kappa * EPS, LOOSEST),
        "adjoint_status": bs.Status(int(adjoint.status)).name,
        "identity": float(abs(left - right) / max(abs(left), abs(right))),
        "derivative": exact,
        "errors": {f"{k}, {m}": abs(v - w) / abs(exact) for k, v in by.items() for m, w in references.items()},
    }


def torch_derivative(A: Any, b: np.ndarray, c: np.ndarray, direction: np.ndarray, assume: str | None) -> float:
    """The derivative by torch: one backward through the stored values."""
    data = torch.from_numpy(A.data).requires_grad_()
    x = bs.solve(bs.CSR(data, A.indices, A.indptr, A.shape), torch.from_numpy(b), assume=assume)
    torch.vdot(torch.from_numpy(c), x).real.backward()
    assert data.grad is not None
    return float(torch.vdot(data.grad, torch.from_numpy(direction)).real)


def complex_step(A: Any, b: np.ndarray, c: np.ndarray, direction: np.ndarray, h: float = 1e-20) -> float:
    """The derivative by a step along i: no difference is taken, so only the solve rounds."""
    stepped = sp.csr_array((A.data + 1j * h * direction, A.indices, A.indptr), shape=A.shape)
    return float(c @ factored(stepped).solve(b.astype(complex)).imag / h)


def single(case: Case) -> dict[str, Any]:
    """Whether the status of a float32 solve tells the truth."""
    narrow = np.complex64 if case.A.dtype.kind == "c" else np.float32
    A, b = case.A.astype(narrow), case.b.astype(narrow)
    sol = bs.solve_with_info(A, b, assume=case.assume, on_failure="return")
    wide, b = A.astype(case.A.dtype), b.astype(case.b.dtype)
    truth = exact_solve(wide, factored(wide), b)
    finite = bool(np.isfinite(sol.x).all())
    error = float(np.abs(sol.x - truth).max() / np.abs(truth).max()) if finite else np.inf
    backward = backward_errors(wide, b, sol.x.astype(wide.dtype))["normwise"] if finite else np.inf
    return {
        "status": bs.Status(int(sol.status)).name,
        "flagged": not sol.converged,
        "normwise": backward,
        "bound": float(10 * np.sqrt(len(b)) * np.finfo(np.float32).eps),
        "forward_error": error,
    }


ROUNDED = "another matrix after rounding"


def told_singular(name: str, what: str, A: Any) -> dict[str, Any]:
    """Status of solves with a singular matrix and random right-hand sides."""
    row: dict[str, Any] = {"name": name, "what": what, "n": A.shape[0]}
    for dtype in (np.float64, np.float32):
        b = generator(name, 2).standard_normal(A.shape[0]).astype(dtype)
        sol = bs.solve_with_info(A.astype(dtype), b, on_failure="return")
        row[dtype.__name__] = bs.Status(int(sol.status)).name
        if (A.astype(dtype).astype(A.dtype) != A).nnz:
            row[dtype.__name__] = f"{ROUNDED} ({row[dtype.__name__]})"
    return row


def recognised(row: dict[str, Any]) -> bool:
    """Whether a singular matrix is called singular, in single precision too if rounding leaves it as it is."""
    return row["float64"] == "SINGULAR" and row["float32"].startswith(("SINGULAR", ROUNDED))


def examine(case: Case, by_hand: dict[str, Callable]) -> dict[str, Any]:
    """One row of the table."""
    row = {"name": case.name, "note": case.note, "n": case.A.shape[0], "nnz": int(case.A.nnz), "assume": case.assume}
    row |= {"dtype": case.A.dtype.name, **forward(case, by_hand), **derivative(case), "float32": single(case)}
    return row | {"failures": failures(row)}


def failures(row: dict[str, Any]) -> list[str]:
    """What of a row is not as it must be."""
    found = [f"{k} {row[k]}" for k in ("status", "adjoint_status") if not bs.Status[row[k]].converged]
    for error, floor in (("normwise", 0.0), ("componentwise", EPS / 2)):
        best = max(row["best"][error]["error"], floor)
        if not row[error] <= WORSE * best:
            found.append(f"{error} backward error {row[error]:.1e} against {best:.1e}")
    for what, error in {"adjoint identity": row["identity"], **row["errors"]}.items():
        if not error <= row["bound"]:
            found.append(f"{what}: error {error:.1e} above {row['bound']:.1e}")
    low = row["float32"]
    if low["flagged"] and low["forward_error"] < 0.5:
        found.append(f"float32 is called {low['status']} with an error of {low['forward_error']:.1e} only")
    if not low["flagged"] and not low["normwise"] <= low["bound"]:
        found.append(f"float32 is called {low['status']} with backward error {low['normwise']:.1e}")
    return found


def markdown(rows: list[dict[str, Any]], singulars: list[dict[str, Any]]) -> str:
    """The table, from the same numbers as the JSON."""
    lines = [
        "| matrix | n | nnz | κ₁ stored | κ₁ equil. | method, ordering | residual | normwise: ours / best "
        "| componentwise: ours / best | adjoint identity | derivative: torch / NumPy | bound "
        "| float32: error / backward | verdict |",
        "|---|" + "---:|" * 4 + "---|" + "---:|" * 7 + "---|",
    ]
    for row in rows:
        low, errors = row["float32"], row["errors"]
        worst = [max(v for k, v in errors.items() if k.startswith(kind)) for kind in ("torch", "numpy")]
        pairs = [f"{row[e]:.1e} / {row['best'][e]['error']:.1e}" for e in ("normwise", "componentwise")]
        cells = [
            row["name"] + (f" ({row['note']})" if row["note"] else ""),
            *(f"{row[k]:,}" for k in ("n", "nnz")),
            *(f"{row[k]:.0e}" for k in ("kappa_stored", "kappa")),
            row["method"] + (f", {row['assume']}" if row["assume"] else ""),
            f"{row['residual']:.0e}",
            *pairs,
            f"{row['identity']:.0e}",
            f"{worst[0]:.0e} / {worst[1]:.0e}",
            f"{row['bound']:.0e}",
            f"{low['forward_error']:.0e} / {low['normwise']:.0e}" + (f" {low['status']}" if low["flagged"] else ""),
            "; ".join(row["failures"]) or "pass",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| singular matrix | n | float64 | float32 |", "|---|---:|---|---|"]
    for s in singulars:
        lines.append(f"| {s['name']}, {s['what']} | {s['n']:,} | {s['float64']} | {s['float32']} |")
    return "\n".join(lines) + "\n"


def report(rows: list[dict[str, Any]], singulars: list[dict[str, Any]]) -> tuple[str, bool]:
    """The page, and whether anything on it is wrong."""
    lists = {
        "matrices fail": [r["name"] for r in rows if r["failures"]],
        "float32 solves are flagged": [r["name"] for r in rows if r["float32"]["flagged"]],
        "singular matrices are taken for regular": [s["name"] for s in singulars if not recognised(s)],
    }
    ends = [f"{len(names)} {what}{': ' * bool(names)}{', '.join(names)}" for what, names in lists.items()]
    text = f"{HEADER}\n{markdown(rows, singulars)}\nOf {len(rows)} + {len(singulars)} matrices: {'; '.join(ends)}.\n"
    return text, bool(lists["matrices fail"] or lists["singular matrices are taken for regular"])


def main() -> int:
    """Examine all matrices, write the table, and return 1 if one fails."""
    nearby = ROOT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", help="folder of *.mtx.gz files; may be repeated")
    args = parser.parse_args()
    found = files(tuple(args.data or ([nearby] if nearby.is_dir() else SHIPPED)))
    rows, singulars, by_hand = [], [], engines()
    for k, (name, path) in enumerate(found.items()):
        print(f"{k + 1}/{len(found)} {name}", file=sys.stderr, flush=True)
        rows.append(examine(load(path), by_hand))
        if made := singular(path):
            singulars.append(told_singular(name, *made))
    text, failed = report(rows, singulars)
    path = write("real_matrices", {"engines": list(by_hand), "rows": rows, "singular": singulars})
    path.with_suffix(".md").write_text(text)
    print(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
