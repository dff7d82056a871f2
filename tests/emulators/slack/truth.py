"""Holds what the bot asks, and what the emulator says, against Slack's own descriptions of 2021."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft4Validator

from tests.emulators import specs
from tests.emulators.slack.methods import COMMON_ERRORS, METHODS
from tests.emulators.slack.payload import Payload

# What a message has by now: docs: Message events; slackapi/java-slack-sdk, json-logs/samples.
_MESSAGE = {
    "agent_session": "object",
    "app_id": "string",
    "edited": "object",
    "hidden": "boolean",
    "metadata": "object",
    "streaming_state": "string",
}
# What a message's attachment has, too: docs: Reference: Secondary message attachments.
_ATTACHMENT = {"fields": "array", "title": "string"}
# What a file has by now: docs: File object, "Slack Connect files".
_FILE = {"file_access": "string"}
# What a refusal has by now: docs: Using the Slack Web API, "Evaluating responses".
_REFUSAL = {
    "error": "string",
    "errors": "array",
    "needed": "string",
    "provided": "string",
    "req_method": "string",
    "response_metadata": "object",
}
# What the description has wrong: a list of messages may be empty, a thread's messages and an
# updated one are as all others.
_LIST: dict[str, Any] = {
    "messages": {"type": "array", "items": {"$ref": "#/definitions/objs_message"}}
}
_NEWER = {
    "chat.update": {"message": {"$ref": "#/definitions/objs_message"}},
    "conversations.history": _LIST,
    "conversations.replies": _LIST,
}
# What an event's wrapper has no longer: it has `authorizations` (docs: changelog, 2020-09-15).
_GONE = "authed_users"
_OK = {"type": "boolean"}


@dataclass(slots=True)
class Truth:
    """Notes in `violations` where the emulator is not like Slack."""

    violations: list[str]

    def answered(self, method: str, answer: Payload) -> None:
        """Look at what a method was answered with."""
        schema = _answers(method, ok=answer["ok"] is True)
        wrong = [*_undocumented(method, answer), *_against(schema, answer)]
        self.violations += [f"the emulator answers {method} wrongly: {why}" for why in wrong]

    def told(self, event: Payload) -> None:
        """Look at the wrapper of an event, and the event in it."""
        wrong = _against(_wrapper(), event)
        self.violations += [f"the emulator tells an event wrongly: {why}" for why in wrong]


def _undocumented(method: str, answer: Payload) -> list[str]:
    """Return the error, when the method's documentation does not list it."""
    error, described = answer.get("error"), _described(method, ok=False)
    if error is None or method not in METHODS or described is None:
        return []
    listed = described["properties"].get("error", {}).get("enum", [])
    known = {*COMMON_ERRORS, *METHODS[method].errors, *listed}
    return [] if error in known else [f"no error is called {error}"]


def _against(validator: Draft4Validator | None, value: Payload) -> list[str]:
    if validator is None:
        return []
    errors = validator.iter_errors(value)
    return [f"/{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


@functools.cache
def _answers(method: str, *, ok: bool) -> Draft4Validator | None:
    """Return what an answer must be like; None where no description is at hand."""
    schema = _described(method, ok=ok)
    if schema is None:
        return None
    fields = METHODS[method].answer if ok and method in METHODS else _REFUSAL
    properties = {**schema["properties"], **_NEWER.get(method, {}), **_typed(fields)}
    if not ok:
        # Those that are documented by now are looked at by _undocumented.
        properties["error"] = {"type": "string"}
    return Draft4Validator({**schema, "properties": properties, "definitions": _definitions()})


def _described(method: str, *, ok: bool) -> dict[str, Any] | None:
    """Return the description's schema, or an empty one for a method that it has not."""
    description = specs.load("slack-web-openapi.json")
    if description is None:
        return None
    verbs = description["paths"].get(f"/{method}")
    if verbs is None:
        return {"type": "object", "properties": {"ok": _OK}, "additionalProperties": False}
    [verb] = verbs.values()
    schema: dict[str, Any] = _readable(verb["responses"]["200" if ok else "default"]["schema"])
    return schema


@functools.cache
def _definitions() -> dict[str, Any]:
    description = specs.load("slack-web-openapi.json")
    definitions = _readable(description["definitions"]) if description else {}
    message = definitions["objs_message"]
    attachments = message["properties"]["attachments"]
    one = attachments["items"]
    one = {**one, "properties": {**one["properties"], **_typed(_ATTACHMENT)}}
    properties = {
        **message["properties"],
        **_typed(_MESSAGE),
        "attachments": {**attachments, "items": one},
    }
    file = definitions["objs_file"]
    return {
        **definitions,
        "objs_message": {**message, "properties": properties},
        "objs_file": {**file, "properties": {**file["properties"], **_typed(_FILE)}},
    }


@functools.cache
def _wrapper() -> Draft4Validator | None:
    description = specs.load("slack-events-asyncapi.json")
    if description is None:
        return None
    wrapper = _readable(description["components"]["schemas"]["GenericEventWrapper"])
    required = [name for name in wrapper["required"] if name != _GONE]
    return Draft4Validator({**wrapper, "required": required})


def _typed(fields: Mapping[str, str]) -> dict[str, Any]:
    message = {"$ref": "#/definitions/objs_message"}
    return {name: message if kind == "message" else {"type": kind} for name, kind in fields.items()}


def _readable(node: Any) -> Any:
    """Return a schema as JSON Schema: Slack writes a choice as a list of items."""
    if isinstance(node, list):
        return [_readable(item) for item in node]
    if not isinstance(node, dict):
        return node
    readable = {name: _readable(inner) for name, inner in node.items()}
    if isinstance(readable.get("items"), list):
        readable["anyOf"] = readable.pop("items")
    return readable


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
    described = _parameters()
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
def _parameters() -> dict[str, dict[str, str]]:
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
