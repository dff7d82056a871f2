"""The app: its tokens, who it is in each workspace where it is installed, and what it may do."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection

from tests.emulators.slack.arguments import Asked, SlackError, text
from tests.emulators.slack.installation import installation
from tests.emulators.slack.message import Post
from tests.emulators.slack.methods import Method
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace


class App:
    """Finds a workspace by what a caller has of it: its id, a channel, a person or a token.

    Ids of people and channels are unique over all workspaces. `scopes` are what it was granted.
    """

    def __init__(self, scopes: Collection[str]) -> None:
        self.scopes = frozenset(scopes)
        self.token = f"xapp-1-{secrets.token_hex(12)}"
        self.signing_secret = secrets.token_hex(16)
        self.workspaces: dict[str, Workspace] = {}
        # The tokens that OAuth has issued: where, and until when; None for a revoked one.
        self.issued: dict[str, tuple[Workspace, float | None]] = {}
        self._serial = itertools.count(1)

    def install(self, name: str) -> Workspace:
        """Install the app in a new workspace."""
        home = installation(len(self.workspaces) + 1)
        workspace = Workspace(name, home, serial=lambda: next(self._serial))
        self.workspaces[home.team_id] = workspace
        return workspace

    def workspace(self, team_id: str | None) -> Workspace:
        """Return the workspace of that id, the first without one."""
        return self.workspaces[team_id] if team_id else next(iter(self.workspaces.values()))

    def where(self, place: str) -> Workspace:
        """Return the workspace of a channel or a person; LookupError when there is none."""
        for workspace in self.workspaces.values():
            if place in workspace.channels or place in workspace.users:
                return workspace
        raise LookupError(f"no workspace has {place}")

    def post(self, channel_id: str, ts: str) -> Post:
        """Return a message; LookupError when nobody can see it."""
        post = self.where(channel_id).find(channel_id, ts)
        if post is None:
            raise LookupError(f"nobody can see a message {ts} in {channel_id}")
        return post

    def caller(self, method: Method, asked: Asked, *, now: float) -> Workspace:
        """Return the workspace of the caller's token; an app-level token has the first.

        SlackError when the token is missing, unknown, over, or of the wrong kind.
        """
        if not asked.token:
            raise SlackError("not_authed")
        if (found := self.issued.get(asked.token)) and method.token == "bot":
            workspace, end = found
            if end is None:
                raise SlackError("token_revoked")
            if now >= end:
                raise SlackError("token_expired")
            return workspace
        is_app = asked.token == self.token
        holders = [one for one in self.workspaces.values() if one.home.bot_token == asked.token]
        if not is_app and not holders:
            raise SlackError("invalid_auth")
        if is_app != (method.token == "app"):
            raise SlackError("not_allowed_token_type")
        return self.workspace(None) if is_app else holders[0]

    def check_scopes(self, method: Method, args: Payload, workspace: Workspace) -> None:
        """SlackError when the app was not granted what the method needs."""
        place = workspace.channels.get(text(args, "channel"))
        if needed := method.missing(self.scopes, place.type if place else None):
            provided = ",".join(sorted(self.scopes))
            raise SlackError("missing_scope", needed=needed, provided=provided)
