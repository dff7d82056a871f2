"""Refusals by Slack, remembered so that it is not asked again for every reply."""

from __future__ import annotations

from adapters.slack.cache import ExpiringCache
from adapters.slack.errors import NotSlack, code_of
from bot.errors import SurfaceError

_APP = ""  # in place of a team

# Codes that concern the app, not a channel or a person (docs: chat.startStream and
# assistant.threads.setStatus, "Errors").
_APP_CODES = {
    "deprecated_endpoint",
    "feature_not_enabled",
    "method_deprecated",
    "missing_scope",
    "not_allowed_token_type",
    "unknown_method",
}


def refuses_app(error: SurfaceError) -> bool:
    """Whether Slack would refuse this app the same method everywhere."""
    return code_of(error) in _APP_CODES or (isinstance(error, NotSlack) and error.lacks_method)


class Refusals:
    """Remembers for a while that Slack refuses something to the app, or to people of a team."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._refused: ExpiringCache[bool] = ExpiringCache()

    def add(self, team: str = _APP) -> None:
        """Remember a refusal to the people of this team, or else to the app."""
        self._refused.put(team, True, seconds=self._seconds)

    def cover(self, team: str = _APP) -> bool:
        """Whether Slack refuses it to the people of this team, or to the app."""
        return any(self._refused.get(one) for one in (_APP, team))
