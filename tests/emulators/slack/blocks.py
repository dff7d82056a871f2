"""What Slack accepts as the blocks of a message, as docs: Block Kit reference lists it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from tests.emulators.slack.arguments import SlackError, decoded
from tests.emulators.slack.markup import buttons
from tests.emulators.slack.payload import Payload

Schema = dict[str, Any]

BLOCKS = 50  # docs: Reference: blocks, "in each message"
# docs: markdown block, over all of a message; chat.appendStream, "markdown_text chunks".
MARKDOWN_CHARACTERS = 12_000
# slackapi/bolt-js issue 2509: all words together about 13,000.
ALL_CHARACTERS = 13_000
_serial = itertools.count(1)


def check_blocks(given: object, *, most: int = BLOCKS) -> list[Payload] | None:
    """Return the blocks with their ids, None when there are none; SlackError when refused."""
    blocks = decoded(given, "invalid_blocks_format")
    if blocks is None:
        return None
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise SlackError("invalid_blocks_format")
    if len(blocks) > most:
        raise _refused(f"no more than {most} items allowed", "/blocks")
    check(_BLOCKS, blocks, "/blocks")
    lengths = [len(block["text"]) for block in blocks if block["type"] == "markdown"]
    if sum(lengths) > MARKDOWN_CHARACTERS:
        raise _refused(f"must be less than {MARKDOWN_CHARACTERS + 1} characters", "/blocks")
    if sum(len(word) for word in words_of(blocks)) > ALL_CHARACTERS:
        raise SlackError("msg_blocks_too_long")
    return _identified(blocks)


def check(
    validator: Draft202012Validator, value: object, pointer: str, code: str = "invalid_blocks"
) -> None:
    """SlackError where a value that stands at a JSON pointer is not as it must be."""
    for error in validator.iter_errors(value):
        place = "/".join([pointer, *map(str, error.absolute_path)])
        raise _refused(error.message[:200], place, code)


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


def _refused(why: str, pointer: str, code: str = "invalid_blocks") -> SlackError:
    """Return Slack's refusal of blocks, in its form (adobe/spacecat-api-service issue 176)."""
    told = f"{why} [json-pointer:{pointer}]"
    return SlackError(code, why=told, errors=[told])


def _identified(blocks: list[Payload]) -> list[Payload]:
    """Return the blocks with ids where they have none; SlackError where two are the same."""
    identified: list[Payload] = [{"block_id": f"b{next(_serial)}", **block} for block in blocks]
    names = [str(block["block_id"]) for block in identified]
    for number, block in enumerate(identified):
        if names[number] in names[:number]:
            raise _refused(f"block_id already exists: {names[number]}", f"/blocks/{number}")
        for _, _, button in buttons([block]):
            button.setdefault("action_id", f"a{next(_serial)}")
        actions = Counter(action_id for action_id, _, _ in buttons([block]))
        if actions and max(actions.values()) > 1:
            raise _refused("action_id already exists", f"/blocks/{number}")
    return identified


def words(most: int) -> Schema:
    """Return the schema of a text of up to so many characters."""
    return {"type": "string", "minLength": 1, "maxLength": most}


def fields(required: Mapping[str, object], optional: Mapping[str, object] = {}) -> Schema:
    """Return the schema of an object that has these fields, beside its type, and no others."""
    return {
        "type": "object",
        "required": [*required],
        "properties": {"type": True, **required, **optional},
        "additionalProperties": False,
    }


def text(most: int, *kinds: str) -> Schema:
    """Return the schema of a text object (docs: Composition objects, "Text object")."""
    plain = fields({"text": words(most)}, {"emoji": _FLAG})
    marked = fields({"text": words(most)}, {"verbatim": _FLAG})
    shapes = {"plain_text": plain, "mrkdwn": marked}
    return _typed({kind: shapes[kind] for kind in kinds or shapes})


def _typed(shapes: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object whose shape its type tells."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": [*shapes]}},
        "allOf": [
            {"if": {"properties": {"type": {"const": kind}}}, "then": shape}
            for kind, shape in shapes.items()
        ],
    }


def _items(most: int, item: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": item}


def _number(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


_FLAG = {"type": "boolean"}
_ID, _VALUE, _PLAIN = words(255), words(2000), text(75, "plain_text")
_BUTTON = {"accessibility_label": words(75), "value": _VALUE}
_STYLED = {**_BUTTON, "action_id": _ID, "style": {"enum": ["primary", "danger"]}}
_PLACEHOLDER = {"placeholder": text(150, "plain_text"), "focus_on_load": _FLAG}
# docs: Composition objects, "Option object".
_OPTION = fields({"text": _PLAIN, "value": words(150)})
_INPUTS = {
    "multi_users_select": fields(
        {"action_id": _ID},
        {
            "initial_users": _items(1000, words(32)),
            "max_selected_items": _number(1, 1000),
            **_PLACEHOLDER,
        },
    ),
    "plain_text_input": fields(
        {"action_id": _ID},
        {
            "initial_value": words(3000),
            "max_length": _number(1, 3000),
            "multiline": _FLAG,
            **_PLACEHOLDER,
        },
    ),
    "static_select": fields(
        {"action_id": _ID, "options": _items(100, _OPTION)},
        {"initial_option": _OPTION, **_PLACEHOLDER},
    ),
}
# docs: Feedback buttons element, "Button object fields".
_OPINION = fields({"text": _PLAIN, "value": _VALUE}, {"accessibility_label": words(75)})
_FEEDBACK = fields({"positive_button": _OPINION, "negative_button": _OPINION}, {"action_id": _ID})


def _block(required: Mapping[str, object], optional: Mapping[str, object] = {}) -> Schema:
    return fields(required, {**optional, "block_id": _ID})


_BLOCKS = Draft202012Validator(
    {
        "items": _typed(
            {
                "actions": _block(
                    {"elements": _items(25, _typed({"button": fields({"text": _PLAIN}, _STYLED)}))}
                ),
                "context": _block({"elements": _items(10, text(3000))}),
                "context_actions": _block(
                    {"elements": _items(5, _typed({"feedback_buttons": _FEEDBACK}))}
                ),
                "divider": _block({}),
                "header": _block({"text": text(150, "plain_text")}),
                "input": _block(
                    {"element": _typed(_INPUTS), "label": text(2000, "plain_text")},
                    {"hint": text(2000, "plain_text"), "optional": _FLAG},
                ),
                "markdown": _block({"text": words(MARKDOWN_CHARACTERS)}),
                "section": _block({"text": text(3000)}),
            }
        )
    }
)
