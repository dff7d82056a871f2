"""Reads what people say in events, which strangers on other servers have written."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from adapters.matrix.client import Event
from bot.domain import FileRef, Json
from bot.text.sanitize import is_visible, one_line, strip_controls, whole_characters

NAME = "matrix"
COMMAND = "!parley"
_USER = re.compile(r"@[^\s:]{1,200}:[^\s]{1,253}")
_EVENT = re.compile(r"\$[!-~]{1,254}")
_FILES = ("m.file", "m.image", "m.audio", "m.video")
_SAID = ("m.text", "m.emote", *_FILES)  # not m.notice, which bots write
_LINK = re.compile(r"\[([^\[\]\n]{0,200})\]\(https://matrix\.to/#/([^\s()]{1,500})\)")
_FALLBACK = re.compile(r"\A(?:> [^\n]*(?:\n|\Z)){1,200}\n?")  # before v1.13, "Rich replies"
_MOST_MENTIONED = 100
_FILE_NAME = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of a person.

    `at` is in seconds since the epoch, as the sender's server says, but not in the future. `thread`
    is the event that begins its thread, and `reply_to` the one that it replies to; "" without one.
    `everybody`: it mentions the whole room. `text` is empty if it only calls the bot. No thread can
    begin with what `is_related` to another event (Synapse 1.163 refuses it, as MSC3440 says).
    """

    room: str
    event: str
    sender: str
    at: float
    text: str
    files: tuple[FileRef, ...] = ()
    mentions: frozenset[str] = frozenset()
    everybody: bool = False
    thread: str = ""
    reply_to: str = ""
    is_related: bool = False
    is_bot: bool = False

    @property
    def command(self) -> str | None:
        """What follows "!parley"; None if it is no command."""
        name, _, words = self.text.partition(" ")
        return words.strip() if name.casefold() == COMMAND else None

    def without(self, *names: str) -> str:
        """Return the text without the bot's name at its beginning."""
        any_of = "|".join(re.escape(name.removeprefix("@")) for name in names if name)
        text = re.sub(rf"\A\s*@?(?:{any_of})(?!\w)[,:]?\s*", "", self.text, flags=re.IGNORECASE)
        return text if is_visible(text) else ""


def turn_id(event: str) -> str:
    """Return the id of the turn that an event asks for."""
    return f"{NAME}:{event}"


def event_of(turn: str) -> str:
    """Return the event that a turn's id names; "" if it names none."""
    return _like(_EVENT, turn.removeprefix(f"{NAME}:"))


def to_said(room: str, event: Event, *, content: Event | None = None) -> Said | None:
    """Return the message of an event; None if it is none, or an edit, or was redacted.

    `content` stands for the event's own: that of its last edit. Its relation remains the event's.
    """
    original = mapping(event, "content")
    shown = original if content is None else content
    kind, relation = shown.get("msgtype"), mapping(original, "m.relates_to")
    sender, id_ = user_id(event, "sender"), event_id(event, "event_id")
    if event.get("type") != "m.room.message" or not (sender and id_ and original):
        return None
    if kind not in (*_SAID, "m.notice") or relation.get("rel_type") == "m.replace":
        return None
    thread = related_to(event, "m.thread")
    # In a thread a reply may stand in for one, for clients that know no threads (v1.4).
    is_reply = not (thread and relation.get("is_falling_back") is True)
    files = _files(room, id_, shown)
    return Said(
        room=room,
        event=id_,
        sender=sender,
        at=time_of(event),
        text=_text(shown, files, replies="m.in_reply_to" in relation),
        files=files,
        mentions=mentioned(shown),
        everybody=mapping(shown, "m.mentions").get("room") is True,
        thread="" if thread == id_ else thread,
        reply_to=event_id(mapping(relation, "m.in_reply_to"), "event_id") if is_reply else "",
        is_related="rel_type" in relation,
        is_bot=kind == "m.notice",
    )


