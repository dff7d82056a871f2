"""The messages of an answer on the homeserver: what they contain, and how they are found again.

A key of our own names their turn. Strangers may write the same key, so the sender is compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from adapters.matrix.client import Event, MatrixClient, objects, path_of
from adapters.matrix.events import edited_event
from adapters.matrix.markup import content_of
from bot.domain import Consent, Page, Turn, choices
from bot.errors import MessageGone, PlaceGone
from bot.languages import say

KEY, MESSAGE = "dev.parley.reply", "m.room.message"
FILE, ASK = "file:", "ask:"  # what a message beside a page is
# The reactions that answer what a person is asked.
SIGNS: Mapping[Consent, str] = {
    "allow": "✅",
    "done": "✅",
    "answer": "✅",
    "always": "♾️",
    "deny": "❌",
}
_MOST_PAGES = 20  # of a hundred messages and edits of ours since a question


@dataclass(frozen=True, slots=True)
class Address:
    """Where a turn is answered; without a `thread` in place."""

    room: str
    thread: str
    question: str

    @classmethod
    def of(cls, turn: Turn) -> Address:
        """Read the address in a turn. Raises PlaceGone if it has none of Matrix."""
        match turn.place:
            case {"room": str(room), "thread": str(thread), "question": str(question)} if room:
                return cls(room, thread, question)
        raise PlaceGone(f"turn {turn.id} has no address on Matrix")

    def relation(self, to: str, *, quotes: bool) -> dict[str, Any]:
        """Return the relation of a new message, which `quotes` another one or only follows it.

        Clients without threads show both as a reply (v1.4, "Fallback for unthreaded clients").
        """
        if not self.thread and not quotes:
            return {}
        relation: dict[str, Any] = {"m.in_reply_to": {"event_id": to}}
        if self.thread:
            thread = {"rel_type": "m.thread", "event_id": self.thread}
            relation |= {**thread, "is_falling_back": not quotes}
        return {"m.relates_to": relation}


@dataclass(slots=True, kw_only=True)
class Message:
    """A page of an answer, or a message `beside` one, which has a `name` there.

    `shows` is the digest of its content. It `is_open` until the page is final. Of its `edits`, the
    oldest first, `grown` are of the current answer. `tried` is an edit that may have arrived.
    """

    id: str
    page: int = -1
    beside: str = ""
    name: str = ""
    shows: str = ""
    is_open: bool = False
    edits: list[str] = field(default_factory=list)
    grown: int = 0
    tried: str = ""
    attempts: int = 0

    def note(self, content: Mapping[str, Any], edit: str = "") -> None:
        """Note that it shows this content, perhaps by an edit."""
        mark = mark_of(content)
        self.edits += [edit] if edit else []
        self.grown = 0 if mark.get("last") else self.grown + bool(edit)
        self.shows, self.is_open = digest(content), bool(mark.get("open"))


def page_content(page: Page, turn_id: str) -> dict[str, Any]:
    """Return the content of a page's message, without what it relates to."""
    mark = {"turn": turn_id, "page": page.number, "open": not page.final, "last": page.last}
    return {**content_of(page.text), KEY: mark}


