# `make train` and `make test` create the environment first. `make help` lists all targets.
PYTHON ?= python3
VENV   ?= .venv
PLACE  := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
BIN    := $(VENV)/$(PLACE)
ARGS   ?=
INSTALL := -m pip install --disable-pip-version-check
PIP    := $(BIN)/python $(INSTALL) -c constraints.txt

# PyPI's torch for Linux includes CUDA (2.7 GB). Without an NVIDIA GPU, the CPU build of PyTorch's index is installed
# (0.2 GB). `make train TORCH_INDEX=` installs PyPI's torch anyway; TORCH_INDEX=ADDRESS uses another index, such as
# the one for ROCm.
CPU_INDEX   := https://download.pytorch.org/whl/cpu
HAS_GPU      = $(shell command -v nvidia-smi || ls /dev/nvidiactl 2>/dev/null)
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),$(if $(HAS_GPU),,$(CPU_INDEX)))

.DEFAULT_GOAL := help
.PHONY: help install dev hooks train conformance notebooks bench gallery settings chinese docs docs-serve
.PHONY: test test-fast test-slow test-weekly test-all test-lowest test-newest test-loggers test-engines
.PHONY: lint types format wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.installed  ## create .venv and install gptexp into it
dev: $(VENV)/.installed-dev  ## the same with all tools for contributors

# torch is installed first and alone, so that pip looks for no other package in its index. If the index can't be
# reached, pip says so and takes PyPI's torch.
define install_extras
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
@echo "installing gptexp[$(EXTRAS)] into $(VENV); this takes several minutes; download:"
@echo "  $(if $(TORCH_INDEX),0.4 GB with a CPU build of torch (1.7 GB on the disk),0.4 GB; on Linux 2.9 GB because torch includes CUDA)"
$(if $(TORCH_INDEX),@echo "  torch comes from $(TORCH_INDEX) (for torch from PyPI: make TORCH_INDEX=)")
$(if $(TORCH_INDEX),@$(PIP) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch)
@$(PIP) -e '.[$(EXTRAS)]'
endef

# Reinstalled only after a change of the dependency lists.
$(VENV)/.installed: EXTRAS = compare,launchers,gpt2
$(VENV)/.installed: pyproject.toml constraints.txt
	$(install_extras)
	@touch $@

$(VENV)/.installed-dev: EXTRAS = dev
$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(install_extras)
	@touch $@ $(VENV)/.installed

train: $(VENV)/.installed  ## train the default experiment; overrides: ARGS="model=bigram data=python_stdlib"
	@$(BIN)/python -m gptexp.train $(ARGS)

conformance: $(VENV)/.installed  ## recompute published numbers; ARGS="--fast" or ARGS="--shakespeare input.txt"
	@$(BIN)/python -m gptexp.conformance $(ARGS)

