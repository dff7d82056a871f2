"""Reads and writes the JSON records of turns and exchanges, whatever version has written them.

Unknown fields are ignored, and fields that older versions did not write have a default. `History`
reads and forgets the exchanges of a thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import get_args

from bot.domain import (
    ContextMessage,
    End,
    Exchange,
    Json,
    Outcome,
    Person,
    Shown,
    ThreadKey,
    Turn,
)
from bot.store import Store
from bot.text.sanitize import whole_characters
from bot.turns.forgetting import named

log = logging.getLogger(__name__)

# The store returns this for bytes that are not UTF-8: an id with it is not the stored one.
_REPLACEMENT = "\ufffd"
# Larger numbers are damage, and infinity is no int. A time has ten digits.
_LARGEST = 1e12
OUTCOMES: dict[str, Outcome] = {one: one for one in get_args(Outcome)}
_ENDS: dict[str, End] = {one: one for one in get_args(End)}
# Writes a value unless its person is being forgotten. KEYS: the jobs, and the value's key. ARGV:
# the name of the job, the expiry (ms), the value, and optionally a field of a hash.
_SAVE = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if not ARGV[4] then return redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2]) end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[3])
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""
_MESSAGE_SECONDS = 3600  # for which a person may write a question about a message


class Unreadable(ValueError):
    """This version cannot read a record."""


class History:
    """Reads and forgets exchanges, which `TurnLeases.finish` writes. Raises StoreUnavailable.

    If it does not remember, it drops the exchanges that it finds.
    """

    def __init__(self, *, store: Store, keep_seconds: float, remembers: bool = True) -> None:
        self._store = store
        self.remembers = remembers
        self._keep_ms = int(keep_seconds * 1000)
        self._save = store.script(_SAVE)

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        """Return the thread's exchanges, oldest first, and keep them for `keep_seconds` more."""
        name = self._store.key("history", str(thread))
        if not self.remembers:
            await self._store.command("DEL", name, self._store.key("names", str(thread)))
            return []
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        await self._store.command("PEXPIRE", name, self._keep_ms)
        exchanges = [exchange for line in lines if (exchange := _readable(line))]
        if unreadable := len(lines) - len(exchanges):
            log.warning("Thread %s: leaving out %d unreadable exchanges", thread, unreadable)
        return await self._named(thread, exchanges)

    async def ratings(self, thread: ThreadKey, person_id: str) -> dict[str, str]:
        """Return a person's ratings of the thread's answers, by turn id."""
        name = self._store.key("history", str(thread))
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        return dict(found for line in lines if (found := _rating(line, person_id)))

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        """Save the name of a person whose exchanges have only an id."""
        keys = [self._store.key("forgetting"), self._store.key("names", str(thread))]
        person_id, name = whole_characters(person.id), whole_characters(person.name)
        job = named("person", thread.platform, person.id)
        await self._save(keys=keys, args=[job, self._keep_ms, name, person_id])

    async def is_seen(self, thread: ThreadKey) -> bool:
        """Return whether earlier messages must not be read as context, even without a history.

        Part of the thread was forgotten, or the first question has no answer and nothing precedes
        it.
        """
        return bool(await self._store.command("EXISTS", self._store.key("seen", str(thread))))

    async def claim_truncation_notice(self, thread: ThreadKey, turn_id: str) -> bool:
        """Claim the notice that the thread's beginning no longer fits; True for one turn only.

        A repeated call returns the same.
        """
        name = self._store.key("told", str(thread))
        await self._store.command("SET", name, turn_id, "NX", "PX", self._keep_ms)
        await self._store.command("PEXPIRE", name, self._keep_ms)
        return bool(await self._store.command("GET", name) == turn_id)

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        """Store a message for an hour."""
        written = json.dumps(write_context_message(message), ensure_ascii=False)
        keys = [self._store.key("forgetting"), self._store.key("message", name)]
        person = message.person.id if message.person else ""
        job = named("person", name.partition(":")[0], person)
        await self._save(keys=keys, args=[job, _MESSAGE_SECONDS * 1000, written])

    async def kept_message(self, name: str) -> ContextMessage | None:
        """Return a message that `keep_message` stored; None if it has expired."""
        written = await self._store.command("GET", self._store.key("message", name))
        try:
            return read_context_message(read_object(written)) if isinstance(written, str) else None
        except Unreadable:
            return None

    async def _named(self, thread: ThreadKey, exchanges: Sequence[Exchange]) -> list[Exchange]:
        unnamed = [one.person.id for one in exchanges if one.person.name == one.person.id]
        if not unnamed:
            return list(exchanges)
        key = self._store.key("names", str(thread))
        found: list[str | None] = await self._store.command("HMGET", key, *unnamed)
        await self._store.command("PEXPIRE", key, self._keep_ms)
        names = {Person(one, one): name for one, name in zip(unnamed, found, strict=True) if name}
        return [
            replace(one, person=replace(one.person, name=names.get(one.person, one.person.name)))
            for one in exchanges
        ]


def write_turn(turn: Turn) -> str:
    """Return a JSON object with the fields that a turn's record has for its question."""
    person = {"id": turn.person.id, "name": turn.person.name, "workspace": turn.person.workspace}
    body = {"person": person, "place": turn.place, "zone": turn.zone}
    fields = {
        "body": json.dumps(body, ensure_ascii=False),
        "asker": turn.person.id,
        "asked_at": str(turn.asked_at),
        "text": turn.text,
        "left_out": str(turn.left_out),
        "where": turn.where,
    }
    return json.dumps(fields | ({"joins": "1"} if turn.joins else {}), ensure_ascii=False)


