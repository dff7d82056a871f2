"""The JSON records of turns in Redis, which an older or a newer version may have written.

Unknown fields are ignored, and fields that older versions did not write have a default.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import get_args

from bot.domain import ContextMessage, End, Json, Outcome, Person, Shown, ThreadKey, Turn
from bot.text.sanitize import whole_characters

log = logging.getLogger(__name__)

_REPLACEMENT = "\ufffd"  # what the store returns for bytes that are not UTF-8
_LARGEST = 1e12  # no number in a record is larger: a time has ten digits
_OUTCOMES: dict[str, Outcome] = {one: one for one in get_args(Outcome)}
_ENDS: dict[str, End] = {one: one for one in get_args(End)}


class Unreadable(ValueError):
    """This version cannot read a record."""


def write_turn(turn: Turn) -> tuple[str, str]:
    """Return a JSON object without its text and its closing brace, and the text as JSON."""
    value = asdict(turn)
    text = value.pop("text")
    # They are dropped with the question, so they stand in a field of their own.
    del value["quote"], value["context"]
    # The queue copies them itself.
    del value["preferences"]
    del value["asker"]
    if not turn.joins:
        del value["joins"]
    # Older versions cannot read a person with another field.
    value["person_workspace"] = value["person"].pop("workspace")
    head = json.dumps(value, ensure_ascii=False).removesuffix("}")
    return head, json.dumps(text, ensure_ascii=False)


def read_turn(turn_id: str, platform: str, thread: str, body: str, pressed_at: str) -> Turn:
    """Read a turn's record. Its id and thread come from the queue. Raises Unreadable."""
    value = read_object(body)
    place = value.get("place", {})
    if not isinstance(place, dict):
        raise Unreadable("its place is no object")
    key = read_thread(thread, platform)
    # No verb would find the turn under such an id.
    if key is None or _REPLACEMENT in turn_id:
        raise Unreadable(f"its thread is {thread!r}, in the queue of {platform}")
    person = read_person(value)
    # Older records count a person in each workspace.
    workspace = value.get("person_workspace")
    return Turn(
        id=turn_id,
        key=key,
        person=replace(
            person, workspace=workspace if isinstance(workspace, str) else key.workspace
        ),
        text=read_text(value, "text"),
        place=place | read_object(pressed_at),
        asked_at=read_number(value, "asked_at"),
        left_out=int(read_number(value, "left_out")),
        where=_optional_text(value, "where"),
        zone=_optional_text(value, "zone"),
        joins=value.get("joins") is True,
    )


def read_thread(written: str, platform: str) -> ThreadKey | None:
    """Parse the key of a thread; None if it is none of this platform."""
    try:
        key = ThreadKey.parse(written)
    except ValueError:
        return None
    return key if key.platform == platform else None


def write_shown(shown: Shown, used: int = 0) -> tuple[str, str, str]:
    """Return the three fields of a turn's record that hold what is shown.

    The last one has the number of tokens that were used so far, too.
    """
    more: dict[str, str | int | tuple[str, ...]] = (
        {"outcome": shown.outcome} if shown.outcome else {}
    )
    if shown.said != shown.text:
        more["said"] = len(shown.said)
    if shown.below:
        more["below"] = shown.below
    if shown.end:
        more["end"] = shown.end
    if shown.model:
        more["model"] = shown.model
    if shown.removed:
        more["removed"] = shown.removed
    if used:
        more["used"] = used
    return json.dumps(shown.pages), shown.text, json.dumps(more, ensure_ascii=False)


def read_shown(turn_id: str, pages: str, text: str, more: str) -> Shown:
    """Read what `write_shown` returned, without the fields that cannot be read."""
    ids: tuple[str, ...] = ()
    value: dict[str, Json] = {}
    try:
        ids = read_texts(pages)
        value = read_object(more)
    except Unreadable as error:
        log.warning("Turn %s: part of what it has shown cannot be read: %s", turn_id, error)
    said, below, outcome = (value.get(name) for name in ("said", "below", "outcome"))
    model, removed = value.get("model"), value.get("removed")
    return Shown(
        pages=ids,
        text=text,
        said=text[:said] if isinstance(said, int) else text,
        below=whole_characters(below) if isinstance(below, str) else "",
        outcome=_OUTCOMES.get(outcome, "") if isinstance(outcome, str) else "",
        end=read_end(value.get("end")),
        model=whole_characters(model) if isinstance(model, str) else "",
        removed=tuple(one for one in removed if isinstance(one, str))
        if isinstance(removed, list)
        else (),
    )


