# Every target works with or without uv, without sudo and without Docker.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = infra/install.sh

# They look at what runs on the machine, so that nothing else may.
SANDBOX_TESTS := $(wildcard tests/integration/test_sandbox_*.py) tests/integration/test_tools_python.py tests/integration/test_workspace.py

.DEFAULT_GOAL := help
.PHONY: help run test soak check format bench-startup bench-gateway bench-memory bench-memory-scale bench-tool-search bench-sandbox bench-mcp reset lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@echo "Making $(VENV)"
	@uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) 2>/dev/null || $(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what it runs on"
	@$(INSTALL) -r requirements.lock
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "Installing what tests and checks it"
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

run: $(VENV)/.run ## Start everything on this machine (Ctrl-C stops it)
	@$(BIN)/daarion up

test: $(VENV)/.dev ## Run the checks and the whole test suite
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest -n auto --dist loadfile $(SANDBOX_TESTS:%=--ignore=%)
	@$(BIN)/python -m pytest $(SANDBOX_TESTS)

soak: $(VENV)/.dev ## Run races, streams and new random examples for minutes on end
	@$(BIN)/python -m pytest tests/soak
	@$(BIN)/python -m pytest -n auto --hypothesis-profile soak $$(grep -rl --include='*.py' hypothesis tests/unit)

check: $(VENV)/.dev ## Format, lint, types, layers, templates
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/statelint statemachines/router.asl.json
	@AWS_DEFAULT_REGION=eu-central-1 $(BIN)/cfn-lint template.yaml

format: $(VENV)/.dev ## Format the code and mend what ruff can
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench-startup: $(VENV)/.dev ## Measure start-up, first answer and memory
	@$(BIN)/python -m bench.startup

bench/.litellm/ready:
	@echo "Installing LiteLLM to compare with"
	@$(PYTHON) -m venv bench/.litellm
	@bench/.litellm/bin/python -m pip install --quiet 'litellm[proxy]'
	@touch $@

bench-gateway: $(VENV)/.dev bench/.litellm/ready ## Measure the gateway beside LiteLLM's proxy
	@$(BIN)/python -m bench.gateway --litellm bench/.litellm/bin/python

bench-memory: $(VENV)/.dev ## Measure what memory finds (LoCoMo, Ukrainian, Russian)
	@$(BIN)/python -m bench.memory.quality

bench-memory-scale: ITEMS ?= 100000,1000000
bench-memory-scale: $(VENV)/.dev ## Measure memory among 100,000 and a million items
	@$(BIN)/python -m bench.memory.scale --items $(ITEMS)

bench-tool-search: $(VENV)/.dev ## Measure what tool search finds (Seal-Tools, MetaTool) and how fast
	@$(BIN)/python -m bench.tool_search

bench-sandbox: $(VENV)/.dev ## Measure sandboxed calls beside a plain interpreter
	@$(BIN)/python -m bench.sandbox

bench-mcp: $(VENV)/.dev ## Measure calls of MCP tools in kept sessions, and without
	@$(BIN)/python -m bench.mcp_calls

reset: ## Delete the data folder (DAARION_HOME)
	@if [ -x $(BIN)/daarion ]; then $(BIN)/daarion reset; else rm -rf "$${DAARION_HOME:-.daarion}"; fi

lock: ## Resolve the dependency floors into the lock files (needs uv)
	@infra/lock.sh
