"""What stands on the output: plain lines for a pipe, or a terminal's end that is drawn anew."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from bot.text.sanitize import strip_controls

_NO_WRAP, _WRAP, _CLEAR = "\x1b[?7l", "\x1b[?7h", "\r\x1b[J"


class PlainStage:
    """Prints each new state of each message, for other programs and for files."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._shown: Mapping[str, str] = {}
        self._signs: Sequence[str] = ()

    def note(self, text: str) -> None:
        """Print something that is no message."""
        self._output.write(f"{_clean(text)}\n")
        self._output.flush()

    def show(self, messages: Mapping[str, str], signs: Sequence[str], prompt: str) -> None:
        """Show these messages, each text with a key that stays, and what is going on below."""
        for text in _news(messages, self._shown):
            self.note(text)
        for sign in signs:
            if sign not in self._signs:
                self.note(sign)
        self._shown, self._signs = messages, signs

    def forget(self) -> None:
        """Let all messages be new."""
        self._shown, self._signs = {}, ()

    def leave(self) -> None:
        """End; all stands there already."""


class LiveStage:
    """Draws what is new, and below it the line that is being typed, in place until it is settled.

    What scrolled out of the terminal cannot be drawn anew, so of long news only the end is shown
    until they are settled.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._messages: Mapping[str, str] = {}
        self._settled: Mapping[str, str] = {}
        self._signs: Sequence[str] = ()
        self._prompt, self._typed, self._cursor = "", "", 0
        self._above = 0  # rows between the first one drawn and the cursor's

    def note(self, text: str) -> None:
        """Print something that is no message, above what may still change."""
        self._draw(above=[text])

    def show(self, messages: Mapping[str, str], signs: Sequence[str], prompt: str) -> None:
        """Show these messages, each text with a key that stays, and what is going on below."""
        shown = messages, signs, prompt
        if shown != (self._messages, self._signs, self._prompt):
            self._messages, self._signs, self._prompt = shown
            self._draw()

    def forget(self) -> None:
        """Let all messages be new."""
        self._settled = {}
        self._messages = {}

    def type(self, text: str, cursor: int) -> None:
        """Show the line that is being typed."""
        self._typed, self._cursor = text, cursor
        self._draw()

    def settle(self, line: str) -> None:
        """Let what is new stand for good, and this line with it."""
        news = [*_news(self._messages, self._settled)]
        self._settled = self._messages
        self._typed, self._cursor = "", 0
        self._draw(above=[*news, f"{self._prompt}{line}"])

    def leave(self) -> None:
        """Let what is new stand for good, and leave the cursor below it."""
        news = [*_news(self._messages, self._settled)]
        self._settled, self._signs = self._messages, ()
        self._prompt, self._typed, self._cursor = "", "", 0
        self._draw(above=news)

    def _draw(self, *, above: Sequence[str] = ()) -> None:
        """Draw all that is not settled, after lines that stand for good."""
        width, height = _size(self._output)
        fixed = [row for text in above for row in _rows(text, width)]
        news = [*_news(self._messages, self._settled), *self._signs]
        rows = [row for text in news for row in _rows(text, width)]
        rows = rows[-max(1, height - 2) :]
        line, column = _part(self._prompt + self._typed, len(self._prompt) + self._cursor, width)
        up = f"\x1b[{self._above}A" if self._above else ""
        right = f"\x1b[{column}C" if column else ""
        drawn = "\n".join([*fixed, *rows, line])
        self._output.write(f"{up}{_CLEAR}{_NO_WRAP}{drawn}{_WRAP}\r{right}")
        self._output.flush()
        self._above = len(rows)


Stage = PlainStage | LiveStage


def _news(messages: Mapping[str, str], known: Mapping[str, str]) -> Iterator[str]:
    return (text for key, text in messages.items() if known.get(key) != text)


def _clean(text: str) -> str:
    return strip_controls(text).replace("\u200b", "").expandtabs(4)


def _size(output: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(output.fileno())
    except OSError:
        return 80, 24
    # A terminal that knows no size says zero.
    return size.columns or 80, size.lines or 24


def _rows(text: str, width: int) -> Iterator[str]:
    """Yield what a terminal of this width shows; a line goes on a little further to the right."""
    for line in _clean(text).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        rest = line
        while _cells(rest) > width:
            end = _fitting(rest, width)
            blank = rest.rfind(" ", len(indent), end + 1)
            cut = blank if blank > 0 else end
            yield rest[:cut]
            rest = indent[: width // 2] + rest[cut:].lstrip(" ")
        yield rest


def _part(line: str, cursor: int, width: int) -> tuple[str, int]:
    """Return the part of a line around the cursor that fits, and the cursor's column in it."""
    start = 0
    while _cells(line[start:cursor]) >= width:
        start += 1
    part = line[start:]
    return part[: _fitting(part, width)], _cells(line[start:cursor])


def _fitting(text: str, width: int) -> int:
    """Return how many characters fit, at least one."""
    cells = 0
    for number, character in enumerate(text):
        cells += _cells(character)
        if cells > width:
            return max(1, number)
    return len(text)


def _cells(text: str) -> int:
    """Return how many cells of a terminal the text takes."""
    return sum(
        0 if unicodedata.combining(it) else 2 if unicodedata.east_asian_width(it) in "WF" else 1
        for it in text
    )
