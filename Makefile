# Two commands on a fresh machine with Python >= 3.11: `make demo` and `make test`.
# Everything is installed into .venv from locks with hashes; nothing outside this folder is touched
# (but Debian's packages named in DEBS, by apt, and only as root).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# redis-tools brings the program of redis-server too (as redis-check-rdb); the package redis-server starts a service.
# What `command -v` looks for, and the Debian package that brings it.
DEBS := node=nodejs npm=npm redis-check-rdb=redis-tools
WORKERS ?= 2
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev debs demo test test-long check format docs lock

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(UV): requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Hostler needs Python >= 3.11; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	@touch $(UV)

$(VENV)/.installed: $(UV) requirements/base.txt pyproject.toml
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --require-hashes --requirement requirements/base.txt
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --require-hashes --requirement requirements/dev.txt
	@touch $@

setup: $(VENV)/.installed  ## install all that the demo needs into .venv

setup-dev: $(VENV)/.installed-dev

debs:
	@missing=""; for pair in $(DEBS); do command -v $${pair%%=*} >/dev/null 2>&1 || missing="$$missing $${pair##*=}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		apt-get install -y -qq $$missing >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq $$missing >/dev/null; } || \
		echo "could not install$$missing; tests that need them are skipped by name"; \
	else echo "missing:$$missing (Debian's names); tests that need them are skipped by name"; fi

demo: setup  ## run the main job on an embedded engine, with a verdict, in under a minute
	@$(BIN)/hostler demo

test: setup-dev debs  ## run all tests but the long ones (10 minutes on 2 cores)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not long" $(PYTEST_ARGS)

test-long: setup-dev debs  ## run all tests, the long ones included
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --timeout 1800 $(PYTEST_ARGS)

check: setup-dev debs  ## formatter, linter, types, layers, generated files fresh
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate_descriptors.py --check
	$(BIN)/python scripts/generate_docs.py --check

format: setup-dev  ## apply the formatter and the linter's safe fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: setup-dev  ## write the generated pages and descriptions of messages
	$(BIN)/python scripts/generate_descriptors.py
	$(BIN)/python scripts/generate_docs.py

LOCK = VIRTUAL_ENV=$(VENV) $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

lock: $(UV)  ## renew the locks in requirements/
	$(LOCK) pyproject.toml --extra demo --group build -o requirements/base.txt
	$(LOCK) pyproject.toml --extra all --group build --group dev -c requirements/base.txt \
		-o requirements/dev.txt
	echo uv | $(LOCK) - -o requirements/uv.txt
	echo mlserver==1.7.1 | $(LOCK) - -o requirements/mlserver.txt
	echo llmock==0.2.2 | $(LOCK) - -o requirements/llmock.txt
	for peer in "celery[redis]" "dramatiq[redis]" "taskiq taskiq-redis" "saq[redis] typing-extensions" arq rq pydocket bullmq \
			"huey redis"; do \
		name=$${peer%% *}; printf '%s\n' $$peer | $(LOCK) - -o requirements/peers/$${name%%[*}.txt || exit 1; done
