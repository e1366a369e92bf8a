# `make train` and `make test` do all the set-up on a fresh machine; `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help install dev train conformance notebooks bench gallery test test-slow test-all lint types format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.installed  ## make .venv and install gptexp into it
dev: $(VENV)/.installed-dev  ## the same with the tools for tests

# Installed again only when the dependency lists change.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compare,launchers,gpt2]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

train: $(VENV)/.installed  ## train the default experiment; ARGS="model=bigram data=python_stdlib" changes it
	@$(BIN)/python -m gptexp.train $(ARGS)

conformance: $(VENV)/.installed  ## published numbers, computed again; ARGS="--fast" or ARGS="--shakespeare input.txt"
	@$(BIN)/python -m gptexp.conformance $(ARGS)

notebooks: $(VENV)/.installed-dev  ## run the notebooks; ARGS=--overwrite keeps their new output, GPTEXP_BUDGET=0.1 trains less
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --timeout=900 $(ARGS) notebooks

bench: $(VENV)/.installed  ## measure gptexp on this machine (about ten minutes, no network)
	@$(BIN)/python benchmarks/own.py $(ARGS)

gallery: $(VENV)/.installed  ## the README's pictures, made anew (about an hour of two cores, and a browser)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gallery]'
	@$(BIN)/python docs/gallery.py $(ARGS)

test: $(VENV)/.installed-dev lint types  ## lint, types and the fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.installed-dev  ## the longer proofs
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow --durations=20

test-all: test test-slow  ## everything

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## let ruff lay out and mend the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and what tools left behind; runs and texts stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist src/*.egg-info
