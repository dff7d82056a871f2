"""A fault as somebody types it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.emulators.play.rooms import Breakable, Impossible

_OPTIONS = ("times", "after", "retry_after", "seconds", "applied")
_How = TypeVar("_How", bound=str)


@dataclass(frozen=True, slots=True)
class Trouble(Generic[_How]):
    """What goes wrong with which call; the words are those of `Faults.add`."""

    call: str
    how: _How
    status: int
    options: dict[str, float] = field(default_factory=dict)

    def befall(self, emulator: Breakable[_How]) -> None:
        """Let it happen."""
        emulator.fail(
            self.call,
            self.how,
            status=self.status,
            times=int(self.options.get("times", 1)),
            after=int(self.options.get("after", 0)),
            retry_after=self.options.get("retry_after"),
            seconds=self.options.get("seconds", 0.0),
            applied=bool(self.options.get("applied")),
        )


def read(text: str, hows: Collection[_How], status: _How) -> Trouble[_How]:
    """Read `CALL HOW [NAME=VALUE …]`; Impossible, with a sentence, where it says nothing.

    HOW is one of `hows`, or a number, which is that of a `status`.
    """
    words = text.split()
    by_word = {str(how): how for how in hows}
    for at, word in enumerate(words[1:], start=1):
        if word in by_word or re.fullmatch(r"[1-5]\d\d", word):
            number = 500 if word in by_word else int(word)
            told = options(words[at + 1 :], _OPTIONS)
            return Trouble(_call(words[:at]), by_word.get(word, status), number, told)
    raise Impossible(f"How is it to fail? CALL, then a status or one of {', '.join(by_word)}.")


def options(words: Collection[str], known: Collection[str]) -> dict[str, float]:
    """Read `NAME=VALUE …`, with the names that are known."""
    return dict(_option(word, known) for word in words)


def _call(words: list[str]) -> str:
    call = " ".join(words)
    try:
        re.compile(call)
    except re.error as error:
        raise Impossible(f"{call} is no regular expression: {error}.") from None
    return call


def _option(word: str, known: Collection[str]) -> tuple[str, float]:
    name, _, value = word.partition("=")
    if name not in known:
        raise Impossible(f"{name} is none of {', '.join(known)}.")
    return name, number(value)


def number(word: str) -> float:
    """Return the number above or at zero that a word is; Impossible when it is none."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise Impossible(f"{word or 'Nothing'} is no number that can be used here.")
    return value
