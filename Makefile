# Every target is one line that calls a tool; `make help` lists them.
PYTHON ?= python3
METHOD ?= softras
DATA ?= synthetic
PRESET ?= quick
SEED ?= 0
DEVICES ?= 1
ARGS ?=
SUITE ?= quick
BIN := .venv/bin
STAMP := .venv/.installed
FLAGS := $(if $(filter 1,$(WANDB)),--wandb,) $(if $(filter 1,$(FORCE)),--force,)

.PHONY: help setup lint type test test-slow bench suite leaderboard leaderboard-check gallery dashboard doctor kernels constraints clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv with the pinned set (about a minute; nothing is compiled)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[open-shapes,wandb,tensorboard]' --group dev
	touch $(STAMP)

lint: setup  ## ruff, mypy, import layers
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

test: setup  ## the quick test suite
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup  ## every test
	$(BIN)/python -m pytest

bench: setup  ## run one cell: METHOD=softras [DATA=synthetic] [PRESET=quick] [SEED=0] [DEVICES=1] [WANDB=1] [FORCE=1] [ARGS=...]
	$(BIN)/recon3d bench --method $(METHOD) --data $(DATA) --preset $(PRESET) --seed $(SEED) --devices $(DEVICES) $(FLAGS) $(ARGS)

suite: setup  ## run what is not finished of a suite: SUITE=quick [DEVICES=1] [WANDB=1] [FORCE=1] [ARGS="--seeds 0"]
	$(BIN)/recon3d suite $(SUITE) $(if $(filter-out 1,$(DEVICES)),--devices $(DEVICES),) $(FLAGS) $(ARGS)

leaderboard: setup  ## render leaderboard/ and the README's tables from the Records
	$(BIN)/recon3d leaderboard

leaderboard-check: setup  ## fail when a generated page is stale
	$(BIN)/recon3d leaderboard --check

gallery: setup  ## a web page of every method's meshes in gallery/: [ARGS="--data synthetic --samples 30"]
	$(BIN)/recon3d gallery $(ARGS)

dashboard: setup  ## compare runs on W&B: [ARGS="--kind report --entity TEAM"]
	$(BIN)/recon3d dashboard $(ARGS)

doctor: setup  ## what works on this machine, and what to do about the rest
	$(BIN)/recon3d doctor

kernels: setup  ## measure the kernels (benchmarks/kernels), JSON to benchmarks/results
	for file in benchmarks/kernels/bench_*.py; do $(BIN)/python -m benchmarks.kernels.$$(basename $$file .py) || exit 1; done

constraints: setup  ## pin the newest versions that fit pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --universal --all-extras --group dev --no-emit-index-url --no-annotate --no-header -o constraints.txt

clean:  ## remove what can be made again, except data and runs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
