# Hushfed: every task builds its own environment in .venv on first use.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROCESSES := tests/stories tests/test_readme.py
PACKAGES := server client common simulations deploy
TORCH := $(shell sed -n 's/^ *"\(torch==[0-9.]*\)",*$$/\1/p' pyproject.toml)
export HUSHFED_DATA ?= $(abspath ../shared/data)
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install --no-input

.PHONY: help demo test test-ray studies lint format bench bench-privacy lock install clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Four sites, one private model, one report, in about two minutes
	@$(BIN)/hushfed demo $(ARGS)

test: $(STAMP) ## All tests, whole rounds with real processes included (ARGS="-k name" for some)
	@[[ -d "$$HUSHFED_DATA" ]] || echo "note: no public data at HUSHFED_DATA=$$HUSHFED_DATA; tests that need them will be skipped"
ifeq ($(ARGS),)
	@$(BIN)/python -m pytest $(PROCESSES) > $(VENV)/processes.log 2>&1 & first=$$!; trap "kill $$first 2>/dev/null || true" EXIT; \
	echo "tests with processes of their own run beside these; their output follows"; \
	$(BIN)/python -m pytest $(addprefix --ignore=,$(PROCESSES)) && code=0 || code=$$?; \
	wait $$first && other=0 || other=$$?; cat $(VENV)/processes.log; exit $$((code > other ? code : other))
else
	@$(BIN)/python -m pytest $(ARGS)
endif

test-ray: $(STAMP) ## The engine ray on two machines made of this one: Ray itself may crash where machines are lost
	@$(BIN)/python -m pytest -m cluster tests/simulations/engines/test_ray.py $(ARGS)

studies: $(STAMP) ## Tests of the large packaged studies: every row once, in minutes
	@$(BIN)/python -m pytest -m study tests/simulations/study $(ARGS)

lint: $(STAMP) ## Style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Put the files into the house's format
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(STAMP) ## Measurements of speed and memory: tests/benchmarks/*.py, each prints a table
	@shopt -s nullglob; found=(tests/benchmarks/*.py); (( $${#found[@]} )) || echo "no measurements in tests/benchmarks yet"; \
	for file in "$${found[@]}"; do echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

bench-privacy: $(STAMP) ## Accuracy of private training beside published figures (ARGS="--seeds 5 --out new-folder")
	@$(BIN)/hushfed bench privacy-accuracy --full $(ARGS)

lock: ## Bring requirements.lock in line with pyproject.toml (ARGS=--upgrade for the newest versions)
	@[[ -x $(BIN)/uv ]] || { $(PYTHON) -m venv $(VENV); $(PIP) uv; }
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-package torch \
		--prerelease disallow --no-annotate --no-header --quiet --output-file requirements.lock $(ARGS)
	@echo "$$(grep -c '==' requirements.lock) packages pinned in requirements.lock"

install: $(STAMP) ## Build .venv from requirements.lock

$(STAMP): pyproject.toml requirements.lock
	@echo "building $(VENV) from requirements.lock (once)"
	@[[ -x $(BIN)/python ]] || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --no-deps -r requirements.lock
	@$(PIP) '$(TORCH)'
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

clean: ## Remove .venv, caches and build results (never a run or a site's folder)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
