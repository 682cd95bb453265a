# demo and test do all of their own set-up, in .venv.
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT ?= demo
export OMP_WAIT_POLICY := passive
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check bench dry-run format
.DEFAULT_GOAL := test

.venv/installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/* csrc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt setuptools pybind11 ninja
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/rac demo --out $(DEMO_OUT)

test: .venv/installed
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: export OMP_PROC_BIND := true
bench: .venv/installed
	for bench in hessian capture decode sample attention sparsegpt factor masks pack linear throughput eval demo prune peers; do \
	  $(BIN)/python -m benchmarks.bench_$$bench --out benchmarks/results || exit 1; \
	done
	$(BIN)/python -m benchmarks.tables --write

# What benchmarks/gpu.sh would run on a GPU, on a CPU that passes for one; some five minutes.
dry-run: .venv/installed
	PYTHON=$(BIN)/python benchmarks/gpu.sh --dry-run
