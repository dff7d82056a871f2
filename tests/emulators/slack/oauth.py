"""Slack's OAuth: what people agree to, and the tokens that an app gets for it (oauth.v2.access).

Sources: docs: Installing with OAuth; oauth.v2.access, "Errors"; Using token rotation. Guess: a
refresh token that was used is refused as one that never was, at once.
"""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from aiohttp import web

from tests.emulators.clock import Clock
from tests.emulators.slack.app import App
from tests.emulators.slack.arguments import SlackError
from tests.emulators.slack.installation import APP_ID
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace

_KNOWN = ({"code", "redirect_uri"}, {"grant_type", "refresh_token"})


@dataclass(slots=True)
class OAuth:
    """Codes and refresh tokens, each good once.

    With a `life` tokens end after so many seconds, and are refreshed. `refreshed` counts by the
    refresh token what was asked with it, whether it was taken or not.
    """

    app: App
    clock: Clock
    violations: list[str]
    client_id: str = "1111.2222"
    client_secret: str = field(default_factory=lambda: secrets.token_hex(16))
    redirect_urls: tuple[str, ...] = ()
    life: float | None = None
    refreshed: Counter[str] = field(default_factory=Counter)
    _codes: dict[str, tuple[Workspace, str, str]] = field(default_factory=dict)
    _refreshable: dict[str, tuple[Workspace, str]] = field(default_factory=dict)

    def agree(self, address: str, team_id: str, *, organization: str = "") -> str:
        """Let a person follow an app's link to Slack and agree; return where Slack sends them.

        With an `organization` it is the app in all of its workspaces.
        """
        asked = self._asked(address)
        code = secrets.token_hex(16)
        workspace = self.app.workspace(team_id)
        self._codes[code] = workspace, asked["redirect_uri"], organization
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def refuse(self, address: str) -> str:
        """Let a person follow the link and refuse."""
        asked = self._asked(address)
        back = {"error": "access_denied", "state": asked["state"]}
        return f"{asked['redirect_uri']}?{urlencode(back)}"

    def uninstall(self, team_id: str) -> None:
        """Make all tokens of a workspace worthless."""
        workspace = self.app.workspace(team_id)
        for token, (home, _) in self.app.issued.items():
            if home is workspace:
                self.app.issued[token] = home, None
        gone = [one for one, (home, _) in self._refreshable.items() if home is workspace]
        for one in gone:
            del self._refreshable[one]

    def access(self, request: web.Request, body: str) -> Payload:
        """Do the work of oauth.v2.access."""
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        client_id, _, secret = b64decode(credentials).decode().partition(":")
        args = dict(parse_qsl(body))
        if scheme != "Basic" or client_id != self.client_id:
            raise SlackError("invalid_client_id")
        if secret != self.client_secret:
            raise SlackError("bad_client_secret")
        if set(args) not in _KNOWN:
            self.violations.append(f"oauth.v2.access: it takes no {sorted(args)} together")
        if "refresh_token" in args:
            return self._refresh(args)
        if args.get("code") not in self._codes:
            raise SlackError("invalid_code")
        workspace, redirect, organization = self._codes.pop(args["code"])
        if args.get("redirect_uri") != redirect:
            raise SlackError("bad_redirect_uri")
        return self.issue(workspace, organization)

    def _refresh(self, args: dict[str, str]) -> Payload:
        token = args["refresh_token"]
        self.refreshed[token] += 1
        if args["grant_type"] != "refresh_token":
            raise SlackError("invalid_grant_type")
        if token not in self._refreshable:
            raise SlackError("invalid_refresh_token")
        return self.issue(*self._refreshable.pop(token))

    def issue(self, workspace: Workspace, organization: str = "") -> Payload:
        """Return the answer of the documentation's example, with new tokens."""
        rotates = self.life is not None
        token = f"{'xoxe.' if rotates else ''}xoxb-{secrets.token_hex(12)}"
        end = self.clock.now() + self.life if self.life is not None else float("inf")
        self.app.issued[token] = workspace, end
        answer: Payload = {
            "access_token": token,
            "token_type": "bot",
            "scope": ",".join(sorted(self.app.scopes)),
            "bot_user_id": workspace.bot_user_id,
            "app_id": APP_ID,
            "team": {"id": workspace.team_id, "name": workspace.name},
            "enterprise": None,
            "authed_user": {"id": "U0INSTALLS"},
            "is_enterprise_install": bool(organization),
        }
        if organization:
            answer |= {"team": None, "enterprise": {"id": organization, "name": "Org"}}
        if self.life is not None:
            refresh = f"xoxe-1-{secrets.token_hex(16)}"
            self._refreshable[refresh] = workspace, organization
            answer |= {"refresh_token": refresh, "expires_in": self.life}
        return answer

    def _asked(self, address: str) -> dict[str, str]:
        parts = urlsplit(address)
        asked = {name: value for name, [value] in parse_qs(parts.query).items()}
        if f"{parts.netloc}{parts.path}" != "slack.com/oauth/v2/authorize":
            raise ValueError(f"{address} is not Slack's")
        if asked["client_id"] != self.client_id or "state" not in asked:
            raise ValueError(f"{address} names another app, or no state")
        if self.redirect_urls and asked["redirect_uri"] not in self.redirect_urls:
            raise ValueError("bad_redirect_uri")
        if missing := self.app.scopes - {*asked["scope"].split(",")}:
            raise ValueError(f"the link does not ask for {missing}")
        if "user_scope" in asked:
            raise ValueError("the link asks for a person's token")
        return asked
