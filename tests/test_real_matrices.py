"""Solves and gradients on real matrices: those in ``tests/data``, and all of a folder named by BACKSOLVE_DATA."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import backsolve as bs

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"

# Matrices that are too large, or whose licence does not let them be shipped.
NOT_SHIPPED = {
    "bcsstk14": "size",
    "case118_Ybus": "licence",
    "ibmpg1_G": "licence",
    "ldg_diffusion": "size",
    "mcfe": "size",
    "memplus": "size",
    "orani678": "size",
    "astro-ph": "licence",
    "luxembourg_osm": "size",
    "power": "licence",
    "wiki-Vote": "licence",
}


def imported(name):
    """A module of the benchmarks, which are scripts beside the package."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


script = imported("real_matrices")
systems = imported("real_systems")

LARGER = os.environ.get("BACKSOLVE_DATA")
FILES = systems.files((*script.SHIPPED, *([Path(LARGER)] if LARGER else [])))
SINGULAR = {name: made for name, path in FILES.items() if (made := systems.singular(path))}


@pytest.fixture(scope="module")
def engines():
    return script.engines()


@pytest.mark.parametrize("name", FILES)
def test_is_as_good_as_the_best_engine_and_right_in_the_gradient(name, engines):
    row = script.examine(systems.load(FILES[name]), engines)
    assert not row["failures"], row


@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_are_told(name):
    row = script.told_singular(name, *SINGULAR[name])
    assert script.recognised(row), row


def test_complex_matrix(engines):
    """The shipped files are real: add a lossy term, as an admittance has, to the real part of one."""
    A = systems.load(FILES["1138_bus"]).A
    random = systems.generator("complex", 0)
    lossy = sp.csr_array(A + 1j * (0.3 * A + sp.diags_array(random.random(A.shape[0]))))
    b = random.standard_normal((2, A.shape[0])).T @ np.array([1, 1j])
    row = script.examine(systems.Case("lossy 1138_bus", lossy, b, None, ""), engines)
    assert not row["failures"], row


def test_a_consistent_singular_system_is_no_failure():
    """The Laplacian of a grid with injections that sum to zero: the residual says that the equation is solved."""
    _, A = SINGULAR["1138_bus"]
    sol = bs.solve_with_info(A, A @ systems.generator("consistent", 0).standard_normal(A.shape[0]))
    assert sol.converged


def test_an_ill_conditioned_matrix_is_not_called_singular():
    """Its residual in float32 is a fair part of b, and yet x has right digits: scaling of rows, not a null space."""
    case = systems.load(FILES["west0989"])
    low = script.single(case)
    assert systems.condition(case.A, systems.factored(case.A)) > 1 / np.finfo(np.float32).eps
    assert not low["flagged"]
    assert low["forward_error"] < 1e-6


def test_failures_are_found(engines):
    """The checks notice what they are there for."""
    row = script.examine(systems.load(FILES["dw256B"]), {"splu": engines["splu COLAMD"]})
    assert not row["failures"]
    worse = {"normwise": 1e-12, "componentwise": 1e-12, "status": "SINGULAR", "adjoint_status": "INACCURATE"}
    worse |= {"identity": 1e-9, "errors": {"torch, tangent": 1e-9, "numpy, tangent": float("nan")}}
    worse |= {"float32": row["float32"] | {"flagged": True}}
    assert len(script.failures(row | worse)) == 8
    assert len(script.failures(row | {"float32": row["float32"] | {"normwise": 1.0}})) == 1


def test_page_has_one_line_per_matrix(engines):
    rows = [script.examine(systems.load(FILES[name]), engines) for name in ("airfoil", "dw256B")]
    text, failed = script.report(rows, [script.told_singular("rw5151", *SINGULAR["rw5151"])])
    assert not failed
    assert sum(line.startswith(("| airfoil", "| dw256B", "| rw5151")) for line in text.splitlines()) == 3
    assert "Of 2 + 1 matrices: 0 matrices fail" in text


def test_walk_matrices_are_made_nonsingular():
    """I - .85 P is strictly dominant by rows or columns, by .15 at least up to the rounding of the files."""
    for name in ("gre_1107", "rw5151", "cora-cites"):
        A = systems.load(FILES[name]).A
        size, diagonal = abs(A), abs(A.diagonal())
        gaps = [(2 * diagonal - size.sum(axis=axis)).min() for axis in (0, 1)]
        assert max(gaps) > 1 - systems.DAMPING - 1e-3, name


def test_what_was_left_out(capsys, record_property):
    """Say which matrices of the larger set this run did without."""
    absent = {name: why for name, why in NOT_SHIPPED.items() if name not in FILES}
    record_property("left_out", ", ".join(absent))
    with capsys.disabled():
        listed = ", ".join(f"{name} ({why})" for name, why in absent.items())
        print(f"\nreal matrices: {len(FILES)} examined; left out: {listed or 'none'}")
    shipped = systems.files(script.SHIPPED)
    assert not set(shipped) & set(NOT_SHIPPED)
    assert len(shipped) + len(NOT_SHIPPED) == 28
    if LARGER:
        assert len(FILES) >= len(shipped)


def test_shipped_data_are_small_and_attributed():
    data = ROOT / "tests" / "data"
    readme = (data / "README.md").read_text(encoding="utf-8")
    found = sorted(data.glob("*.mtx.gz"))
    assert sum(f.stat().st_size for f in found) < 600_000
    assert not [f.name for f in found if f"`{f.name}`" not in readme]
