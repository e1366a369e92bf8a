# `make train` and `make test` do all the set-up on a fresh machine; `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

# PyPI's torch for Linux brings CUDA, 2.7 GB. Where no NVIDIA GPU is found, PyTorch's own index has a CPU build, 0.2 GB.
# `make train TORCH_INDEX=` takes PyPI's torch all the same, TORCH_INDEX=ADDRESS another build (for ROCm, say).
CPU_INDEX   := https://download.pytorch.org/whl/cpu
HAS_GPU      = $(shell command -v nvidia-smi || ls /dev/nvidiactl 2>/dev/null)
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),$(if $(HAS_GPU),,$(CPU_INDEX)))

.DEFAULT_GOAL := help
.PHONY: help install dev train conformance notebooks bench gallery test test-slow test-all lint types format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.installed  ## make .venv and install gptexp into it
dev: $(VENV)/.installed-dev  ## the same with the tools for tests

# torch is installed first and alone: no other package is looked for in its index, and where that can't be reached,
# pip says so and takes PyPI's torch.
define install_extras
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@echo "installing gptexp[$(EXTRAS)] into $(VENV); this takes minutes, and to download:"
@echo "  $(if $(TORCH_INDEX),0.4 GB with a CPU build of torch (1.7 GB on the disk),0.4 GB, but 2.9 GB on Linux, where torch brings CUDA)"
$(if $(TORCH_INDEX),@echo "  torch comes from $(TORCH_INDEX) (make TORCH_INDEX= takes PyPI's)")
$(if $(TORCH_INDEX),@$(PIP) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch)
@$(PIP) -e '.[$(EXTRAS)]'
endef

# Installed again only when the dependency lists change.
$(VENV)/.installed: EXTRAS = compare,launchers,gpt2
$(VENV)/.installed: pyproject.toml constraints.txt
	$(install_extras)
	@touch $@

$(VENV)/.installed-dev: EXTRAS = dev
$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(install_extras)
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
	@$(PIP) -e '.[gallery]'
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
