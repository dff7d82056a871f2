"""The lines for auditors: who did what to whom, by ids and numbers, never by words or names."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Hashable

from bot.cache import BoundedCache
from bot.domain import Person, ThreadKey

NAME = "parley.audit"
OPERATOR = "operator"  # instead of a person, for the commands of the terminal
log = logging.getLogger(NAME)

_PLAIN = re.compile(r"[!#-<>-~]*")
_HOUR = 3600.0
# Also of somebody who is refused a thousand times, the disk has one line an hour.
_recent: BoundedCache[tuple[Hashable, ...], bool] = BoundedCache(capacity=10_000)


def note(event: str, **values: object) -> None:
    """Write one line: the event, and its values by name, which are fields in JSON."""
    figures = {name: _harmless(str(value)) for name, value in values.items()}
    pairs = (f"{name}={_plain(text)}" for name, text in figures.items())
    log.info("%s %s", event, " ".join(pairs), extra={"figures": {"event": event, **figures}})


def note_hourly(event: str, *which: Hashable, **values: object) -> None:
    """Write a line unless this process has written one of the same event and `which` in an hour."""
    if not _recent.get((event, *which)):
        _recent.put((event, *which), True, seconds=_HOUR)
        note(event, **values)


def note_refusal(rule: str, thread: ThreadKey, person: Person) -> None:
    """Write that a rule has refused a person somewhere, once an hour."""
    which = rule, thread.platform, person.id
    note_hourly("refused", *which, rule=rule, thread=thread, person=person.id)


def digest(words: str) -> str:
    """Return what stands for words: their number of characters, and the start of a SHA-256."""
    hashed = hashlib.sha256(words.encode(errors="replace")).hexdigest()
    return f"{len(words)}:{hashed[:16]}" if words else ""


def _harmless(text: str) -> str:
    """Return a value with its controls, and all that is not ASCII, as JSON escapes them."""
    return text if text.isascii() and text.isprintable() else json.dumps(text)[1:-1]


def _plain(text: str) -> str:
    """Return a value in quotes if another one could be forged in it."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
