# make demo   the main job on real data: gradients through the European transmission grid
# make test   lint, types, tests, examples
# Both make .venv, install what constraints.txt pins, build, and run; repeated, they are quick.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Sources whose change needs a new build; the package itself is installed in place.
NATIVE := CMakeLists.txt pyproject.toml $(wildcard csrc/*)

.PHONY: demo test lint check bench clean

demo: .venv/.installed
	$(BIN)/python examples/power_grid.py

test: lint check

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: .venv/.installed
	$(BIN)/python -m pytest

bench: .venv/.installed
	$(BIN)/python benchmarks/forward_backward.py

.venv/.environment: constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) scikit-build-core nanobind cmake ninja
	$(INSTALL) numpy scipy array-api-compat torch matplotlib pytest hypothesis mpmath ruff 'pyright[nodejs]'
	touch $@

.venv/.installed: .venv/.environment $(NATIVE)
	$(INSTALL) --no-build-isolation --editable '.[torch,demo,test]'
	touch $@

clean:
	rm -rf .venv build
