# make demo: the whole way on real data, minutes on two cores.   make test: every check but the slow ones.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2  # processes of `make test` and `make test-slow`: each takes up to a gigabyte
# Without --no-compile pip compiles every module of every package, most of which nobody imports.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow lint picture bench bench-training bench-serve floors faults mutants
demo: .venv/.demo
	$(BIN)/python train.py model=minilm data=reviews prune=fixed50 quant=int8

test: .venv/.test
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not timed"
	$(BIN)/python -m pytest -q -m "timed and not slow"

test-slow: .venv/.ray
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "slow and not timed"
	$(BIN)/python -m pytest -q -m "slow and timed"

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/biome ci .
	$(BIN)/pyright --pythonpath $(BIN)/python

picture: .venv/.demo  # make picture REPORT=results/sweeps/ID/report.html, or of made-up points; needs Chromium
	$(BIN)/python docs/screenshot.py $(REPORT)

bench: .venv/.demo  # make bench DATA=DIR: the speed of this project's files beside other runtimes, in turns
	$(BIN)/python benchmarks/peers/bench.py --data $(DATA)

bench-training: .venv/.demo  # make bench-training DATA=DIR: steps a second beside the Hugging Face Trainer, in turns
	$(BIN)/python benchmarks/peers/training.py --data $(DATA)

bench-serve: .venv/.test  # make bench-serve BUNDLE=results/ID/bundle DATA=DIR: the server under load
	$(BIN)/python benchmarks/serve.py --bundle $(BUNDLE) --data $(DATA)

# A .venv of another Python, or one without pip, would be taken for whole the next time.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed, $(PYTHON) is another one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv || { rm -f $@; exit 1; }

.venv/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the packages of constraints.txt into .venv (a minute or two)"
	$(PIP_INSTALL) --editable ".[train]"
	touch $@

.venv/.test: .venv/.demo
	$(PIP_INSTALL) --editable ".[test]"
	touch $@

# Ray is large, and one slow test wants it.
.venv/.ray: .venv/.test
	$(PIP_INSTALL) --editable ".[ray]"
	touch $@

floors:  # the floors of optim/, and every import that goes up or round
	$(PYTHON) tests/floors.py

faults: .venv/.test  # makes the faults of tests/faults.toml one by one, and sees their tests fail: ten minutes
	$(BIN)/python tests/faults.py $(WORDS)

mutants: .venv/.test  # make mutants MINUTES=30: a random sample of mutants, resumed where the last call stopped
	$(BIN)/python tests/mutants.py --minutes $(or $(MINUTES),30)
