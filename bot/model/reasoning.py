"""Keeps a model's reasoning out of its answer, if the server sends it as text."""

from __future__ import annotations

# Qwen 3 and DeepSeek R1; Magistral. If the chat template has written the first mark, nothing tells
# the reasoning from an answer until it ends: there the server needs its reasoning parser.
_MARKS = {"<think>": "</think>", "[THINK]": "[/THINK]"}


class ReasoningFilter:
    """Passes on streamed text without the reasoning at its beginning.

    Marks elsewhere are text.
    """

    def __init__(self) -> None:
        self._passes = False
        self._held = ""
        self._end = ""  # the mark that ends the reasoning

    def add(self, delta: str) -> str:
        """Return the part of a delta that belongs to the answer."""
        if self._passes:
            return delta
        self._held += delta
        begun = self._held.lstrip()
        if not self._end:
            if any(mark.startswith(begun) for mark in _MARKS):
                return ""
            self._end = next((_MARKS[mark] for mark in _MARKS if begun.startswith(mark)), "")
        answer = begun.partition(self._end)[2].lstrip() if self._end else self._held
        self._passes = bool(answer)
        return answer

    def rest(self) -> str:
        """Return the text that is held back, at the end: it may have become a mark."""
        return "" if self._passes or self._end else self._held
