"""What OpenAI-compatible servers refuse of a request for a chat completion.

Source: platform.openai.com/docs/api-reference/chat/create. Servers are laxer here and there:
llama.cpp takes any role, no message at all and any temperature. A bot should run with all of them,
so the emulator takes only what every one of them takes, and no field that the bot has not needed
yet; a server's own limits are in its dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bot.domain import Json

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a request, and in which field."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def complaint(body: object) -> Complaint | None:
    """Return the first thing that is wrong with a request; None: nothing."""
    if not isinstance(body, dict):
        return Complaint("body", "must be a JSON object")
    return _about_messages(body) or _about_fields(body) or _about_options(body)


def nameless(body: dict[str, Json]) -> Complaint | None:
    """Return what a server that has several models says to a request that names none."""
    return Complaint("model", "Field required") if body.get("model") is None else None


def stranger(body: dict[str, Json]) -> Complaint | None:
    """Return the first field that is not emulated; None: all are."""
    return next(
        (
            Complaint(name, "extra fields are not permitted")
            for name in body
            if name not in ("messages", *_RULES)
        ),
        None,
    )


def _about_messages(body: dict[str, Json]) -> Complaint | None:
    messages = body.get("messages")
    if messages is None:
        return Complaint("messages", "'messages' is required")
    if not isinstance(messages, list):
        return Complaint("messages", "Expected 'messages' to be an array")
    if not messages:
        return Complaint("messages", "must have at least one message")
    return next((found for each in messages if (found := _about_message(each))), None)


def _about_message(message: Json) -> Complaint | None:
    if not isinstance(message, dict):
        return Complaint("messages", "each message must be an object")
    if message.get("role") not in ROLES:
        return Complaint("messages", f"role {message.get('role')!r} is none of {', '.join(ROLES)}")
    content = message.get("content")
    if content is None and message["role"] != "assistant":
        return Complaint("messages", "All non-assistant messages must contain 'content'")
    if not isinstance(content, str | list | None):
        return Complaint("messages", "Expected 'content' to be a string or an array")
    return None


def _about_fields(body: dict[str, Json]) -> Complaint | None:
    return next(
        (
            Complaint(name, message)
            for name, (is_right, message) in _RULES.items()
            if body.get(name) is not None and not is_right(body[name])
        ),
        None,
    )


def _about_options(body: dict[str, Json]) -> Complaint | None:
    if body.get("stream_options") is not None and body.get("stream") is not True:
        return Complaint("stream_options", "is only allowed when 'stream' is enabled")
    return None


def _integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(value: Json) -> bool:
    return isinstance(value, int) and _integer(value) and value > 0


def _number(value: Json) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _between(low: float, high: float) -> Callable[[Json], bool]:
    return lambda value: (number := _number(value)) is not None and low <= number <= high


def _options(value: Json) -> bool:
    return isinstance(value, dict) and all(isinstance(each, bool) for each in value.values())


# All that the bot sends beside its messages.
_RULES: dict[str, tuple[Callable[[Json], bool], str]] = {
    "model": (lambda value: isinstance(value, str), "must be a string"),
    "stream": (lambda value: isinstance(value, bool), "must be a boolean"),
    "max_tokens": (_whole, "must be a whole number above 0"),
    "temperature": (_between(0, 2), "must be a number from 0 to 2"),
    "top_p": (lambda value: value != 0 and _between(0, 1)(value), "must be a number above 0 to 1"),
    "stream_options": (_options, "must be an object of booleans"),
}
