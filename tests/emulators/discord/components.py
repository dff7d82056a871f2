"""Rows of buttons under a message (docs: Component Reference)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.emulators.discord.objects import Payload
from tests.emulators.discord.request import bad_form, bad_length

_ROWS, _BUTTONS = 5, 5
_CUSTOM_ID, _LABEL = 100, 80
_BUTTON, _CONTAINER = 2, 17
_CONTAINER_HAS: Payload = {"accent_color": None, "spoiler": False}
_FORM_PARTS = 5  # docs: Modal; the OpenAPI document says 40


def accepted(components: list[object]) -> list[object]:
    """Return rows as Discord keeps them: each row and button has a number.

    Raises Refusal when there is too much of something, or a custom id is there twice.
    """
    if len(components) > _ROWS:
        raise bad_length("components", 1, _ROWS)
    rows = [one for one in components if isinstance(one, dict)]
    seen: set[str] = set()
    for number, row in enumerate(rows):
        _check_row(row, f"components.{number}.components", seen)
    return completed(rows)


def completed(components: list[Payload]) -> list[object]:
    """Return components with what Discord adds: each has a number."""
    numbers = itertools.count(1)
    return [_numbered(one, numbers) for one in components]


def check_form(form: Payload) -> None:
    """Raise Refusal when a form has too many parts, or two inputs have the same custom id.

    The OpenAPI document knows the rest.
    """
    parts = form.get("components")
    if not isinstance(parts, list) or not 1 <= len(parts) <= _FORM_PARTS:
        raise bad_length("components", 1, _FORM_PARTS)
    names = [one["component"]["custom_id"] for one in parts if "component" in one]
    if len(set(names)) < len(names):
        text = "Component custom id cannot be duplicated"
        raise bad_form("components", "COMPONENT_CUSTOM_ID_DUPLICATED", text)


def buttons(components: list[object]) -> Iterator[str]:
    """Yield the custom ids of the buttons that can be pressed."""
    for component in components:
        if not isinstance(component, dict):
            continue
        yield from buttons(component.get("components", []))
        if component.get("type") == _BUTTON and not component.get("disabled"):
            yield str(component.get("custom_id", ""))


def labels(components: list[object]) -> Iterator[str]:
    """Yield what stands on the buttons: their label, or else their emoji."""
    for component in components:
        match component:
            case {"components": list(held)}:
                yield from labels(held)
            case {"type": 2, "label": str(label)}:
                yield label
            case {"type": 2, "emoji": {"name": str(name)}}:
                yield name


def _check_row(row: Payload, path: str, seen: set[str]) -> None:
    """Add the custom ids to those that were `seen` in the rows before."""
    held = row.get("components")
    if not isinstance(held, list) or not 1 <= len(held) <= _BUTTONS:
        raise bad_length(path, 1, _BUTTONS)
    for number, button in enumerate(held):
        _check_button(button, f"{path}.{number}")
        custom_id = button.get("custom_id")
        # Buttons that are disabled count as well (discord-api-docs, issue 3673).
        if custom_id in seen:
            text = "Component custom id cannot be duplicated"
            code = "COMPONENT_CUSTOM_ID_DUPLICATED"
            raise bad_form(f"{path}.{number}.custom_id", code, text)
        if custom_id is not None:
            seen.add(custom_id)


def _check_button(button: Payload, path: str) -> None:
    custom_id, label = button.get("custom_id"), button.get("label")
    if isinstance(custom_id, str) and not 1 <= len(custom_id) <= _CUSTOM_ID:
        raise bad_length(f"{path}.custom_id", 1, _CUSTOM_ID)
    if isinstance(label, str) and len(label) > _LABEL:
        raise bad_length(f"{path}.label", 0, _LABEL)


def _numbered(component: Payload, numbers: Iterator[int]) -> Payload:
    known = {key: value for key, value in component.items() if value is not None}
    added = _CONTAINER_HAS if component.get("type") == _CONTAINER else {}
    numbered = added | known | {"id": next(numbers)}
    held = component.get("components")
    if isinstance(held, list):
        numbered["components"] = [_numbered(one, numbers) for one in held]
    return numbered
