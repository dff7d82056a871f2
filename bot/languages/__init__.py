"""The sentences that people read, in their language; what operators read stays English.

A catalogue is a JSON object by the English sentence, whose `{names}` its translation has, too. A
sentence that a catalogue lacks is said in English.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path

# As each calls itself.
LANGUAGES: Mapping[str, str] = {
    "en": "English",
    "de": "Deutsch",
    "fr": "Français",
    "es": "Español",
    "ja": "日本語",
}
# Between the thousands of a number: narrow spaces in French.
_THOUSANDS = {"de": ".", "fr": "\u202f", "es": "."}
_spoken: ContextVar[str] = ContextVar("spoken", default="en")


def known(*locales: str | None) -> str:
    """Return the language of the first locale that has one here, such as "de" for "de-AT".

    Empty if none has; also "de_DE.UTF-8", of an environment, is a locale.
    """
    named = (re.split("[-_.@]", it.strip().lower(), maxsplit=1)[0] for it in locales if it)
    return next((it for it in named if it in LANGUAGES), "")


def accepted(header: str) -> str:
    """Return the language that a browser's `Accept-Language` wants most; English if none of ours.

    Of those that it wants equally, the first (RFC 9110, 12.5.4).
    """
    wanted = []
    for one in header[:1000].split(","):
        locale, _, quality = one.partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", quality)
        wanted.append((float(weight[1]) if weight else 1.0, locale))
    by_weight = sorted(wanted, key=lambda it: -it[0])
    return known(*(locale for weight, locale in by_weight if weight)) or "en"


def speak(*locales: str | None) -> None:
    """Say in this task, and in those that it starts, all in the first of these languages we have.

    English, if we have none of them.
    """
    _spoken.set(known(*locales) or "en")


def spoken() -> str:
    """Return the language of this task, one of LANGUAGES."""
    return _spoken.get()


def say(sentence: str, /, *, language: str = "", **values: object) -> str:
    """Return a sentence in the language of this task, or another one, with its values filled in."""
    said = catalogue(language or spoken()).get(sentence, sentence)
    return said.format(**values) if values else said


def later(sentence: str) -> str:
    """Return a sentence as it is: in a table, to be said when it is shown."""
    return sentence


def number(value: int) -> str:
    """Return a whole number as people write it."""
    return f"{value:,}".replace(",", _THOUSANDS.get(spoken(), ","))


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Return the translations by their sentences; English has none."""
    path = Path(__file__).parent / f"{language}.json"
    found: dict[str, str] = {}
    if language != "en":
        found = json.loads(path.read_text(encoding="utf-8"))
    return found
