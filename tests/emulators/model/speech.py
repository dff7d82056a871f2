"""What the model reads and says: tokens, its template, an answer in pieces, and its limit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

_TOKEN = re.compile(r"\s*<\|\w+\|>|\s*\w+|\s*[^\w\s]|\s+")


def tokens(text: str) -> list[str]:
    """Return the tokens of a text, few enough to count by hand; joined they are the text again.

    A token is a word, a mark or one of the template's `<|signs|>`, with the white space before it;
    white space at the end is one more.
    """
    return _TOKEN.findall(text)


def render(messages: Iterable[Mapping[str, object]]) -> str:
    """Return the text that the model continues, in ChatML; its tokens are those of the prompt."""
    turns = [f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk of a stream brings, `pause` seconds after the chunk before.

    An event in its place holds the chunk back until it is set.
    """

    pause: float | asyncio.Event
    text: str

    async def rest(self) -> None:
        """Return when the chunk may go."""
        if isinstance(self.pause, asyncio.Event):
            await self.pause.wait()
        else:
            await asyncio.sleep(self.pause)


# Pauses and texts.
Script = Sequence[tuple[float | asyncio.Event, str]]
Answer = str | Script


@dataclass(frozen=True, slots=True)
class Speech:
    """An answer that keeps to its limit."""

    pieces: list[Piece]
    tokens: int
    finish_reason: Literal["stop", "length"]


def pieces(answer: Answer, *, chunk: int, first_delay: float, delay: float) -> list[Piece]:
    """Return a script's own pieces, or a text in pieces of `chunk` characters."""
    if isinstance(answer, str):
        return [
            Piece(delay if start else first_delay, answer[start : start + chunk])
            for start in range(0, len(answer), chunk)
        ]
    return [Piece(*piece) for piece in answer]


def speak(script: Sequence[Piece], *, limit: int | None) -> Speech:
    """Return what is said of a script, no more than `limit` tokens.

    As with real servers an answer that reaches its limit counts as cut, even if it was to end there
    anyway: the sign of the end would have been one token more.
    """
    found = tokens("".join(piece.text for piece in script))
    if limit is None or len(found) < limit:
        return Speech([*script], len(found), "stop")
    return Speech(_beginning(script, len("".join(found[:limit]))), limit, "length")


def _beginning(script: Sequence[Piece], length: int) -> list[Piece]:
    """Return the pieces up to `length` characters."""
    kept: list[Piece] = []
    for piece in script:
        if piece.text and length <= 0:
            break
        kept.append(replace(piece, text=piece.text[:length]))
        length -= len(piece.text)
    return kept
