"""A fault as somebody types it."""

from __future__ import annotations

import re
from collections.abc import Collection

from tests.emulators.faults import How, Terms
from tests.emulators.play.rooms import Impossible

_OPTIONS = ("times", "after", "retry_after", "seconds", "applied")


def read(text: str, hows: Collection[How]) -> tuple[str, How, Terms]:
    """Read `CALL HOW [NAME=VALUE …]` as the words of an emulator's `fail`.

    HOW is one of `hows`, or a status.
    Impossible, with a sentence, where the text says nothing.
    """
    words = text.split()
    by_word: dict[str, How] = {how: how for how in hows}
    for at, word in enumerate(words[1:], start=1):
        if word in by_word or re.fullmatch(r"[1-5]\d\d", word):
            told = options(words[at + 1 :], _OPTIONS)
            terms: Terms = {
                "status": 500 if word in by_word else int(word),
                "times": int(told.get("times", 1)),
                "after": int(told.get("after", 0)),
                "retry_after": told.get("retry_after"),
                "seconds": told.get("seconds", 0.0),
                "applied": bool(told.get("applied")),
            }
            return _call(words[:at]), by_word.get(word, "status"), terms
    raise Impossible(f"How is it to fail? CALL, then a status or one of {', '.join(by_word)}.")


def options(words: Collection[str], known: Collection[str]) -> dict[str, float]:
    """Read `NAME=VALUE …`, with the names that are known."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise Impossible(f"{name} is none of {', '.join(known)}.")
        found[name] = number(value)
    return found


def number(word: str) -> float:
    """Return the number above or at zero that a word is; Impossible when it is none."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise Impossible(f"{word or 'Nothing'} is no number that can be used here.")
    return value


def _call(words: list[str]) -> str:
    call = " ".join(words)
    try:
        re.compile(call)
    except re.error as error:
        raise Impossible(f"{call} is no regular expression: {error}.") from None
    return call
