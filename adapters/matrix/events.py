"""Reads what people say in events, which strangers on other servers have written."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from adapters.matrix.client import Event
from bot.domain import FileRef
from bot.text.sanitize import is_visible, one_line, strip_controls, whole_characters

NAME = "matrix"
COMMAND = "!parley"
USER = re.compile(r"@[^\s:]{1,200}:[^\s]{1,253}")
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
    `everybody`: it mentions the whole room. `text` is empty if it only calls the bot.
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
    is_bot: bool = False

    @property
    def turn_id(self) -> str:
        """The id of the turn that it asks for."""
        return turn_id(self.event)

    @property
    def command(self) -> str | None:
        """What follows "!parley"; None if it is no command."""
        name, _, words = self.text.partition(" ")
        return words.strip() if name.casefold() == COMMAND else None

    def without_name(self, *names: str) -> Said:
        """Return it without the bot's name at its beginning."""
        any_of = "|".join(re.escape(name.removeprefix("@")) for name in names if name)
        text = re.sub(rf"\A\s*@?(?:{any_of})(?!\w)[,:]?\s*", "", self.text, flags=re.IGNORECASE)
        return replace(self, text=text if is_visible(text) else "")


def turn_id(event: str) -> str:
    """Return the id of the turn that an event asks for."""
    return f"{NAME}:{event}"


def event_of(turn: str) -> str:
    """Return the event that a turn's id names; "" if it names none."""
    found = turn.removeprefix(f"{NAME}:")
    return found if _EVENT.fullmatch(found) else ""


def to_said(room: str, event: Event, *, content: Mapping[str, object] | None = None) -> Said | None:
    """Return the message of an event; None if it is none, or an edit, or was redacted.

    `content` stands for the event's own: that of its last edit. Its relation remains the event's.
    """
    original = mapping(event, "content")
    shown = original if content is None else content
    kind, sender, id_ = shown.get("msgtype"), event.get("sender"), event.get("event_id")
    if event.get("type") != "m.room.message" or "state_key" in event:
        return None
    if content is None and edited_event(event):
        return None
    if not (isinstance(sender, str) and USER.fullmatch(sender)) or kind not in (*_SAID, "m.notice"):
        return None
    if not isinstance(id_, str) or not _EVENT.fullmatch(id_):
        return None
    relation = mapping(original, "m.relates_to")
    is_threaded = relation.get("rel_type") == "m.thread"
    mentions = mapping(shown, "m.mentions")
    users = mentions.get("user_ids")
    named = users[:_MOST_MENTIONED] if isinstance(users, list) else []
    # In a thread a reply may stand in for one, for clients that know no threads (v1.4).
    is_reply = not (is_threaded and relation.get("is_falling_back") is True)
    reply_to = event_id(mapping(relation, "m.in_reply_to"), "event_id") if is_reply else ""
    thread = event_id(relation, "event_id") if is_threaded else ""
    files = _files(room, id_, shown)
    return Said(
        room=room,
        event=id_,
        sender=sender,
        at=time_of(event),
        text=_text(shown, files, replies="m.in_reply_to" in relation),
        files=files,
        mentions=frozenset(one for one in named if isinstance(one, str)),
        everybody=mentions.get("room") is True,
        thread="" if thread == id_ else thread,
        reply_to=reply_to,
        is_bot=kind == "m.notice",
    )


def as_it_stands(room: str, event: Event) -> Said | None:
    """Return the message of an event with the last edit that the homeserver has put beside it."""
    relations = mapping(mapping(event, "unsigned"), "m.relations")
    edit = mapping(relations, "m.replace")
    new = mapping(mapping(edit, "content"), "m.new_content")
    # The homeserver promises it to be the author's (v1.4, "Event replacements").
    own = bool(new) and edit.get("sender") == event.get("sender") and mapping(event, "content")
    return to_said(room, event, content=new if own else None)


def edited_event(event: Event) -> str:
    """Return the event that an event replaces; "" if it is no edit."""
    relation = mapping(mapping(event, "content"), "m.relates_to")
    return event_id(relation, "event_id") if relation.get("rel_type") == "m.replace" else ""


def reacted_to(event: Event) -> tuple[str, str]:
    """Return the event to which a reaction reacts, and its key, such as "👍"."""
    relation = mapping(mapping(event, "content"), "m.relates_to")
    key = relation.get("key")
    if relation.get("rel_type") != "m.annotation" or not isinstance(key, str):
        return "", ""
    return event_id(relation, "event_id"), key[:20]


def redacted_event(event: Event) -> str:
    """Return the event that a redaction takes away; it moved in room version 11."""
    return event_id(mapping(event, "content"), "redacts") or event_id(event, "redacts")


def time_of(event: Event) -> float:
    """Return when an event was sent, in seconds since the epoch; no server is believed a future."""
    sent, now = event.get("origin_server_ts"), time.time()
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not sent >= 0:
        return now
    return min(sent / 1000, now) if sent < 1e15 else now


def mapping(holder: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return an object in an object; {} if it is none."""
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def event_id(holder: Mapping[str, object], name: str) -> str:
    """Return a field that is an event's id; "" if it is none."""
    found = holder.get(name)
    return found if isinstance(found, str) and _EVENT.fullmatch(found) else ""


def _text(content: Mapping[str, object], files: tuple[FileRef, ...], *, replies: bool) -> str:
    body = content.get("body")
    text = body if isinstance(body, str) else ""
    if replies:
        text = _FALLBACK.sub("", text)
    if files:
        # Without a name of its own, the body is the file's (v1.10, "Media captions").
        text = text if isinstance(content.get("filename"), str) else ""
        text = "" if text == files[0].name else text
        text = "\n".join(filter(None, (text, f"[file: {files[0].name}]")))
    text = _LINK.sub(r"\1", whole_characters(text)).strip()
    text = strip_controls(text)
    return text if is_visible(text) else ""


def _files(room: str, id_: str, content: Mapping[str, object]) -> tuple[FileRef, ...]:
    address, size = content.get("url"), mapping(content, "info").get("size")
    if content.get("msgtype") not in _FILES or not isinstance(address, str):
        return ()
    names = (content.get("filename"), content.get("body"))
    name = next((one for one in names if isinstance(one, str) and one.strip()), "file")
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 50
    return (
        FileRef(
            turn_id(id_),
            turn_id(id_),
            one_line(whole_characters(name))[:_FILE_NAME],
            size if is_size and isinstance(size, int) else 0,
            {"room": room, "mxc": address[:500]},
        ),
    )
