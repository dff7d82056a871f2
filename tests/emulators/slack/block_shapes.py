"""What each block and element may have, as docs: Block Kit reference lists it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.emulators.slack.arguments import SlackError

# Looks at a value that stands at a JSON pointer; SlackError when it is refused.
Check = Callable[[object, str], None]

BLOCKS = 50  # docs: Reference: blocks, "in each message"
# docs: markdown block, over all of a message; chat.postMessage, argument markdown_text;
# chat.appendStream, "markdown_text chunks".
MARKDOWN_CHARACTERS = 12_000


# Blocks and elements that exist, and that nobody has needed yet.
_NOT_EMULATED = frozenset(
    {
        "channels_select",
        "checkboxes",
        "conversations_select",
        "datepicker",
        "external_select",
        "file",
        "multi_static_select",
        "overflow",
        "radio_buttons",
        "rich_text",
        "table",
        "timepicker",
        "users_select",
        "video",
        "workflow_button",
    }
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a block or element besides its type."""

    required: Mapping[str, Check] = field(default_factory=dict)
    optional: Mapping[str, Check] = field(default_factory=dict)


def refuse(why: str, pointer: str) -> SlackError:
    """Return Slack's refusal of blocks, in its words (adobe/spacecat-api-service issue 176)."""
    told = f"{why} [json-pointer:{pointer}]"
    return SlackError("invalid_blocks", why=told, errors=[told])


def check_block(block: object, pointer: str) -> None:
    """SlackError when a block is not as it must be."""
    _check_typed(block, pointer, _BLOCKS, frozenset({"block_id"}))


def check_text(value: object, pointer: str, limit: int) -> None:
    """SlackError when a value is no plain text object of up to so many characters."""
    _text(limit, "plain_text")(value, pointer)


def _check_typed(
    value: object, pointer: str, shapes: Mapping[str, Shape], common: frozenset[str]
) -> None:
    kind = str(value.get("type")) if isinstance(value, dict) else ""
    if kind in _NOT_EMULATED:
        raise NotImplementedError(f"{kind} is not emulated")
    if not isinstance(value, dict) or kind not in shapes:
        raise refuse(f"unsupported type: {kind}", pointer)
    shape = shapes[kind]
    for name in shape.required:
        if name not in value:
            raise refuse(f"missing required field: {name}", pointer)
    known = {**shape.required, **shape.optional}
    for name, inner in value.items():
        if name in known:
            known[name](inner, f"{pointer}/{name}")
        elif name not in common | {"type"}:
            raise refuse(f"invalid additional property: {name}", f"{pointer}/{name}")


def _words(limit: int) -> Check:
    def check(value: object, pointer: str) -> None:
        if not isinstance(value, str):
            raise refuse("must provide a string", pointer)
        if not value:
            raise refuse("must be more than 0 characters", pointer)
        if len(value) > limit:
            raise refuse(f"must be less than {limit + 1} characters", pointer)

    return check


