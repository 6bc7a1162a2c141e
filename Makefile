# Two commands: `make conformance` for people, `make test` for developers. Both set up all they need.
# Every job of .github/workflows is one of these targets, so the same runs at a desk.
#
#   CNI=calico         which CNI (conformance, kind)
#   ARGS='-k demo'     more for pytest
#   PYTHON=python3.13  which Python the virtual environment is made with

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

CNI ?= enforcer
ARGS ?=
BIN := .venv/bin
export PYTHON

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: conformance
conformance: setup-run ## the suites against CNI on the embedded lab, with a report
	$(BIN)/pytest suites/ --cni $(CNI) -n auto $(ARGS)

.PHONY: test
test: setup-dev api-binaries ## the project's own tests
	$(BIN)/pytest -n auto $(ARGS)

.PHONY: test-fast
test-fast: setup-dev ## those that need no lab
	$(BIN)/pytest -n auto tests/unit tests/property tests/golden $(ARGS)

.PHONY: lint
lint: setup-dev ## style of Python and shell
	$(BIN)/ruff check
	$(BIN)/shellcheck tools/setup tools/debian-install .ci/run

.PHONY: types
types: setup-dev ## strict types
	$(BIN)/mypy

.PHONY: api-binaries
api-binaries: setup-run ## etcd, API server and the rest, built once (4 minutes) and cached
	$(BIN)/python -m harness.labs.controlplane.build

.PHONY: setup-run setup-dev
setup-run setup-dev: setup-%:
	@tools/setup $*

.PHONY: lock
lock: setup-dev ## newer Python packages into the lock files
	rm -f requirements.lock requirements-dev.lock
	$(BIN)/uv $(LOCK) --group build -o requirements.lock
	$(BIN)/uv $(LOCK) --group build --group dev --group docs --group browser \
	    -c requirements.lock -o requirements-dev.lock

# Hashes and no addresses: the same lock serves whatever index pip is set up with.
LOCK := pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --custom-compile-command 'make lock'
