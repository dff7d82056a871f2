"""Reads what a person sees in a message, whatever it is made of.

The result is Slack's markup; its mentions are resolved by `markup.readable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from bot.text.sanitize import escape_markup, one_line

_MOST_CHARACTERS = 64_000
_AUTHOR = 80  # characters of an author's name
_TOKEN = re.compile(r"<[^<>|]*(?:\|([^<>]*))?>")
_WORD = re.compile(r"\w+")

# Strings that people see; others are ids, addresses and values of buttons.
_SEEN = {"alt_text", "author_name", "body", "caption", "description", "label"}
_SEEN |= {"provider_name", "subtitle", "text", "title"}
# Objects that people see only after a click, or never.
_HIDDEN = {"confirm", "filter", "metadata", "option_groups", "style", "workflow"}
# What has more than its words: it is named, too.
_NAMED = {"button", "call", "file", "image", "select", "video"}
_BODILESS = {"divider", "mrkdwn", "plain_text", "text"}

# The subtypes of messages that people write; "me_message" comes from /me.
WRITTEN = (None, "file_share", "me_message", "thread_broadcast")
TS = re.compile(r"\d{1,12}\.\d{1,9}", re.ASCII)

Json = Mapping[str, object]


def message_text(message: Json, *, previews: bool = False) -> str:
    """Return the text, blocks, attachments and files of a message.

    What has no words is named in brackets. Previews of links are left out unless `previews`: the
    author did not write them.
    """
    return _joined(_content(message, previews=previews))[:_MOST_CHARACTERS]


def own_files(message: Json) -> Iterator[Json]:
    """Return the files of a message, without those of the messages that it forwards."""
    return _objects(message.get("files"))


def files_in(message: Json) -> Iterator[Json]:
    """Yield the files of a message, and those of the messages that it forwards."""
    yield from own_files(message)
    for one in _objects(message.get("attachments")):
        if one.get("is_share") is True:
            for part in (one, *_inner(one)):
                yield from files_in(part)


def is_deleted(file: Json) -> bool:
    """Whether nothing but its id is left of a file (docs: File object)."""
    return file.get("mode") == "tombstone"


def file_name(file: Json) -> str:
    """Return a file's name; one that is deleted, or of another workspace, has none."""
    return string_field(file, "title") or string_field(file, "name")


def string_field(values: object, name: str) -> str:
    """Return a field of an object; empty if it is not a string."""
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""


def _content(message: Json, *, previews: bool) -> Iterator[str]:
    yield _body(message)
    for one in _objects(message.get("attachments")):
        if one.get("is_share") is True:
            yield f"[forwarded from {_author(one)}] {_attachment(one)}"
        elif not any(map(one.get, ("from_url", "original_url", "is_app_unfurl", "is_msg_unfurl"))):
            yield _attachment(one)
        elif previews:
            yield f"[preview] {_attachment(one)}"
    yield from map(_file, own_files(message))


def _body(message: Json) -> str:
    """Return the text of a message, and what its blocks show beside it.

    Most texts repeat the blocks. Beside blocks, the text of an app is not shown at all.
    """
    text = string_field(message, "text")
    pieces = [_node(one) for one in _objects(message.get("blocks"))]
    shown, said = _joined(pieces), "".join(_words(text))
    more = [piece for piece in pieces if not text or "".join(_words(piece)) not in said]
    if (shown and message.get("bot_id")) or (more and {*_words(text)} <= {*_words(shown)}):
        return shown
    return _joined([text, *more])


def _words(text: str) -> list[str]:
    return _WORD.findall(_TOKEN.sub(lambda token: token[1] or token[0], text).casefold())


def _attachment(one: Json) -> str:
    """Return an attachment: another message, or the words of an app, in Slack's order."""
    parts = [one, *_inner(one)]
    whole = {
        **{name: one.get(name) for name in ("text", "bot_id")},
        **{
            name: [item for part in parts for item in _objects(part.get(name))]
            for name in ("blocks", "attachments", "files")
        },
    }
    author = "" if one.get("is_share") is True else string_field(one, "author_name")
    title, link = string_field(one, "title"), string_field(one, "title_link")
    fields = (
        ": ".join(filter(None, (string_field(field, "title"), string_field(field, "value"))))
        for field in _objects(one.get("fields"))
    )
    image = "[image]" if string_field(one, "image_url") else ""
    lines = [
        *(string_field(one, "pretext"), author, f"{title} ({link})" if title and link else title),
        *(_content(whole, previews=False)),
        *(*fields, image, _node(one.get("actions")), string_field(one, "footer")),
    ]
    return _joined(lines) or string_field(one, "fallback")


