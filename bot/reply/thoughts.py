"""What the model of one attempt thinks, for people who want to read it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bot.domain import NO_THOUGHT, Thought
from bot.text.sanitize import strip_controls

_MOST = 64_000  # characters: the end of a longer one
_APART = "\n\n"  # between what is thought before and after something else


class Thoughts:
    """Collects what a model thinks, behind what it has `earlier`; an `OnThought`.

    White space alone, which some models send, is no thought. `is_growing` until something else
    comes. `heard` is called when that begins, and then once a second.
    """

    def __init__(self, earlier: Thought = NO_THOUGHT) -> None:
        self.is_growing = False
        self.heard: Callable[[], None] = lambda: None
        self._last_at = 0.0  # loop time of the last piece
        self._kept: tuple[str, float] = earlier.text, earlier.seconds
        self(None)

    def __call__(self, piece: str | None) -> None:
        """Add a piece; with None, drop what was thought since `keep`."""
        if piece is None:
            text, self._seconds = self._kept
            self._pieces, self.is_growing = [text] if text else [], False
            return
        if not self.is_growing and not (piece := piece.lstrip()):
            return
        before, now = self.seconds, asyncio.get_running_loop().time()
        if self.is_growing:
            self._seconds += now - self._last_at
        elif self._pieces:
            self._pieces.append(_APART)
        is_news = not self.is_growing
        self._pieces.append(strip_controls(piece))
        self._last_at, self.is_growing = now, True
        if is_news or self.seconds != before:
            self.heard()

    def keep(self) -> None:
        """Keep what was thought: its request has ended well."""
        self._kept, self.is_growing = (self.value.text, self._seconds), False

    @property
    def seconds(self) -> int:
        """How long the model has thought, at least 1; 0 if it has not."""
        return max(round(self._seconds), 1) if self._pieces else 0

    @property
    def value(self) -> Thought:
        """All that was thought."""
        # Pieces are joined when they are read, because a join copies all of them.
        self._pieces = list(filter(None, ["".join(self._pieces)[-_MOST:]]))
        return Thought("".join(self._pieces), self.seconds)
