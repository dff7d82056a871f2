"""A fault as somebody types it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import get_args

from tests.emulators.faults import How
from tests.emulators.play.rooms import Breakable, Impossible

_HOWS: dict[str, How] = {how: how for how in get_args(How)}
_OPTIONS = ("times", "after", "retry_after", "seconds", "applied")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong with which call; the words are those of `Faults.add`."""

    call: str
    how: How
    status: int
    options: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Trouble:
        """Read `CALL HOW [NAME=VALUE …]`; Impossible, with a sentence, where it says nothing."""
        words = text.split()
        for at, word in enumerate(words[1:], start=1):
            if word in _HOWS or re.fullmatch(r"[1-5]\d\d", word):
                status = 500 if word in _HOWS else int(word)
                options = dict(_option(each) for each in words[at + 1 :])
                return cls(_call(words[:at]), _HOWS.get(word, "status"), status, options)
        raise Impossible(f"How is it to fail? CALL, then a status or one of {', '.join(_HOWS)}.")

    def befall(self, emulator: Breakable) -> None:
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


def _call(words: list[str]) -> str:
    call = " ".join(words)
    try:
        re.compile(call)
    except re.error as error:
        raise Impossible(f"{call} is no regular expression: {error}.") from None
    return call


def _option(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    if name not in _OPTIONS:
        raise Impossible(f"{name} is none of {', '.join(_OPTIONS)}.")
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
