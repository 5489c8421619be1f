"""The shape of the house: layers, sizes, light import, the frozen public face, and docstrings that run.

``python tests/test_layers.py`` writes the snapshot of the public face anew.
"""

import ast
import doctest
import importlib
import inspect
import re
import statistics
import subprocess
import sys
from dataclasses import fields, is_dataclass
from enum import IntEnum
from pathlib import Path

import pytest

import backsolve as bs
from backsolve.methods.availability import ENGINES

ROOT = Path(__file__).parent.parent
SOURCE = Path(bs.__file__).parent
SNAPSHOT = Path(__file__).parent / "api_snapshot.txt"
PUBLIC = [
    "backsolve",
    "backsolve.gallery",
    "backsolve.gradients",
    "backsolve.learn",
    "backsolve.local",
    "backsolve.nn",
    "backsolve.preconditioners",
]

LAYERS = [
    {"_kernels"},
    {"pattern", "indices", "full", "free", "arrays", "eager", "status", "solution", "errors", "options"},
    {"operators", "_local"},
    {"methods", "preconditioners"},
    {"calculus", "shapes", "plan", "select", "factor_cache", "facts"},
    {"frontends"},
    {
        "dispatch",
        "analysis",
        "api",
        "explicit",
        "factorization",
        "determinant",
        "gallery",
        "interop",
        "least_squares",
        "local",
        "nn",
        "nullspace",
        "progress",
    },
    {"gradients", "implicit", "physics", "learn"},
]
LOOKS_FOR_FRAMEWORKS = 6
FRAMEWORKS = {"torch", "jax", "jaxlib", "tensorflow"}


