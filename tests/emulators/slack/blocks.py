"""What Slack accepts as the blocks of a message."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from tests.emulators.slack.arguments import SlackError, decoded
from tests.emulators.slack.block_shapes import BLOCKS, MARKDOWN_CHARACTERS, check_block, refuse
from tests.emulators.slack.markup import buttons
from tests.emulators.slack.payload import Payload

# slackapi/bolt-js issue 2509: all words together about 13,000.
ALL_CHARACTERS = 13_000
_ID_CHARACTERS = 255  # docs: every block's block_id
_serial = itertools.count(1)


def check_blocks(given: object, *, most: int = BLOCKS) -> list[Payload] | None:
    """Return the blocks with their ids, None when there are none; SlackError when refused."""
    blocks = _listed(given)
    if blocks is None:
        return None
    if len(blocks) > most:
        raise refuse(f"no more than {most} items allowed", "/blocks")
    for number, block in enumerate(blocks):
        check_block(block, f"/blocks/{number}")
        if block["type"] == "section" and not block.keys() & {"text", "fields"}:
            raise refuse("missing required field: text", f"/blocks/{number}")
    lengths = [len(str(block["text"])) for block in blocks if block["type"] == "markdown"]
    if sum(lengths) > MARKDOWN_CHARACTERS:
        raise refuse(f"must be less than {MARKDOWN_CHARACTERS + 1} characters", "/blocks")
    if sum(len(word) for word in words_of(blocks)) > ALL_CHARACTERS:
        raise SlackError("msg_blocks_too_long")
    return _identified(blocks)


def words_of(node: object) -> Iterator[str]:
    """Yield every text in blocks: what Slack counts for msg_blocks_too_long."""
    if isinstance(node, list):
        for item in node:
            yield from words_of(item)
    if isinstance(node, dict):
        text = node.get("text")
        if isinstance(text, str):
            yield text
        for value in node.values():
            yield from words_of(value)


def _listed(given: object) -> list[Payload] | None:
    blocks = decoded(given, "invalid_blocks_format")
    if blocks is None:
        return None
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise SlackError("invalid_blocks_format")
    return blocks


def _identified(blocks: list[Payload]) -> list[Payload]:
    """Return the blocks with ids where they have none; SlackError where two are the same."""
    identified: list[Payload] = [{"block_id": f"b{next(_serial)}", **block} for block in blocks]
    names = [str(block["block_id"]) for block in identified]
    for number, name in enumerate(names):
        if not 0 < len(name) <= _ID_CHARACTERS:
            raise refuse("must be less than 256 characters", f"/blocks/{number}/block_id")
        if name in names[:number]:
            raise refuse(f"block_id already exists: {name}", f"/blocks/{number}")
    for number, block in enumerate(identified):
        for _, _, button in buttons([block]):
            button.setdefault("action_id", f"a{next(_serial)}")
        actions = Counter(action_id for action_id, _, _ in buttons([block]))
        if actions and max(actions.values()) > 1:
            raise refuse("action_id already exists", f"/blocks/{number}")
    return identified