def _inner(attachment: Json) -> Iterator[Json]:
    parts = _objects(attachment.get("message_blocks"))
    return _objects([part.get("message") for part in parts])


def _author(attachment: Json) -> str:
    name = string_field(attachment, "author_name") or string_field(attachment, "author_subname")
    if name:
        return escape_markup(one_line(name)[:_AUTHOR])
    user = string_field(attachment, "author_id")
    return f"<@{user}>" if user.isalnum() else "somebody"


def _file(file: Json) -> str:
    name, kind = file_name(file), "deleted file" if is_deleted(file) else "file"
    return f"[{kind}: {escape_markup(name)}]" if name else f"[{kind}]"


def _node(node: object) -> str:
    """Return the words of a block, an element, a text object or a list of them."""
    if not isinstance(node, dict):
        return _joined(_node(one) for one in _objects(node))
    match node:
        case {"type": "mrkdwn" | "markdown", "text": str(text)}:
            return text
        case {"type": "table" | "data_table", "rows": list(rows)}:
            lines = (" | ".join(_cell(one) for one in _objects(row)) for row in rows)
            return _joined([escape_markup(string_field(node, "caption")), *lines])
        case {"type": str(kind), "elements": list(elements)} if kind.startswith("rich_text"):
            return _rich_text(node, [_node(one) for one in _objects(elements)])
        case {"type": "user", "user_id": str(user)} if user.isalnum():
            return f"<@{user}>"
        case {"type": "channel", "channel_id": str(channel)} if channel.isalnum():
            return f"<#{channel}>"
        case {"type": "usergroup", "usergroup_id": str(group)} if group.isalnum():
            return f"<!subteam^{group}>"
        case {"type": "broadcast", "range": str(group)} if group.isalnum():
            return f"<!{group}>"
        case {"type": "link" | "url", "url": str(url)}:
            label = string_field(node, "text")
            return escape_markup(f"{label} ({url})" if label and label != url else url)
        case {"type": "emoji", "name": str(name)}:
            return f":{escape_markup(name)}:"
        case {"type": "date", "fallback": str(text)} | {"type": "color", "value": str(text)}:
            return escape_markup(text)
    return _other(node)


def _other(node: Json) -> str:
    """Return what can be seen of an object of any kind, known or not."""
    type_ = string_field(node, "type")
    is_closed = type_.endswith(("select", "overflow"))  # a list whose options open on a click
    hidden = {*_HIDDEN, *(("options",) if is_closed else ("initial_option", "initial_options"))}
    seen = (
        escape_markup(value) if isinstance(value, str) else _node(value)
        for name, value in node.items()
        if name in _SEEN
        or (name == "name" and "type" not in node)
        or (isinstance(value, dict | list) and name not in hidden)
    )
    words = _joined(dict.fromkeys(seen))
    kind = escape_markup(type_[:_AUTHOR].replace("_", " "))
    if words and (type_ in _NAMED or "action_id" in node):
        return f"[{kind}: {' '.join(' | '.join(words.splitlines()).split())}]"
    return words or (f"[{kind}]" if kind and type_ not in _BODILESS else "")


def _rich_text(node: Json, inner: list[str]) -> str:
    """Return the parts of a rich text block, or of one of its elements (docs: Rich text block)."""
    match node:
        case {"type": "rich_text"}:
            return _joined(inner)
        case {"type": "rich_text_list"}:
            numbers = (node.get(name) for name in ("indent", "offset"))
            indent, offset = (one if isinstance(one, int) else 0 for one in numbers)
            ordered, space = node.get("style") == "ordered", "  " * min(indent, 8)
            items = enumerate(inner, 1 + offset)
            return _joined(f"{space}{f'{n}.' if ordered else '•'} {text}" for n, text in items)
        case {"type": "rich_text_preformatted"}:
            return f"```\n{''.join(inner)}\n```"
        case {"type": "rich_text_quote"}:
            return "\n".join(f"&gt; {line}" for line in "".join(inner).split("\n"))
    return "".join(inner)


def _cell(cell: Json) -> str:
    """Return a cell: rich text, or what is shown for a value (docs: Table and Data table block)."""
    if "elements" in cell:
        return " ".join(_node({"type": "rich_text", **cell}).split())
    values = [value for name, value in cell.items() if name != "type"]
    bare = " ".join(str(value) for value in values if isinstance(value, str | int | float))
    return escape_markup(" ".join((string_field(cell, "text") or bare).split()))


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(filter(None, lines))


def _objects(value: object) -> Iterator[Json]:
    items = value if isinstance(value, list) else []
    return (item for item in items if isinstance(item, dict))
