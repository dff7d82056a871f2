"""Log lines: nothing can forge one, and secrets are masked."""

from __future__ import annotations

import logging

from bot.app.logging import MaskingFormatter
from bot.text.sanitize import strip_controls
from config.settings import Settings

FORGERY = (
    "\x1b[2J\x9b31m\u202ebad\u2066\x00\x85\u2028\n2026-11-22 12:00:00,000 INFO bot: Stopped\r\n"
)


def formatted(message: str, *arguments: object, error: Exception | None = None) -> str:
    about = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("bot", logging.WARNING, "bot.py", 1, message, arguments, about)
    return MaskingFormatter(Settings(hf_token="hf_secret_of_ours")).format(record)


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
