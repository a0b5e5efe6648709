# `make run` runs the pipeline, `make test` the tests; both install what they need first. `make help` lists all targets.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv/bin
PY := $(VENV)/python
READY := .venv/installed

# The Python that makes .venv is looked up on the user's own PATH, without .venv.
USER_PATH := $(PATH)
# So that programs which start others (dvc starts stages, prefect starts dvc) find those of .venv.
export PATH := $(CURDIR)/$(VENV):$(PATH)
# Each stage is a process of its own, and starts in half the time with cached bytecode.
unexport PYTHONDONTWRITEBYTECODE
# DVC asks for the user's name and home, which a container's user id may not have.
export LOGNAME := $(or $(LOGNAME),$(USER),$(shell id -un 2>/dev/null))
export HOME := $(or $(HOME),$(shell getent passwd $$(id -u) | cut -d: -f6),$(CURDIR)/.local/home)
# Connections to this machine itself go through no proxy.
export NO_PROXY := $(NO_PROXY),localhost,127.0.0.1,::1
export no_proxy := $(no_proxy),localhost,127.0.0.1,::1
# No telemetry.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# Prefect's database and settings stay in this checkout too.
export PREFECT_HOME ?= $(CURDIR)/.local/prefect

.DEFAULT_GOAL := help
.PHONY: help run experiments test test-slow test-faults fuzz soak test-gpu bench lint format up down status doctor flow deploy solar-cells lock clean

help: ## Print this list
	@awk -F ':.*## ' '/^# --- / {printf "\n%s\n", substr($$0, 7)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml infra/environment.py
	@PATH="$(USER_PATH)" $(PYTHON) infra/environment.py

# --- running it

run: $(READY) ## Run the pipeline, from images to a published model; only what has changed is run again
	@mkdir -p .local && touch .local/started
	@test -n "$$ALEXNET_BUCKET" || $(PY) -m infra.stack up
	@ALEXNET_RUN=$${ALEXNET_RUN:-$$(date -u +%Y%m%dT%H%M%SZ)} $(PY) -m infra.repro
	@$(PY) -m pipelines.cli.summary --since .local/started

experiments: $(READY) ## List the runs of `dvc exp run`: the parameters that differ, and the error rates
	@$(PY) -m dvc exp show --only-changed --keep '.*top1_error$$' --drop '(alexnet|pipelines|artifacts|\.?local)/' --drop 'Executor|State'

doctor: $(READY) ## Check what this machine has and lacks
	@$(PY) -m pipelines.cli.main doctor

solar-cells: $(READY) ## Install the photographs of the source solar-cells (CC BY-NC-SA 4.0)
	@$(PY) -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes -r presets/solar-cells.lock

up: $(READY) ## Start the local object store, for a machine without a bucket
	@$(PY) -m infra.stack up

status: $(READY) ## Show the state of store, server and worker, one line each
	@$(PY) -m infra.scheduler status

down: ## Stop what run, up and deploy started; data stays in .local
	@if test -e $(READY); then $(PY) -m infra.scheduler down && $(PY) -m infra.stack down; else echo "nothing was started here"; fi

# --- on a schedule

flow: $(READY) ## Run the pipeline as a Prefect flow, with a temporary server unless one is configured
	@test -n "$$ALEXNET_BUCKET" || $(PY) -m infra.stack up
	@mkdir -p "$(PREFECT_HOME)"
	@$(PY) -m flows.train_alexnet

deploy: $(READY) ## Start a Prefect server and a worker on this machine; make the work pool gpu and the deployments
	@test -n "$$ALEXNET_BUCKET" || $(PY) -m infra.stack up
	@$(PY) -m infra.scheduler up

# --- development

test: $(READY) ## Run the tests in three processes: under 8 minutes on two cores
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## Run the tests that take minutes or start a server of their own
	@$(PY) -m pytest -m "slow and not gpu"

test-faults: $(READY) ## Run every test that causes a fault, about an hour; write docs/reliability.md
	@$(PY) -m tests.faults

fuzz: $(READY) ## Give thousands of damaged and hostile inputs to every reader of outside data
	@$(PY) -m tests.faults.fuzz

soak: $(READY) ## Run the pipeline fifty times, with a fault at a random moment, and compare the outputs
	@$(PY) -m tests.faults.soak

test-gpu: $(READY) ## Run the tests that need a CUDA device
	@$(PY) -m pytest -m gpu

bench: $(READY) ## Run all benchmarks, about 35 minutes on an otherwise idle machine
	@for name in prep validate input train_step train_epoch two_gpu evaluate extract store registry commands; do \
	  echo "== $$name"; $(PY) -m benchmarks.$$name || exit 1; done
	@$(PY) -m benchmarks.report

lint: $(READY) ## Check style, types and import rules
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/lint-imports

format: $(READY) ## Format the code
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .

lock: $(READY) ## Update requirements.lock from pyproject.toml; with UPGRADE=--upgrade, to the newest versions
	@$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --all-extras $(UPGRADE) pyproject.toml --output-file requirements.lock

clean: down ## Delete what runs have made here: outputs, caches, the local store's data
	rm -rf .local artifacts .dvc/cache .dvc/tmp
