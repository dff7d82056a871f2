"""Holds the bot's arguments against Slack's own description of its Web API, where it is at hand."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from tests.emulators import specs
from tests.emulators.slack.methods import METHODS
from tests.emulators.slack.payload import Payload

# docs: Handling user interaction, "Message responses", and what a message of chat.postMessage has.
_RESPONSE = {
    "blocks": "array",
    "metadata": "object",
    "mrkdwn": "boolean",
    "parse": "string",
    "replace_original": "boolean",
    "response_type": "string",
    "text": "string",
    "thread_ts": "string",
    "unfurl_links": "boolean",
    "unfurl_media": "boolean",
}
_ENCODED = frozenset({"attachments", "blocks"})  # JSON, as a string or as it is
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def complaints(method: str, args: Payload) -> list[str]:
    """Return what is wrong with the names and types of a call's arguments."""
    described = _described()
    if not described or method not in METHODS:
        return []
    # slack-bolt adds the team to every call of an event's own client.
    known = {"team_id": "string", **described.get(method, {}), **METHODS[method].arguments}
    return _wrong(method, args, known)


def response_complaints(body: Payload) -> list[str]:
    """Return what is wrong with the names and types of an answer to a command or a button."""
    return _wrong("response_url", body, _RESPONSE)


def _wrong(method: str, args: Payload, known: Mapping[str, str]) -> list[str]:
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
