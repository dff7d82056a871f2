"""Progress of the start: bars at a terminal, lines in a log."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from bot.local.progress import LoggedProgress, shown_progress
from bot.local.transformers_model import tells_progress

BAR = "model.safetensors:  45%|####5     | 122M/270M [00:03<00:04, 40.0MB/s]"


class TerminalText(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_log_has_a_line_for_each_tenth(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = LoggedProgress()
    for percent in range(101):
        progress("Downloading it", percent / 100)
    progress("Loading it", None)

    assert caplog.messages == [
        *(f"Downloading it: {tenth * 10} %" for tenth in range(11)),
        "Loading it",
    ]


def test_a_terminal_has_bars_until_the_start_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("rich", reason="bars need requirements-terminal.txt")
    caplog.set_level(logging.INFO)
    terminal = TerminalText()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown_progress(at_terminal=True) as progress:
        progress("Downloading [it]", 0.5)
    progress("Loading it", 0.1)

    assert "Downloading [it]" in terminal.getvalue()
    assert "50%" in terminal.getvalue()
    assert caplog.messages == ["Loading it: 10 %"]


def test_bars_of_libraries_are_progress_and_no_errors() -> None:
    told: list[tuple[str, float | None]] = []

    assert tells_progress(BAR, lambda *each: told.append(each))
    assert not tells_progress("OSError: 45% is missing", lambda *each: told.append(each))
    assert told == [("model.safetensors", 0.45)]
