"""What a text or block on the wire says to a reader, whom it notifies and what it previews."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from tests.emulators.slack.payload import Payload

# docs: Formatting message text, "Escaping text" and "Linking".
_MARKUP = re.compile(r"(<(?:[@#!]|https?://|mailto:)[^<>]*>)")
_BARE_LINK = re.compile(r"https?://[^\s<>]+")
_PING = re.compile(r"<!(?:channel|here|everyone|group|subteam\^[^<>|]*)(?:\|[^<>]*)?>|<@[^<>]*>")
_LINK = re.compile(r"https?://[^\s<>|)\]]+")


def escape(typed: str) -> str:
    """Return what Slack sends for what a person typed; mentions are given in angle brackets."""
    pieces = _MARKUP.split(typed)
    return "".join(
        piece if odd else _plain(piece) for odd, piece in zip(_odd(), pieces, strict=False)
    )


def read(text: str, blocks: list[Payload]) -> str:
    """Return what a person reads: the words of the blocks, or the text where they have none."""
    words = [word for block in blocks if (word := _words(block)) is not None]
    joined = "\n".join(words) if words else text
    return joined.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def buttons(blocks: list[Payload]) -> Iterator[tuple[str, str, Payload]]:
    """Yield the action id, block id and object of every button."""
    for block_id, element in _elements(blocks, "button"):
        yield str(element.get("action_id", "")), block_id, element


def feedback(blocks: list[Payload]) -> Iterator[tuple[str, Payload]]:
    """Yield the block id and the object of each pair of feedback buttons."""
    return _elements(blocks, "feedback_buttons")


def _elements(blocks: list[Payload], kind: str) -> Iterator[tuple[str, Payload]]:
    for block in blocks:
        elements = block.get("elements")
        for element in elements if isinstance(elements, list) else ():
            if isinstance(element, dict) and element.get("type") == kind:
                yield str(block.get("block_id", "")), element


def notes(blocks: list[Payload]) -> Iterator[str]:
    """Yield the texts of context blocks."""
    for block in blocks:
        elements = block.get("elements")
        if block.get("type") == "context" and isinstance(elements, list):
            yield from (str(it["text"]) for it in elements if isinstance(it, dict) and "text" in it)


def tasks(blocks: list[Payload]) -> Iterator[Payload]:
    """Yield the task cards, alone or in a plan."""
    for block in blocks:
        match block:
            case {"type": "task_card"}:
                yield block
            case {"type": "plan", "tasks": list(listed)}:
                yield from listed


def cards(blocks: list[Payload]) -> Iterator[tuple[str, str]]:
    """Yield the titles of the task cards, with their states."""
    for task in tasks(blocks):
        yield str(task["title"]), str(task["status"])


def label_of(button: Payload) -> str:
    """Return what stands on a button."""
    text = button.get("text")
    return str(text.get("text")) if isinstance(text, dict) else ""


def pings(text: str, blocks: list[Payload]) -> list[str]:
    """Return what would notify somebody."""
    return [ping for spoken in [text, *_spoken(blocks)] for ping in _PING.findall(spoken)]


def links(text: str, blocks: list[Payload]) -> list[str]:
    """Return the addresses that Slack would preview."""
    return [link for spoken in [text, *_spoken(blocks)] for link in _LINK.findall(spoken)]


def rich_text(typed: str, *, block_id: str) -> Payload:
    """Return the block that Slack makes of what a person typed (docs: Rich text block)."""
    pieces = zip(_odd(), _MARKUP.split(typed), strict=False)
    elements = [_element(piece, marked=odd) for odd, piece in pieces if piece]
    section = {"type": "rich_text_section", "elements": elements}
    return {"type": "rich_text", "block_id": block_id, "elements": [section]}


def _element(piece: str, *, marked: bool) -> Payload:
    if not marked:
        return {"type": "text", "text": piece}
    name = piece[1:-1].partition("|")[0]
    match name[0]:
        case "@":
            return {"type": "user", "user_id": name[1:]}
        case "#":
            return {"type": "channel", "channel_id": name[1:]}
        case "!":
            return {"type": "broadcast", "range": name[1:]}
    return {"type": "link", "url": name}


def _odd() -> Iterator[bool]:
    return itertools.cycle((False, True))


def _plain(piece: str) -> str:
    escaped = piece.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BARE_LINK.sub(r"<\g<0>>", escaped)


def _words(block: Payload) -> str | None:
    text = block.get("text")
    if block.get("type") == "markdown":
        return str(text)
    if block.get("type") == "section" and isinstance(text, dict):
        return str(text.get("text"))
    return None


def _spoken(node: object) -> Iterator[str]:
    """Yield every text in which Slack reads mentions (docs: Block Kit, text)."""
    if isinstance(node, list):
        for item in node:
            yield from _spoken(item)
    if not isinstance(node, dict):
        return
    match node:
        case {"type": "mrkdwn" | "markdown", "text": str(text)}:
            yield text
        case _:
            for value in node.values():
                yield from _spoken(value)
