"""Every example runs as a person runs it, warnings being errors, and prints what it is for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SAID = {
    "learned_operator.py": [
        r"diffusion, sparse +256 +1,216 ",
        r"sectors, dense +12 +144 ",
        r"last backward CONVERGED_BACKWARD",
        r"learned operators: passed",
    ],
    "power_grid.py": [r"gradient +relative error at most", r"TEN WORST LINES", r"demo +passed"],
}
"""Patterns that the output of each example must have."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path, tmp_path):
    source = path.read_text(encoding="utf-8")
    options = ["--quick"] if '"--quick"' in source else []
    if '"--output"' in source:
        options += ["--output", str(tmp_path / "figure.png")]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", str(path), *options]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    for pattern in SAID[path.name]:
        assert re.search(pattern, run.stdout), f"{path.name} does not print {pattern!r}:\n{run.stdout}"
    if '"--output"' in source:
        assert (tmp_path / "figure.png").stat().st_size > 0


def test_every_example_is_known_here():
    assert {path.name for path in EXAMPLES} == set(SAID)
