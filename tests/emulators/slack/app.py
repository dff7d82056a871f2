"""The app: its tokens, and the workspaces where it is installed."""

from __future__ import annotations

import itertools
import secrets

from tests.emulators.slack.installation import installation
from tests.emulators.slack.workspace import Workspace


class App:
    """Finds a workspace by what a caller has of it: its id, a channel, a person or a token.

    Ids of people and channels are unique over all workspaces.
    """

    def __init__(self) -> None:
        self.token = f"xapp-1-{secrets.token_hex(12)}"
        self.signing_secret = secrets.token_hex(16)
        self.workspaces: dict[str, Workspace] = {}
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

    def holder(self, token: str) -> Workspace | None:
        """Return the workspace whose bot token it is."""
        homes = self.workspaces.values()
        return next((home for home in homes if home.home.bot_token == token), None)