def as_it_stands(room: str, event: Event) -> Said | None:
    """Return the message of an event with the last edit that the homeserver has put beside it."""
    edit = mapping(event, "unsigned", "m.relations", "m.replace")
    # The homeserver promises it to be the author's (v1.4, "Event replacements").
    is_own = edit.get("sender") == event.get("sender")
    new = mapping(edit, "content", "m.new_content") if is_own else {}
    return to_said(room, event, content=new or None)


def related_to(event: Event, kind: str) -> str:
    """Return the event to which one has a relation of this type; "" if there is none."""
    relation = mapping(event, "content", "m.relates_to")
    return event_id(relation, "event_id") if relation.get("rel_type") == kind else ""


def edited_event(event: Event) -> str:
    """Return the event that an event replaces; "" if it is no edit."""
    return related_to(event, "m.replace")


def reacted_to(event: Event) -> tuple[str, str]:
    """Return the event to which a reaction reacts, and its key, such as "👍"."""
    key = mapping(event, "content", "m.relates_to").get("key")
    return related_to(event, "m.annotation"), key[:20] if isinstance(key, str) else ""


def redacted_event(event: Event) -> str:
    """Return the event that a redaction takes away; "" if it names two."""
    # It moved in room version 11. Of two, the homeserver has checked one.
    named = {event_id(mapping(event, "content"), "redacts"), event_id(event, "redacts")} - {""}
    return named.pop() if len(named) == 1 else ""


def time_of(event: Event) -> float:
    """Return when an event was sent, in seconds since the epoch; no server is believed a future."""
    sent, now = event.get("origin_server_ts"), time.time()
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not sent >= 0:
        return now
    return min(sent / 1000, now) if sent < 1e15 else now


def mentioned(content: Event) -> frozenset[str]:
    """Return the ids of the people whom a message mentions."""
    users = mapping(content, "m.mentions").get("user_ids")
    named = users[:_MOST_MENTIONED] if isinstance(users, list) else []
    return frozenset(one for one in named if isinstance(one, str))


def own_membership(event: Event, user: str) -> tuple[object, object]:
    """Return what a user was in a room and is by this event, such as "join"; else None."""
    if event.get("type") != "m.room.member" or event.get("state_key") != user:
        return None, None
    before = mapping(event, "unsigned", "prev_content")
    return before.get("membership"), mapping(event, "content").get("membership")


def mapping(holder: Event, *names: str) -> Event:
    """Return an object in objects; {} if it, or one on the way, is none."""
    for name in names:
        found = holder.get(name)
        holder = found if isinstance(found, dict) else {}
    return holder


def event_id(holder: Event, name: str) -> str:
    """Return a field that is an event's id; "" if it is none."""
    return _like(_EVENT, holder.get(name))


def user_id(holder: Event, name: str) -> str:
    """Return a field that is a person's id; "" if it is none."""
    return _like(_USER, holder.get(name))


def _like(form: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and form.fullmatch(value) else ""


def _text(content: Event, files: tuple[FileRef, ...], *, replies: bool) -> str:
    body = content.get("body")
    text = body if isinstance(body, str) else ""
    if replies:
        text = _FALLBACK.sub("", text)
    if files:
        # Without a name of its own, the body is the file's (v1.10, "Media captions").
        text = text if isinstance(content.get("filename"), str) else ""
        text = "" if text == files[0].name else text
        text = "\n".join(filter(None, (text, f"[file: {files[0].name}]")))
    text = strip_controls(_LINK.sub(r"\1", whole_characters(text)).strip())
    return text if is_visible(text) else ""


def _files(room: str, id_: str, content: Event) -> tuple[FileRef, ...]:
    address, size = content.get("url"), mapping(content, "info").get("size")
    if content.get("msgtype") not in _FILES or not isinstance(address, str):
        return ()
    names = (content.get("filename"), content.get("body"))
    name = next((one for one in names if isinstance(one, str) and one.strip()), "file")
    name = one_line(whole_characters(name))[:_FILE_NAME]
    size = size if type(size) is int and 0 < size < 1 << 50 else 0
    place: dict[str, Json] = {"room": room, "mxc": address[:500]}
    return (FileRef(turn_id(id_), turn_id(id_), name, size, place),)
