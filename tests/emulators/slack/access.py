"""Who calls the Web API, and whether they may."""

from __future__ import annotations

from collections.abc import Collection

from tests.emulators.slack.app import App
from tests.emulators.slack.arguments import Asked, SlackError, text
from tests.emulators.slack.methods import Method
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace


class Access:
    """Knows the tokens of an app and the scopes that it was granted."""

    def __init__(self, app: App, scopes: Collection[str]) -> None:
        self.scopes = frozenset(scopes)
        self._app = app

    def caller(self, method: Method, asked: Asked) -> Workspace:
        """Return the workspace of the caller's token; an app-level token has the first.

        SlackError when the token is missing, unknown, or of the wrong kind.
        """
        if not asked.token:
            raise SlackError("not_authed")
        is_app = asked.token == self._app.token
        workspace = self._app.workspace(None) if is_app else self._app.holder(asked.token)
        if workspace is None:
            raise SlackError("invalid_auth")
        if is_app != (method.token == "app"):
            raise SlackError("not_allowed_token_type")
        return workspace

    def check_scopes(self, method: Method, args: Payload, workspace: Workspace) -> None:
        """SlackError when the app was not granted what the method needs."""
        place = workspace.channels.get(text(args, "channel"))
        if needed := method.missing(self.scopes, place.type if place else None):
            provided = ",".join(sorted(self.scopes))
            raise SlackError("missing_scope", needed=needed, provided=provided)
