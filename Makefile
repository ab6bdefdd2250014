# Two commands set everything up: `make run` and `make test`. Both are quick the second time.
#
#   make run ARGS="--num-prompts 512"     options of `python -m harness`
#   make test PYTEST_ARGS="-k proxy"      options of pytest
#   make env PYTHON=python3.12            another interpreter
#
# TORCH is what pip is asked for. From a plain index it brings a CUDA build, which also works, but is
# large; name an index of CPU builds in PIP_EXTRA_INDEX_URL to avoid that.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
CONCURRENCY ?= 32
ARGS ?=
PYTEST_ARGS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
CORE := $(VENV)/.core-installed
ENGINE := $(VENV)/.engine-installed

.PHONY: run test test-quick lint docs env core compiled clean

run: $(ENGINE)
	$(VENV)/bin/python -m harness --concurrency $(CONCURRENCY) $(ARGS)

# What needs no engine is spread over the processor's cores; the live tests share one deployment, and so one process.
# A worker that has nothing left takes tests from another's end (worksteal): the slow ones are not equally slow, and tests
# of one module, which share fixtures, still begin beside each other.
SPREAD := --numprocesses auto --dist worksteal

ifeq ($(strip $(PYTEST_ARGS)),)
test: lint docs compiled $(ENGINE)
	$(VENV)/bin/python -m pytest $(SPREAD) -m "not live"
	$(VENV)/bin/python -m pytest -m "live and not damage and not upstream"
else
test: lint docs compiled $(ENGINE)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)
endif

# What needs no engine, less what simulates a lot or starts many processes (the marker `slow`).
test-quick: lint compiled
	$(VENV)/bin/python -m pytest $(SPREAD) -m "not live and not slow" $(PYTEST_ARGS)

# Many tests start the harness as a process. Where Python is told to write no compiled files, as in many containers, each
# of them would compile all of it again.
compiled: $(CORE)
	$(VENV)/bin/python -m compileall -q harness workloads

lint: $(CORE)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

# The pages under docs/, as build/site. A broken link or a page that is nowhere in the navigation fails. Nothing is fetched.
# Both variables silence notices of the tools about their own future versions.
docs: $(CORE)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV)/bin/python -m mkdocs build --strict --quiet

env: $(ENGINE)
core: $(CORE)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable '.[dev]'
	touch $@

# torch with what it needs; the rest exactly as pinned (requirements/engine-cpu.txt says why).
$(ENGINE): requirements/engine-cpu.txt $(CORE)
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --no-deps --requirement requirements/engine-cpu.txt
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
