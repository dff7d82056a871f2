"""What Slack accepts as the blocks of a message."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from tests.emulators.slack.arguments import SlackError
from tests.emulators.slack.workspace import Payload, buttons

# docs: Reference: blocks ("up to 50 blocks in each message"), markdown block, section block,
# actions block, button element. slackapi/bolt-js issue 2509: all words together about 13,000.
BLOCKS, MARKDOWN_CHARACTERS, SECTION_CHARACTERS, ALL_CHARACTERS = 50, 12_000, 3000, 13_000
ELEMENTS, LABEL_CHARACTERS, VALUE_CHARACTERS, ID_CHARACTERS = 25, 75, 2000, 255
_TYPES = frozenset(
    {
        "actions",
        "context",
        "context_actions",
        "divider",
        "file",
        "header",
        "image",
        "markdown",
        "rich_text",
        "section",
        "table",
        "video",
    }
)
_serial = itertools.count(1)


def check_blocks(given: object) -> list[Payload] | None:
    """Return the blocks with their ids, None when there are none; SlackError when refused."""
    if given is None:
        return None
    blocks = json.loads(given) if isinstance(given, str) else given
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise SlackError("invalid_blocks_format")
    _require(len(blocks) <= BLOCKS, f"no more than {BLOCKS} items allowed")
    for block in blocks:
        _check_block(block)
    lengths = [len(block["text"]) for block in blocks if block["type"] == "markdown"]
    _require(sum(lengths) <= MARKDOWN_CHARACTERS, "markdown is longer than 12000 characters")
    if sum(len(word) for word in _texts(blocks)) > ALL_CHARACTERS:
        raise SlackError("msg_blocks_too_long")
    identified: list[Payload] = [{"block_id": f"b{next(_serial)}", **block} for block in blocks]
    ids = [str(block["block_id"]) for block in identified]
    _require(len(set(ids)) == len(ids), "block_id already exists")
    _require(all(0 < len(name) <= ID_CHARACTERS for name in ids), "block_id is of a wrong length")
    return identified


def _check_block(block: Payload) -> None:
    _require(block.get("type") in _TYPES, f"unsupported type: {block.get('type')}")
    text = block.get("text")
    match block["type"]:
        case "markdown":
            _require(isinstance(text, str) and text != "", "markdown needs a text")
        case "section":
            _require(text is not None or "fields" in block, "section needs a text or fields")
            if text is not None:
                _check_text(text, SECTION_CHARACTERS)
        case "context":
            _check_elements(block, 10)
        case "actions":
            _check_elements(block, ELEMENTS)
    for action_id, _, button in buttons([block]):
        _require(0 < len(action_id) <= ID_CHARACTERS, "action_id is of a wrong length")
        _require(len(str(button.get("value", ""))) <= VALUE_CHARACTERS, "value is too long")
        label = button.get("text")
        _require(isinstance(label, dict) and label.get("type") == "plain_text", "no plain_text")
        _check_text(label, LABEL_CHARACTERS)


def _check_text(text: object, limit: int) -> None:
    well = isinstance(text, dict) and text.get("type") in ("mrkdwn", "plain_text")
    words = text.get("text") if isinstance(text, dict) else None
    _require(well and isinstance(words, str), "not a text object")
    _require(0 < len(str(words)) <= limit, f"must be 1 to {limit} characters")


def _check_elements(block: Payload, limit: int) -> None:
    elements = block.get("elements")
    _require(isinstance(elements, list) and 0 < len(elements) <= limit, "elements: wrong number")


def _texts(node: object) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _texts(item)
    if isinstance(node, dict):
        text = node.get("text")
        if isinstance(text, str):
            yield text
        for value in node.values():
            yield from _texts(value)


def _require(right: object, why: str) -> None:
    if not right:
        raise SlackError("invalid_blocks", why=why)
