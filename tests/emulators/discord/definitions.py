"""What Discord refuses in the definition of a command, beyond what its document can say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.emulators.discord.objects import Payload
from tests.emulators.discord.request import bad_form, bad_length

# docs: Application Command Naming. Letters of all scripts; those that have capitals are small.
_NAME = re.compile(r"[-_'\w]{1,32}")
_SLASH, _SUBCOMMANDS = 1, (1, 2)
_TOTAL = 8000  # characters of names, descriptions and choices


def check_command(command: Payload) -> None:
    """Raise Refusal for names, an order of options or a size that Discord does not take."""
    is_slash = command.get("type", _SLASH) == _SLASH
    for path, part in _parts(command, ""):
        if is_slash:
            _check_name(path, part)
        _check_options(path, part)
    if _size(command) > _TOTAL:
        raise bad_length("description", 1, _TOTAL)


def _parts(part: Any, path: str) -> Iterator[tuple[str, Payload]]:
    yield path, part
    for number, option in enumerate(part.get("options") or []):
        yield from _parts(option, f"{path}options.{number}.")


def _check_name(path: str, part: Any) -> None:
    name = part["name"]
    if not _NAME.fullmatch(name) or name != name.lower():
        raise bad_form(f"{path}name", "APPLICATION_COMMAND_INVALID_NAME", f"{name!r} is invalid")
    if not part.get("description"):
        raise bad_form(f"{path}description", "BASE_TYPE_REQUIRED", "This field is required")


def _check_options(path: str, part: Any) -> None:
    options = part.get("options") or []
    if len({one["name"] for one in options}) < len(options):
        duplicate = "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS"
        raise bad_form(f"{path}options", duplicate, "twice the same name")
    optional = False
    for one in options:
        if one.get("required") and optional:
            late = "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID"
            raise bad_form(f"{path}options", late, "Required options must be first")
        optional = optional or (not one.get("required") and one["type"] not in _SUBCOMMANDS)
        if one.get("autocomplete") and one.get("choices"):
            raise bad_form(f"{path}options", "BASE_TYPE_CHOICES", "choices and autocomplete")


def _size(part: Any) -> int:
    own = len(part["name"]) + len(part.get("description") or "")
    choices = sum(len(one["name"]) + len(str(one["value"])) for one in part.get("choices") or [])
    return own + choices + sum(map(_size, part.get("options") or []))
