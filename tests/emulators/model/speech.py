"""What the model says, and when: an answer in pieces, and where its limits cut it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tests.emulators.model.tokens import tokens

What = Literal["content", "reasoning", "null", "empty", "comment"]

_COUNTED: frozenset[What] = frozenset({"content", "reasoning"})  # as tokens


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk of a stream brings, `pause` seconds after the chunk before.

    An event in its place holds the chunk back until it is set.
    "content" is text of the answer and "reasoning" what the model thinks before it; "null" is a
    chunk whose content is null, "empty" one without choices, and "comment" a line that is no chunk,
    by which servers keep a slow connection alive.
    """

    pause: float | asyncio.Event
    text: str = ""
    what: What = "content"

    async def rest(self) -> None:
        """Return when the chunk may go."""
        if isinstance(self.pause, asyncio.Event):
            await self.pause.wait()
        else:
            await asyncio.sleep(self.pause)


# A tuple is a piece of content: its pause and its text.
Script = Sequence[Piece | tuple[float | asyncio.Event, str]]
Answer = str | Script


@dataclass(frozen=True, slots=True)
class Speech:
    """An answer that keeps to its limits; `tokens` counts what the model thinks, too."""

    pieces: list[Piece]
    tokens: int
    finish_reason: Literal["stop", "length"]

    def text(self, what: What) -> str:
        """Return all text of one kind."""
        return "".join(piece.text for piece in self.pieces if piece.what == what)


def pieces(answer: Answer, *, chunk: int, first_delay: float, delay: float) -> list[Piece]:
    """Return a script's own pieces, or a text in pieces of `chunk` characters."""
    if isinstance(answer, str):
        return [
            Piece(delay if start else first_delay, answer[start : start + chunk])
            for start in range(0, len(answer), chunk)
        ]
    return [piece if isinstance(piece, Piece) else Piece(*piece) for piece in answer]


def speak(script: Sequence[Piece], *, stops: Collection[str], limit: int | None) -> Speech:
    """Return what is said of a script: not from the first of `stops` on, nor beyond `limit` tokens.

    As with real servers an answer that reaches its limit counts as cut, even if it was to end there
    anyway: the sign of the end would have been one token more.
    """
    said = _beginning(script, _stop(script, stops), {"content"})
    found = tokens("".join(piece.text for piece in said if piece.what in _COUNTED))
    if limit is None or len(found) < limit:
        return Speech(said, len(found), "stop")
    length = len("".join(found[:limit]))
    return Speech(_beginning(said, length, _COUNTED), limit, "length")


def _stop(script: Sequence[Piece], stops: Collection[str]) -> int:
    """Return how much of the content comes before the first of the stop strings."""
    content = "".join(piece.text for piece in script if piece.what == "content")
    return min([content.find(stop) for stop in stops if stop in content], default=len(content))


def _beginning(script: Sequence[Piece], length: int, kinds: Collection[What]) -> list[Piece]:
    """Return the pieces up to `length` characters of these kinds."""
    kept: list[Piece] = []
    for piece in script:
        if piece.what not in kinds:
            kept.append(piece)
            continue
        if piece.text and length <= 0:
            break
        kept.append(replace(piece, text=piece.text[:length]))
        length -= len(piece.text)
    return kept
