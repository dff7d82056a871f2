"""Reads JSON from Redis that an older or a newer version may have written.

Unknown fields are ignored, and fields that older versions did not write have a default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from bot.domain import Json, Person
from bot.text.sanitize import whole_characters

UNKNOWN_CHARACTER = "\ufffd"  # what the store returns for bytes that are no text
_LARGEST = 1e12  # no number in a record is larger: a time has ten digits

_Kind = TypeVar("_Kind", str, int)


class Unreadable(ValueError):
    """A record that this version cannot read."""


def read_object(written: str | None) -> dict[str, Json]:
    """Parse a JSON object; Unreadable."""
    value = _parsed(written)
    if not isinstance(value, dict):
        raise Unreadable("no JSON object")
    return value


def read_list(written: str | None, kind: type[_Kind]) -> tuple[_Kind, ...]:
    """Parse a JSON array of texts or of whole numbers that are not negative; Unreadable."""
    value = _parsed(written)
    if not isinstance(value, list):
        raise Unreadable("no JSON array")
    found = tuple(one for one in value if isinstance(one, kind) and not isinstance(one, bool))
    if len(found) < len(value) or any(isinstance(one, int) and one < 0 for one in found):
        raise Unreadable("a JSON array of something else")
    return found


def read_text(value: Mapping[str, Json], name: str) -> str:
    """Return a field's text; Unreadable if there is none."""
    text = value.get(name)
    if not isinstance(text, str):
        raise Unreadable(f"no {name}")
    return whole_characters(text)


def read_number(value: Mapping[str, Json], name: str) -> float:
    """Return a field's number; 0 if there is none, or one that is negative or absurdly large."""
    number = value.get(name)
    return number if isinstance(number, int | float) and 0 <= number < _LARGEST else 0


def read_person(value: Mapping[str, Json]) -> Person:
    """Return the person in a record; Unreadable. Who has no name there is called by the id."""
    person = value.get("person")
    if not isinstance(person, dict):
        raise Unreadable("no person")
    who, name = read_text(person, "id"), person.get("name")
    return Person(who, whole_characters(name) if isinstance(name, str) else who)


def _parsed(written: str | None) -> Json:
    try:
        value: Json = json.loads(written or "")
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {type(error).__name__}") from error
    return value
