"""Estimates the tokens of a prompt, and counts those of a turn."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from bot.domain import Delta, Message, Picture, Reading, Retrying, Used

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


@dataclass(frozen=True, slots=True)
class Bill:
    """What models have read and written for a turn, by their names.

    `unreported` are requests that a server may charge for and has not counted: a worker has died,
    or a person has stopped the answer. Of one that brought no text yet, nothing is known.
    """

    counted: Mapping[str, Used] = field(default_factory=dict)
    unreported: tuple[tuple[str, Used], ...] = ()

    @property
    def by_model(self) -> Mapping[str, Used]:
        """All together, by model."""
        found = dict(self.counted)
        for model, used in self.unreported:
            found[model] = _sum(found.get(model), used)
        return found

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(one.read + one.written for one in self.by_model.values())


class Meter:
    """Counts the tokens that a turn uses, `before` by earlier attempts.

    They are estimated if the server does not report them or the answer did not end. What comes
    before the model has begun to read is text of an earlier attempt. A request that an earlier
    attempt left unreported is repeated with the same prompt, so it has read what this one reads.
    """

    def __init__(self, before: Bill | None = None) -> None:
        self._before = before or Bill()
        self._ended: dict[str, Used] = {}  # by ended attempts at a model
        self._model = ""  # that is asked now
        self._is_asked = False  # and has not answered yet
        self._under_way: Used | None = None
        self._is_reported = False
        self._texts: list[str] = []  # not counted yet in the running attempt
        # The tokens of the first prompt: as the server counted them, and as we do.
        self._first_read = self._first_estimate = 0

    @property
    def used(self) -> Used:
        """What this attempt at the turn has read and written so far."""
        ended = (*self._ended.values(), self._now)
        return Used(sum(one.read for one in ended), sum(one.written for one in ended))

    @property
    def bill(self) -> Bill:
        """What all attempts have used so far, earlier ones included."""
        counted, unreported = dict(self._before.counted), list[tuple[str, Used]]()
        for model, used in self._before.unreported:
            read = self._first_read or used.read or self._first_estimate
            unreported.append((model, Used(read, used.written)))
        if self._first_read:
            counted, unreported = {**Bill(counted, tuple(unreported)).by_model}, []
        for model, used in self._ended.items():
            counted[model] = _sum(counted.get(model), used)
        if self._under_way and self._is_reported:
            counted[self._model] = _sum(counted.get(self._model), self._now)
        elif self._under_way or self._is_asked:
            unreported.append((self._model, self._now))
        return Bill(counted, tuple(unreported))

    def note(self, delta: Delta) -> None:
        """Count a delta."""
        match delta:
            case str() if self._under_way:
                self._texts.append(delta)
            case Reading():
                self._end()
                self._model = delta.model or self._model
                if delta.is_answered:
                    self._under_way = Used(delta.tokens, 0)
                    self._first_estimate = self._first_estimate or delta.tokens
                self._is_asked = not delta.is_answered
            case Retrying():
                # A request that failed before its first word costs nothing.
                self._end()
            case Used():
                # A server without counts sends zeros.
                read = self._under_way.read if self._under_way else 0
                self._under_way = Used(delta.read or read, delta.written)
                self._is_reported = bool(delta.read and delta.written)
                self._first_read = self._first_read or delta.read
                if delta.written:
                    self._texts.clear()

    @property
    def _now(self) -> Used:
        now = self._under_way or Used(0, 0)
        return Used(now.read, now.written + (estimate("".join(self._texts)) if self._texts else 0))

    def _end(self) -> None:
        if self._under_way:
            self._ended[self._model] = _sum(self._ended.get(self._model), self._now)
        self._texts.clear()
        self._under_way, self._is_reported, self._is_asked = None, False, False


def _sum(one: Used | None, other: Used) -> Used:
    return Used(one.read + other.read, one.written + other.written) if one else other