def edit_content(message_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an edit; clients that know none show its text as a new message."""
    return {
        "msgtype": content["msgtype"],
        "body": f"* {content['body']}",
        "m.mentions": {},
        "m.new_content": content,
        "m.relates_to": {"rel_type": "m.replace", "event_id": message_id},
        KEY: content[KEY],
    }


def ask_content(call_id: str, asker: str) -> dict[str, Any]:
    """Return the message on which the asker, who is notified, answers what the page above asks."""
    labels = choices(call_id)
    chosen = ", ".join(f"{SIGNS[one]} ({label})" for one, label in labels.items())
    words = ", ".join(f"`!parley {one}`" for one in labels)
    asks = "React to this message with {choices}, or write {words}."
    return content_of(say(asks, choices=chosen, words=words), mentions=[asker])


def mark_of(content: object) -> Mapping[str, Any]:
    """Return what our key says in a content; {} if it is not there."""
    mark = content.get(KEY) if isinstance(content, dict) else None
    return mark if isinstance(mark, dict) and isinstance(mark.get("turn"), str) else {}


def digest(*parts: object) -> str:
    """Return a short name of JSON values."""
    written = json.dumps(parts, sort_keys=True).encode()
    return hashlib.blake2b(written, digest_size=15).hexdigest()


async def messages_of(client: MatrixClient, address: Address, turn_id: str) -> dict[str, Message]:
    """Return the messages of a turn's answer by their ids, oldest first. Raises SurfaceError.

    One that was redacted is there if it has edits left, with the page -1.
    """
    found: dict[str, Message] = {}
    async for event in own_messages(client, address.room, after=address.question):
        id_, content = str(event["event_id"]), event["content"]
        if mark_of(content).get("turn") != turn_id:
            continue
        if edited := _edited(content):
            message = found.setdefault(edited, Message(id=edited))
            message.note(content.get("m.new_content") or {}, id_)
        else:
            found[id_] = _message(id_, content)
    return found


async def message_of(client: MatrixClient, room: str, message_id: str) -> Message:
    """Return a message of the bot as it is now. Raises MessageGone if it is redacted."""
    event = await client.event(room, message_id)
    content = event.get("content") or {}
    if event.get("sender") != client.user_id or not mark_of(content):
        raise MessageGone(f"{message_id} was redacted, or is no message of an answer")
    message = _message(message_id, content)
    edits = [it async for it in client.relations(room, message_id, "m.replace")]
    for edit in reversed(edits):
        if edit.get("sender") == client.user_id and mark_of(content := edit.get("content")):
            message.note(content.get("m.new_content") or {}, str(edit["event_id"]))
    return message


async def own_messages(client: MatrixClient, room: str, *, after: str) -> AsyncIterator[Event]:
    """Yield the bot's messages and edits behind an event, oldest first, without redacted ones."""
    start: object = None
    with suppress(MessageGone):  # the server has purged it
        around = path_of("rooms", room, "context", after)
        start = (await client.call("GET", around, query={"limit": 0})).get("end")
    wanted = json.dumps({"senders": [client.user_id], "types": [MESSAGE]})
    for _ in range(_MOST_PAGES):
        if not isinstance(start, str):
            return
        query: dict[str, str | int] = {"dir": "f", "from": start, "filter": wanted, "limit": 100}
        found = await client.call("GET", path_of("rooms", room, "messages"), query=query)
        for event in objects(found.get("chunk")):
            if event.get("sender") == client.user_id and mark_of(event.get("content")):
                yield event
        start = found.get("end")


async def redact(client: MatrixClient, room: str, events: Iterable[str]) -> None:
    """Take away events; one that is gone already stays so. Raises SurfaceError."""
    for one in events:
        with suppress(MessageGone):
            await client.redact(room, one, digest("redact", one))


async def withdraw(
    client: MatrixClient, room: str, *, after: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> None:
    """Redact the bot's messages of these contents behind an event. Raises SurfaceError."""
    found = [it async for it in own_messages(client, room, after=after) if wanted(it["content"])]
    # Edits first, the newest last: so no older text comes back, and a server lists no edits of what
    # is redacted.
    found.sort(key=lambda it: not _edited(it["content"]))
    await redact(client, room, [str(one["event_id"]) for one in found])


def belongs_to(content: Mapping[str, Any], message_id: str) -> bool:
    """Whether a content is of an edit of a message, or of something beside it."""
    return message_id in (_edited(content), mark_of(content).get("beside"))


def _edited(content: Mapping[str, Any]) -> str:
    return edited_event({"content": content})


def _message(id_: str, content: Mapping[str, Any]) -> Message:
    mark = mark_of(content)
    page, beside, name = mark.get("page", -1), str(mark.get("beside", "")), mark.get("name", "")
    message = Message(id=id_, page=page, beside=beside, name=str(name))
    message.note({name: it for name, it in content.items() if name != "m.relates_to"})
    return message
