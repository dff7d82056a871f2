"""What the emulator remembers of a request."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from bot.domain import Json
from tests.emulators.timeline import Delta

_TIME = re.compile(r"\n\(\w{3} \d\d:\d\d\)\Z")


@dataclass(slots=True)
class Asked:
    """One request as it came in, and what became of it; all times are real monotonic seconds.

    `call` is its method and path. `status` is None while nothing was answered. `deltas` have the
    text that was sent, without what the model thinks before it. `unread` are the tokens that the
    server cut off the prompt without a word. `finished` says that the answer went out whole, and
    `hung_up_at` when the client left before that.
    """

    call: str
    at: float
    headers: Mapping[str, str]
    body: dict[str, Json] = field(default_factory=dict)
    status: int | None = None
    unread: int = 0
    deltas: list[Delta] = field(default_factory=list)
    finished: bool = False
    hung_up_at: float | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages without the times at the ends of questions, which change by themselves."""
        return [
            {
                name: _TIME.sub("", text) if isinstance(text, str) else text
                for name, text in it.items()
            }
            for it in self.sent
        ]

    @property
    def sent(self) -> list[dict[str, str]]:
        """The messages as they came in, and of those with parts the texts, one a line."""
        messages = cast("list[dict[str, Any]]", self.body.get("messages", []))
        if any(isinstance(it.get("content"), list) for it in messages):
            return [{**it, "content": _text(it.get("content"))} for it in messages]
        return messages

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        tools = cast("list[dict[str, Any]]", self.body.get("tools") or [])
        return [one["function"]["name"] for one in tools]

    @property
    def pictures(self) -> list[tuple[str, bytes]]:
        """The media types and the data of all pictures."""
        messages = cast("list[dict[str, Any]]", self.body.get("messages", []))
        parts = [
            part for it in messages if isinstance(it.get("content"), list) for part in it["content"]
        ]
        addresses = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        found = [it.removeprefix("data:").split(";base64,") for it in addresses]
        return [(kind, b64decode(data, validate=True)) for kind, data in found]


def _text(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")
