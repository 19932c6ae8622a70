# What a fresh machine needs is Python >= 3.11 with its venv module; every target installs what it is missing.
#   make demo                                  watch a campaign find the stable compounds of Ni-Pt
#   make test                                  checks and the fast tests
#   make demo PYTHON=python3.12                another interpreter
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu      PyTorch without CUDA (a few hundred MB instead of gigabytes)

PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# One thread per test process: two of them on two cores must not fight. A campaign (demo) uses what it finds.
test test-integration test-slow: export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)
# pytest ends with 5 when nothing carries the marker: for a tier that may be empty that is a remark, not a failure.
MAY_BE_EMPTY := || { code=$$?; test $$code -eq 5 && echo "no test carries this marker"; }

.DEFAULT_GOAL := help
.PHONY: help demo test test-integration test-slow check format docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

# -- installation: one stamp per set of extras, redone when the requirements change ----------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "alflow needs Python 3.11 or newer; choose one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.with-base: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing alflow into $(VENV); the first time this takes minutes, most of them for PyTorch"
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.with-test: $(VENV)/.with-base
	$(PIP_INSTALL) -e ".[test,dev]"
	@touch $@

$(VENV)/.with-docs: $(VENV)/.with-base
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

# -- what people run -------------------------------------------------------------------------------------------------

demo: $(VENV)/.with-base  ## a whole campaign on Ni-Pt with the EMT potential, three minutes
	@$(BIN)/alflow run examples/ni-pt/campaign.yaml || test $$? -eq 3
	@$(BIN)/alflow report examples/ni-pt/campaign.yaml --output examples/ni-pt/report.html

test: check  ## checks, then every test but the integration and slow ones
	$(PYTEST) -m "not integration and not slow"

test-integration: $(VENV)/.with-test  ## tests that need servers, build packages or kill processes
	$(PYTEST) --dist loadfile -m "integration and not slow" $(MAY_BE_EMPTY)    # a file's tests share their server

test-slow: $(VENV)/.with-test  ## long tests, run by hand for a release
	$(PYTEST) -m slow $(MAY_BE_EMPTY)

check: $(VENV)/.with-test  ## formatting, lint, types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.with-test  ## format and mend what can be mended automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.with-docs  ## build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove caches, builds and the output of the examples; campaigns' databases elsewhere are left alone
	rm -rf build dist site *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	rm -rf examples/*/output examples/*/report.html examples/*/*.db examples/*/*.db-wal examples/*/*.db-shm examples/*/*.db.files
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
