"""Holds the bot's arguments against Slack's own description of its Web API, where it is at hand.

`slack-web-openapi.json` (github.com/slackapi/slack-api-specs, 2021) is looked for in a folder
`specs` beside the repository; without it nothing is checked.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from tests.emulators.slack.workspace import Payload

# What the documentation has and the description of 2021 has not: methods and arguments.
# docs.slack.dev/reference/methods/<method>, "Arguments".
_STATUS = {"icon_emoji": "string", "icon_url": "string", "username": "string"}
NEWER: dict[str, dict[str, str]] = {
    "agents.sessions.setStatus": {
        "channel_id": "string",
        "thread_ts": "string",
        "status": "string",
        "title": "string",
        "initiator_user_id": "string",
        **_STATUS,
    },
    "apps.connections.open": {},
    "assistant.threads.setStatus": {
        "channel_id": "string",
        "thread_ts": "string",
        "status": "string",
        "loading_messages": "array",
        **_STATUS,
    },
    "chat.postEphemeral": {"markdown_text": "string"},
    "chat.postMessage": {"markdown_text": "string", "metadata": "object"},
    "chat.update": {
        "file_ids": "array",
        "markdown_text": "string",
        "metadata": "object",
        "reply_broadcast": "boolean",
    },
    "conversations.history": {"include_all_metadata": "boolean"},
    "conversations.open": {"prevent_creation": "boolean"},
    "conversations.replies": {"include_all_metadata": "boolean"},
}
_ENCODED = frozenset({"attachments", "blocks"})  # JSON, as a string or as it is
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def specification() -> Path | None:
    """Return where Slack's description is, if it is anywhere."""
    return next(Path(__file__).parents[4].glob("*/specs/slack-web-openapi.json"), None)


def complaints(method: str, args: Payload) -> list[str]:
    """Return what is wrong with the names and types of a call's arguments."""
    described = _described()
    if not described or method not in described | NEWER:
        return []
    known = described.get(method, {}) | NEWER.get(method, {})
    # slack-bolt adds the team to every call of an event's own client.
    known |= {"team_id": "string"}
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
    path = specification()
    if path is None:
        return {}
    paths = json.loads(path.read_text())["paths"]
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
