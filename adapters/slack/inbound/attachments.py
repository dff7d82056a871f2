"""Reads the forwarded messages and pasted tables of a message.

The result is Slack's markup; its mentions are resolved with those of the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from bot.text.sanitize import escape_markup

_MOST_CHARACTERS = 64_000
_DEEPEST = 6  # levels of elements; Slack nests a section in a list in a block
_AUTHOR = 80  # characters of an author's name

Json = Mapping[str, object]


def attached_text(message: Json) -> str:
    """Return the forwarded messages and the tables of a message.

    Previews of links are left out: the person did not write them.
    """
    return _bounded(_parts(message))


def files_in(message: Json) -> list[str]:
    """Return the names of the files of a message, in brackets."""
    names = (file.get("name") for file in _objects(message.get("files")))
    return [f"[file: {escape_markup(name)}]" for name in names if isinstance(name, str)]


def string_field(values: object, name: str) -> str:
    """Return a field of an object; empty if it is not a string."""
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""


def _parts(message: Json) -> Iterator[str]:
    yield from _tables(message.get("blocks"))
    for attachment in _objects(message.get("attachments")):
        if attachment.get("is_share") is True:
            yield _forwarded(attachment)
        elif not attachment.get("from_url"):
            yield from _tables(attachment.get("blocks"))


def _forwarded(attachment: Json) -> str:
    blocks = [
        block
        for part in _objects(attachment.get("message_blocks"))
        if isinstance(message := part.get("message"), dict)
        for block in _objects(message.get("blocks"))
    ]
    text = string_field(attachment, "text")
    # The text has everything except the tables.
    content = [text, *_tables(blocks)] if text else map(_block, blocks)
    lines = _bounded([*content, *files_in(attachment), *_tables(attachment.get("blocks"))])
    return f"[forwarded from {_author(attachment)}] {lines or string_field(attachment, 'fallback')}"


def _author(attachment: Json) -> str:
    name = string_field(attachment, "author_name") or string_field(attachment, "author_subname")
    if name:
        return escape_markup(" ".join(name.split())[:_AUTHOR])
    user = string_field(attachment, "author_id")
    return f"<@{user}>" if user.isalnum() else "somebody"


def _tables(blocks: object) -> Iterator[str]:
    return (_block(block) for block in _objects(blocks) if block.get("type") == "table")


def _block(block: Json) -> str:
    match block:
        case {"type": "table", "rows": list(rows)}:
            return _bounded(" | ".join(map(_cell, _objects(row))) for row in rows)
        case {"type": "rich_text"}:
            return _rich_text(block, _DEEPEST)
        case {"text": {"type": "mrkdwn", "text": str(text)}}:
            return text
        case {"text": {"text": str(text)}} | {"text": str(text)}:
            return escape_markup(text)
    return ""


def _cell(cell: Json) -> str:
    # A cell is rich_text, raw_text, or another type with a text.
    rich = "elements" in cell
    text = _rich_text(cell, _DEEPEST) if rich else escape_markup(string_field(cell, "text"))
    return " ".join(text.split())


def _rich_text(element: Json, depth: int) -> str:
    """Return the text of a rich text block or of one of its elements (docs: Rich text block)."""
    match element:
        case {"elements": list(elements)} if depth > 0:
            inner = (_rich_text(one, depth - 1) for one in _objects(elements))
            has_lines = element.get("type") in ("rich_text", "rich_text_list")
            return _bounded(inner) if has_lines else "".join(inner)
        case {"type": "user", "user_id": str(user)} if user.isalnum():
            return f"<@{user}>"
        case {"type": "channel", "channel_id": str(channel)} if channel.isalnum():
            return f"<#{channel}>"
        case {"type": "usergroup", "usergroup_id": str(group)} if group.isalnum():
            return f"<!subteam^{group}>"
        case {"type": "broadcast", "range": str(group)} if group.isalnum():
            return f"<!{group}>"
        case {"type": "link", "url": str(url)}:
            label = string_field(element, "text")
            return escape_markup(f"{label} ({url})" if label and label != url else url)
        case {"type": "emoji", "name": str(name)}:
            return f":{escape_markup(name)}:"
        case {"type": "date", "fallback": str(text)} | {"text": str(text)}:
            return escape_markup(text)
    return ""


def _bounded(lines: Iterable[str]) -> str:
    taken: list[str] = []
    left = _MOST_CHARACTERS
    for line in filter(None, lines):
        taken.append(line[:left])
        left -= len(line) + 1
        if left <= 0:
            break
    return "\n".join(taken)


def _objects(value: object) -> Iterator[Json]:
    items = value if isinstance(value, list) else []
    return (item for item in islice(items, _MOST_CHARACTERS) if isinstance(item, dict))
