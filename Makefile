# `make demo` and `make test` need Python 3.11, the package registries and nothing else.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test lint bench clean

setup: $(VENV)/.ready

# torch first and pinned: the unpinned wheel brings gigabytes of CUDA to a machine without a GPU.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict anonlib

test: setup
	$(BIN)/anonlib models pull --set demo
	$(BIN)/pytest

demo: setup
	$(BIN)/anonlib models pull --set demo
	$(BIN)/python jobs/demo.py

bench: setup
	$(BIN)/anonlib models pull --set demo
	$(BIN)/python jobs/benchmark.py

clean:
	rm -rf demo .bench build dist
