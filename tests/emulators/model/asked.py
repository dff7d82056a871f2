"""What the emulator remembers of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

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
        """The messages as they came in."""
        # What else a message may hold, such as a list of parts, our bot does not send.
        return cast("list[dict[str, str]]", self.body.get("messages", []))
