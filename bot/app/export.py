"""Exports and imports preferences as a JSON file that a person can edit.

The file is {"format": "parley-preferences", "version": 1, "places": […]}. A place is a thread, a
channel or a server, by the parts of its thread key that name it, with what is chosen there:
{"platform": …, "workspace": …, "channel": …, "thread": …, "chosen": {"model": …, …}}.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from bot.access.preferences import (
    InvalidPreference,
    PreferenceStore,
    Scope,
    checked,
    chosen,
    place_of,
)
from bot.domain import Json, Preferences, ThreadKey
from bot.errors import ParleyError
from bot.store import connect
from bot.text.sanitize import whole_characters
from config.settings import Settings

FORMAT = "parley-preferences"
VERSION = 1
STDIN = "-"
_PARTS = ("platform", "workspace", "channel", "thread")
_FIELDS = (*_PARTS, "chosen")
_BETWEEN = re.compile(r"[\s,]*")  # two items of a list


class NotImported(ParleyError):
    """No part of the file is imported; `str` has a line for each mistake."""


async def export_preferences(settings: Settings, out: TextIO) -> None:
    """Print all preferences. Raises CannotStart and StoreUnavailable."""
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        found = await PreferenceStore(store=store).read_all()
    _as_utf_8(out)
    out.write(to_json(found))


async def import_preferences(settings: Settings, text: str, out: TextIO) -> None:
    """Store all preferences of a file, or none if it has a mistake.

    Replaces the preferences of the places in the file; others stay. Raises NotImported,
    CannotStart and StoreUnavailable.
    """
    places = from_json(text)
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        await PreferenceStore(store=store).replace_all(places)
    out.write(f"Imported what is chosen in {len(places)} places.\n")


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
    for entry in _entries(text):
        try:
            place, preferences = _read_entry(entry)
            if place in places:
                raise entry.mistake("chosen", "this place comes twice")
            places[place] = preferences
        except NotImported as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise NotImported("\n".join(mistakes))
    return places


@dataclass(frozen=True, slots=True)
class _Entry:
    """A place in a file: its fields, and a function that finds the line of a field."""

    value: Json
    line_of: Callable[[str], int]

    def mistake(self, field: str, sentence: str) -> NotImported:
        return NotImported(f"line {self.line_of(field)}: {sentence}")


def _read_entry(entry: _Entry) -> tuple[str, Preferences]:
    value = entry.value
    if not isinstance(value, dict):
        raise entry.mistake("", "a place must be an object")
    for name in value:
        if name not in _FIELDS:
            raise entry.mistake(name, f"{name} is no field of a place")
    key, scope = _key_of(entry, value)
    written = value.get("chosen", {})
    if not isinstance(written, dict):
        raise entry.mistake("chosen", "what is chosen must be an object")
    try:
        return place_of(key, scope), checked(scope, written)
    except InvalidPreference as error:
        raise entry.mistake(error.field or "workspace", error.apology) from error


def _key_of(entry: _Entry, value: Mapping[str, Json]) -> tuple[ThreadKey, Scope]:
    parts: list[str] = []
    for name in _PARTS:
        part = value.get(name, "")
        if not isinstance(part, str):
            raise entry.mistake(name, f"{name} is a text")
        parts.append(whole_characters(part))
    platform, _, channel, thread = parts
    if not platform or (thread and not channel):
        raise entry.mistake("", f"this place has no {'channel' if platform else 'platform'}")
    return ThreadKey(*parts), "thread" if thread else "channel" if channel else "server"


def _entries(text: str) -> Iterator[_Entry]:
    """Return the places of a file. Raises NotImported."""
    try:
        file = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotImported(f"line {error.lineno}: this is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise NotImported("line 1: this is no JSON that can be read") from error
    if not isinstance(file, dict) or file.get("format") != FORMAT:
        raise NotImported(f'line 1: this is no file of preferences: "format" is not "{FORMAT}"')
    for name in file:
        if name not in ("format", "version", "places"):
            raise NotImported(f"line {_line(text, name)}: {name} is no field of this file")
    if file.get("version") != VERSION:
        line = _line(text, "version")
        raise NotImported(f"line {line}: this version reads files of version {VERSION} only")
    begin = re.search(r'"places"\s*:\s*\[', text)
    if not isinstance(file.get("places"), list) or not begin:
        raise NotImported(f'line {_line(text, "places")}: "places" is no list')
    return _listed(text, begin.end())


def _listed(text: str, at: int) -> Iterator[_Entry]:
    """Read a valid list again, with the position of each item."""
    decoder = json.JSONDecoder()
    while (at := _BETWEEN.match(text, at).end()) < len(text) and text[at] != "]":  # type: ignore[union-attr]
        value, end = decoder.raw_decode(text, at)
        yield _Entry(value, partial(_line, text, begin=at, end=end))
        at = end


def _line(text: str, field: str, *, begin: int = 0, end: int | None = None) -> int:
    """Return the line of a field between two positions; that of the first if it is not found."""
    found = re.compile(re.escape(json.dumps(field, ensure_ascii=False)) + r"\s*:").search(
        text, begin, len(text) if end is None else end
    )
    return text.count("\n", 0, found.start() if found else begin) + 1