def read_used(more: str) -> int:
    """Read the number of tokens that `write_shown` was given; 0 if it cannot be read."""
    try:
        return int(read_number(read_object(more), "used"))
    except Unreadable:
        return 0


def read_end(written: Json) -> End:
    """Return how an answer stands; as whole if this version does not know what was written."""
    return _ENDS.get(written, "") if isinstance(written, str) else ""


def write_context(quote: ContextMessage | None, context: Sequence[ContextMessage] | None) -> str:
    """Return the field of a turn's record that holds its context; empty if there is none.

    `context` is None until it was looked for.
    """
    value: dict[str, Json] = {}
    if quote:
        value["quote"] = write_said(quote)
    if context is not None:
        value["messages"] = [write_said(each) for each in context]
    return json.dumps(value, ensure_ascii=False) if value else ""


def read_context(
    turn_id: str, written: str
) -> tuple[ContextMessage | None, tuple[ContextMessage, ...] | None]:
    """Read what `write_context` returned; nothing if it cannot be read."""
    try:
        value = read_object(written or "{}")
    except Unreadable as error:
        log.warning("Turn %s: its context cannot be read: %s", turn_id, error)
        return None, None
    context = read_all_said(value.get("messages")) if "messages" in value else None
    return read_said(value.get("quote")), context


def write_said(one: ContextMessage) -> dict[str, Json]:
    """Return a message of a context as a JSON object."""
    person: Json = {"id": one.person.id, "name": one.person.name} if one.person else None
    return {"id": one.id, "person": person, "text": one.text}


def read_said(value: Json) -> ContextMessage | None:
    """Read what `write_said` returned; None if it cannot be read."""
    if not isinstance(value, dict):
        return None
    try:
        person = None if value.get("person") is None else read_person(value)
        return ContextMessage(read_text(value, "id"), person, read_text(value, "text"))
    except Unreadable:
        return None


def read_all_said(value: Json) -> tuple[ContextMessage, ...]:
    """Return the messages of an array that can be read."""
    found = map(read_said, value if isinstance(value, list) else [])
    return tuple(one for one in found if one)


def read_object(written: str | None) -> dict[str, Json]:
    """Parse a JSON object. Raises Unreadable."""
    value = _parsed(written)
    if not isinstance(value, dict):
        raise Unreadable("no JSON object")
    return value


def read_texts(written: str | None) -> tuple[str, ...]:
    """Parse a JSON array of strings. Raises Unreadable."""
    value = _parsed(written)
    if not isinstance(value, list):
        raise Unreadable("no JSON array")
    found = tuple(one for one in value if isinstance(one, str))
    if len(found) < len(value):
        raise Unreadable("a JSON array with an item that is no string")
    return found


def read_text(value: Mapping[str, Json], name: str) -> str:
    """Return a text field. Raises Unreadable if there is none."""
    text = value.get(name)
    if not isinstance(text, str):
        raise Unreadable(f"no {name}")
    return whole_characters(text)


def _optional_text(value: Mapping[str, Json], name: str) -> str:
    return read_text(value, name) if isinstance(value.get(name), str) else ""


def read_number(value: Mapping[str, Json], name: str) -> float:
    """Return a number field; 0 if it is missing, negative or absurdly large."""
    number = value.get(name)
    return number if isinstance(number, int | float) and 0 <= number < _LARGEST else 0


def read_person(value: Mapping[str, Json]) -> Person:
    """Return the person in a record, with the id as name if there is none. Raises Unreadable."""
    person = value.get("person")
    if not isinstance(person, dict):
        raise Unreadable("no person")
    person_id, name = read_text(person, "id"), person.get("name")
    return Person(person_id, whole_characters(name) if isinstance(name, str) else person_id)


def _parsed(written: str | None) -> Json:
    try:
        value: Json = json.loads(written or "")
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {type(error).__name__}") from error
    return value
