# Each target sets up what it needs: `make demo` in a fresh clone is enough.
#   make PYTHON=python3.12 demo      another interpreter for .venv
# The environment is made anew only where the lock file, pyproject.toml or the C++ sources changed: their checksums are in
# the names of the stamp files.

PYTHON ?= python3
TORCH := 2.13.0
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/cpu.txt
WORKERS ?= 2
CXX_SOURCES := $(shell find csrc kernels -name '*.cpp' -o -name '*.h' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null | sort)
BUILD_INPUTS := pyproject.toml csrc/CMakeLists.txt $(CXX_SOURCES)
checksum = $(shell cat $(wildcard $(1)) /dev/null | sha256sum | cut -c1-16)
PACKAGES := $(VENV)/.packages-$(call checksum,$(LOCK))-torch-$(TORCH)
PROJECT := $(VENV)/.specdec-$(call checksum,$(BUILD_INPUTS) $(LOCK))
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-deps

.PHONY: help setup demo test lint format bench lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(PROJECT)  ## the environment alone: .venv with the locked packages and specdec, built from this checkout
	@echo "==> ready: . $(VENV)/bin/activate && specdec doctor"

demo: $(PROJECT)  ## serve the embedded model with and without its head, measure, write build/demo/report.html
	@$(BIN)/specdec demo $(ARGS)

# One OpenMP thread a process: tests are small, and two engines with spinning threads on the same cores take many times as
# long. A file's tests stay together, because they share engines and trained heads.
test: $(PROJECT)  ## all tests, two processes; ARGS="tests/verify -k greedy" for some, WORKERS=0 for one process
	@echo "==> pytest"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 $(ARGS)

lint: $(PROJECT)  ## ruff, mypy, clang-format (changes nothing)
	@echo "==> ruff"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "==> mypy"
	@$(BIN)/mypy specdec
	@echo "==> clang-format"
	@$(if $(CXX_SOURCES),$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES),echo "no C++ sources")

format: $(PROJECT)  ## let ruff and clang-format rewrite the sources
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	@$(if $(CXX_SOURCES),$(BIN)/clang-format -i $(CXX_SOURCES))

bench: $(PROJECT)  ## time verification against the reference; ARGS="heads -- ..." for another file of bench/
	@$(BIN)/specdec bench $(or $(ARGS),verify)

lock:  ## write the lock file anew from what .venv holds
	@{ sed -n '/^#/p' $(LOCK); $(BIN)/python -m pip freeze --all --exclude-editable | grep -vE '^(torch|torchvision|torchaudio|torchcodec|pip|specdec)(==| @)'; } > $(LOCK).new
	@mv $(LOCK).new $(LOCK) && echo "==> wrote $(LOCK)"

clean:  ## remove .venv and build
	rm -rf $(VENV) build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "specdec needs Python 3.11 or later, and '$(PYTHON)' is not one: name one with 'make PYTHON=python3.12 ...'" >&2; exit 1; }
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(PACKAGES): | $(BIN)/python
	@echo "==> installing PyTorch $(TORCH) for CPUs (about a minute)"
	@$(BIN)/python requirements/install_torch.py $(TORCH)
	@echo "==> installing $$(grep -c == $(LOCK)) locked packages from $(LOCK) (one to three minutes)"
	@$(PIP) -r $(LOCK)
	@rm -f $(VENV)/.packages-*
	@touch $@

$(PROJECT): | $(PACKAGES)
	@echo "==> building and installing specdec from this checkout (about a minute)"
	@$(PIP) --no-build-isolation -e .
	@rm -f $(VENV)/.specdec-*
	@touch $@
