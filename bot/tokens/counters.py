"""Estimates the tokens of a prompt, and counts those of a turn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeGuard

from bot.domain import Delta, Message, Picture, Reading, Used

# The tokens that a chat template adds to a message: 1 to 7 as control tokens, 10 to 18 if the
# vocabulary spells its marks as text (templates of llama.cpp, src/llama-chat.cpp, run).
MESSAGE_OVERHEAD = 8

# Of a picture: patches of 28 pixels, of a longest side of 1540 pixels, each row with a mark
# (mistral-common, tokens/tokenizers/image.py, for Mistral Small 3.1 and Ministral 3), which larger
# ones are scaled down to. Gemma 3 reads 256 of any picture, and Qwen 2.5 VL all patches; the server
# refuses what exceeds its context.
_PATCH, _LEAST_OF_PICTURE, _MOST_OF_PICTURE = 28, 256, 55 * 56

_MOST_TOKENS = 10**9  # far above any context, and sums stay numbers

# ASCII as vocabularies cut it: the beginning of a word, pairs of its further letters, a run of
# spaces, any other character; one space belongs to the word after it. Emoji count once more here.
_PIECE = re.compile(r"(?<![a-z])[A-Z]?[a-z]{1,5}|[a-z]{1,2}| {2,8}|[^\x80-\uffffa-z ]")
_AT_ONCE = 10_000  # characters: in between, another thread goes on
_PER_BYTE = 0.5  # tokens, of a character beyond ASCII
_REMEMBERED_TEXTS = 20_000  # a thread's history is counted again with every turn


def estimate(text: str) -> int:
    """Return about as many tokens as common tokenizers find, and never more than it has bytes."""
    size = len(text.encode("utf-8", "surrogatepass"))  # JSON may bring half a surrogate pair
    beyond_ascii = size - len(text.encode("ascii", "ignore"))
    parts = range(0, len(text), _AT_ONCE)
    pieces = sum(len(_PIECE.findall(text, at, at + _AT_ONCE)) for at in parts)
    return min(pieces + math.ceil(_PER_BYTE * beyond_ascii), size)


def picture_tokens(picture: Picture) -> int:
    """Return about the most tokens that common models read of a picture."""
    patches = (picture.width // _PATCH + 1) * (picture.height // _PATCH + 1)
    return min(patches + _LEAST_OF_PICTURE, _MOST_OF_PICTURE)


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value from a server can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


class TokenEstimator:
    """Counts texts by the estimate, and a template by an allowance.

    `share` is the part of a context that a prompt may fill by this count, and `ratio` that of a
    server's latest counts to these.
    """

    share = 0.75

    def __init__(self, count: Callable[[str], int] = estimate) -> None:
        self.ratio = 1.0
        self._tokens = count
        self._known: dict[tuple[int, int], int] = {}  # by hash, so that no text is stored

    def count(self, prompt: Sequence[Message]) -> int:
        """Return about the tokens of a prompt."""
        pictures = sum(picture_tokens(one) for message in prompt for one in message.pictures)
        texts = [one.text for one in prompt]
        texts += (f"{call.name} {call.arguments}" for one in prompt for call in one.calls)
        return pictures + sum(self._count(text) + MESSAGE_OVERHEAD for text in texts)

    def _count(self, text: str) -> int:
        key = hash(text), len(text)
        if (found := self._known.get(key)) is None:
            if len(self._known) >= _REMEMBERED_TEXTS:
                self._known.clear()
            found = self._known[key] = self._tokens(text)
        return found


class Meter:
    """Counts the tokens that a turn uses, `before` by earlier attempts.

    They are estimated if the server does not report them or the answer did not end. What comes
    before the model has begun to read is text of an earlier attempt.
    """

    def __init__(self, before: int = 0) -> None:
        self._before = before
        self._read = self._written = 0  # by ended attempts at a model
        self._under_way: Used | None = None
        self._texts: list[str] = []  # not counted yet in the running attempt

    @property
    def used(self) -> Used:
        """What this attempt at the turn has read and written so far."""
        now = self._under_way or Used(0, 0)
        unseen = estimate("".join(self._texts)) if self._texts else 0
        return Used(self._read + now.read, self._written + now.written + unseen)

    @property
    def tokens(self) -> int:
        """Tokens read and written so far, earlier attempts included."""
        return self._before + self.used.read + self.used.written

    def note(self, delta: Delta) -> None:
        """Count a delta."""
        if isinstance(delta, str) and self._under_way:
            self._texts.append(delta)
        elif isinstance(delta, Reading):
            self._read, self._written = self.used.read, self.used.written
            self._texts.clear()
            self._under_way = Used(delta.tokens, 0)
        elif isinstance(delta, Used):
            # A server without counts sends zeros.
            read = self._under_way.read if self._under_way else 0
            self._under_way = Used(delta.read or read, delta.written)
            if delta.written:
                self._texts.clear()
