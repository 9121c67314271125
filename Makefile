# dictsplat: `make` lists what there is. Every target sets up .venv first, which takes no time once it exists.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first interpreter that is new enough. Each one is run, because a name on PATH may be an empty shim.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard CMakeLists.txt) $(shell find cuda -type f \
	\( -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' -o -name 'CMakeLists.txt' \) 2>/dev/null)

.PHONY: help setup demo app test lint cuda-check browser bench sanitize soak wheel docs sbom clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMP) ## create .venv and install dictsplat with its native code into it

# Depends on the native sources: an editable install picks up Python by itself, compiled code is rebuilt here.
$(STAMP): pyproject.toml $(NATIVE)
	@test -n "$(PYTHON)" || { echo "dictsplat needs Python 3.11 or newer; install it or run: make PYTHON=/path/to/python3.11 setup" >&2; exit 2; }
	@command -v $${CXX:-g++} >/dev/null || { echo "dictsplat needs g++ 11 or newer (Debian/Ubuntu: apt install g++)" >&2; exit 2; }
	@test -f "$$("$(PYTHON)" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || { echo "$(PYTHON) comes without its headers (Debian/Ubuntu: apt install python3-dev)" >&2; exit 2; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian/Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## build the demo scene, train on it, query it and score it: out/demo/report.html
	$(BIN)/dictsplat demo --out out/demo

# A process per core and one thread in each is quicker than one process with many threads.
# The tests that drive a browser skip, and say so, where none can be had.
test: lint cuda-check browser ## ruff, mypy, the CUDA compiler's report and every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		{ apt-get install -y --no-install-recommends chromium || { apt-get update && apt-get install -y --no-install-recommends chromium; }; } \
		>/dev/null 2>&1; } || echo "browser tests will skip: there is no Chromium, and it cannot be installed from here"

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

cuda-check: $(STAMP) ## compile the CUDA kernels for every architecture, within cuda/gpu/budget.json; needs nvcc, no GPU
	$(BIN)/python cuda/check.py

sanitize: $(STAMP) ## the native CPU code, built with AddressSanitizer and UBSan, through its tests; needs g++
	$(BIN)/python tests/sanitized.py

app: $(STAMP) ## the app in a browser: ask scenes for things, make new ones, look for defects
	$(BIN)/dictsplat view $(patsubst %/language.safetensors,%,$(wildcard out/*/language.safetensors))

bench: $(STAMP) ## the speed table of this machine
	$(BIN)/dictsplat bench

soak: $(STAMP) ## what takes long: the wheel at work without a compiler, release commands, kills, 117,000 hostile files
	$(BIN)/python -m pytest -m soak -s

# What an extra asks for, without dictsplat itself, which would be compiled again.
install_extra = $(BIN)/python -m pip install --disable-pip-version-check --quiet -r <($(BIN)/python release/extra.py $(1))

# The OpenMP library is torch's, because every part of a process needs the same one.
wheel: $(STAMP) ## sdist, and from it a wheel for this Python and any current Linux: dist/
	$(call install_extra,release)
	rm -rf build/raw
	$(BIN)/python -m build --outdir build/raw
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --exclude libgomp.so.1 --wheel-dir dist build/raw/*.whl
	cp build/raw/*.tar.gz dist/

docs: $(STAMP) ## the documentation as pages: build/site/index.html
	$(call install_extra,docs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

sbom: $(STAMP) ## what gets installed with dictsplat, and its licences: release/sbom.json, docs/licences.md
	$(call install_extra,release)
	$(BIN)/python release/sbom.py release/sbom.json
	$(BIN)/python release/licences.py docs/licences.md

clean: ## remove build results, keep .venv and out/
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
