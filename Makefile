# What a person and CI do here; `make` alone lists it. Everything happens in one virtual environment, which is
# made at the first need and brought up to date whenever pyproject.toml or constraints.txt changes.
#
#   make test PYTHON=/opt/python3.12/bin/python3      another interpreter
#   make demo PIP_FLAGS="--index-url ..."             other flags for pip, such as an index with a CPU-only torch

VENV ?= .venv
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$candidate && break; done)
PIP_FLAGS ?=
PYTEST_FLAGS ?=
# `make test-floors` has an environment of its own. FLOORS_TORCH=2.6.0 tests the lowest torch too; without an index of
# CPU-only builds that is a download of 3 GB.
FLOORS_VENV ?= .venv-floors
FLOORS_PYTHON ?= python3.11
PINNED_TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
FLOORS_TORCH ?= $(PINNED_TORCH)
# What kills whole loops depends on torch and on nothing else that has a lower bound here: with the torch of
# constraints.txt, `make test` has run it.
FLOORS_LEFT_OUT = $(if $(filter $(FLOORS_TORCH),$(PINNED_TORCH)),--ignore=tests/unit/training/loops)
JOBS = jobs
STATE = .trainerd
# Where `make install` puts what: PREFIX is one virtual environment, all under DESTDIR when a package is built.
export PREFIX ?= /opt/trainerd
export DESTDIR ?=
export BINDIR ?= /usr/local/bin
export LIBDIR ?= /usr/local/lib
export SYSCONFDIR ?= /etc

BIN := $(VENV)/bin
# Two steps: what jobs, the supervisor and the demo need, and on top of it what developers need.
RUNS := $(VENV)/.runs
INSTALLED := $(VENV)/.installed
FLOORS_INSTALLED := $(FLOORS_VENV)/.installed-with-torch-$(FLOORS_TORCH)

.DEFAULT_GOAL := help
.PHONY: help venv demo chaos run test test-slow test-floors mutants check docs format install uninstall \
	install-user uninstall-user clean distclean

help: ## list what can be made
	@echo "make WHAT, where WHAT is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

venv: $(INSTALLED) ## make the virtual environment (what needs it does so by itself)

demo: $(RUNS) ## watch a training run be killed, resumed and come out equal to the last bit
	@exec $(BIN)/python -m chaos.demo $(DEMO_FLAGS)

chaos: $(RUNS) ## break real jobs on purpose, every scenario once; CHAOS_FLAGS="--for 8h" for the soak
	@exec $(BIN)/python -m chaos $(CHAOS_FLAGS)

run: $(RUNS) ## start the supervisor on ./jobs with its state in ./.trainerd
	@exec $(BIN)/trainerd run --jobs $(JOBS) --state $(STATE)

# Compiled files are kept: thousands of processes would each compile what they import.
PYTEST = unset PYTHONDONTWRITEBYTECODE; exec $(1)/python -m pytest -q --numprocesses auto --dist loadfile

# In the order of collection: the long ones are in tests/integration, and so come first.
test: $(INSTALLED) ## run the everyday tests
	@$(call PYTEST,$(BIN)) --no-loadscope-reorder -m "not slow" $(PYTEST_FLAGS)

# In the order that tests/conftest.py gives them: the longest files first.
test-slow: $(INSTALLED) ## run the others: a real systemd, power cuts, every scenario of chaos (root runs more of them)
	@$(call PYTEST,$(BIN)) --no-loadscope-reorder -m slow $(PYTEST_FLAGS)

mutants: $(INSTALLED) ## break the code in a copy, line by line, and see a test fail each time
	@exec $(BIN)/python -m tests.mutants $(MUTANTS_FLAGS)

test-floors: $(FLOORS_INSTALLED) ## run the unit tests, not those of whole loops, with the lowest versions that pyproject.toml allows but for torch
	@$(call PYTEST,$(FLOORS_VENV)/bin) -m "not slow" $(PYTEST_FLAGS) \
		$(FLOORS_LEFT_OUT) tests/unit tests/contract tests/formats

check: $(INSTALLED) ## check format, lint, types, the direction of imports and the words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.words

docs: $(INSTALLED) ## build the documentation site into build/site; a broken link or a page without a place fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html"

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

install: ## put trainerd into /opt/trainerd and its units where systemd looks; again: upgrade
	$(usable-python)
	@PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" systemd/install.sh

uninstall: ## drain the jobs and take away what install put there; runs and specs stay
	@systemd/uninstall.sh

# Where `make install-user` puts what.
install-user uninstall-user: export PREFIX = $(HOME)/.local/share/trainerd
install-user uninstall-user: export BINDIR = $(HOME)/.local/bin
install-user uninstall-user: export LIBDIR = $(HOME)/.local/share
install-user uninstall-user: export FOR_PERSON = 1

install-user: ## put trainerd below your home folder, without root; again: upgrade
	$(usable-python)
	@PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" systemd/install.sh

uninstall-user: ## drain your jobs and take away what install-user put there; runs and specs stay
	@systemd/uninstall.sh

clean: ## remove caches, builds and what the demo left
	rm -rf .demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(FLOORS_VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV) $(FLOORS_VENV) *.egg-info daemon/*.egg-info

define usable-python
	@test -n "$(PYTHON)" || { echo "trainerd needs Python 3.11 or newer, and none is on PATH." \
		"Install one, or say which: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than Python 3.11, or does not run."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments." \
		"On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
endef

# In a terminal pip shows what it does.
PIP_QUIET := $(shell test -t 2 || echo --quiet)
INSTALL = $(BIN)/python -m pip install $(PIP_QUIET) --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e

$(RUNS): pyproject.toml constraints.txt
	$(usable-python)
	@echo "Making $(VENV), once: 1.4 GB, of which torch is the most; two minutes or more ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) '.[examples]'
	@touch $@

$(INSTALLED): $(RUNS)
	@echo "Adding what developers need to $(VENV), once: 1 GB, a minute or more ..."
	@$(INSTALL) '.[dev]'
	@touch $@

$(FLOORS_INSTALLED): override PYTHON = $(FLOORS_PYTHON)
$(FLOORS_INSTALLED): pyproject.toml constraints.txt constraints-floors.txt
	$(usable-python)
	@echo "Making $(FLOORS_VENV) with torch $(FLOORS_TORCH) ..."
	@rm -rf $(FLOORS_VENV)
	@$(PYTHON) -m venv $(FLOORS_VENV)
	@$(FLOORS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: $(PIP_FLAGS) \
		-c constraints-floors.txt -e '.[test]' torch==$(FLOORS_TORCH) > $(FLOORS_VENV)/install.log 2>&1 || \
		{ cat $(FLOORS_VENV)/install.log; exit 1; }
	@if grep -A1 'is a yanked version' $(FLOORS_VENV)/install.log; then echo "Declare a version that can be had."; exit 1; fi
	@touch $@
