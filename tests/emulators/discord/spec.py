"""Holds what the bot and the emulator say against Discord's own OpenAPI document."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from tests.emulators import specs
from tests.emulators.discord.objects import Payload

Schema = dict[str, Any]  # a part of the document; empty where the document has none

# JSON numbers are exact up to here; what is larger in a form is an id.
_EXACT = 2**53
# The parts of events that look like the answers of the REST API, with the document's schema.
_EVENTS = {
    "CHANNEL_CREATE": {"": "GuildChannelResponse"},
    "GUILD_CREATE": {
        "channels": "GuildChannelResponse",
        "members": "GuildMemberResponse",
        "roles": "GuildRoleResponse",
        "threads": "ThreadResponse",
    },
    "GUILD_ROLE_CREATE": {"role": "GuildRoleResponse"},
    "INTERACTION_CREATE": {
        "member": "GuildMemberResponse",
        "message": "MessageResponse",
        "user": "UserResponse",
    },
    "MESSAGE_CREATE": {"": "MessageResponse"},
    "MESSAGE_UPDATE": {"": "MessageResponse"},
    "THREAD_CREATE": {"": "ThreadResponse"},
    "THREAD_UPDATE": {"": "ThreadResponse"},
}
# Only the gateway says these, beside what REST says (docs: Gateway Events).
_GATEWAY_KEYS = {
    "GuildMemberResponse": {"permissions"},
    "MessageResponse": {"guild_id", "member"},
    "ThreadResponse": {"newly_created"},
}

# What was right once needs no second look: a message takes 2 ms, all commands together 500 ms.
_right: set[tuple[str, object]] = set()


def query_problems(method: str, template: str, query: Mapping[str, str]) -> Iterator[str]:
    """Yield what the document objects to in a query; nothing where it is not at hand."""
    found = _operation(method, template)
    known = {one["name"]: one["schema"] for one in found.get("parameters", [])}
    for key, text in query.items() if found else ():
        about = f"{method} {template}?{key}"
        if key not in known:
            yield f"{about}: there is no such parameter"
        for error in _errors(known.get(key, {}), _read(text, known.get(key, {}))):
            yield f"{about}: {error}"


def request_problems(method: str, template: str, body: object) -> Iterator[str]:
    """Yield what the document objects to in a bot's JSON; nothing where it is not at hand.

    A `body` of None is one that could not be read. Discord takes ids as numbers too, so they are
    made into strings first.
    """
    wanted = _operation(method, template).get("requestBody", {})
    if body is None:
        if wanted.get("required"):
            yield f"{method} {template}: the body is missing, or no JSON"
        return
    sent = _with_string_ids(body)
    about = f"{method} {template}"
    # A hash is enough: an hour of messages would fill the memory.
    yield from _new_problems(about, _json(wanted), sent, seen=hash(json.dumps(sent)))


def answer_problems(method: str, template: str, status: int, body: object) -> Iterator[str]:
    """Yield what the document objects to in an answer of the emulator."""
    about = f"the emulator answers {method} {template} with {status}"
    responses = _operation(method, template).get("responses", {})
    found = responses.get(str(status)) or responses.get(f"{status // 100}XX")
    if responses and not found:
        yield f"{about}: there is no such answer"
    yield from _new_problems(about, _json(_resolved(found or {})), body, seen=_shape(body))


def event_problems(name: str, data: Payload) -> Iterator[str]:
    """Yield what the document objects to in an event: in those parts that REST answers with, too.

    Keys of a message, a thread or a member that the document does not know are told as well.
    """
    for key, schema in _EVENTS.get(name, {}).items():
        found = data.get(key, []) if key else data
        parts: list[Any] = found if isinstance(found, list) else [found]
        for one in parts:
            about = f"the emulator tells {name} {key}".rstrip()
            yield from _new_problems(about, _component(schema), one, seen=_shape(one))
            known = set(_component(schema).get("properties", one)) | _GATEWAY_KEYS.get(
                schema, set()
            )
            yield from (f"{about}: {odd} is unknown" for odd in one if odd not in known)


def _new_problems(about: str, schema: Schema, value: object, *, seen: object) -> Iterator[str]:
    """Yield what is wrong with a value unless what was `seen` of it was right before."""
    if (about, seen) in _right:
        return
    problems = list(_errors(schema, value))
    if not problems:
        _right.add((about, seen))
    yield from (f"{about}: {one}" for one in problems)


def _errors(schema: Schema, value: object) -> Iterator[str]:
    if not schema:
        return
    whole = {"components": _document()["components"]} | schema
    for error in Draft202012Validator(whole).iter_errors(value):
        yield f"{error.json_path}: {error.message[:200]}"


def _shape(value: object) -> object:
    """Return what a schema may look at: keys, kinds and small numbers, and whether a text is an id.

    Texts of a kind are alike, for the emulator's answers take none of theirs from a bot but those
    that may be anything.
    """
    if isinstance(value, dict):
        return tuple((key, _shape(one)) for key, one in value.items())
    if isinstance(value, list):
        return ("list", *dict.fromkeys(_shape(one) for one in value))
    if isinstance(value, str):
        return ("text", value.isdecimal())
    return (type(value), value if isinstance(value, int) and value < 1000 else None)


def _json(body: Schema) -> Schema:
    """Return the schema of a body in JSON."""
    found: Schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _operation(method: str, template: str) -> Schema:
    found: Schema = _document()["paths"].get(template, {}).get(method.lower(), {})
    return found


def _component(name: str) -> Schema:
    found: Schema = _document()["components"]["schemas"].get(name, {})
    return found


def _resolved(response: Schema) -> Schema:
    """Follow the reference of an answer that many methods share."""
    name = response.get("$ref", "").removeprefix("#/components/responses/")
    found: Schema = _document()["components"]["responses"][name] if name else response
    return found


@functools.cache
def _document() -> Schema:
    """Return the document where it is at hand, with three lapses mended.

    It wants a `code` in every 429, which is there "for some limits" only (docs: Rate Limits), a
    number as the code of a field's error, which is a word (docs: API Reference, "Error Messages"),
    and knows no forwards among the messages of answers (docs: Message Reference Types).
    """
    found = specs.load("discord-openapi.json")
    if found is None:
        return {"paths": {}, "components": {"schemas": {}, "responses": {}}}
    schemas = found["components"]["schemas"]
    late, kinds = schemas["RatelimitedResponse"], schemas["MessageReferenceType"]
    words = {name: {"type": "string"} for name in ("code", "message")}
    error = {"type": "object", "required": list(words), "properties": words}
    inner = schemas["InnerErrors"] | {"properties": {"_errors": {"type": "array", "items": error}}}
    mended = schemas | {
        "RatelimitedResponse": late | {"allOf": late["allOf"][1:]},
        "InnerErrors": inner,
        "MessageReferenceType": kinds | {"oneOf": [*kinds["oneOf"], {"const": 1}]},
    }
    return found | {"components": found["components"] | {"schemas": mended}}


def _read(text: str, schema: Schema) -> object:
    """Return a parameter of a query as JSON has it; a text where it is nothing better."""
    kind = schema.get("type")
    if kind == "integer" and text.removeprefix("-").isdecimal():
        return int(text)
    if kind == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return text


def _with_string_ids(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_string_ids(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_string_ids(one) for one in value]
    is_id = isinstance(value, int) and value > _EXACT
    return str(value) if is_id else value
