# make demo   the main job on real data: gradients through the European transmission grid
# make test   lint, types, tests, examples
# make fuzz   compiled kernels on damaged input, watched by sanitizers
# Both make .venv, install what constraints.txt pins, build, and run; repeated, they are quick.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Sources whose change needs a new build; the package itself is installed in place.
NATIVE := CMakeLists.txt pyproject.toml $(wildcard csrc/*.*) $(wildcard csrc/third_party/*/*)

.PHONY: demo test lint check bench fuzz clean

demo: .venv/.installed
	$(BIN)/python examples/power_grid.py

# Side by side: pyright keeps one core busy for half a minute.
test: .venv/.installed
	$(MAKE) --no-print-directory -j2 lint check

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

check: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# PEERS: an environment made by benchmarks/compare.py --make-environment; DATA: a folder of Matrix Market files.
bench: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/forward_backward.py $(if $(DATA),--data $(DATA))
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compare.py $(if $(DATA),--data $(DATA)) $(if $(PEERS),--environment $(PEERS))

# Kernels of local solves on damaged matrices, under AddressSanitizer and UndefinedBehaviorSanitizer.
TRIALS ?= 100000
FUZZ := $(patsubst csrc/fuzz/%.cpp,%,$(wildcard csrc/fuzz/*.cpp))

fuzz: $(FUZZ:%=build/fuzz/%)
	for one in $^; do ./$$one $(TRIALS) || exit 1; done

build/fuzz/%: csrc/fuzz/%.cpp $(wildcard csrc/*.hpp csrc/fuzz/*.hpp)
	mkdir -p build/fuzz
	$(CXX) -std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -DBACKSOLVE_FUZZ -pthread $< -o $@

.venv/.environment: constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) scikit-build-core nanobind cmake ninja
	$(INSTALL) numpy scipy pyamg array-api-compat torch jax lineax tensorflow-cpu matplotlib pypardiso PyKLU clarabel torchdiffeq diffrax scikit-learn pytest pytest-xdist hypothesis mpmath networkx ruff 'pyright[nodejs]'
	touch $@

.venv/.installed: .venv/.environment $(NATIVE)
	$(INSTALL) --no-build-isolation --editable '.[torch,jax,lineax,pardiso,klu,qp,ode,diffrax,demo,test]'
	touch $@

clean:
	rm -rf .venv build
