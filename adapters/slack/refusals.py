"""What Slack has refused lately, so that it is not asked for at every reply."""

from __future__ import annotations

import time

REFUSED_SECONDS = 3600.0  # an operator may have mended it by then
_CAPACITY = 1000

APP = ""  # everybody: the app itself may not

# Codes that mean the app, not a place or a person (docs: chat.startStream and
# assistant.threads.setStatus, "Errors").
APP_CODES = {
    "deprecated_endpoint",
    "feature_not_enabled",
    "method_deprecated",
    "missing_scope",
    "not_allowed_token_type",
    "unknown_method",
}


class Refusals:
    """Knows for so many seconds whom Slack refuses something: the app, or people of a team."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}  # monotonic

    def note(self, whom: str) -> None:
        """Remember that Slack refuses it to the people of this team, or to the APP."""
        self._until.pop(whom, None)
        while len(self._until) >= _CAPACITY:
            del self._until[next(iter(self._until))]
        self._until[whom] = time.monotonic() + self._seconds

    def concern(self, whom: str) -> bool:
        """Whether it is refused to the people of this team, or to the app itself."""
        now = time.monotonic()
        return any(now < self._until.get(one, 0.0) for one in (APP, whom))
