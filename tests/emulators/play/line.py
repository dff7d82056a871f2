"""The line that somebody types at a terminal."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

_KEY = re.compile(r"\x1b\[[0-9;?]*[@-~]|\x1bO.|\x1b[^\[O]|[^\x1b]", re.DOTALL)
_NAMES = {
    "\r": "enter", "\n": "enter", "\x04": "end of input",
    "\x7f": "backspace", "\b": "backspace", "\x1b[3~": "delete",
    "\x15": "clear", "\x17": "word",
    "\x1b[D": "left", "\x1b[C": "right", "\x1b[A": "up", "\x1b[B": "down",
    "\x1b[H": "home", "\x1bOH": "home", "\x01": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x05": "end",
}  # fmt: skip


class Line:
    """A line with a cursor and the lines before it; it holds printable characters only."""

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unread = ""
        self._earlier: list[str] = []
        self._back = 0  # how many lines ago

    def type(self, keys: bytes) -> Iterator[str | None]:
        """Take what a terminal sent; yield each line at its end, and None at the end of input."""
        self._unread += self._decoder.decode(keys)
        while key := _KEY.match(self._unread):
            self._unread = self._unread[key.end() :]
            name = _NAMES.get(key[0], "")
            if name == "enter":
                yield self._taken()
            elif name == "end of input":
                if not self.text:
                    yield None
            elif name:
                self._press(name)
            elif key[0].isprintable():
                self._put(key[0])

    def _taken(self) -> str:
        line = self.text
        if line.strip() and line not in self._earlier[-1:]:
            self._earlier.append(line)
        self._back = 0
        self._become("")
        return line

    def _press(self, name: str) -> None:
        match name:
            case "left":
                self.cursor = max(0, self.cursor - 1)
            case "right":
                self.cursor = min(len(self.text), self.cursor + 1)
            case "home":
                self.cursor = 0
            case "end":
                self.cursor = len(self.text)
            case "up":
                self._recall(self._back + 1)
            case "down":
                self._recall(self._back - 1)
            case "delete":
                self._cut(self.cursor, self.cursor + 1)
            case "backspace":
                self._cut(max(0, self.cursor - 1), self.cursor)
            case "clear":
                self._cut(0, self.cursor)
            case "word":
                before = self.text[: self.cursor].rstrip()
                self._cut(before.rfind(" ") + 1, self.cursor)

    def _recall(self, back: int) -> None:
        if 0 <= back <= len(self._earlier):
            self._back = back
            self._become(self._earlier[-back] if back else "")

    def _become(self, text: str) -> None:
        self.text, self.cursor = text, len(text)

    def _put(self, text: str) -> None:
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)

    def _cut(self, start: int, end: int) -> None:
        self.text, self.cursor = self.text[:start] + self.text[end:], start
