"""Holds the bot's arguments against Slack's own description of its Web API, where it is at hand."""

from __future__ import annotations

import functools
import re

from tests.emulators import specs
from tests.emulators.slack.methods import METHODS
from tests.emulators.slack.payload import Payload

_ENCODED = frozenset({"attachments", "blocks"})  # JSON, as a string or as it is
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def complaints(method: str, args: Payload) -> list[str]:
    """Return what is wrong with the names and types of a call's arguments."""
    described = _described()
    if not described:
        return []
    # slack-bolt adds the team to every call of an event's own client.
    known = {"team_id": "string", **described.get(method, {}), **METHODS[method].arguments}
    unknown = [f"{method}: no argument is called {name}" for name in args if name not in known]
    wrong = [
        f"{method}: {name}={value!r} is not of type {known[name]}"
        for name, value in args.items()
        if name in known and not _fits(name, value, known[name])
    ]
    return unknown + wrong


@functools.cache
def _described() -> dict[str, dict[str, str]]:
    """Return the arguments of every method with their types."""
    description = specs.load("slack-web-openapi.json")
    paths = description["paths"] if description else {}
    return {
        name.removeprefix("/"): {
            argument["name"]: argument.get("type", "string")
            for verb in verbs.values()
            for argument in verb.get("parameters", ())
        }
        for name, verbs in paths.items()
    }


def _fits(name: str, value: object, kind: str) -> bool:
    if name in _ENCODED:
        return isinstance(value, str | list)
    match kind:
        case "boolean":
            return isinstance(value, bool) or str(value).lower() in ("0", "1", "true", "false")
        case "integer":
            return not isinstance(value, bool) and str(value).lstrip("-").isdigit()
        case "number":
            return not isinstance(value, bool) and _NUMBER.fullmatch(str(value)) is not None
        case "array":
            return isinstance(value, str | list)
        case "object":
            return isinstance(value, str | dict)
    return isinstance(value, str)
