# Each target does its own set-up: a virtual environment, by default in .venv, with what it needs installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test check docs dist check-dist bench bench-accelerators clean

train: $(VENV)/.train          ## train on MNIST (or the bundled digits): make train ARGS="--dataset digits --epochs 5"
	$(BIN)/python -m train $(ARGS)

test: $(VENV)/.test            ## run the test suite: make test ARGS="-k linen"
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/.dev            ## ruff, pyright, and which room of train imports which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

# In an environment of its own. Warnings, such as of a link that leads nowhere, are errors.
docs: DOCS := .venv-docs
docs:                          ## the pages of docs/ as a site, in .site/html
	$(MAKE) VENV=$(DOCS) $(DOCS)/.docs
	$(DOCS)/bin/python -m sphinx -E -W --keep-going -b html -d .site/doctrees $(ARGS) docs .site/html

dist: $(BIN)/python            ## the source distribution and the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build

# README's first example, in an environment that has nothing but the wheel and what it depends on.
check-dist: EMPTY := .venv-dist
check-dist:                    ## try the wheel in dist/: make check-dist PYTHON=python3.13
	rm -rf $(EMPTY)
	$(PYTHON) -m venv $(EMPTY)
	$(EMPTY)/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	awk '/^```python$$/ { inside = 1; next } inside && /^```$$/ { exit } inside' README.md > $(EMPTY)/example.py
	cd $(EMPTY) && bin/python -I example.py
	cd $(EMPTY) && bin/python -I -c 'import jaxbn, jaxbn.linen, jaxbn.nnx; print("jaxbn", jaxbn.__version__)'

# The figures and their pictures go to .bench; those of docs/performance are made without --quick, on a quiet machine.
bench: DATA_DIR = $(if $(DATA),--data-dir "$(DATA)")
bench: $(VENV)/.bench          ## accuracy and speed beside the other libraries: make bench DATA=folder-with-MNIST
	$(BIN)/python -m benchmarks.exactness --json .bench/exactness.json
	$(BIN)/python -m benchmarks.any_data --json .bench/any_data.json
	$(BIN)/python -m benchmarks.layer --quick --json .bench/layer.json
	$(BIN)/python -m benchmarks.train_step --json .bench/train_step.json
	$(BIN)/python -m benchmarks.time_to_accuracy --quick $(DATA_DIR) --json .bench/time_to_accuracy.json
	$(BIN)/python -m benchmarks.memory --json .bench/memory.json
	$(BIN)/python -m benchmarks.step_memory --json .bench/step_memory.json
	$(BIN)/python -m benchmarks.collectives --json .bench/collectives.json
	$(BIN)/python -m benchmarks.scaling --json .bench/scaling.json
	$(BIN)/python -m benchmarks.inference $(DATA_DIR) --json .bench/inference.json
	$(BIN)/python -m benchmarks.startup $(if $(DATA),--dataset mnist $(DATA_DIR)) --json .bench/startup.json
	$(BIN)/python -m benchmarks.plots --to .bench
	$(BIN)/python -m benchmarks.summary

# In an environment of its own: compilers for GPUs and TPUs, of fixed versions.
bench-accelerators: ACCELERATORS := .venv-accelerators
bench-accelerators:            ## bytes moved on an H100 and on TPUs, neither needed: make bench-accelerators ARGS="--quick --targets h100"
	$(MAKE) VENV=$(ACCELERATORS) $(ACCELERATORS)/.accelerators
	$(ACCELERATORS)/bin/python -m benchmarks.accelerators --json .bench/accelerators.json $(ARGS)

$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jaxbn needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV)
