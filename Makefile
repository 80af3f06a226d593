# make demo: from a bare checkout to a trained and tested network.   make test: the tests.   make check: lint, format, types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# setuptools and cython are pinned with the rest, so the build needs no environment of its own
EDITABLE := --no-build-isolation --editable

export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: demo test check format bench slow clean
.DEFAULT_GOAL := demo

$(VENV)/.python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing the pinned packages into $(VENV) (a few minutes, once) ..."
	$(INSTALL) setuptools cython
	$(INSTALL) $(EDITABLE) .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) $(EDITABLE) '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/lightning-cifar fit --config configs/demo.yaml --test_after_fit true

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/training_throughput.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
