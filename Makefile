# Nameplate's commands; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The extra with NVIDIA's libraries, where there is an NVIDIA GPU.
EXTRAS := dev$(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo ,gpu)

.PHONY: help train test coverage check fmt jax next faults bench setup clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## build .venv from the pinned constraints

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Nameplate needs Python 3.11 or later; make PYTHON=python3.11 chooses one.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $(READY)

train: $(READY) ## train on the digits; the same command again goes on where it stopped
	$(BIN)/python -m trainer run=digits $(ARGS)

# A worker that runs out of tests takes over half of another's: the longest file is not the end of the suite.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test: check ## the checks, then the tests; the slowest twenty at the end
	$(PYTEST) --durations=20 $(ARGS)

coverage: $(READY) ## the tests, and which lines none of them runs; half as long again as `make test`
	$(PYTEST) --cov --cov-report=term $(ARGS)

check: $(READY) ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY) ## format, and mend what the linter can
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .
	$(BIN)/python -m scripts.readme_map

jax: ## the tests of names, files, graphs and edits with Keras on JAX, in an environment of its own
	test -d .venv-jax || $(PYTHON) -m venv .venv-jax
	.venv-jax/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' jax
	KERAS_BACKEND=jax .venv-jax/bin/pytest $(addprefix tests/nameplate/,naming weights checkpoint formats graph io surgery) $(ARGS)

# The nightly builds are other distributions of the same modules, so what pyproject.toml says of Keras and TensorFlow is
# left out; pip takes the newest of all the rest.
next: ## the tests with the next Keras and TensorFlow, their nightly builds, in an environment of its own
	test -d .venv-next || $(PYTHON) -m venv .venv-next
	.venv-next/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		names = [*project["dependencies"], *project["optional-dependencies"]["dev"]]; \
		print(*(name for name in names if not name.startswith(("keras", "tensorflow"))), sep="\n")' > .venv-next/rest.txt
	.venv-next/bin/pip install --quiet --disable-pip-version-check --upgrade keras-nightly tf-nightly --requirement .venv-next/rest.txt
	.venv-next/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	.venv-next/bin/pip list | grep -iE '^(keras|tf|tensor|numpy)'
	.venv-next/bin/pytest $(ARGS)

faults: $(READY) ## the long suite: kills, full disks, flipped bits, every count of replicas and workers
	NAMEPLATE_FAULTS=1 $(BIN)/pytest $(ARGS)

bench: $(READY) ## benchmarks, as ratios of interleaved pairs
	$(BIN)/python -m scripts.bench $(ARGS)

clean: ## remove the environment and the caches, never the runs
	rm -rf $(VENV) .venv-jax .venv-next .mypy_cache .ruff_cache .hypothesis .coverage *.egg-info build dist