def read_turn(turn_id: str, platform: str, record: Mapping[str, str]) -> Turn:
    """Read a turn from its record. Its id and platform come from the queue. Raises Unreadable."""
    body = read_object(record.get("body"))
    place = body.get("place", {})
    if not isinstance(place, dict):
        raise Unreadable("its place is not an object")
    thread = record.get("thread", "")
    key = read_thread(thread, platform)
    # No verb finds a turn under such an id.
    if key is None or _REPLACEMENT in turn_id:
        raise Unreadable(f"its thread is {thread!r}, in the queue of {platform}")
    person = read_person(body)
    return Turn(
        id=turn_id,
        key=key,
        person=replace(person, workspace=_optional_text(_object(body["person"]), "workspace")),
        text=record.get("text", ""),
        place=place | read_object(record.get("place_changes", "{}")),
        asked_at=_number(record.get("asked_at")),
        left_out=int(_number(record.get("left_out"))),
        where=record.get("where", ""),
        zone=_optional_text(body, "zone"),
        joins="joins" in record,
    )


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _number(written: str | None) -> float:
    try:
        return float(written or "0")
    except ValueError as error:
        raise Unreadable(f"{written!r} is no number") from error


def read_thread(written: str, platform: str) -> ThreadKey | None:
    """Parse the key of a thread; None if it belongs to another platform."""
    try:
        key = ThreadKey.parse(written)
    except ValueError:
        return None
    return key if key.platform == platform else None


def write_shown(shown: Shown, used: int = 0) -> tuple[str, str, str]:
    """Return the three fields of a turn's record for its reply.

    The last one includes the number of tokens used so far.
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
    return json.dumps(shown.message_ids), shown.text, json.dumps(more, ensure_ascii=False)


def read_shown(turn_id: str, message_ids: str, text: str, more: str) -> Shown:
    """Read what `write_shown` returned, without the fields that cannot be read."""
    ids: tuple[str, ...] = ()
    value: dict[str, Json] = {}
    try:
        ids = read_texts(message_ids)
        value = read_object(more)
    except Unreadable as error:
        log.warning("Turn %s: part of its reply cannot be read: %s", turn_id, error)
    said, below, outcome = (value.get(name) for name in ("said", "below", "outcome"))
    model, removed = value.get("model"), value.get("removed")
    return Shown(
        message_ids=ids,
        text=text,
        said=text[:said] if isinstance(said, int) else text,
        below=whole_characters(below) if isinstance(below, str) else "",
        outcome=OUTCOMES.get(outcome, "") if isinstance(outcome, str) else "",
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
    """Read how an answer ended; unknown values count as a whole answer."""
    return _ENDS.get(written, "") if isinstance(written, str) else ""


def write_exchange(exchange: Exchange) -> str:
    """Return an exchange as the JSON object that is stored."""
    value = asdict(exchange)
    # Older versions cannot read a person with another field.
    del value["person"]["workspace"]
    del value["quote"], value["context"], value["model"]
    if exchange.quote:
        value["quote"] = write_context_message(exchange.quote)
    if exchange.context:
        value["context"] = [write_context_message(each) for each in exchange.context]
    if exchange.model:
        value["model"] = exchange.model
    return json.dumps(value, ensure_ascii=False)


def read_exchange(line: str) -> Exchange:
    """Read what `write_exchange` of this or another version returned. Raises Unreadable."""
    value = read_object(line)
    model = value.get("model")
    return Exchange(
        turn_id=read_text(value, "turn_id"),
        person=read_person(value),
        asked_at=read_number(value, "asked_at"),
        question=read_text(value, "question"),
        answer=read_text(value, "answer"),
        quote=read_context_message(value.get("quote")),
        context=read_context_messages(value.get("context")),
        model=whole_characters(model) if isinstance(model, str) else "",
    )


def _readable(line: str) -> Exchange | None:
    try:
        return read_exchange(line)
    except Unreadable:
        return None


def _rating(line: str, person_id: str) -> tuple[str, str] | None:
    # Most lines have none, and all of them are long.
    if '"ratings"' not in line:
        return None
    try:
        value = read_object(line)
        ratings = value.get("ratings")
        rating = ratings.get(person_id) if isinstance(ratings, dict) else None
        return (read_text(value, "turn_id"), rating) if isinstance(rating, str) else None
    except Unreadable:
        return None


def write_context(quote: ContextMessage | None, context: Sequence[ContextMessage] | None) -> str:
    """Return the field of a turn's record that holds its context; empty if there is none.

    `context` is None until it was read.
    """
    value: dict[str, Json] = {}
    if quote:
        value["quote"] = write_context_message(quote)
    if context is not None:
        value["messages"] = [write_context_message(each) for each in context]
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
    context = read_context_messages(value.get("messages")) if "messages" in value else None
    return read_context_message(value.get("quote")), context


def write_context_message(one: ContextMessage) -> dict[str, Json]:
    """Return a message of a context as a JSON object."""
    person: Json = {"id": one.person.id, "name": one.person.name} if one.person else None
    return {"id": one.id, "person": person, "text": one.text}


def read_context_message(value: Json) -> ContextMessage | None:
    """Read what `write_context_message` returned; None if it cannot be read."""
    if not isinstance(value, dict):
        return None
    try:
        person = None if value.get("person") is None else read_person(value)
        return ContextMessage(read_text(value, "id"), person, read_text(value, "text"))
    except Unreadable:
        return None


def read_context_messages(value: Json) -> tuple[ContextMessage, ...]:
    """Return the messages of an array that can be read."""
    found = map(read_context_message, value if isinstance(value, list) else [])
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
