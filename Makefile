# The project's commands; `make` alone lists them. Nothing is installed outside .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The first Python that really runs, is 3.11 or 3.12, and can make a virtual environment: a shim on the PATH may exist and fail.
# Debian's own interpreters come last, for a shim may hide them.
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell for python in python3.12 python3.11 python3 /usr/bin/python3.12 /usr/bin/python3.11; do \
  "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1 \
  && { echo "$$python"; break; }; done)
endif
PYTHON_VERSION := $(shell "$(PYTHON)" -c 'import sys; print("{}.{}".format(*sys.version_info))' 2>/dev/null)

CONSTRAINTS := requirements/constraints-$(PYTHON_VERSION).txt
BIN := .venv/bin
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
IS_SAME_VERSION = import sys; sys.exit("$(PYTHON_VERSION)" != "{}.{}".format(*sys.version_info))

# Where `make quickstart` writes, and the directory of MovieLens files it reads (empty: it fetches them).
RUN_DIR ?= runs/quickstart
DATA_DIR ?=
# More gin flags, e.g. GIN="--gin.SEED=1".
GIN ?=
# Which tests, e.g. `make test TESTS=tests/retrieval`.
TESTS ?= tests
# Processes that share the tests: compiling, which is most of their time, uses one core.
WORKERS ?= 2
IN_PROCESSES = $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist worksteal)

.NOTPARALLEL:
.PHONY: help quickstart test test-all test-t5x lint lock clean

help:  ## List the commands.
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

quickstart: .venv/cpu-$(PYTHON_VERSION).stamp  ## MovieLens-100K from raw logs to a table of Recall@10 and report.html. DATA_DIR=... reads your own copy.
	$(BIN)/plum --gin_file=gin/run/quickstart.gin --gin_file=gin/corpus/ml_100k.gin --gin_file=gin/model/cpu_tiny.gin \
	  --gin.MODEL_DIR="'$(RUN_DIR)'" $(if $(DATA_DIR),--gin.DATA_DIR="'$(DATA_DIR)'") $(GIN)
	@printf '%s\n' "" "This run answers for itself:" \
	  "  $(BIN)/plum recommend $(RUN_DIR)        # lists for all users, as Parquet" \
	  "  $(BIN)/plum watch_next $(RUN_DIR)       # what to watch after each item" \
	  "  $(BIN)/plum explain $(RUN_DIR)          # what some users' lists rest on" \
	  "  $(BIN)/plum evaluate $(RUN_DIR) --gin.NUM_BEAMS=128" \
	  "  $(BIN)/plum export_serving $(RUN_DIR)   # for servers with JAX and numpy alone" \
	  "  $(BIN)/plum export_model $(RUN_DIR)     # a Hugging Face directory"

test: lint  ## Linters, type checker, import rules, then every test but the slow ones.
	$(BIN)/python -m pytest $(IN_PROCESSES) -m "not slow" $(TESTS)

test-all: lint  ## The slow tests too.
	$(BIN)/python -m pytest $(IN_PROCESSES) $(TESTS)

# T5X is on no package index: its sources, and those of airio and jestimator, are named by directory (docs/t5x.md).
T5X ?=
test-t5x: .venv/test-$(PYTHON_VERSION).stamp  ## The tests of the bridge to T5X. T5X=/path/to/sources, a directory with t5x/, airio/ and jestimator/.
	@[ -d "$(T5X)/t5x/t5x" ] || { echo "expected sources of T5X in T5X=$(T5X), a directory with t5x/, airio/, jestimator/ (docs/t5x.md)" >&2; exit 1; }
	PYTHONPATH="$(T5X)/t5x:$(T5X)/airio:$(T5X)/jestimator:$${PYTHONPATH:-}" $(BIN)/python -m pytest \
	  tests/interop/t5x tests/tasks/test_registered.py tests/tasks/test_feature_converter.py

lint: .venv/test-$(PYTHON_VERSION).stamp  ## Linters, type checker and import rules alone.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A stamp is written last, so an environment whose installation was interrupted is never taken for a good one: `incomplete` is
# still there, and the next run starts from an empty .venv (a package of which pip wrote half would look installed to pip).
ifeq ($(filter 3.11 3.12,$(PYTHON_VERSION)),)
.venv/%.stamp:
	@echo "Expected Python 3.11 or 3.12 with venv and ensurepip, found: $(or $(PYTHON),none) $(PYTHON_VERSION)." \
	  "On Debian: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python3.12" >&2; exit 1
else
.venv/%-$(PYTHON_VERSION).stamp: setup.py $(CONSTRAINTS)
	@if [ -e .venv/incomplete ] || ! $(BIN)/python -c '$(IS_SAME_VERSION)' 2>/dev/null; then \
	  echo "Making .venv with $(PYTHON) (Python $(PYTHON_VERSION))"; \
	  rm -rf .venv; mkdir .venv; touch .venv/incomplete; "$(PYTHON)" -m venv .venv; fi
	@touch .venv/incomplete
	$(PIP_INSTALL) --quiet setuptools wheel
	$(PIP_INSTALL) --no-build-isolation -e '.[$*]'
	@rm .venv/incomplete; touch $@
endif

# The constraints are what setup.py alone resolves to today in an empty environment, for each Python that is at hand.
lock:  ## Resolve setup.py anew and write requirements/constraints-*.txt.
	for version in 3.11 3.12; do \
	  python=python$$version; file=requirements/constraints-$$version.txt; \
	  "$$python" -c 'import ensurepip' 2>/dev/null || { echo "no python$$version here: $$file stays as it is" >&2; continue; }; \
	  rm -rf .venv-lock; "$$python" -m venv .venv-lock; \
	  .venv-lock/bin/python -m pip install --upgrade pip setuptools wheel; \
	  .venv-lock/bin/python -m pip install --no-build-isolation '.[cpu,test,notebooks]'; \
	  head -n 1 $$file > .venv-lock/lock.txt; \
	  .venv-lock/bin/python -m pip freeze --all --exclude pip --exclude plum_jax --exclude plum-jax >> .venv-lock/lock.txt; \
	  mv .venv-lock/lock.txt $$file; rm -rf .venv-lock; \
	done

clean:  ## Remove .venv and every cache; runs/ stays.
	rm -rf .venv .venv-lock build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
