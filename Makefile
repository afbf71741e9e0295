# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.complete
FAST   := not slow and not gpu

.PHONY: help demo test test-slow test-all check format bench wheel clean

help:
	@echo "make demo       a first differentiable simulation"
	@echo "make test       the fast tests"
	@echo "make test-slow  the slow tests"
	@echo "make test-all   every test, those for the GPU included"
	@echo "make check      style, types and the order of the rooms"
	@echo "make format     let ruff mend style"
	@echo "make bench      the benchmarks"
	@echo "make wheel      build the wheel and try it in an empty environment"
	@echo "make clean      remove .venv and everything built"

$(STAMP): pyproject.toml constraints.txt setup_env.py
	$(PYTHON) setup_env.py

demo: $(STAMP)
	$(BIN)/python examples/first_robot.py

test: $(STAMP)
	$(BIN)/python -m pytest -m "$(FAST)" -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not gpu" -n 2

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

# Tried from another folder, so that Python finds the installed packages and not this tree.
wheel: $(STAMP)
	rm -rf dist build/wheel
	$(BIN)/python -m build --wheel --no-isolation
	$(PYTHON) setup_env.py build/wheel --wheel dist/physim-*.whl
	cd build/wheel && bin/python -c "import physim, solvers, constraints; print(physim.__file__, physim.Status.CONVERGED)"
	cd build/wheel && bin/physim --help
	cd build/wheel && bin/physim simulate hopper --duration 0.1 --json -

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