NOTEBOOKS ?= notebooks/*.ipynb
notebooks: $(VENV)/.installed-dev  ## run the notebooks (NOTEBOOKS=notebooks/zh: the Chinese ones); ARGS=--overwrite keeps the output, GPTEXP_BUDGET=0.1 shortens the training
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --timeout=900 $(ARGS) $(NOTEBOOKS)

bench: $(VENV)/.installed  ## measure the speed on this machine (about ten minutes, no network)
	@$(BIN)/python benchmarks/own.py $(ARGS)

gallery: $(VENV)/.installed  ## create the pictures of the documentation (about an hour on two cores; needs a browser)
	@$(PIP) -e '.[gallery]'
	@$(BIN)/python docs/gallery.py $(ARGS)

settings: $(VENV)/.installed  ## write docs/settings.md from the schemas and the presets
	$(BIN)/python -m gptexp.compose.settings_page docs/settings.md

chinese: $(VENV)/.installed-dev  ## copy code and outputs of the English pages and notebooks to the Chinese ones
	PYTHONPATH=tests $(BIN)/python -m support.chinese

docs: $(VENV)/.installed-dev  ## build the documentation in site/ without a network and check its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-serve: $(VENV)/.installed-dev  ## serve the documentation on this machine, and rebuild it at each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --livereload

test: lint types test-fast  ## run lint, type checks and the fast tests, which build the documentation

test-fast: $(VENV)/.installed-dev  ## run the fast tests only; ARGS=tests/models selects some of them
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-dev  ## run the slow tests but the weekly ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not weekly" --durations=20

test-weekly: $(VENV)/.installed-dev  ## run the weekly tests: more kills and more layouts of what the slow tests try
	$(BIN)/python -m pytest -n 2 --dist worksteal -m weekly --durations=20

test-all: test test-slow test-weekly  ## run all tests

# $(call fresh,ENVIRONMENT,CONSTRAINTS,REQUIREMENT): a new environment with nothing but the requirement.
define fresh
rm -rf $(1)
$(PYTHON) -m venv $(1)
$(if $(TORCH_INDEX),$(1)/$(PLACE)/python $(INSTALL) $(2) --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch)
$(1)/$(PLACE)/python $(INSTALL) $(2) $(3)
endef

LOWEST ?= constraints-lowest.txt
TESTED  = -e '.[test,docs]'
test-lowest:  ## run the fast tests with the lowest allowed versions, in .venv-lowest
	$(call fresh,$(VENV)-lowest,-c $(LOWEST),$(TESTED))
	$(VENV)-lowest/$(PLACE)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-newest:  ## run the fast tests with the newest versions of all dependencies, in .venv-newest
	$(call fresh,$(VENV)-newest,,-e '.[dev]')
	$(VENV)-newest/$(PLACE)/python -m pytest -n 2 -m "not slow" $(ARGS)

WITH_LOGGERS = -e '.[test,mlflow,wandb]'
test-loggers:  ## run the tests of MLflow and Weights & Biases, in .venv-loggers
	$(call fresh,$(VENV)-loggers,-c constraints.txt,$(WITH_LOGGERS))
	$(VENV)-loggers/$(PLACE)/python -m pytest $(ARGS) tests/training/test_services.py

WITH_ENGINES = -e '.[test,gguf,ray]' transformers llama-cpp-python
test-engines:  ## run the tests of llama.cpp, which is compiled, and Ray, in .venv-engines
	$(call fresh,$(VENV)-engines,-c constraints.txt,$(WITH_ENGINES))
	$(VENV)-engines/$(PLACE)/python -m pytest $(ARGS) -k "llama_cpp or ray" \
	  tests/runs/test_llama_cpp.py tests/data/test_sections.py tests/sweep/test_sweep.py

wheel: $(VENV)/.installed-dev  ## build and check dist/, install the wheel in an empty environment and run it
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(call fresh,build/wheel,-c constraints.txt,dist/*.whl)
	cd build/wheel && $(PLACE)/gptexp --version && $(PLACE)/gptexp train debug=smoke

SCHEMA = $(BIN)/python -m check_jsonschema --builtin-schema vendor
lint: $(VENV)/.installed-dev  ## check style, spelling, and the schemas of CITATION.cff and .github/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m codespell_lib
	$(SCHEMA).citation-file-format CITATION.cff
	$(SCHEMA).github-workflows .github/workflows/*.yml
	$(SCHEMA).github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA).github-issue-config .github/ISSUE_TEMPLATE/config.yml

types: $(VENV)/.installed-dev  ## check the types with mypy
	$(BIN)/python -m mypy

format: $(VENV)/.installed-dev  ## format the code and apply automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(VENV)/.installed-dev  ## run the style and spelling checks before each Git commit
	$(BIN)/python -m pre_commit install

clean:  ## remove the environments and the files that tools created; runs and texts stay
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest .mypy_cache .ruff_cache .pytest_cache build dist site src/*.egg-info
