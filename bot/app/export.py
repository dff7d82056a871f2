"""Exports and imports preferences as a JSON file that a person can edit, and exports a person.

The file is {"format": "parley-preferences", "version": 1, "places": […]}. A place is a thread, a
channel or a server, by the parts of its thread key that name it, with what is chosen there:
{"platform": …, "workspace": …, "channel": …, "thread": …, "chosen": {"model": …, …}}.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from bot import audit
from bot.access.preferences import (
    InvalidPreference,
    PreferenceStore,
    Scope,
    checked,
    chosen,
    place_of,
)
from bot.app.forget import ELSEWHERE, id_of, kinds_of
from bot.app.platforms import all_specs, own_names
from bot.domain import Json, Preferences, ThreadKey
from bot.errors import CannotStart, ParleyError
from bot.store import connect
from bot.text.sanitize import one_line, whole_characters
from bot.turns.collecting import Collector
from bot.turns.erasing import Subject
from bot.turns.forgetting import named
from bot.turns.script import QueueScript
from config.settings import Settings

FORMAT = "parley-preferences"
VERSION = 1
STDIN = "-"
# Controls, and what changes the direction of writing or has no shape; JSON escapes the rest.
_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)
_PARTS = ("platform", "workspace", "channel", "thread")


class NotImported(ParleyError):
    """No part of the file is imported; `str` has a line for each mistake."""


async def export_preferences(settings: Settings, out: TextIO) -> None:
    """Print all preferences. Raises CannotStart and StoreUnavailable."""
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        found = await PreferenceStore(store=store).read_all()
    _as_utf_8(out)
    out.write(to_json(found))
    audit.note("exported", places=len(found), by=audit.OPERATOR)


async def import_preferences(settings: Settings, text: str, out: TextIO) -> None:
    """Store all preferences of a file, or none if it has a mistake.

    Replaces the preferences of the places in the file; others stay. Raises NotImported,
    CannotStart and StoreUnavailable.
    """
    places = from_json(text)
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        await PreferenceStore(store=store).replace_all(places)
    audit.note("imported", places=len(places), by=audit.OPERATOR)
    out.write(f"Imported what is chosen in {len(places)} places.\n")


async def export_person(settings: Settings, written: str, out: TextIO, *, report: TextIO) -> None:
    """Print all that is kept of a person as JSON, and to `report` how much it is.

    Raises CannotStart if the id is no person's, or the store has nothing of it; and
    StoreUnavailable.
    """
    person = id_of(written)
    kinds = [it for it in kinds_of(person) if it[0] == "person"]
    if not kinds:
        raise CannotStart(f"{one_line(person)} is the id of a server: name a person")
    _as_utf_8(out)
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        script = QueueScript(store, **settings.keeping)
        who = Subject.of(named("person", kinds[0][1], person), own_names())
        collector = Collector(script, who)
        head = {"format": "parley-person", "version": 1, "platform": who.platform, "id": who.id}
        before = f'{_harmless(head)[:-1]}, "found": [\n'
        async for found in collector.collect():
            entry = {"key": found.key, "value": found.value}
            out.write(before + _harmless(entry))
            before = ",\n"
    if before != ",\n":
        raise CannotStart(f"the store has nothing of {one_line(person)}: is the id right?")
    out.write("\n]}\n")
    audit.note("exported", platform=who.platform, person=who.id, by=audit.OPERATOR)
    report.write(f"Found {collector.tally}. {ELSEWHERE}\n")


def read_text(name: str, stdin: TextIO) -> str:
    """Return the text of a file, or of standard input if its name is "-". Raises NotImported."""
    try:
        _as_utf_8(stdin)
        return stdin.read() if name == STDIN else Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        detail = error.strerror if isinstance(error, OSError) else "it is not a text in UTF-8"
        raise NotImported(f"{name} cannot be read: {detail}") from error


def _as_utf_8(stream: TextIO) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8")


def _harmless(value: object) -> str:
    """Return JSON in which nothing controls a terminal or is hidden."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNSEEN.sub(lambda one: json.dumps(one[0])[1:-1], text)


def to_json(found: Mapping[str, Preferences]) -> str:
    """Return the text of a file from preferences by the keys of their places."""
    places = []
    for place, preferences in found.items():
        key = ThreadKey.parse(place)
        named = {part: text for part in _PARTS if (text := getattr(key, part))}
        places.append({**named, "chosen": chosen(preferences)})
    file = {"format": FORMAT, "version": VERSION, "places": places}
    return json.dumps(file, ensure_ascii=False, indent=2) + "\n"


def from_json(text: str) -> dict[str, Preferences]:
    """Return the preferences in a file, by the keys of their places. Raises NotImported."""
    places: dict[str, Preferences] = {}
    mistakes: list[str] = []
    for number, entry in enumerate(_entries(text), 1):
        try:
            place, preferences = _read_entry(entry)
            if place in places:
                mistakes.append(f"place {number}: it comes twice")
            places[place] = preferences
        except NotImported as mistake:
            mistakes.append(f"place {number}: {mistake}")
        except InvalidPreference as error:
            mistakes.append(f"place {number}: {error.apology}")
    if mistakes:
        raise NotImported("\n".join(mistakes))
    return places


def _read_entry(entry: Json) -> tuple[str, Preferences]:
    if not isinstance(entry, dict):
        raise NotImported("it must be an object")
    for name in entry:
        if name not in (*_PARTS, "chosen"):
            raise NotImported(f"it has no field {name}")
    parts = [entry.get(name, "") for name in _PARTS]
    written = entry.get("chosen", {})
    if not all(isinstance(part, str) for part in parts) or not isinstance(written, dict):
        raise NotImported(f'{", ".join(_PARTS)} must be texts, and "chosen" an object')
    key = ThreadKey(*(whole_characters(str(part)) for part in parts))
    if not key.platform or (key.thread and not key.channel):
        raise NotImported(f"it has no {'channel' if key.platform else 'platform'}")
    if key.platform not in (known := [spec.name for spec in all_specs()]):
        raise NotImported(f"its platform is none of {', '.join(known)}")
    scope: Scope = "thread" if key.thread else "channel" if key.channel else "server"
    return place_of(key, scope), checked(scope, written)


def _entries(text: str) -> list[Json]:
    """Return the places of a file. Raises NotImported."""
    try:
        file = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotImported(f"line {error.lineno}: this is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise NotImported("this is no JSON that can be read") from error
    if not isinstance(file, dict) or file.get("format") != FORMAT:
        raise NotImported(f'this is no file of preferences: "format" is not "{FORMAT}"')
    if file.get("version") != VERSION:
        raise NotImported(f"this version reads files of version {VERSION} only")
    places = file.get("places")
    if not isinstance(places, list) or len(file) > 3:
        raise NotImported('a file has "format", "version" and a list "places", and nothing else')
    return places
