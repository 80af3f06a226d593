# make demo: install, then train and test a network.   make test: run the tests.   make check: lint, format, types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Packages are installed in the versions and with the hashes of requirements*.txt.
LOCKED := $(INSTALL) --require-hashes --requirement
# setuptools and cython are locked too, so the build needs no isolated environment.
EDITABLE := $(INSTALL) --no-build-isolation --no-deps --editable
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock"

export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: demo test matrix check format bench gpu slow clean lock faults gallery dist wheels docs
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

# To upgrade to the newest versions that pyproject.toml allows: make lock UPGRADE=--upgrade
lock:
	$(LOCK) $(UPGRADE) pyproject.toml --group build --output-file requirements.txt
	$(LOCK) pyproject.toml --group build --extra dev --constraint requirements.txt --output-file requirements-dev.txt

demo: $(VENV)/.installed
	$(BIN)/lightning-cifar fit --config configs/demo.yaml --test_after_fit true

# Two processes with one thread each: most tests are too small to use two threads.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal

# The test results must not depend on the vector instructions of the processor, the number of threads, the order of the
# tests, or other work on the machine. Each cell has a different order; two busy processes run beside the second.
matrix: $(VENV)/.installed-dev
	set -e; seed=$${SEED:-1}; busy=; trap 'kill $$busy 2>/dev/null || true' EXIT; trap 'exit 130' INT TERM; \
	for cell in native/:1 avx2/AVX2:2 default/SSE41:1; do \
	  isa=$${cell%:*}; threads=$${cell#*:}; \
	  if [ $$threads = 2 ]; then for i in 1 2; do sh -c 'while :; do :; done' & busy="$$busy $$!"; done; fi; \
	  echo "== $$isa, $$threads threads, order $$seed, busy processes:$$busy"; \
	  unset ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA; \
	  if [ $$isa != native/ ]; then export ATEN_CPU_CAPABILITY=$${isa%/*} ONEDNN_MAX_CPU_ISA=$${isa#*/}; fi; \
	  LIGHTNING_CIFAR_TEST_ORDER=$$seed OMP_NUM_THREADS=$$threads \
	    $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal -q; \
	  if [ -n "$$busy" ]; then kill $$busy; busy=; fi; seed=$$((seed + 1)); \
	done

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow --ignore tests/faults

# The complete campaigns of docs/reliability.md; LIGHTNING_CIFAR_FAULTS=20 uses at most 20 faults of each.
faults: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -s

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint --deny-warnings --allow no-unused-vars lightning_cifar
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation site in docs/_build. Warnings, such as broken internal links, are errors.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going docs docs/_build

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/training_throughput.py

# The measurements of docs/gpu.md, on a machine with a GPU and CIFAR-10 in data/; a repeated command continues.
gpu: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/gpu.py $(GPU)

# All pictures of README and docs, from the real data. Takes hours; finished trainings are not repeated.
gallery: $(VENV)/.installed
	$(BIN)/python docs/gallery.py

# A wheel and a source distribution in dist/.
dist: $(VENV)/.installed
	rm -rf build/lib* dist
	$(BIN)/python -c 'from setuptools import build_meta; print(build_meta.build_sdist("dist"), build_meta.build_wheel("dist"))'

# Wheels for each supported Python in dist/, built by cibuildwheel in manylinux containers; needs Docker and a network.
wheels: $(VENV)/.python
	$(INSTALL) "cibuildwheel>=3.2,<4"
	$(BIN)/cibuildwheel --output-dir dist

clean:
	rm -rf build dist docs/_build docs/_generated *.egg-info .mypy_cache .ruff_cache .pytest_cache
