# `make demo` and `make test` need Python 3.11, the package registries and nothing else. Where they may, the tests bring
# a browser and the library that sets PDFs; without, the browser's test is skipped and says so.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
PINS   ?= constraints.txt

# Else every process of a test compiles what it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup system demo test fuzz lint bench clean

setup: $(VENV)/.ready

# What is imported compiles itself then, and most of what is installed never is: --no-compile halves the time.
# torch first and pinned: the unpinned wheel brings gigabytes of CUDA to a machine without a GPU. insightface without what
# it asks for: its opencv-python would overwrite the headless one, and the rest is here.
$(VENV)/.ready: pyproject.toml $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) --upgrade pip setuptools
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) --no-build-isolation -e '.[dev]'
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) --no-deps insightface
	touch $@

# Azure's emulator, for the tests; they are skipped, and say so, where there is no npm.
$(VENV)/azurite/.ready: tests/storage/azurite.txt
	mkdir -p $(VENV)/azurite
	npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite $$(cat $<) \
	  || echo "no Azurite here: Azure's tests will be skipped"
	touch $@

# The demo needs less than the tests do.
$(VENV)/.demo: pyproject.toml $(PINS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) --upgrade pip setuptools
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) torch==2.13.0
	$(BIN)/pip install --quiet --no-compile --constraint $(PINS) --no-build-isolation -e '.[run]' scikit-image
	touch $@

# checkov pins what anonlib needs newer, so it lives by itself.
$(VENV)/checkov/.ready: tests/infra/checkov.txt
	$(PYTHON) -m venv $(VENV)/checkov
	$(VENV)/checkov/bin/pip install --quiet --no-compile --constraint tests/infra/checkov.txt checkov
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict anonlib jobs/training

system:
	@command -v chromium chromedriver >/dev/null && ldconfig -p | grep -q libpangoft2-1.0 \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	          chromium chromium-driver libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 >/dev/null; } \
	  || echo "no chromium here: the browser's test will be skipped"

test: setup system $(VENV)/checkov/.ready $(VENV)/azurite/.ready
	$(BIN)/anonlib models pull --set demo
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=25

# More by `make fuzz INPUTS=100000 SEED=7`; `python -m tests.fuzz.fuzz --help` says what else there is.
INPUTS ?= 2000
SEED ?= 1
fuzz: setup
	$(BIN)/python -m tests.fuzz.fuzz --inputs $(INPUTS) --seed $(SEED)

demo: $(VENV)/.demo
	$(BIN)/anonlib models pull
	$(BIN)/python jobs/demo.py

bench: setup
	$(BIN)/anonlib models pull --set demo
	$(BIN)/python jobs/benchmark.py

clean:
	rm -rf demo .bench build dist
