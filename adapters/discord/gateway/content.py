"""Makes text of what a Discord message shows beside its own text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from yarl import URL

from adapters.discord.rest import Payload
from bot.files.pictures import is_too_large

# Characters of all that is read beside a message's own text. Discord's own limits are 6000 for a
# message's embeds ("Embed Limits") and 4000 for its components.
LIMIT = 10_000
_PREVIEW_LIMIT = 300  # of the title and of the description of a link's preview
_PREVIEWS = ("link", "article", "image", "video", "gifv")  # "Embed Types" that it makes of links
_SIDE = 1540  # pixels of a smaller copy, at its longest side; models scale larger ones down
_PERSON = re.compile(r"<@!?(\d{15,20})>")


def shown_beside_text(message: Payload) -> str:
    """Return what a message shows beside its own text; of much, only the beginning.

    What cannot be read is named in brackets.
    """
    text = ""
    for line in filter(None, _lines(message)):
        text += f"\n{line}" if text else line
        if len(text) > LIMIT:
            return text[:LIMIT] + "…"
    return text


def file_line(name: str) -> str:
    """Return the line that names a file in a question."""
    return _named("file", name)


def files_in(message: Payload) -> Iterator[Payload]:
    """Yield the files of a message and of one that it forwards, with what the bot needs of them.

    The `url` of a picture that is too large to be seen leads to a smaller copy, of no known size.
    """
    for file in _objects(message, "attachments"):
        if _string(file, "id").isdecimal():
            size = file["size"] if isinstance(file.get("size"), int) else 0
            url = _address(file, size)
            needed = {"id": file["id"], "filename": _file_name(file), "url": url, "proxy_url": ""}
            yield needed | {"size": size if url == _string(file, "url") else 0}
    for snapshot in _objects(message, "message_snapshots"):
        yield from files_in(_object(snapshot, "message"))


def _file_name(file: Payload) -> str:
    # The title is the name as it was before Discord replaced its special characters.
    return _string(file, "title", "filename")


def _address(file: Payload, size: int) -> str:
    match file:
        case {
            "width": int(width),
            "height": int(height),
            "content_type": str(kind),
            "proxy_url": str(proxy),
        } if kind.startswith("image/") and is_too_large(size, width, height):
            scale = min(_SIDE / max(width, height, 1), 1.0)
            sides = {"width": round(width * scale), "height": round(height * scale)}
            return str(URL(proxy).update_query(sides))
    return _string(file, "url")


def _lines(message: Payload) -> Iterator[str]:
    if poll := _object(message, "poll"):
        yield _poll(poll)
    author = _object(message, "author")
    # People send no embeds: theirs are previews of links, or the result of a poll.
    by_person = author and not (author.get("bot") or message.get("webhook_id"))
    for embed in _objects(message, "embeds"):
        kind = embed.get("type")
        if kind in _PREVIEWS or (by_person and kind != "poll_result"):
            yield _preview(embed)
        else:
            yield from _embed(embed)
    yield from _components(message)
    for sticker in _objects(message, "sticker_items"):
        yield _named("sticker", _string(sticker, "name"))
    for file in _objects(message, "attachments"):
        name, description = _file_name(file), _string(file, "description")
        yield _named("voice message" if "waveform" in file else "file", name, _aside(description))
    for snapshot in _objects(message, "message_snapshots"):
        yield from _forwarded(_object(snapshot, "message"))


def _forwarded(message: Payload) -> Iterator[str]:
    names = {_string(one, "id"): one for one in _objects(message, "mentions")}

    def name(match: re.Match[str]) -> str:
        found = _string(names.get(match[1], {}), "global_name", "username")
        return f"@{found}" if found else match[0]

    lines = (_string(message, "content"), *_lines(message))
    head, *rest = [_PERSON.sub(name, line) for line in filter(None, lines)] or [""]
    yield _joined(" ", "[forwarded]", head)
    yield from rest


def _poll(poll: Payload) -> str:
    results = _objects(_object(poll, "results"), "answer_counts")
    answers = []
    for answer in _objects(poll, "answers"):
        counts = (one.get("count") for one in results if one.get("id") == answer.get("answer_id"))
        votes = _aside("".join(str(one) for one in counts if isinstance(one, int)))
        media = _object(answer, "poll_media")
        answers.append(_joined(" ", _emoji(media), _string(media, "text"), votes) or "[…]")
    question = _string(_object(poll, "question"), "text")
    return _joined(" ", "[poll]", question, " / ".join(answers))


def _preview(embed: Payload) -> str:
    """Return what Discord made of a link, shortened; the link itself is in the text."""
    shown = (_string(embed, "title"), _string(embed, "description"))
    short = (one[:_PREVIEW_LIMIT] + "…" * (len(one) > _PREVIEW_LIMIT) for one in shown)
    return _named("preview", _joined(": ", *short) or _string(embed, "type"))


def _embed(embed: Payload) -> Iterator[str]:
    yield _string(_object(embed, "author"), "name")
    yield _joined(" ", _string(embed, "title"), _aside(_string(embed, "url")))
    yield _string(embed, "description")
    gap = " " if embed.get("type") == "poll_result" else "_"
    for field in _objects(embed, "fields"):
        yield _joined(": ", _string(field, "name").replace("_", gap), _string(field, "value"))
    for kind in ("image", "video"):
        if media := _object(embed, kind):
            yield _named(kind, _string(media, "description"))
    yield from _components(embed)
    yield _joined(" • ", _string(_object(embed, "footer"), "text"), _string(embed, "timestamp"))


def _components(holder: Payload) -> Iterator[str]:
    inner = (_object(holder, "accessory"), _object(holder, "component"))
    for component in (*_objects(holder, "components"), *filter(None, inner)):
        yield from _component(component)
        yield from _components(component)


def _component(component: Payload) -> Iterator[str]:
    label = _joined(" ", _emoji(component), _string(component, "label"))
    match component.get("type"):  # "Component Types"
        case 1 | 9 | 14 | 17:  # a row, a section, a separator, a container
            pass
        case 2:
            yield _named("button", label, _aside(_string(component, "url")))
        case 3 | 5 | 6 | 7 | 8:
            options = (_string(one, "label") for one in _objects(component, "options"))
            shown = _joined(": ", _string(component, "placeholder"), _joined(" / ", *options))
            yield _named("menu", shown)
        case 10:
            yield _string(component, "content")
        case 11 | 12:
            for item in _objects(component, "items") or [component]:
                kind = _string(_object(item, "media"), "content_type").partition("/")[0]
                yield _named(kind or "image", _string(item, "description"))
        case 13:
            url = _string(_object(component, "file"), "url").partition("?")[0]
            yield file_line(_string(component, "name") or url.rpartition("/")[2])
        case _:
            yield _named("component", label)


def _emoji(holder: Payload) -> str:
    emoji = _object(holder, "emoji")
    name = _string(emoji, "name")
    return f":{name}:" if name and emoji.get("id") else name  # one of a server has an id


def _named(kind: str, *parts: str) -> str:
    return f"[{_joined(': ', kind, _joined(' ', *parts))}]"


def _aside(text: str) -> str:
    return f"({text})" if text else ""


def _joined(separator: str, *parts: str) -> str:
    return separator.join(filter(None, parts))


def _object(holder: Payload, key: str) -> Payload:
    found = holder.get(key)
    return found if isinstance(found, dict) else {}


def _objects(holder: Payload, key: str) -> list[Payload]:
    found = holder.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _string(holder: Payload, *keys: str) -> str:
    """Return the first text under one of these keys."""
    found = (holder.get(key) for key in keys)
    return next((one.strip() for one in found if isinstance(one, str) and one.strip()), "")