def module_name(path):
    """Dotted name inside the package; empty for the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def for_types_only(tree):
    """Nodes under ``if TYPE_CHECKING``, which are no imports when the program runs."""
    guarded = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {id(inner) for node in guarded for inner in ast.walk(node)}


def imports(name):
    """(modules of this package, modules of others) that a module imports anywhere in it."""
    tree, own, foreign = TREES[name], set(), set()
    skipped = for_types_only(tree)
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            foreign |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            foreign.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            levels = [p for p in package.split(".") if p]
            base = levels[: len(levels) - (node.level - 1)] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                full = ".".join([*base, alias.name])
                known = full in MODULES or full == "_kernels"
                own.add(full if known else ".".join(base))
    return own, foreign


def layer(name):
    return next(level for level, members in enumerate(LAYERS) if name.split(".")[0] in members)


def framework(name):
    """The framework that a module may import."""
    if name == "nn":
        return "torch"
    if name.startswith("interop.lineax_"):
        return "jax"
    if name and layer(name) > LOOKS_FOR_FRAMEWORKS:  # gradients.torch_unroll
        return next((known for known in FRAMEWORKS if name.rpartition(".")[2].split("_")[0] == known), None)
    return next((known for known in FRAMEWORKS if name.startswith(f"frontends.{known}")), None)


def test_every_module_has_a_layer():
    placed = set().union(*LAYERS)
    unplaced = {name for name in MODULES if name and name.split(".")[0] not in placed}
    assert not unplaced, f"give {unplaced} a layer in tests/test_layers.py"


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_go_down_the_layers(name):
    own, foreign = imports(name)
    for other in own:
        assert layer(other) <= layer(name), f"{name} imports {other}, which is above it"
    assert not any(module.split(".")[0] == "backsolve" for module in foreign), "use relative imports inside"
    if name == "calculus":
        assert not own and not foreign, "calculus imports nothing"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("frontends")])
def test_frontends_never_import_each_other(name):
    own, _ = imports(name)
    for other in own:
        if other.startswith("frontends."):
            own_framework = name.split("_")[0]
            assert other.startswith(f"{own_framework}_"), f"{name} imports {other}"


def test_only_frontends_know_a_framework_and_only_the_top_looks_for_one():
    for name in MODULES:
        _, foreign = imports(name)
        known = {module.split(".")[0] for module in foreign} & FRAMEWORKS
        allowed = {framework(name)}
        assert known <= allowed, f"{name} imports {known}"
        finds = any(isinstance(node, ast.Attribute) and node.attr == "modules" for node in ast.walk(TREES[name]))
        assert not finds or layer(name) >= LOOKS_FOR_FRAMEWORKS, f"{name} looks into sys.modules"


def test_there_are_no_cycles():
    """Within a layer too, modules can be read in some order, each after those that it imports."""
    graph = {name: {other for other in imports(name)[0] if other in MODULES and other} for name in MODULES}
    while graph:
        ready = {name for name, needs in graph.items() if not needs & set(graph) - {name}}
        assert ready, f"these import each other: {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in ready}


def test_modules_are_small():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert max(lengths.values()) <= 500
    assert statistics.median(lengths.values()) <= 150
    long = sorted(name for name, length in lengths.items() if length > 300)
    assert len(long) <= len(lengths) // 10, f"more than 300 lines: {long}"


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_short(name):
    """50 lines, 80 for the loop of a method; docstrings do not count."""
    limit = 80 if name.startswith("methods") else 50
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = node.end_lineno - first.lineno + 1
            assert length <= limit, f"{name}.{node.name} has {length} lines"


def test_native_sources_are_small():
    for path in (ROOT / "csrc").glob("*.[ch]pp"):
        length = len(path.read_text(encoding="utf-8").splitlines())
        limit = 150 if path.suffix == ".cpp" else 350
        assert length <= limit, f"{path.name} has {length} lines"


@pytest.mark.parametrize("name", MODULES)
def test_the_library_never_prints(name):
    calls = [node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"]


def test_types_are_published():
    assert (SOURCE / "py.typed").is_file()
    assert (SOURCE / "_kernels.pyi").is_file()


def test_import_is_light():
    """NumPy users load no framework, neither at import nor when they solve."""
    heavy = {*FRAMEWORKS, "pyamg", "matplotlib", "pypardiso", "pandas", "numba", "lineax", "equinox"}
    program = (
        "import sys, backsolve as bs, numpy as np\n"
        "assert not any('frontends.' in name for name in sys.modules), 'a frontend was loaded at import'\n"
        "bs.solve(np.eye(2), np.ones(2)), bs.solve(bs.coo([1.0], ([0], [0]), (1, 1)), np.ones(1))\n"
        f"print(sorted(set(sys.modules) & {heavy!r}))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", f"import backsolve loaded {done.stdout}"


@pytest.mark.parametrize("function", [lambda: bs.as_lineax_operator(1.0), bs.as_lineax_solver])
def test_without_lineax_its_extra_is_named(monkeypatch, function):
    for name in ("backsolve.interop.lineax_operator", "backsolve.interop.lineax_solver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lineax", None)
    with pytest.raises(ImportError, match=r"need the package lineax: pip install 'backsolve\[lineax\]'; .*lineax"):
        function()


def describe_class(name, cls):
    """Lines for a class: bases, members, fields, and the public attributes that this package defines."""
    bases = ", ".join(base.__name__ for base in cls.__bases__)
    yield f"class {name}({bases})"
    if issubclass(cls, IntEnum):
        yield from (f"    {member.name} = {member.value}" for member in cls)
    elif issubclass(cls, tuple):
        yield from (f"    {field}" for field in cls._fields)
    elif not issubclass(cls, Exception):
        yield f"    {name}{signature(cls)}"
    if is_dataclass(cls):
        yield from (f"    field {f.name}" for f in fields(cls) if not f.name.startswith("_"))
    seen = {f.name for f in fields(cls)} if is_dataclass(cls) else set(getattr(cls, "_fields", ()))
    owners = [base for base in cls.__mro__ if base.__module__.startswith("backsolve")]
    for attribute in sorted({key for owner in owners for key in vars(owner)}):
        shown = not attribute.startswith("_") or attribute == "__matmul__"
        if not shown or attribute in seen or (issubclass(cls, IntEnum) and attribute in cls.__members__):
            continue
        value = inspect.getattr_static(cls, attribute)
        if isinstance(value, property):
            yield f"    {attribute}: property"
        elif isinstance(value, staticmethod | classmethod) or inspect.isfunction(value):
            yield f"    {attribute}{signature(getattr(cls, attribute))}"
        else:
            yield f"    {attribute}"


def signature(value):
    """As written in the source: annotations without quotes, private parameters left out."""
    whole = inspect.signature(value)
    shown = whole.replace(parameters=[p for p in whole.parameters.values() if not p.name.startswith("_")])
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(shown))


def public_face():
    lines = []
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        lines += ["", f"# {module_name}"] if lines else [f"# {module_name}"]
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if inspect.isclass(value):
                lines += describe_class(name, value)
            elif callable(value):
                lines.append(f"{name}{signature(value)}")
            elif isinstance(value, dict):
                lines.append(f"{name}: {', '.join(value)}")
            else:
                lines.append(name)
    return "\n".join(lines) + "\n"


def test_the_public_face_is_frozen():
    now, then = public_face(), SNAPSHOT.read_text(encoding="utf-8")
    if now != then:
        changed = sorted(set(now.splitlines()) ^ set(then.splitlines()))
        pytest.fail(
            "the public face of backsolve changed:\n  "
            + "\n  ".join(changed)
            + "\nIf that is meant, say so in CHANGELOG.md and run: python tests/test_layers.py"
        )


def test_public_names_are_documented():
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                assert inspect.getdoc(value), f"{name} has no docstring"


def loadable(name):
    """The module as a parameter, left out where the package that it is about is missing."""
    return pytest.param(name, marks=pytest.mark.package("lineax")) if name.startswith("interop.lineax_") else name


@pytest.mark.parametrize("name", [loadable(name) for name in MODULES])
def test_doctests(name):
    module = importlib.import_module(f"backsolve.{name}" if name else "backsolve")
    failures = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        runner.run(test, out=failures.append)
    assert runner.failures == 0, "".join(failures)


@pytest.mark.parametrize("name", ENGINES)
def test_doctests_of_extras(name):
    """Skipped among the others, as their package may be missing; here they run."""
    module = importlib.import_module(f"backsolve.methods.{name}")
    cls, failures = ENGINES[name], []
    text = inspect.getdoc(cls).replace("  # doctest: +SKIP", "")
    test = doctest.DocTestParser().get_doctest(text, dict(vars(module)), cls.__name__, module.__file__, 0)
    assert len(test.examples) >= 2
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=failures.append)
    assert runner.failures == 0, "".join(failures)


def test_public_functions_have_examples():
    for function in (bs.solve, bs.solve_with_info, bs.factorize, bs.coo, bs.CSR, bs.vjp, bs.jvp, bs.explain):
        assert ">>> " in function.__doc__, f"{function.__name__} has no example"


if __name__ == "__main__":
    SNAPSHOT.write_text(public_face(), encoding="utf-8")
