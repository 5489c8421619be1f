"""Every example runs as a person runs it, warnings being errors, and prints what it is for."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
OURS = {"XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"}
"""What conftest.py sets for the tests: examples compile as users do, and a file that cannot be read is an error."""
STRONGEST = [
    r"665-1936 +-9\.7201308 ",
    r"1009-1143 +-8\.4901675 ",
    r"1798-2328 +5\.0021568 ",
    r"1842-2598 +-4\.9139318 ",
    r"500-1698 +4\.7881043 ",
    r"1866-1936 +-4\.7451308 ",
]
"""The six most sensitive branches of the grid: the same digits from every framework."""
SAID = {
    "deep_equilibrium.py": [
        r"1347 pictures to learn from, 450 held out",
        r"accuracy +\d\.\d% before, 9\d\.\d% after 4 epochs",
        r"8 layers +cosine 0\.99",
        r"deep equilibrium: passed",
    ],
    "eit_disk.py": [r"errors fall as m\^-1\.9", r"misfit 9\.\de-03 -> \d\.\de-0[56]", r"EIT: passed"],
    "gaussian_process.py": [
        r"342 patients to learn from, 100 held out",
        r"optimum ours +\(1\.92\d\d, 7\.79\d\d, 0\.4669\): likelihood -376\.731154\d\d, scikit-learn -376\.731154",
        r"\(32 samples\); 99% interval .*; variance x cost",
        r"gaussian process: passed",
    ],
    "keras_layer.py": [r"2,868 unknowns, 3,968 weights", r"first epoch, \d\.\d+e-05 in the last", r"layer: passed"],
    "learn_constraints.py": [
        r"12 assets, 2 secret limits; 240 months to learn from, 120 held out",
        r"holdings +0\.7\d\d before, 0\.[01]\d\d after",
        r"aversion +(1\.9|2\.0)\d+, truly 2\.014",
        r"learned constraints: passed",
    ],
    "learned_operator.py": [
        r"diffusion, sparse +256 +1,216 ",
        r"sectors, dense +12 +144 ",
        r"last backward CONVERGED_BACKWARD",
        r"learned operators: passed",
    ],
    "learned_walk.py": [
        r"2,708 papers, 7,538 edges; 511 papers to learn from, 511 held out",
        r"before +MRR 0\.4703 ",
        r"learned walk: passed",
    ],
    "leontief.py": [
        r"output 1247\.5 and 1841\.6",
        r"total output 136\.66",
        r"dense solve to \de-1[56]",
        r"Leontief: passed",
    ],
    "markov_chain.py": [
        r"0\.166667, 0\.333333, 0\.500000, 0\.666667, 0\.833333",
        r"times \[3\.0, 4\.0, 3\.0\], chances of the left end \[0\.75, 0\.5, 0\.25\]",
        r"Markov chain: passed",
    ],
    "physics_ode.py": [r"10 bodies, 20 edges", r"0\.\d+ before, 0\.0\d+ after", r"physics ODE: passed"],
    "power_grid.py": [r"gradient +relative error at most", r"TEN WORST LINES", r"demo +passed", *STRONGEST],
    "power_grid_jax.py": [r"branch 665-2393 is lost: smooth overload 4,072\.9521 MW", *STRONGEST],
    "power_grid_tensorflow.py": [r"branch 665-2393 is lost: smooth overload 4,072\.9521 MW", *STRONGEST],
    "resistor_network.py": [
        r"R\(1,0\) = 0\.5000\d+ \+- [5-9]e-05",
        r"R\(1,1\) = 0\.6366\d+ ",
        r"R\(2,1\) = 0\.7732\d+ ",
        r"errors fall as size\^-2\.0",
        r"resistor network: passed",
    ],
    "topology_optimization.py": [
        r"2,540 unknowns",
        r"compliance 1007\.0221 -> 284\.5011 in 12 steps",
        r"differ by \de-1[12]",
        r"topology optimisation: passed",
    ],
}
"""Patterns that the output of each example must have."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, tmp_path):
    source = path.read_text(encoding="utf-8")
    if "import tensorflow" in source and find_spec("tensorflow") is None:
        pytest.skip("left out: tensorflow is not installed")
    options = ["--quick"] if '"--quick"' in source else []
    if '"--output"' in source:
        options += ["--output", str(tmp_path / "figure.png")]
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment["PYTHONIOENCODING"] = "utf-8"
    command = [sys.executable, "-W", "error", str(path), *options]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    for pattern in SAID[path.name]:
        assert re.search(pattern, run.stdout), f"{path.name} does not print {pattern!r}:\n{run.stdout}"
    if '"--output"' in source:
        assert (tmp_path / "figure.png").stat().st_size > 0


def test_every_example_is_known_here():
    assert {path.name for path in EXAMPLES} == set(SAID)
