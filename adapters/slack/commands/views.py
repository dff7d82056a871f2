"""Builds and parses Block Kit views: notices, buttons and modals."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from adapters.slack.commands.calls import CommandLocation
from adapters.slack.manifest import FORM_ID
from adapters.slack.reading import string_field
from bot.commands.form import Field, Form, Part
from bot.commands.handlers import FORGET, FORGET_QUESTION, Overview, Scope
from bot.languages import say
from bot.text.sanitize import escape_markup

# Of block actions and views. The rest of the id of a form's button names the form.
OPEN_FORM, FORGET_ME = "open_form", "forget_me"

# docs: Views, Block Kit reference and Composition objects; in characters.
_MOST_TITLE = 24
_MOST_SECTION = 3000
_MOST_INPUT = 3000
_MOST_OPTION = 75
_MOST_OPTIONS = 100
_MOST_LABEL = 2000
_NOTHING = "-"  # the value of an option that clears a choice: Slack accepts no empty value

Json = Mapping[str, Any]
View = dict[str, object]
Block = dict[str, object]


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """An ephemeral answer to a command; may be empty."""

    text: str = ""
    blocks: Sequence[Block] = ()

    def message(self) -> dict[str, Any]:
        """Return the fields of a message."""
        blocks = {"blocks": [section(self.text), *self.blocks]} if self.blocks else {}
        return {"text": escape_markup(self.text), **blocks}


@dataclass(frozen=True, slots=True)
class ViewContext:
    """Context of a view, stored in its `private_metadata`, which people do not see (docs: Views).

    `seen` is that of a form, `kept` the name of a stored message. `home`: the view was opened from
    the Home tab.
    """

    location: CommandLocation
    scope: Scope | None = None
    part: Part | None = None
    seen: str = ""
    home: bool = False
    kept: str = ""

    def written(self) -> str:
        """Return it as `private_metadata`."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, view: object) -> ViewContext | None:
        """Parse the context of a view; None if it is not ours."""
        try:
            fields = json.loads(string_field(view, "private_metadata"))
            return cls(**{**fields, "location": CommandLocation(**fields["location"])})
        except (KeyError, TypeError, ValueError):
            return None


def section(text: str) -> Block:
    """Return a block of text."""
    shown = text if len(text) <= _MOST_SECTION // 2 else f"{text[: _MOST_SECTION // 2]}…"
    return {"type": "section", "text": {"type": "mrkdwn", "text": escape_markup(shown)}}


def forget_question() -> CommandAnswer:
    """Return the question whether to forget a person."""
    button = {**_button(say(FORGET), FORGET_ME, "yes"), "style": "danger"}
    return CommandAnswer(say(FORGET_QUESTION), [{"type": "actions", "elements": [button]}])


def overview_blocks(overview: Overview) -> list[Block]:
    """Return the buttons that open forms."""
    buttons = [
        _button(label, f"{OPEN_FORM}:{scope}:{part}", f"{scope}:{part}")
        for scope, part, label in overview.forms
    ]
    return [{"type": "actions", "elements": buttons[:25]}] if buttons else []


def notice_view(text: str, *, title: str = "Parley") -> View:
    """Return a modal with a notice."""
    return {
        "type": "modal",
        "title": _plain(title, _MOST_TITLE),
        "close": _plain(say("Close")),
        "blocks": [section(text)],
    }


def updated(text: str) -> dict[str, Any]:
    """Return the response that replaces a submitted form by a notice."""
    return {"response_action": "update", "view": notice_view(text)}


def form_view(
    form: Form,
    context: ViewContext,
    *,
    callback: str = FORM_ID,
    submit: str = "",
    required: Collection[str] = (),
) -> View:
    """Return a modal with the fields of a form, except roles: Slack has none."""
    fields = [one for one in form.fields if one.kind != "roles"]
    return {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": context.written(),
        "title": _plain(form.title, _MOST_TITLE),
        "submit": _plain(submit or say("Save")),
        "close": _plain(say("Cancel")),
        "blocks": [_input(one, required=one.is_required or one.name in required) for one in fields],
    }


def values(view: Json) -> dict[str, str | list[str]]:
    """Return the submitted values by field name."""
    inputs = view["state"]["values"]
    return {name: _given(*elements.values()) for name, elements in inputs.items()}


def first_field(view: Json) -> str:
    """Return the name of the first field of a modal, below which an error can be shown."""
    return str(next(one["block_id"] for one in view["blocks"] if one["type"] == "input"))


def _given(element: Json) -> str | list[str]:
    users = element.get("selected_users")
    if isinstance(users, list):
        return [str(user) for user in users]
    selected = element.get("selected_option")
    value = string_field(selected, "value") or string_field(element, "value")
    return "" if value == _NOTHING and selected else value


def _input(one: Field, *, required: bool) -> Block:
    block: Block = {
        "type": "input",
        "block_id": one.name,
        "optional": not required,
        "label": _plain(one.label, _MOST_LABEL),
        "element": {"action_id": "value", **dict(_element(one))},
    }
    return {**block, "hint": _plain(one.hint, _MOST_LABEL)} if one.hint else block


def _element(one: Field) -> Iterator[tuple[str, object]]:
    if one.kind == "choice":
        options = {value: _option(value or _NOTHING, label) for value, label in one.options}
        yield "type", "static_select"
        yield "options", [*options.values()][:_MOST_OPTIONS]
        if chosen := [option for value, option in options.items() if value == one.value]:
            yield "initial_option", chosen[0]
    elif one.kind == "people":
        yield "type", "multi_users_select"
        yield "max_selected_items", max(one.most, len(one.value))
        if one.value:
            yield "initial_users", list(one.value)
    else:
        yield "type", "plain_text_input"
        yield "multiline", one.kind == "text"
        yield "max_length", min(one.most, _MOST_INPUT)
        if one.value:
            yield "initial_value", cast("str", one.value)[:_MOST_INPUT]


def _option(value: str, label: str) -> Block:
    return {"text": _plain(label, _MOST_OPTION), "value": value}


def _button(label: str, action: str, value: str) -> Block:
    text = _plain(label, _MOST_OPTION)
    return {"type": "button", "action_id": action, "text": text, "value": value}


def _plain(text: str, most: int = _MOST_OPTION) -> Block:
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return {"type": "plain_text", "text": shown}
