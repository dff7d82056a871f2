"""Tells what a model thinks from its answer, however the server sends it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

# Qwen 3 and DeepSeek R1; Magistral. If the chat template has written the first mark, nothing tells
# the reasoning from an answer until it ends: there the server needs its reasoning parser.
_MARKS = {"<think>": "</think>", "[THINK]": "[/THINK]"}
_MOST_BLANKS = 500  # before the first word


def thought_in(delta: dict[str, Any]) -> str:
    """Return what a delta has of the reasoning beside its text; its form is not trusted.

    That is `reasoning_content` (DeepSeek, llama.cpp, SGLang, older vLLM) or `reasoning` (vLLM,
    Ollama, OpenRouter); of both only one, in case a server sends the same twice. Magistral has
    parts of the content.
    """
    parts = delta.get("content")
    if isinstance(parts, list):
        with suppress(AttributeError, LookupError, TypeError):
            found = [one["thinking"] for one in parts if one.get("type") == "thinking"]
            return "".join(piece["text"] for pieces in found for piece in pieces)
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    return thought if isinstance(thought, str) else ""


class ReasoningFilter:
    """Passes on streamed text without the reasoning at its beginning; marks elsewhere are text.

    `thought` is the reasoning in the last delta.
    """

    def __init__(self) -> None:
        self.thought = ""
        self._passes = False
        self._held = ""
        self._end = ""  # the mark that ends the reasoning

    def add(self, delta: str) -> str:
        """Return the part of a delta that belongs to the answer."""
        self.thought = ""
        if self._passes:
            return delta
        answer = self._held + delta
        if not self._end:
            begun = answer.lstrip()
            if any(mark.startswith(begun) for mark in _MARKS):
                self._held = answer[-_MOST_BLANKS:]
                return ""
            if mark := next((mark for mark in _MARKS if begun.startswith(mark)), ""):
                self._end, answer = _MARKS[mark], begun.removeprefix(mark)
        if self._end:
            # Only a mark, or the beginning of one, is kept: a thought can be long.
            thought, mark, rest = answer.partition(self._end)
            self._held, answer = mark or answer[1 - len(self._end) :], rest.lstrip()
            self.thought = thought if mark else thought.removesuffix(self._held)
        self._passes = bool(answer)
        return answer

    def rest(self) -> str:
        """Return the text that is held back, at the end: it may have become a mark."""
        return "" if self._passes or self._end else self._held
