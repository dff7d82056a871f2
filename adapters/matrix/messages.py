"""The messages of an answer on the homeserver: what they contain, and how they are found again.

A key of our own names their turn. Strangers may write the same key, so the sender is compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from adapters.matrix.client import Event, MatrixClient, path_of
from adapters.matrix.events import edited_event, event_of, mapping
from adapters.matrix.markup import content_of
from bot.domain import Consent, Page, Turn, choices
from bot.errors import MessageGone, PlaceGone
from bot.languages import say

KEY = "dev.parley.reply"
FILE, ASK = "file:", "ask:"  # what a message beside a page is
# The reactions that answer what a person is asked.
SIGNS: Mapping[Consent, str] = {
    "allow": "✅",
    "done": "✅",
    "answer": "✅",
    "always": "♾️",
    "deny": "❌",
}
_MOST_READ = 2000  # messages and edits of ours since a question


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
    oldest first, `grown` are of the current answer.
    """

    id: str
    page: int = -1
    beside: str = ""
    name: str = ""
    shows: str = ""
    is_open: bool = False
    edits: list[str] = field(default_factory=list)
    grown: int = 0

    def note(self, content: Mapping[str, Any], edit: str = "") -> None:
        """Note that it shows this content, perhaps by an edit."""
        mark = mark_of(content)
        if edit:
            self.edits.append(edit)
        self.grown = 0 if mark.get("last") else self.grown + bool(edit)
        self.shows, self.is_open = digest(content), bool(mark.get("open"))


def marked(turn: Turn, content: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a content with our key: whose question it answers, when asked (ms), and `more`."""
    asked = {"turn": turn.id, "for": turn.person.id, "asked": int(turn.asked_at * 1000)}
    return {**content, KEY: {**asked, **more}}


def page_content(page: Page, turn: Turn) -> dict[str, Any]:
    """Return the content of a page's message, without what it relates to."""
    shown = {"page": page.number, "open": not page.final, "last": page.last}
    return marked(turn, content_of(page.text), **shown)


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
        if edited := edited_event(event):
            message = found.setdefault(edited, Message(id=edited))
            message.note(mapping(content, "m.new_content"), id_)
        else:
            found[id_] = _message(id_, content)
    return found


class TakenAway(MessageGone):
    """The bot itself has redacted a message of an answer, which had fewer pages then."""


def redacted(client: MatrixClient, event: Event) -> MessageGone:
    """Return how a message that shows nothing of an answer is gone."""
    because = mapping(event, "unsigned", "redacted_because")
    kind = TakenAway if because.get("sender") == client.user_id else MessageGone
    return kind(f"{event.get('event_id')} was redacted, or is no message of an answer")


async def message_of(client: MatrixClient, room: str, message_id: str) -> Message:
    """Return a message of the bot as it is now. Raises MessageGone if it is redacted."""
    event = await client.event(room, message_id)
    content = mapping(event, "content")
    if event.get("sender") != client.user_id or not mark_of(content):
        raise redacted(client, event)
    message = _message(message_id, content)
    edits = [it async for it in client.relations(room, message_id, "m.replace")]
    for edit in reversed(edits):
        if edit.get("sender") == client.user_id and mark_of(content := mapping(edit, "content")):
            message.note(mapping(content, "m.new_content"), str(edit["event_id"]))
    return message


async def own_messages(client: MatrixClient, room: str, *, after: str = "") -> AsyncIterator[Event]:
    """Yield the bot's messages and edits, oldest first, without redacted ones.

    Those behind an event, up to `_MOST_READ`; without one, all of the room.
    """
    own, kinds, start, number = [client.user_id], ["m.room.message"], "", 0
    if after:
        path = path_of("rooms", room, "context", after)
        try:
            start = str((await client.call("GET", path, query={"limit": 0})).get("end"))
        except MessageGone:  # the server has purged it
            return
    async with aclosing(client.messages(room, start, senders=own, types=kinds)) as found:
        async for event in found:
            number += 1
            if mark_of(event.get("content")):
                yield event
            if after and number == _MOST_READ:
                return


async def redact(client: MatrixClient, room: str, events: Iterable[str]) -> None:
    """Take away events; one that is gone already stays so. Raises SurfaceError."""
    for one in events:
        path = path_of("rooms", room, "redact", one, digest("redact", one))
        with suppress(MessageGone):
            await client.call("PUT", path, body={}, counted=True)


async def withdraw(client: MatrixClient, room: str, event: str) -> None:
    """Redact the answer to an event, its edits, and what stands beside it. Raises SurfaceError."""
    found = []
    async for own in own_messages(client, room, after=event):
        mark = mark_of(own["content"])
        if event in (event_of(mark["turn"]), edited_event(own), mark.get("beside")):
            found.append(own)
    await redact_all(client, room, found)


async def redact_all(client: MatrixClient, room: str, found: Iterable[Event]) -> None:
    """Redact some of `own_messages`. Raises SurfaceError."""
    # Edits first, the newest last: so no older text comes back, and a server lists no edits of what
    # is redacted.
    ordered = sorted(found, key=lambda it: not edited_event(it))
    await redact(client, room, [str(one["event_id"]) for one in ordered])


def _message(id_: str, content: Mapping[str, Any]) -> Message:
    mark = mark_of(content)
    message = Message(id=id_, **{it: mark[it] for it in ("page", "beside", "name") if it in mark})
    message.note({name: it for name, it in content.items() if name != "m.relates_to"})
    return message
