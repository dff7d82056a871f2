"""The messages of an answer on the homeserver: their contents, and how they are found again.

Each has a key of our own with the id of its turn, by which any process knows it. Strangers may
write the same key, so the sender is compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.matrix.client import Event, MatrixClient, objects, path_of
from adapters.matrix.markup import content_of
from bot.domain import Consent, Page, Turn, choices
from bot.errors import MessageGone, PlaceGone, SurfaceError
from bot.languages import say

KEY = "dev.parley.reply"
MESSAGE = "m.room.message"
FILE, ASK = "file:", "ask:"  # what a message beside a page is
# The reactions that answer what a person is asked.
SIGNS: Mapping[Consent, str] = {
    "allow": "✅",
    "done": "✅",
    "answer": "✅",
    "always": "♾️",
    "deny": "❌",
}
_MOST_PAGES = 20  # of our own messages since a question


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
        """Return what a new message relates to: it `quotes` another one, or only follows it.

        Clients without threads show the latter as a reply (v1.11, "Fallback for unthreaded
        clients").
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
    """A message of the bot: a page of an answer, or something beside one.

    `shows` is the digest of its content, `edits` are the ids of its edits, oldest first, of which
    `grown` were made for the current answer. `tried` is the digest of an edit that may have
    arrived. A page `is_open` until it is written for the last time. What is `beside` a page names
    it, and has a `name` of its own there.
    """

    id: str
    page: int = -1
    shows: str = ""
    is_open: bool = False
    edits: list[str] = field(default_factory=list)
    grown: int = 0
    tried: str = ""
    attempts: int = 0
    beside: str = ""
    name: str = ""

    def note(self, content: Mapping[str, Any]) -> None:
        """Note that the message shows this content, with one of our marks, now."""
        mark = mark_of(content)
        self.shows, self.is_open = digest(content), mark.get("open") is True
        if mark.get("last") is True:
            self.grown = 0

    def note_edit(self, edit: str, content: Mapping[str, Any]) -> None:
        """Note an edit that has arrived."""
        self.edits.append(edit)
        self.grown += 1
        self.note(content)


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
        KEY: content[KEY],
        "m.new_content": dict(content),
        "m.relates_to": {"rel_type": "m.replace", "event_id": message_id},
    }


def ask_content(call_id: str, asker: str) -> dict[str, Any]:
    """Return the message on which the asker answers what the page above asks: they are notified."""
    labels = choices(call_id)
    chosen = ", ".join(f"{SIGNS[one]} ({label})" for one, label in labels.items())
    words = ", ".join(f"`!parley {one}`" for one in labels)
    text = say(
        "React to this message with {choices}, or write {words}.", choices=chosen, words=words
    )
    return content_of(text, mentions=[asker])


async def messages_of(client: MatrixClient, address: Address, turn_id: str) -> dict[str, Message]:
    """Return the messages of a turn's answer by their ids, oldest first. Raises SurfaceError.

    One that was redacted is there if it has edits left, with the page -1.
    """
    found: dict[str, Message] = {}
    async for event in own_messages(client, address.room, after=address.question):
        content = event["content"]
        if mark_of(content).get("turn") != turn_id:
            continue
        id_, relation = str(event["event_id"]), content.get("m.relates_to")
        match relation, content.get("m.new_content"):
            case {"rel_type": "m.replace", "event_id": str(edited)}, {} as new:
                found.setdefault(edited, Message(id=edited)).note_edit(id_, new)
            case _:
                found[id_] = _message(id_, content)
    return found


async def message_of(client: MatrixClient, room: str, message_id: str) -> Message:
    """Return a message as it is now, with its last edit. Raises MessageGone if it is redacted."""
    event = await client.event(room, message_id)
    content = event.get("content") or {}
    if event.get("sender") != client.user_id or not mark_of(content):
        raise MessageGone(f"{message_id} was redacted, or is no message of an answer")
    message, edits = _message(message_id, content), list[Event]()
    async for edit in client.relations(room, message_id, "m.replace"):
        edits.append(edit)
    for edit in reversed(edits):
        match edit:
            case {
                "sender": client.user_id,
                "event_id": str(id_),
                "content": {"m.new_content": {} as new},
            }:
                message.note_edit(id_, new)
    return message


async def own_messages(client: MatrixClient, room: str, *, after: str) -> AsyncIterator[Event]:
    """Yield the bot's messages and edits behind an event, oldest first, without redacted ones."""
    path = path_of("rooms", room, "context", after)
    try:
        start = (await client.call("GET", path, query={"limit": 0})).get("end")
    except SurfaceError as error:
        if not isinstance(error, MessageGone):
            raise
        start = None  # of a question that the server has purged: nothing is known of it
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


def mark_of(content: object) -> Mapping[str, Any]:
    """Return what our key says in a content; {} if it is not there."""
    mark = content.get(KEY) if isinstance(content, dict) else None
    return mark if isinstance(mark, dict) and isinstance(mark.get("turn"), str) else {}


def digest(*parts: object) -> str:
    """Return a short name of JSON values: the same for the same ones."""
    written = json.dumps(parts, sort_keys=True).encode()
    return hashlib.blake2b(written, digest_size=15).hexdigest()


def _message(id_: str, content: Mapping[str, Any]) -> Message:
    mark = mark_of(content)
    page = mark.get("page")
    message = Message(id=id_, page=page if isinstance(page, int) else -1)
    message.beside, message.name = str(mark.get("beside") or ""), str(mark.get("name") or "")
    message.note({name: it for name, it in content.items() if name != "m.relates_to"})
    return message
