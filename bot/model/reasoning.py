"""Keeps a model's reasoning out of its answer, if the server sends it as text."""

from __future__ import annotations

# Qwen 3 and DeepSeek R1; Magistral. If the chat template has written the first mark, nothing tells
# the reasoning from an answer until it ends: there the server needs its reasoning parser.
_MARKS = {"<think>": "</think>", "[THINK]": "[/THINK]"}
_MOST_BLANKS = 500  # before the first word


class ReasoningFilter:
    """Passes on streamed text without the reasoning at its beginning; marks elsewhere are text."""

    def __init__(self) -> None:
        self._passes = False
        self._held = ""
        self._end = ""  # the mark that ends the reasoning

    def add(self, delta: str) -> str:
        """Return the part of a delta that belongs to the answer."""
        if self._passes:
            return delta
        answer = self._held + delta
        if not self._end:
            begun = answer.lstrip()
            if any(mark.startswith(begun) for mark in _MARKS):
                self._held = answer[-_MOST_BLANKS:]
                return ""
            self._end = next((_MARKS[mark] for mark in _MARKS if begun.startswith(mark)), "")
        if self._end:
            # Only a mark, or the beginning of one, is kept: a thought can be long.
            _, mark, rest = answer.partition(self._end)
            self._held, answer = mark or answer[1 - len(self._end) :], rest.lstrip()
        self._passes = bool(answer)
        return answer

    def rest(self) -> str:
        """Return the text that is held back, at the end: it may have become a mark."""
        return "" if self._passes or self._end else self._held
