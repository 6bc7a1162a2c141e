# Two commands: `make conformance` for people, `make test` for developers. Both set up all they need.
# Every job of .github/workflows is one of these targets, so the same runs at a desk.
#
#   CNI=calico         which CNI (conformance, kind)
#   ARGS='-k demo'     more for pytest
#   COUNT=10000        how many random scenarios (generated)
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
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 15

.PHONY: conformance
conformance: setup-run ## the suites against CNI on the embedded lab, with a report
	$(BIN)/pytest suites/ --cni $(CNI) -n auto $(ARGS)

.PHONY: test
test: setup-dev api-binaries ## the project's own tests
	$(BIN)/pytest -n auto $(ARGS)

.PHONY: test-fast
test-fast: setup-dev ## those that need no lab
	$(BIN)/pytest -n auto tests/unit tests/property tests/golden $(ARGS)

.PHONY: test-long
test-long: setup-dev api-binaries ## laws with thousands of examples, a hundred kills
	HYPOTHESIS_PROFILE=nightly NETPOL_KILLS=100 $(BIN)/pytest -n auto tests/property \
	    tests/netns/test_loader_server.py tests/netns/test_enforcer_robust.py \
	    tests/netns/test_enforcer_kube.py $(ARGS)

.PHONY: mutants
mutants: setup-dev ## the suites against every known bug, seeded into the in-house enforcer
	$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: outside
outside: setup-dev ## the oracle against an analyser from elsewhere, on thousands of random worlds
	test -x build/outside/bin/python || python3 -m venv build/outside
	build/outside/bin/pip install -q network-config-analyzer==2.1.0
	$(BIN)/python -m tests.outside --python build/outside/bin/python $(ARGS)

COUNT ?= 10000
.PHONY: generated
generated: setup-run ## COUNT random scenarios on the in-house enforcer, failures made small
	$(BIN)/pytest suites/ -m generated --lab-generated $(COUNT) --lab-strength 3 -n auto -q $(ARGS)

.PHONY: bench
bench: setup-dev ## benchmarks, one at a time
	$(BIN)/pytest tests/benchmarks -s $(ARGS)

.PHONY: kind
kind: setup-run ## the suites against CNI on a kind cluster (Docker, Podman or nerdctl)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest suites/ --cni $(CNI) --lab kind -n auto $(ARGS)

.PHONY: kind-control
kind-control: setup-run ## a CNI that enforces nothing, on kind: succeeds if every denial leaks
	mkdir -p build
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest suites/ --cni $(CNI) --lab kind -n auto $(ARGS) \
	    | tee build/kind-control.log || true
	grep -q 'deny cells were expected, none enforced' build/kind-control.log

# kind needs no installation of its own: its module is built with Go.
KIND_VERSION ?= v0.33.0
.PHONY: kind-program
kind-program: setup-run ## kind itself, built from its module into .venv/bin
	GOBIN="$(CURDIR)/$(BIN)" GOFLAGS= CGO_ENABLED=0 go install sigs.k8s.io/kind@$(KIND_VERSION)

.PHONY: enforcer-image
enforcer-image: ## the in-house enforcer's container image, netpol-enforcer:dev
	@tools/enforcer-image $(IMAGE)

.PHONY: compare
compare: setup-dev api-binaries ## the enforcer and every engine that is here: one page with plots
	$(BIN)/python -m tests.compare $(ARGS)

.PHONY: records
records: setup-run ## runs side by side: make records RECORDS='reports/A reports/B'
	$(BIN)/netpol compare $(RECORDS) $(ARGS)

# The nightly's records are in build/records/NAME/RUN, those of the night before in
# build/last-night/NAME/RUN.
.PHONY: page
page: setup-run ## the nightly's runs side by side: a page, and Markdown into SUMMARY
	mkdir -p build/docs/nightly
	$(BIN)/netpol compare --format html -o build/docs/nightly/index.html build/records/*/latest
	$(BIN)/netpol compare --format markdown build/records/*/latest >>$(or $(SUMMARY),/dev/stdout)

.PHONY: changes
changes: setup-run ## what the nightly's runs changed; fails where something got worse
	@: >build/changes.md; worse=0; \
	for new in build/records/*/latest; do \
	    old=build/last-night/$$(basename $$(dirname $$new))/latest; \
	    if [ ! -e $$old ]; then echo "$$old: none, nothing to compare"; continue; fi; \
	    $(BIN)/netpol compare --changes --format markdown $$old $$new \
	        | tee -a build/changes.md || worse=1; \
	done; exit $$worse

.PHONY: last-night
last-night: ## keep the nightly's records for the next one
	rm -rf build/last-night
	cp -a build/records build/last-night

.PHONY: docs
docs: setup-dev ## the documentation site into build/docs, every warning an error
	$(BIN)/sphinx-build -W --keep-going -n -q docs build/docs

.PHONY: docs-runs
docs-runs: setup-dev api-binaries ## the runs that the documentation shows, made anew (15 minutes)
	$(BIN)/python -m tests.shown

.PHONY: lint
lint: setup-dev ## style of Python and shell
	$(BIN)/ruff check
	$(BIN)/shellcheck tools/setup tools/debian-install tools/enforcer-image .ci/run

.PHONY: types
types: setup-dev ## strict types
	$(BIN)/mypy

.PHONY: api-binaries
api-binaries: setup-run ## etcd, API server and the rest, built once (4 minutes) and cached
	$(BIN)/netpol api build
	$(BIN)/python -m harness.labs.controlplane.crds

.PHONY: setup-run setup-dev
setup-run setup-dev: setup-%:
	@tools/setup $*

.PHONY: lock
lock: setup-dev ## newer Python packages into the lock files
	rm -f requirements.lock requirements-dev.lock
	$(BIN)/uv $(LOCK) --group build -o requirements.lock
	$(BIN)/uv $(LOCK) --group build --group dev --group docs --group browser \
	    -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile deploy/requirements.in -c requirements.lock $(LOCKED) \
	    -o deploy/requirements.lock

# Hashes and no addresses: the same lock serves whatever index pip is set up with.
LOCKED := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command 'make lock'
LOCK := pip compile pyproject.toml $(LOCKED)
