"""The table of README.md and the tests of this folder name each other."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROWS = re.findall(r"^\| (.+) \| (`.+`) \|$", (HERE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
NAMED = {name for _, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)}


def names_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_row_names_tests_that_exist():
    assert len(ROWS) >= 20 and len({trap for trap, _ in ROWS}) == len(ROWS)
    for name in NAMED:
        file, _, test = name.partition("::")
        assert test in names_in(HERE / file), f"the table names {name}, which is not there"


def test_every_test_has_its_row():
    here = {
        f"{path.name}::{test}" for path in HERE.glob("test_*.py") if path != Path(__file__) for test in names_in(path)
    }
    assert here <= NAMED, f"no row names {sorted(here - NAMED)}"
