# make demo and make test do all of the set-up by themselves; see tools/setup.sh for what that is.

VENV ?= .venv
PYTHON ?=
JOBS ?= 2
ARGS ?=
export VENV PYTHON

RUN := $(VENV)/bin/python
# Tests run in JOBS processes, so each keeps to one thread. Nothing a test does needs the network.
TEST := OMP_NUM_THREADS=1 HF_HUB_DISABLE_TELEMETRY=1 $(RUN) -m pytest -n $(JOBS)
CODE := zoo tests tools plugins setup.py

.PHONY: help setup demo test lint format types cards constraints reproduce bench clean

help: ## these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## the virtual environment, with everything pinned (nothing when it is current)
	@tools/setup.sh

demo: setup ## load every shipped model by name, use it, write gallery/index.html
	@$(RUN) -m zoo demo $(ARGS)

test: lint types ## lint, types, then every test (ARGS="-k hub" for some of them)
	@$(TEST) $(ARGS)

lint: setup ## ruff: errors, style and format
	@$(RUN) -m ruff check $(CODE)
	@$(RUN) -m ruff format --check $(CODE)

format: setup ## rewrite the code in the house format
	@$(RUN) -m ruff check --fix $(CODE)
	@$(RUN) -m ruff format $(CODE)

types: setup ## mypy: half a minute the first time
	@$(RUN) -m mypy zoo

cards: setup ## write what is generated: MODEL_CARDS.md, README's table, parameter counts, checksums
	@$(RUN) -m tools.generated

constraints: setup ## write constraints.txt from this environment
	@$(RUN) -m tools.write_constraints

reproduce: setup ## train what is too long for tests, compare with its number (ARGS=NAME for one)
	@$(RUN) -m tools.reproduce $(ARGS)

bench: setup ## measure against other libraries (ARGS="NAME --against PEER")
	@$(RUN) -m tools.bench $(ARGS)

clean: ## remove what can be made again, but not the virtual environment
	rm -rf build dist gallery .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find zoo tests tools plugins -name __pycache__ -type d -prune -exec rm -rf {} +
