# make demo: from a bare checkout to a trained and tested network.   make test: the tests.   make check: lint, format, types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Every package is installed in the version, and with the content, that requirements*.txt names.
LOCKED := $(INSTALL) --require-hashes --requirement
# setuptools and cython are locked with the rest, so the build needs no environment of its own.
EDITABLE := $(INSTALL) --no-build-isolation --no-deps --editable
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"

export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: demo test matrix check format bench slow clean lock faults gallery dist
.DEFAULT_GOAL := demo

$(VENV)/.python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml requirements.txt
	@echo "Installing the locked packages into $(VENV) (a few minutes, once) ..."
	$(LOCKED) requirements.txt
	$(EDITABLE) .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(LOCKED) requirements-dev.txt
	touch $@

# Newest versions that pyproject.toml allows go in with: make lock UPGRADE=--upgrade
lock:
	$(LOCK) $(UPGRADE) pyproject.toml --group build --output-file requirements.txt
	$(LOCK) pyproject.toml --group build --extra dev --constraint requirements.txt --output-file requirements-dev.txt

demo: $(VENV)/.installed
	$(BIN)/lightning-cifar fit --config configs/demo.yaml --test_after_fit true

# In two processes of one thread each: most tests are too small for two threads to share.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

# The verdict must not depend on the processor (its vector instructions, as torch and oneDNN use them), the number of
# threads, the order of the tests, or other work on the machine. Every cell has an order of its own, and two processes
# that are always busy run beside the second of each pair.
matrix: $(VENV)/.installed-dev
	set -e; seed=$${SEED:-1}; busy=; trap 'kill $$busy 2>/dev/null || true' EXIT; trap 'exit 130' INT TERM; \
	for isa in default/SSE41 avx2/AVX2 native/; do \
	  for threads in 1 2; do \
	    if [ $$threads = 2 ]; then for i in 1 2; do sh -c 'while :; do :; done' & busy="$$busy $$!"; done; fi; \
	    echo "== $$isa, $$threads threads, order $$seed, busy processes:$$busy"; \
	    unset ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA; \
	    if [ $$isa != native/ ]; then export ATEN_CPU_CAPABILITY=$${isa%/*} ONEDNN_MAX_CPU_ISA=$${isa#*/}; fi; \
	    LIGHTNING_CIFAR_TEST_ORDER=$$seed OMP_NUM_THREADS=$$threads \
	      $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile -q; \
	    if [ -n "$$busy" ]; then kill $$busy; busy=; fi; seed=$$((seed + 1)); \
	  done; \
	done

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow --ignore tests/faults

# The campaigns of docs/reliability.md, whole; LIGHTNING_CIFAR_FAULTS=20 takes no more than 20 faults of each.
faults: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -s

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/training_throughput.py

# Every picture of README and docs, from the real data. Hours; trainings that have ended are not repeated.
gallery: $(VENV)/.installed
	$(BIN)/python docs/gallery.py

# A wheel and a source distribution in dist/.
dist: $(VENV)/.installed
	rm -rf build/lib* dist
	$(BIN)/python -c 'from setuptools import build_meta; print(build_meta.build_sdist("dist"), build_meta.build_wheel("dist"))'

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
