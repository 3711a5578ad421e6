# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# PyTorch's own threads, times the workers of the test runner, should not exceed the cores.
WORKERS ?= 2

# Laws and oracles on tiny networks, for the inner loop: under two minutes.
QUICK := tests/test_structure.py tests/test_laws.py tests/test_objectives.py tests/test_running.py tests/test_bulk.py \
	tests/test_tapping.py tests/test_gradient.py tests/test_occlusion.py tests/test_operations.py

.PHONY: demo gpu test quick nightly adversary check bench clean

demo: .venv/installed
	$(BIN)/convscope demo -o demo
	@echo "Open demo/index.html in a browser."

test: .venv/tested check
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

quick: .venv/tested
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m 'not slow' -k 'not (captum or squeezenet or alexnet or shared or concat or relu6)' $(QUICK)

# Sweeps that take hours: every family of timm, a thousand networks drawn at random.
nightly: .venv/tested
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m nightly

# Attacks by the hundred thousand, about an hour on two cores; PART=files COUNT=1000 for less. It goes on where it stopped:
# adversary.json holds the counts.
adversary: .venv/tested
	OMP_NUM_THREADS=1 PYTHONPATH=src:tests $(BIN)/python -m adversary $(PART) $(if $(COUNT),--count $(COUNT)) --workers $(WORKERS)

check: .venv/tested
	$(BIN)/ruff check src tests benchmarks examples training
	$(BIN)/pyright

bench: .venv/tested
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/many.py
	$(BIN)/python benchmarks/cams.py
	$(BIN)/python benchmarks/occlusion.py
	$(BIN)/python benchmarks/maximizing.py
	$(BIN)/python benchmarks/styling.py
	$(BIN)/python benchmarks/dreaming.py
	$(BIN)/python benchmarks/stylizing.py

# With the environment of `make test` where there is one, else with the Python that has the machine's torch; without a GPU
# it runs on the CPU, in small.
gpu:
	PYTHONPATH=src $(if $(wildcard $(BIN)/python),$(BIN)/python,python3) benchmarks/gpu.py

.venv/bin/python:
	@test -n "$(PYTHON)" || (echo "convscope needs Python 3.11 or newer: install one, or say make PYTHON=/path/to/python" && false)
	$(PYTHON) -m venv .venv

# The stamps depend on what is installed, so a second run starts at once.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[imagenet]'
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf .venv demo
