"""Builds Discord's forms and parses their submissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import discord

from bot.commands.form import Field, Form
from bot.languages import say

ABOUT, SETTINGS, ANSWER = "about:", "settings:", "answer:"  # a form's custom id begins so
ONLY_ME = "me"
Values = Mapping[str, str | Sequence[str]]

# Discord's documentation, "Modal" and "Component Reference".
_MOST_TEXT = 4000
_TITLE, _LABEL, _HINT = 45, 45, 100


def question_form(name: str, *, is_private: bool) -> discord.ui.Modal:
    """Return the form for a question about a message; `name` identifies the message.

    With `is_private` the form has no choice of visibility.
    """
    question: discord.ui.TextInput[discord.ui.Modal] = discord.ui.TextInput(
        custom_id="question", style=discord.TextStyle.paragraph, max_length=_MOST_TEXT
    )
    parts = [discord.ui.Label[discord.ui.Modal](text=say("Your question"), component=question)]
    if not is_private:
        everybody = discord.SelectOption(label=say("Everybody here"), value="all", default=True)
        alone = discord.SelectOption(label=say("Only me"), value=ONLY_ME)
        parts.append(
            discord.ui.Label(
                text=say("Who sees the answer"),
                component=discord.ui.Select(custom_id="who", options=[everybody, alone]),
            )
        )
    return _modal(say("Ask about this message"), ABOUT + name, parts)


def settings_form(name: str, form: Form) -> discord.ui.Modal:
    """Return a form as a modal; `name` encodes the scope and part."""
    return _form(f"{SETTINGS}{name}:{form.seen}", form)


def answer_form(name: str, form: Form) -> discord.ui.Modal:
    """Return the form of a question as a modal; `name` has the ids of question and turn."""
    return _form(ANSWER + name, form)


def _form(name: str, form: Form) -> discord.ui.Modal:
    labels = [
        discord.ui.Label[discord.ui.Modal](
            text=field.label[:_LABEL],
            description=field.hint[:_HINT] or None,
            component=_input(field),
        )
        for field in form.fields
    ]
    return _modal(form.title[:_TITLE], name, labels)


def filled_in(parts: Sequence[Any]) -> Values:
    """Return the submitted values, by the custom ids of the inputs."""
    return {one["custom_id"]: _given(one) for part in parts if (one := part.get("component"))}


def _given(component: Mapping[str, Any]) -> str | Sequence[str]:
    if isinstance(text := component.get("value"), str):
        return text
    return tuple(str(one) for one in component.get("values") or () if one != _NOTHING)


def _modal(
    title: str, name: str, labels: Sequence[discord.ui.Label[discord.ui.Modal]]
) -> discord.ui.Modal:
    modal = discord.ui.Modal(title=title, custom_id=name, timeout=None)
    for label in labels:
        modal.add_item(label)
    modal.stop()  # discord.py must not track it: any process may receive the submission
    return modal


def _input(field: Field) -> discord.ui.Item[discord.ui.Modal]:
    match field.kind:
        case "choice":
            options = [
                discord.SelectOption(
                    label=label[:_HINT], value=value or _NOTHING, default=value == field.value
                )
                for value, label in field.options
            ]
            return discord.ui.Select(
                custom_id=field.name, options=options, required=field.is_required
            )
        case "people" | "roles":
            return _picker(field)
    return discord.ui.TextInput(
        custom_id=field.name,
        style=discord.TextStyle.paragraph if field.kind == "text" else discord.TextStyle.short,
        default=str(field.value) or None,
        required=field.is_required,
        max_length=field.most,
    )


_NOTHING = "-"  # the value of an option must not be empty
_MOST_PICKED = 25


def _picker(field: Field) -> discord.ui.Item[discord.ui.Modal]:
    ids = field.value if isinstance(field.value, tuple) else ()
    shown = [discord.Object(int(one)) for one in ids if one.isdecimal()][:_MOST_PICKED]
    picker = discord.ui.UserSelect if field.kind == "people" else discord.ui.RoleSelect
    return picker(
        custom_id=field.name,
        default_values=shown,
        required=False,
        min_values=0,
        max_values=min(field.most, _MOST_PICKED),
    )
