# `make run` makes everything, `make test` tests it; either sets up what it needs. `make help` lists the rest.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv/bin
PY := $(VENV)/python
READY := .venv/installed

# The Python that makes .venv is looked up on the user's PATH, without .venv.
USER_PATH := $(PATH)
# Programs that start programs (dvc starts stages, prefect starts dvc) find those of .venv.
export PATH := $(CURDIR)/$(VENV):$(PATH)
# Cached bytecode halves the start of a stage, which is a process of its own.
unexport PYTHONDONTWRITEBYTECODE
# DVC asks for the user's name and home, which a container's user id may not have.
export LOGNAME := $(or $(LOGNAME),$(USER),$(shell id -un 2>/dev/null))
export HOME := $(or $(HOME),$(shell getent passwd $$(id -u) | cut -d: -f6),$(CURDIR)/.local/home)
# No proxy stands between this machine and itself.
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

help: ## This list
	@awk -F ':.*## ' '/^# --- / {printf "\n%s\n", substr($$0, 7)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml infra/environment.py
	@PATH="$(USER_PATH)" $(PYTHON) infra/environment.py

# --- running it

run: $(READY) ## From images to a published model; only what has changed is run again
	@mkdir -p .local && touch .local/started
	@test -n "$$ALEXNET_BUCKET" || $(PY) -m infra.stack up
	@ALEXNET_RUN=$${ALEXNET_RUN:-$$(date -u +%Y%m%dT%H%M%SZ)} $(PY) -m infra.repro
	@$(PY) -m pipelines.cli.summary --since .local/started

experiments: $(READY) ## What `dvc exp run` has tried: the parameters that differ, and the error rates
	@$(PY) -m dvc exp show --only-changed --keep '.*top1_error$$' --drop '(alexnet|pipelines|artifacts|\.?local)/' --drop 'Executor|State'

doctor: $(READY) ## What this machine has and lacks
	@$(PY) -m pipelines.cli.main doctor

solar-cells: $(READY) ## Install the photographs of the source solar-cells (CC BY-NC-SA 4.0)
	@$(PY) -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes -r presets/solar-cells.lock

up: $(READY) ## Start the local object store, for a machine without a bucket
	@$(PY) -m infra.stack up

status: $(READY) ## A line each for store, server and worker
	@$(PY) -m infra.scheduler status

down: ## Stop what up and deploy started; data stays in .local
	@if test -e $(READY); then $(PY) -m infra.scheduler down && $(PY) -m infra.stack down; else echo "nothing was started here"; fi

# --- on a schedule

flow: $(READY) ## The same run as a Prefect flow, with a server of its own
	@test -n "$$ALEXNET_BUCKET" || $(PY) -m infra.stack up
	@mkdir -p "$(PREFECT_HOME)"
	@$(PY) -m flows.train_alexnet

deploy: $(READY) ## Prefect server, work pool gpu, a worker and the deployment, all on this machine
	@test -n "$$ALEXNET_BUCKET" || $(PY) -m infra.stack up
	@$(PY) -m infra.scheduler up

# --- development

test: $(READY) ## The tests, in three processes, which often wait: under 8 minutes on two cores
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## The tests that take minutes or a server of their own
	@$(PY) -m pytest -m "slow and not gpu"

test-faults: $(READY) ## Every test that causes a fault, fast and slow; writes docs/reliability.md
	@$(PY) -m tests.faults

fuzz: $(READY) ## Thousands of damaged and hostile bodies for every reader of outside data
	@$(PY) -m tests.faults.fuzz

soak: $(READY) ## Fifty whole runs, each with a fault at a random moment, and equal outputs at the end
	@$(PY) -m tests.faults.soak

test-gpu: $(READY) ## The tests that need a CUDA device
	@$(PY) -m pytest -m gpu

bench: $(READY) ## Every benchmark, each beside its peers; forty minutes that want the machine to themselves
	@for name in prep validate input train_step train_epoch two_gpu evaluate extract store registry commands; do \
	  echo "== $$name"; $(PY) -m benchmarks.$$name || exit 1; done
	@$(PY) -m benchmarks.report

lint: $(READY) ## Style, types and who may import whom
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/lint-imports

format: $(READY) ## Format the code
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .

lock: $(READY) ## Bring requirements.lock up to pyproject.toml; with UPGRADE=--upgrade to the newest versions
	@$(VENV)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --all-extras $(UPGRADE) pyproject.toml --output-file requirements.lock

clean: down ## Remove what runs have made here: outputs, caches, the local store's data
	rm -rf .local artifacts .dvc/cache .dvc/tmp
