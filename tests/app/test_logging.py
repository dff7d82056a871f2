"""Log lines: nothing can forge one, and secrets are masked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from bot.app.logging import ColorFormatter, JsonFormatter, MaskingFormatter
from bot.concurrency import turn_in_work
from bot.text.sanitize import strip_controls
from tests.support.process import python
from tests.support.settings import settings_of

FORGERY = (
    "\x1b[2J\x9b31m\u202ebad\u2066\x00\x85\u2028\n2026-11-22 12:00:00,000 INFO bot: Stopped\r\n"
)


def formatted(message: str, *arguments: object, error: Exception | None = None) -> str:
    about = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("bot", logging.WARNING, "bot.py", 1, message, arguments, about)
    return MaskingFormatter(settings_of(hf_token="hf_secret_of_ours")).format(record)


def test_the_text_of_a_server_forges_no_line() -> None:
    line = formatted("The model failed: %s", FORGERY)

    assert len(line.splitlines()) == 1
    assert line == strip_controls(line)
    assert "bad" in line


def test_a_traceback_keeps_its_lines_and_forges_none() -> None:
    first, *others = formatted("Turn %s failed", "t1", error=ValueError(FORGERY)).splitlines()

    assert first.endswith("Turn t1 failed")
    assert any("ValueError" in line for line in others)
    assert all(line.startswith(" ") and line == strip_controls(line) for line in others)


def test_a_secret_between_control_characters_is_masked() -> None:
    line = formatted("refused: %s", "hf_sec\x1bret_of\u202e_ours")

    assert "***" in line
    assert "ours" not in line


# In a process of its own, because it changes the loggers of libraries.
_LONG_LOG = """
import logging, pathlib
from bot.app.logging import configure_logging
from config.settings import Settings
configure_logging(Settings(data_dir=pathlib.Path("data")), to_file=True)
for _ in range(25):
    logging.info("x" * 1_000_000)
"""


async def test_the_file_of_a_terminal_does_not_grow_for_ever(tmp_path: Path) -> None:
    async with python("-c", _LONG_LOG, folder=tmp_path, variables={}) as process:
        assert await process.communicate() == (b"", b"")

    files = list((tmp_path / "data").iterdir())
    assert {file.name for file in files} == {"parley.log", "parley.log.1"}
    assert sum(file.stat().st_size for file in files) < 25_000_000


@pytest.fixture
def at_work() -> Iterator[None]:
    token = turn_in_work.set("discord:7")
    yield
    turn_in_work.reset(token)


@pytest.mark.usefixtures("at_work")
def test_a_line_names_the_turn_on_which_its_task_works() -> None:
    assert formatted("The model failed").endswith("The model failed (turn discord:7)")
    assert formatted("Turn discord:7: the model failed").endswith(": the model failed")


@pytest.mark.usefixtures("at_work")
def test_a_line_in_json_is_one_masked_object_with_its_figures() -> None:
    error = ValueError('hf_"secret of ours')
    about = (type(error), error, None)
    record = logging.LogRecord("bot", logging.INFO, "bot.py", 1, "Turn %s\n ended", ("t1",), about)
    record.figures = {"outcome": "done", "tries": 1}
    line = JsonFormatter(settings_of(hf_token='hf_"secret')).format(record)

    found = json.loads(line)
    assert "\n" not in line
    assert "secret" not in line
    assert "ValueError: *** of ours" in found.pop("traceback")
    assert datetime.fromisoformat(found.pop("time")).tzinfo
    assert found == {
        "level": "info",
        "logger": "bot",
        "message": "Turn t1  ended",
        "turn": "discord:7",
        "outcome": "done",
        "tries": 1,
    }


@pytest.mark.parametrize(
    ("level", "begins"),
    [(logging.INFO, "\x1b[2m2"), (logging.WARNING, "\x1b[33m2"), (logging.ERROR, "\x1b[31m2")],
)
def test_a_line_at_a_terminal_is_colored_by_its_level(level: int, begins: str) -> None:
    record = logging.LogRecord("bot", level, "bot.py", 1, "Said \x1b[2Jthis", (), None)
    line = ColorFormatter(settings_of()).format(record)

    assert line.startswith(begins)
    assert "\x1b[2J" not in line
    assert line.count("\x1b") == 2
