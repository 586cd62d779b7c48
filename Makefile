# One environment in .venv, one command for each thing to do.  `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
NPROCS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST := .venv-lowest
DOCS_STAMP := $(VENV)/.installed-docs
ENGINE ?= docker
IMAGE ?= bids/brainage
SIMULATION := $(shell find bids_brainage/simulation bids_brainage/data/population -type f ! -name '*.pyc')
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-all test-lowest lint format docs image image-test clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## put the program and all it needs into .venv

$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11: call make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --quiet torch
	$(PIP) --quiet --editable '.[test]'
	@touch $@

demo: $(STAMP) demo/bids  ## make a small dataset and run the program on it
	$(BIN)/bids_brainage demo/bids demo/out participant --nprocs $(NPROCS) -w demo/work

demo/bids: $(SIMULATION) | $(STAMP)
	rm -rf demo
	$(BIN)/python -m bids_brainage.simulation $@.part --participants 2 --sessions 2 --seed 7
	mv $@.part $@

test: lint  ## style, types and tests (all but the slow ones)
	$(BIN)/python -m pytest -n $(NPROCS) --dist loadfile -m "not slow and not slurm"

test-all: lint  ## style, types and all tests that need no cluster
	$(BIN)/python -m pytest -n $(NPROCS) --dist loadfile -m "not slurm"

test-lowest: $(LOWEST)/.installed  ## tests with the lowest versions allowed (or make test-lowest TESTS=PATH)
	$(LOWEST)/bin/python -m pytest -n $(NPROCS) --dist loadfile -m "not slow and not slurm" $(TESTS)

$(LOWEST)/.installed: setup.py tools/lowest_versions.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tools/lowest_versions.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet -r $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	@touch $@

lint: $(STAMP)  ## style and types of Python, and shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck .ci/run container/*.sh examples/*.sh tools/*.sh

format: $(STAMP)  ## let ruff put style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS_STAMP)  ## build docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html

$(DOCS_STAMP): $(STAMP)
	$(PIP) --quiet --editable '.[docs]'
	@touch $@

image:  ## build the container image with docker (or make image ENGINE=podman TORCH_INDEX=URL)
	$(ENGINE) build --build-arg REVISION=$$(git rev-parse HEAD) \
	  $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t $(IMAGE) .

image-test: demo  ## build the image without an engine and run it (root, slow)
	PYTHON=$(BIN)/python tools/image_test.sh

clean:  ## remove everything that make has made
	rm -rf $(VENV) $(LOWEST) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache docs/_build
