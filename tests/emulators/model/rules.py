"""What OpenAI-compatible servers refuse of a request for a chat completion.

Source: platform.openai.com/docs/api-reference/chat/create. Servers are laxer here and there:
llama.cpp takes any role, no message at all and any temperature. A bot should run with all of them,
so the emulator takes only what every one of them takes, and no field that the bot has not needed
yet; a server's own limits are in its dialect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from bot.domain import Json

# A picture comes with its data: no server fetches an address for us.
_DATA = "^data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}$"
_PARTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "oneOf": [
            {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "additionalProperties": False,
            },
            {
                "type": "object",
                "required": ["type", "image_url"],
                "properties": {
                    "type": {"const": "image_url"},
                    "image_url": {
                        "type": "object",
                        "required": ["url"],
                        "properties": {"url": {"type": "string", "pattern": _DATA}},
                        "additionalProperties": False,
                    },
                },
                "additionalProperties": False,
            },
        ]
    },
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant"]},
        "content": {"type": "string"},
    },
}
# Templates of Mistral demand ids of nine characters, the name beside a result, and no empty content
# beside calls (mistral-common, the same file).
_ID = {"type": "string", "pattern": "^[a-zA-Z0-9]{9}$"}
_NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_CALL = {
    "type": "object",
    "required": ["id", "type", "function"],
    "properties": {
        "id": _ID,
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {"name": _NAME, "arguments": {"type": "string"}},
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
_CALLING = {
    "type": "object",
    "required": ["role", "tool_calls"],
    "properties": {
        "role": {"const": "assistant"},
        "content": {"type": "string", "pattern": r"\S"},
        "tool_calls": {"type": "array", "minItems": 1, "items": _CALL},
    },
    "additionalProperties": False,
}
_RESULT = {
    "type": "object",
    "required": ["role", "tool_call_id", "name", "content"],
    "properties": {
        "role": {"const": "tool"},
        "tool_call_id": _ID,
        "name": _NAME,
        "content": {"type": "string"},
    },
    "additionalProperties": False,
}
_TOOL = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name", "description", "parameters"],
            "properties": {
                "name": _NAME,
                "description": {"type": "string"},
                "parameters": {"type": "object", "properties": {"type": {"const": "object"}}},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
_ASKED = {
    **_MESSAGE,
    "properties": {"role": {"const": "user"}, "content": _PARTS},
}
_WITH_PARTS = {"properties": {"content": {"type": "array"}}}
_IS_RESULT = {"properties": {"role": {"const": "tool"}}}
_PLAIN = {"if": _WITH_PARTS, "then": _ASKED, "else": _MESSAGE}
_OTHER = {"if": {"required": ["tool_calls"]}, "then": _CALLING, "else": _PLAIN}
_ITEM = {"if": _IS_RESULT, "then": _RESULT, "else": _OTHER}
# All that the bot sends; null is as good as nothing.
_REQUEST = Draft202012Validator(
    {
        "type": "object",
        "required": ["messages", "stream"],
        "properties": {
            "messages": {"type": "array", "minItems": 1, "items": _ITEM},
            "model": {"type": ["string", "null"]},
            "stream": {"const": True},
            "tools": {"type": ["array", "null"], "minItems": 1, "items": _TOOL},
            "max_tokens": {"type": ["integer", "null"], "minimum": 1},
            "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
            "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
            "stream_options": {
                "type": ["object", "null"],
                "additionalProperties": {"type": "boolean"},
            },
        },
        "additionalProperties": False,
    }
)
# Mistral's template says this (mistralai/Mistral-7B-Instruct-v0.3, tokenizer_config.json), and the
# two others what checks a request before it (mistralai/mistral-common, protocol/instruct/
# validator.py).
_ALTERNATION = (
    "After the optional system message, conversation roles must alternate"
    " user/assistant/user/assistant/..."
)
_EMPTY = "Assistant message must have either content or tool_calls, but not both."
_LAST = "Expected last role User or Tool (or Assistant with prefix True) for serving but got {}"
_UNANSWERED = "Not the same number of function calls and responses"
_ARGUMENTS = "invalid tool call arguments"  # Ollama, openai/openai.go


def complaint(body: Json) -> str:
    """Return the first thing that is wrong with a request, behind its field; empty: nothing."""
    for error in _REQUEST.iter_errors(body):
        return f"{'.'.join(map(str, error.absolute_path)) or 'body'}: {error.message[:200]}"
    messages = body["messages"] if isinstance(body, dict) else None
    found = disorder(messages) if isinstance(messages, list) else ""  # type: ignore[arg-type]
    return f"messages: {found}" if found else ""


def disorder(messages: Sequence[Mapping[str, object]]) -> str:
    """Return what a template says to messages that it does not take; empty: it takes them.

    After at most one system message user and assistant take turns. The first and the last word is
    the user's, and the assistant has said something each time. Beside that it may call tools, and
    each call has a result.
    """
    if found := _unanswered(messages):
        return found
    spoken = [each for each in messages if each["role"] != "tool" and "tool_calls" not in each]
    roles = [str(message["role"]) for message in spoken]
    turns = roles[1:] if roles[0] == "system" else roles
    if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(turns)):
        return _ALTERNATION
    if any(each["role"] == "assistant" and not str(each["content"]).strip() for each in spoken):
        return _EMPTY
    return "" if roles[-1] == "user" else _LAST.format(roles[-1])


def _unanswered(messages: Sequence[Mapping[str, object]]) -> str:
    """Return what is wrong with calls: one has no result in its order, its id, or no arguments."""
    waiting, known = list[str](), set[str]()
    for message in messages:
        if message["role"] == "tool":
            if not waiting or waiting.pop(0) != message["tool_call_id"]:
                return _UNANSWERED
            continue
        calls: Any = message.get("tool_calls", ())
        ids = [str(call["id"]) for call in calls]
        if waiting or known.intersection(ids) or len({*ids}) < len(ids):
            return _UNANSWERED
        if not all(_is_object(call["function"]["arguments"]) for call in calls):
            return _ARGUMENTS
        waiting, known = ids, known.union(ids)
    return _UNANSWERED if waiting else ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
