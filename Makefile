# Each target does its own set-up: a virtual environment in .venv, with what it needs installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test check bench clean

train: .venv/.train          ## train on MNIST (or the bundled digits): make train ARGS="--dataset digits --epochs 5"
	$(BIN)/python -m train $(ARGS)

test: .venv/.test            ## run the test suite: make test ARGS="-k linen"
	$(BIN)/python -m pytest -n auto $(ARGS)

check: .venv/.dev            ## ruff and pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/.bench          ## accuracy and speed beside the other libraries
	$(BIN)/python -m benchmarks.exactness
	$(BIN)/python -m benchmarks.layer --quick
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.collectives
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.startup

.venv/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jaxbn needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv
