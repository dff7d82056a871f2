"""Makes text of what a Discord message shows beside its own text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from adapters.discord.rest import Payload

# Characters of all that is read beside a message's own text. Discord's own limits are 6000 for a
# message's embeds ("Embed Limits") and 4000 for its components.
LIMIT = 10_000
_PREVIEW_LIMIT = 300  # of the title and of the description of a link's preview
# Forwards in forwards, and components in components, of which Discord itself has three levels.
_DEEPEST = 8
# Discord's documentation, "Embed Types": those that it makes of links.
_PREVIEWS = ("link", "article", "image", "video", "gifv")
# "Component Types".
_BUTTON, _TEXT, _THUMBNAIL, _GALLERY, _FILE = 2, 10, 11, 12, 13
_MENUS = (3, 5, 6, 7, 8)
_PLAIN = (1, 9, 14, 17)  # a row, a section, a separator and a container: nothing but their parts
_PERSON = re.compile(r"<@!?(\d{15,20})>")


def shown_beside_text(message: Payload) -> str:
    """Return what a message shows beside its own text; of much, only the beginning.

    What cannot be read is named in brackets. Never raises, whatever the payload is.
    """
    text = ""
    for line in filter(None, _lines(message, _DEEPEST)):
        text += f"\n{line}" if text else line
        if len(text) > LIMIT:
            return text[:LIMIT] + "…"
    return text


def file_line(name: str) -> str:
    """Return the line that names a file in a question."""
    return _bracketed("file", name)


def _lines(message: Payload, depth: int) -> Iterator[str]:
    yield from _poll(_object(message, "poll"))
    by_person = "author" in message and _object(message, "author").get("bot") is not True
    by_person = by_person and not message.get("webhook_id")
    for embed in _objects(message, "embeds"):
        # People send no embeds: theirs are previews of links.
        is_preview = by_person or embed.get("type") in _PREVIEWS
        yield from _preview(embed) if is_preview else _embed(embed, depth)
    yield from _components(_objects(message, "components"), depth)
    for sticker in _objects(message, "sticker_items") or _objects(message, "stickers"):
        yield _bracketed("sticker", _string(sticker, "name"))
    for file in _objects(message, "attachments"):
        kind = "voice message" if "waveform" in file else "file"
        yield _described(kind, _string(file, "filename", "title"), _string(file, "description"))
    for snapshot in _objects(message, "message_snapshots"):
        yield from _forwarded(_object(snapshot, "message"), depth - 1)


def _forwarded(message: Payload, depth: int) -> Iterator[str]:
    if depth < 0:
        yield "[forwarded] […]"
        return
    people = {
        _string(one, "id"): _string(one, "global_name", "username")
        for one in _objects(message, "mentions")
    }

    def name(match: re.Match[str]) -> str:
        return f"@{people[match[1]]}" if people.get(match[1]) else match[0]

    first = "[forwarded]"
    for line in filter(None, chain([_string(message, "content")], _lines(message, depth))):
        text = _PERSON.sub(name, line)
        yield f"{first} {text}" if first else text
        first = ""
    if first:
        yield first


def _poll(poll: Payload) -> Iterator[str]:
    if not poll:
        return
    results = _objects(_object(poll, "results"), "answer_counts")
    answers = []
    for answer in _objects(poll, "answers"):
        counts = (one.get("count") for one in results if one.get("id") == answer.get("answer_id"))
        votes = "".join(str(one) for one in counts if isinstance(one, int))
        answers.append(_linked(_media(_object(answer, "poll_media")), votes))
    question = _media(_object(poll, "question"))
    yield _joined(" ", "[poll]", question, _joined(" / ", *answers))


def _media(media: Payload) -> str:
    """Return the text of a poll's question or answer, with its emoji."""
    return _joined(" ", _emoji(media), _string(media, "text")) or "[…]"


def _preview(embed: Payload) -> Iterator[str]:
    """Yield what Discord made of a link, shortened; the link itself is in the text."""
    title, description = _string(embed, "title"), _string(embed, "description")
    kind = _string(embed, "type")
    name = title or ("" if description else kind.replace("rich", "link"))
    short = (
        one[:_PREVIEW_LIMIT] + "…" * (len(one) > _PREVIEW_LIMIT) for one in (name, description)
    )
    yield _joined(" ", "[preview]", _joined(": ", *short))


def _embed(embed: Payload, depth: int) -> Iterator[str]:
    yield _string(_object(embed, "author"), "name")
    yield _linked(_string(embed, "title"), _string(embed, "url"))
    yield _string(embed, "description")
    for field in _objects(embed, "fields"):
        yield _joined(": ", _string(field, "name").replace("_", " "), _string(field, "value"))
    for kind in ("image", "video"):
        if media := _object(embed, kind):
            yield _bracketed(kind, _string(media, "description"))
    yield from _components(_objects(embed, "components"), depth)
    yield _joined(" • ", _string(_object(embed, "footer"), "text"), _string(embed, "timestamp"))


def _components(components: Iterable[Payload], depth: int) -> Iterator[str]:
    for component in components:
        yield from _component(component, depth - 1) if depth else ["[…]"]


def _component(component: Payload, depth: int) -> Iterator[str]:
    kind = component.get("type")
    label, description = _string(component, "label"), _string(component, "description")
    if kind == _TEXT:
        yield _string(component, "content")
    elif kind == _BUTTON:
        face = _joined(" ", _emoji(component), label)
        yield _bracketed("button", _linked(face, _string(component, "url")))
    elif kind in _MENUS:
        options = (_string(one, "label") for one in _objects(component, "options"))
        yield _bracketed(
            "menu", _joined(": ", _string(component, "placeholder"), _joined(" / ", *options))
        )
    elif kind in (_THUMBNAIL, _GALLERY):
        for item in [component] if kind == _THUMBNAIL else _objects(component, "items"):
            media = _string(_object(item, "media"), "content_type").partition("/")[0]
            yield _bracketed(media or "image", _string(item, "description"))
    elif kind == _FILE:
        url = _string(_object(component, "file"), "url")
        yield file_line(_string(component, "name") or url.partition("?")[0].rpartition("/")[2])
    elif kind not in _PLAIN:
        yield _described("component", label, description)
    inner = (component.get("component"), component.get("accessory"))
    children = [
        *_objects(component, "components"),
        *(one for one in inner if isinstance(one, dict)),
    ]
    yield from _components(children, depth)


def _linked(text: str, url: str) -> str:
    return _joined(" ", text, f"({url})") if text and url else text or url


def _bracketed(kind: str, text: str) -> str:
    return f"[{_joined(': ', kind, text)}]"


def _described(kind: str, name: str, description: str) -> str:
    return _bracketed(kind, _linked(name, description))


def _joined(separator: str, *parts: str) -> str:
    return separator.join(filter(None, parts))


def _emoji(holder: Payload) -> str:
    emoji = _object(holder, "emoji")
    name = _string(emoji, "name")
    return f":{name}:" if name and emoji.get("id") else name  # one of a server has an id


def _object(holder: Mapping[str, Any], key: str) -> Payload:
    found = holder.get(key)
    return found if isinstance(found, dict) else {}


def _objects(holder: Mapping[str, Any], key: str) -> list[Payload]:
    found = holder.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _string(holder: Mapping[str, Any], *keys: str) -> str:
    """Return the first text under one of these keys."""
    found = (holder.get(key) for key in keys)
    return next((one.strip() for one in found if isinstance(one, str) and one.strip()), "")