def _number(least: int, most: int) -> Check:
    def check(value: object, pointer: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise refuse(f"must be from {least} to {most}", pointer)

    return check


def _one_of(*values: object) -> Check:
    def check(value: object, pointer: str) -> None:
        if value not in values:
            raise refuse("value not allowed", pointer)

    return check


def _items(most: int, check_item: Check) -> Check:
    def check(value: object, pointer: str) -> None:
        if not isinstance(value, list) or not value:
            raise refuse("must contain at least one item", pointer)
        if len(value) > most:
            raise refuse(f"no more than {most} items allowed", pointer)
        for number, item in enumerate(value):
            check_item(item, f"{pointer}/{number}")

    return check


def _text(limit: int, *kinds: str) -> Check:
    """Check a text object (docs: Composition objects, "Text object")."""
    plain = Shape({"text": _words(limit)}, {"emoji": _FLAG})
    marked = Shape({"text": _words(limit)}, {"verbatim": _FLAG})
    shapes = {"plain_text": plain, "mrkdwn": marked}
    return _typed({kind: shapes[kind] for kind in kinds or shapes})


def _typed(shapes: Mapping[str, Shape]) -> Check:
    def check(value: object, pointer: str) -> None:
        _check_typed(value, pointer, shapes, frozenset())

    return check


def _anything(_value: object, _pointer: str) -> None:
    pass


def _fields(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """Check an object that has no type."""

    def check(value: object, pointer: str) -> None:
        if not isinstance(value, dict):
            raise refuse("must provide an object", pointer)
        shape = {"object": Shape(required, optional)}
        _check_typed({**value, "type": "object"}, pointer, shape, frozenset())

    return check


_FLAG = _one_of(True, False)
_ID, _ADDRESS, _VALUE = _words(255), _words(3000), _words(2000)
_STYLE = _one_of("primary", "danger")
_CONFIRM = _fields(
    {
        "title": _text(100, "plain_text"),
        "text": _text(300),
        "confirm": _text(30, "plain_text"),
        "deny": _text(30, "plain_text"),
    },
    {"style": _STYLE},
)
_PICTURE = Shape({"alt_text": _VALUE}, {"image_url": _ADDRESS, "slack_file": _anything})
_BUTTON = Shape(
    {"text": _text(75, "plain_text")},
    {
        "accessibility_label": _words(75),
        "action_id": _ID,
        "confirm": _CONFIRM,
        "style": _STYLE,
        "url": _ADDRESS,
        "value": _VALUE,
    },
)
_CONTEXT: dict[str, Shape] = {
    "image": _PICTURE,
    "mrkdwn": Shape({"text": _words(3000)}, {"verbatim": _FLAG}),
    "plain_text": Shape({"text": _words(3000)}, {"emoji": _FLAG}),
}
_ELEMENTS = {"button": _BUTTON}
_PLACEHOLDER = {"placeholder": _text(150, "plain_text"), "focus_on_load": _FLAG}
# docs: Composition objects, "Option object".
_OPTION = _fields(
    {"text": _text(75, "plain_text"), "value": _words(150)}, {"description": _text(75)}
)
_INPUTS = {
    "multi_users_select": Shape(
        {"action_id": _ID},
        {
            "initial_users": _items(1000, _words(32)),
            "max_selected_items": _number(1, 1000),
            **_PLACEHOLDER,
        },
    ),
    "plain_text_input": Shape(
        {"action_id": _ID},
        {
            "initial_value": _words(3000),
            "max_length": _number(1, 3000),
            "min_length": _number(0, 3000),
            "multiline": _FLAG,
            **_PLACEHOLDER,
        },
    ),
    "static_select": Shape(
        {"action_id": _ID, "options": _items(100, _OPTION)},
        {"initial_option": _OPTION, **_PLACEHOLDER},
    ),
}
# docs: Feedback buttons element, "Button object fields".
_OPINION = _fields(
    {"text": _text(75, "plain_text"), "value": _VALUE}, {"accessibility_label": _words(75)}
)
_FEEDBACK = Shape({"positive_button": _OPINION, "negative_button": _OPINION}, {"action_id": _ID})
_BLOCKS: dict[str, Shape] = {
    "actions": Shape({"elements": _items(25, _typed(_ELEMENTS))}),
    "context": Shape({"elements": _items(10, _typed(_CONTEXT))}),
    "context_actions": Shape({"elements": _items(5, _typed({"feedback_buttons": _FEEDBACK}))}),
    "divider": Shape(),
    "header": Shape({"text": _text(150, "plain_text")}),
    "image": Shape(_PICTURE.required, {**_PICTURE.optional, "title": _text(2000, "plain_text")}),
    "input": Shape(
        {"element": _typed(_INPUTS), "label": _text(2000, "plain_text")},
        {"hint": _text(2000, "plain_text"), "optional": _FLAG, "dispatch_action": _FLAG},
    ),
    "markdown": Shape({"text": _words(MARKDOWN_CHARACTERS)}),
    "section": Shape(
        {},
        {
            "accessory": _typed({**_ELEMENTS, "image": _PICTURE}),
            "expand": _FLAG,
            "fields": _items(10, _text(2000)),
            "text": _text(3000),
        },
    ),
}
