"""What a message brings along besides its text: forwarded messages and pasted tables.

It is told as Slack's markup, so that mentions get their names with those of the message itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from bot.text.sanitize import escape_markup

_MOST = 64_000  # characters that are read
_DEEPEST = 6  # of elements in one another; Slack nests a section in a list in a block
_NAME = 80  # characters of an author's name

Json = Mapping[str, object]


def brought(message: Json) -> str:
    """Return what a person sent along: forwarded messages, and the rows of tables.

    Previews of links are left out: those are not the person's words.
    """
    return _bounded(_parts(message))


def file_names(files: object) -> tuple[str, ...]:
    """Return the names of files that Slack lists."""
    names = (file.get("name") for file in _objects(files))
    return tuple(name for name in names if isinstance(name, str))


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
        if isinstance(inner := part.get("message"), dict)
        for block in _objects(inner.get("blocks"))
    ]
    text = _word(attachment, "text")
    # The tables are not in the text, whatever else is.
    said = [text, *_tables(blocks)] if text else [_block(block) for block in blocks]
    files = [f"[file: {escape_markup(name)}]" for name in file_names(attachment.get("files"))]
    words = _bounded([*said, *files, *_tables(attachment.get("blocks"))])
    return f"[forwarded from {_author(attachment)}] {words or _word(attachment, 'fallback')}"


def _author(attachment: Json) -> str:
    name = _word(attachment, "author_name") or _word(attachment, "author_subname")
    if name:
        return escape_markup(" ".join(name.split())[:_NAME])
    user = _word(attachment, "author_id")
    return f"<@{user}>" if user.isalnum() else "somebody"


def _tables(blocks: object) -> Iterator[str]:
    return (_block(block) for block in _objects(blocks) if block.get("type") == "table")


def _block(block: Json) -> str:
    match block:
        case {"type": "table", "rows": list(rows)}:
            return _bounded(" | ".join(map(_cell, _objects(row))) for row in rows)
        case {"type": "rich_text"}:
            return _rich(block, _DEEPEST)
        case {"text": {"type": "mrkdwn", "text": str(text)}}:
            return text
        case {"text": {"text": str(text)}} | {"text": str(text)}:
            return escape_markup(text)
    return ""


def _cell(cell: Json) -> str:
    # Of type rich_text, raw_text, or another that has words.
    words = _rich(cell, _DEEPEST) if "elements" in cell else escape_markup(_word(cell, "text"))
    return " ".join(words.split())


def _rich(element: Json, depth: int) -> str:
    """Return the words of a rich text block or of one of its elements (docs: Rich text block)."""
    match element:
        case {"elements": list(elements)} if depth > 0:
            inner = (_rich(one, depth - 1) for one in _objects(elements))
            lines = element.get("type") in ("rich_text", "rich_text_list")
            return _bounded(inner) if lines else "".join(inner)
        case {"type": "user", "user_id": str(user)} if user.isalnum():
            return f"<@{user}>"
        case {"type": "channel", "channel_id": str(channel)} if channel.isalnum():
            return f"<#{channel}>"
        case {"type": "usergroup", "usergroup_id": str(group)} if group.isalnum():
            return f"<!subteam^{group}>"
        case {"type": "broadcast", "range": str(whom)} if whom.isalnum():
            return f"<!{whom}>"
        case {"type": "link", "url": str(url)}:
            label = _word(element, "text")
            words = f"{label} ({url})" if label and label != url else url
            return escape_markup(words)
        case {"type": "emoji", "name": str(name)}:
            return f":{escape_markup(name)}:"
        case {"type": "date", "fallback": str(words)} | {"text": str(words)}:
            return escape_markup(words)
    return ""


def _bounded(lines: Iterable[str]) -> str:
    """Return lines that say something, up to the most characters that are read."""
    kept: list[str] = []
    left = _MOST
    for line in filter(None, lines):
        kept.append(line[:left])
        left -= len(line) + 1
        if left <= 0:
            break
    return "\n".join(kept)


def _objects(listed: object) -> Iterator[Json]:
    items = listed if isinstance(listed, list) else []
    return (item for item in islice(items, _MOST) if isinstance(item, dict))


def _word(values: Json, name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""
